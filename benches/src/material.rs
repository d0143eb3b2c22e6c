//! The certificates of a run: a CA, and a leaf for the server and one for the client.
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use internaltls::{Files, MeshConfig, Security};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{RootCertStore, SupportedProtocolVersion, version};
use test_util::authority::{Authority, Key, Leaf};
use test_util::disk::{Set, Volume};

/// Which end a leaf is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Takes calls.
    Server,
    /// Makes them.
    Client,
}

impl End {
    /// Its role in the mesh. `client` is none: that is what the edge calls whoever comes from outside.
    #[must_use]
    pub fn role(self) -> &'static str {
        match self {
            Self::Server => "back",
            Self::Client => "front",
        }
    }

    /// The only node of its role.
    #[must_use]
    pub fn node(self) -> String {
        format!("{}-1", self.role())
    }

    /// The DNS SAN of its leaf.
    #[must_use]
    pub fn name(self) -> String {
        format!("{}.mesh.internal", self.role())
    }
}

/// Both ends' files, and the CA that can replace them.
#[expect(missing_debug_implementations, reason = "holds a private key")]
pub struct Material {
    authority: Authority,
    key: Key,
    ends: Vec<(End, Volume)>,
    folder: PathBuf,
}

impl Material {
    /// Writes a new CA's leaves into `folder`.
    #[must_use]
    pub fn create(folder: &Path, key: Key) -> Self {
        let authority = Authority::new("the benchmark's CA");
        let volume = |end: End| (end, Volume::create(&folder.join(end.role()), &set(&authority, end, key)));
        let ends = [End::Server, End::Client].map(volume).into();
        Self { authority, key, ends, folder: folder.into() }
    }

    /// Replaces the leaves and keys of both ends.
    pub fn renew(&mut self) {
        for (end, volume) in &mut self.ends {
            volume.swap(&set(&self.authority, *end, self.key));
        }
    }

    /// Where it lies.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

fn set(authority: &Authority, end: End, key: Key) -> Set {
    let leaf = Leaf::node(end.role(), &end.node()).key(key);
    Set { pair: authority.sign(&leaf), ca: authority.cert().to_owned() }
}

/// One end's files, as whoever uses them wants them.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// The files of `end` below `folder`.
    #[must_use]
    pub fn of(folder: &Path, end: End) -> Self {
        Self(folder.join(end.role()))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn text(&self, name: &str) -> Result<String> {
        let path = self.file(name);
        std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
    }

    /// For internaltls.
    ///
    /// # Errors
    /// None that can be seen: the names are roles and nodes.
    pub fn mesh(&self, end: End, security: bool) -> Result<MeshConfig> {
        let files = Files::new(self.file("server.pem"), self.file("server.key"), self.file("ca.pem"));
        let mut config = MeshConfig::new(end.role().parse()?, end.node().parse()?, files);
        if !security {
            config.security = Security::Plaintext;
        }
        Ok(config)
    }

    /// For tonic: the identity and the CA.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn tonic(&self) -> Result<(tonic::transport::Identity, tonic::transport::Certificate)> {
        let identity = tonic::transport::Identity::from_pem(self.text("server.pem")?, self.text("server.key")?);
        Ok((identity, tonic::transport::Certificate::from_pem(self.text("ca.pem")?)))
    }

    /// For rustls by hand: chain, key and roots.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn rustls(&self) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>, RootCertStore)> {
        let chain = CertificateDer::pem_file_iter(self.file("server.pem"))?.collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_file(self.file("server.key"))?;
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(self.file("ca.pem"))?)?;
        Ok((chain, key, roots))
    }
}

/// TLS 1.3 alone, as in the mesh.
pub const VERSIONS: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// The mesh's provider, with the post-quantum group first, as in the mesh, or without it.
#[must_use]
pub fn provider(post_quantum: bool) -> Arc<CryptoProvider> {
    use aws_lc_rs::kx_group::{SECP256R1, X25519, X25519MLKEM768};
    let groups = if post_quantum { vec![X25519MLKEM768, X25519, SECP256R1] } else { vec![X25519, SECP256R1] };
    Arc::new(CryptoProvider { kx_groups: groups, ..aws_lc_rs::default_provider() })
}
