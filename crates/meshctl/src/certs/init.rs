//! `certs init`: the first set of certificates.
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::ValueEnum;
use internaltls::identity::{NodeId, Role, TrustDomain};
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use time::OffsetDateTime;

use super::authority::{Authority, Issued, KeyKind, Request, common_name, date, san};
use super::folder::{self, NewFile};
use crate::lifetime;

/// The arguments of `certs init`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:\n  meshctl certs init --out ./certs --san db.example.com --data-nodes 2\n\nWhere things are put (layout mesh):\n  \
    OUT/edge/   ca.pem ca.key server.pem server.key client.pem client.key\n  \
    OUT/mesh/   ca.pem ca.key, and a folder NODE/ with server.pem server.key ca.pem for each node,\n              \
    operator-1 (for `verify` and guarded management ports) and metrics-1 (for a scraper)"
)]
pub struct Args {
    /// The folder to write to; made if it does not exist
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// CN of the edge's leaves, and a SAN of its server leaf
    #[arg(long, default_value = "localhost")]
    pub cn: String,
    /// One more name or address under which clients reach the edge; repeatable
    #[arg(long, value_name = "NAME")]
    pub san: Vec<String>,
    /// `mesh`: edge and a leaf a node; `milvus`: the seven files of the Milvus documentation, RSA 2048
    #[arg(long, value_enum, default_value_t = Layout::Mesh)]
    pub layout: Layout,
    /// How many data-nodes get a leaf (layout mesh)
    #[arg(long, default_value_t = 2, value_name = "N")]
    pub data_nodes: u16,
    /// How the mesh is named in its certificates (internaltls.trustDomain)
    #[arg(long, default_value = "mesh.internal", value_name = "NAME")]
    pub trust_domain: TrustDomain,
    /// Put each node's own files (the proxy's with the edge's) in a folder DIR/NODE, as a volume each, with links to them in OUT
    #[arg(long, value_name = "DIR")]
    pub nodes: Option<PathBuf>,
    /// Make what is missing, and leave what is there as it is
    #[arg(long)]
    pub if_missing: bool,
    /// A text to print in the end, such as how to reach the cluster
    #[arg(long, value_name = "FILE")]
    pub and_say: Option<PathBuf>,
    #[command(flatten)]
    pub validity: Validity,
}

/// Members that run no process of the cluster: the tool's own, and a scraper's.
const WITHOUT_PROCESS: [&str; 2] = ["operator", "metrics"];

/// How long leaves are valid.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Validity {
    /// Days that the leaves are valid (CAs: ten years)
    #[arg(long, default_value_t = 90, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=3_650))]
    pub days: u32,
    /// The same as a duration, for short-lived leaves: 20s, 15m, 12h, 90d
    #[arg(long, value_name = "DURATION", value_parser = lifetime::parse, conflicts_with = "days")]
    pub valid_for: Option<Duration>,
}

impl Validity {
    /// The duration meant.
    #[must_use]
    pub fn duration(self) -> Duration {
        self.valid_for.unwrap_or_else(|| lifetime::days(self.days))
    }
}

/// Which files are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Layout {
    /// Two authorities, a leaf a node.
    Mesh,
    /// The documented seven files in one folder.
    Milvus,
}

/// A node that needs a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// What it is.
    pub role: Role,
    /// Which one.
    pub node: NodeId,
}

impl Args {
    /// Makes the certificates and says what was made.
    ///
    /// # Errors
    /// When there are some already, or something cannot be written.
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let now = OffsetDateTime::now_utc();
        self.make(now)?;
        println!(
            "certificates are in {}; leaves made now are valid until {}",
            self.out.display(),
            date(now + self.validity.duration())
        );
        println!("replace the leaves before then, without a restart: meshctl certs renew --dir {}", self.out.display());
        if let Some(file) = &self.and_say {
            print!("\n{}", fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?);
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Makes the certificates, silently.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn make(&self, now: OffsetDateTime) -> anyhow::Result<()> {
        folder::create_private(&self.out)?;
        match self.layout {
            Layout::Mesh => self.make_mesh(now),
            Layout::Milvus => self.make_milvus(now),
        }
    }

    /// Both halves are made aside and put in place by a rename each, so that a broken run leaves no half of a set. What lies
    /// elsewhere comes last: it can be made again from the authorities.
    fn make_mesh(&self, now: OffsetDateTime) -> anyhow::Result<()> {
        let halves = ["edge", "mesh"].map(|name| self.out.join(name));
        if !(self.if_missing && halves.iter().all(|half| half.exists())) {
            halves.iter().try_for_each(|half| refuse_existing(half))?;
            self.make_halves(now)?;
        }
        self.complete(now)
    }

    fn make_halves(&self, now: OffsetDateTime) -> anyhow::Result<()> {
        let aside = self.out.join(format!(".init-{}", std::process::id()));
        let made = self.make_edge(&aside.join("edge"), now).and_then(|()| self.make_nodes(&aside.join("mesh"), now));
        let placed = made
            .and_then(|()| ["edge", "mesh"].iter().try_for_each(|name| place(&aside.join(name), &self.out.join(name))));
        let _ = fs::remove_dir_all(&aside);
        placed
    }

    fn make_edge(&self, folder: &Path, now: OffsetDateTime) -> anyhow::Result<()> {
        let authority = Authority::create(&format!("{} edge CA", self.cn), KeyKind::EcP256, now)?;
        let files = self.edge_files(&authority, KeyKind::EcP256, now)?;
        folder::create_versioned(folder, &files.0, now)?;
        folder::write_flat(folder, &[NewFile::secret("ca.key", &authority.key_pem())])
    }

    fn make_nodes(&self, folder: &Path, now: OffsetDateTime) -> anyhow::Result<()> {
        folder::create_private(folder)?;
        let authority = Authority::create(&format!("{} CA", self.trust_domain), KeyKind::EcP256, now)?;
        folder::write_flat(
            folder,
            &[NewFile::public("ca.pem", authority.cert_pem()), NewFile::secret("ca.key", &authority.key_pem())],
        )
    }

    /// Every leaf that is not there yet.
    fn complete(&self, now: OffsetDateTime) -> anyhow::Result<()> {
        let (mesh, members) = (self.out.join("mesh"), members(self.data_nodes)?);
        if let Some(nodes) = &self.nodes {
            let nodes = std::path::absolute(nodes)?;
            let serving = members.iter().filter(|member| !WITHOUT_PROCESS.contains(&member.role.as_str()));
            serving
                .map(|member| member.node.as_str())
                .try_for_each(|node| folder::link(&mesh.join(node), &nodes.join(node).join("mesh")))?;
            self.complete_edge(&nodes.join("proxy-1/edge"), now)?;
        }
        add_missing(&mesh, &self.trust_domain, &members, self.validity.duration(), now).map(drop)
    }

    /// The server's half of the edge, where the proxy alone finds it.
    fn complete_edge(&self, folder: &Path, now: OffsetDateTime) -> anyhow::Result<()> {
        let edge = self.out.join("edge");
        folder::link(&edge.join("server"), folder)?;
        if folder.join("server.pem").exists() {
            return Ok(());
        }
        let authority = Authority::load(&edge, now)
            .context("the proxy has no leaf for clients, and the edge's CA cannot sign one")?;
        let server = authority.issue(&self.edge_server(KeyKind::EcP256)?, self.validity.duration(), now)?;
        let mut files = vec![NewFile::public("ca.pem", authority.cert_pem())];
        files.extend(pair("server", &server));
        folder::create_versioned(folder, &files, now)
    }

    fn make_milvus(&self, now: OffsetDateTime) -> anyhow::Result<()> {
        let names = ["ca.pem", "ca.key", "ca.srl", "server.pem", "server.key", "client.pem", "client.key"];
        names.iter().try_for_each(|name| refuse_existing(&self.out.join(name)))?;
        let authority = Authority::create(&format!("{} CA", self.cn), KeyKind::Rsa2048, now)?;
        let (mut files, last_serial) = self.edge_files(&authority, KeyKind::Rsa2048, now)?;
        files.push(NewFile::secret("ca.key", &authority.key_pem()));
        files.push(serial_file(&last_serial));
        folder::write_flat(&self.out, &files)
    }

    fn edge_files(
        &self,
        authority: &Authority,
        key: KeyKind,
        now: OffsetDateTime,
    ) -> anyhow::Result<(Vec<NewFile>, String)> {
        let client = authority.issue(&self.edge_client(key)?, self.validity.duration(), now)?;
        let mut files = vec![NewFile::public("ca.pem", authority.cert_pem())];
        if self.nodes.is_none() {
            let server = authority.issue(&self.edge_server(key)?, self.validity.duration(), now)?;
            files.extend(pair("server", &server));
        }
        files.extend(pair("client", &client));
        Ok((files, client.serial))
    }

    fn edge_server(&self, key: KeyKind) -> anyhow::Result<Request> {
        let always = [self.cn.as_str(), "localhost", "127.0.0.1", "::1"];
        let mut sans: Vec<SanType> = Vec::new();
        for name in always.into_iter().chain(self.san.iter().map(String::as_str)) {
            let san = san(name)?;
            if !sans.contains(&san) {
                sans.push(san);
            }
        }
        Ok(Request { subject: common_name(&self.cn), sans, usages: vec![ExtendedKeyUsagePurpose::ServerAuth], key })
    }

    /// The documented script gives it serverAuth, which a server that checks usages refuses; clientAuth is right.
    fn edge_client(&self, key: KeyKind) -> anyhow::Result<Request> {
        let sans = vec![san(&self.cn)?];
        Ok(Request { subject: common_name(&self.cn), sans, usages: vec![ExtendedKeyUsagePurpose::ClientAuth], key })
    }
}

/// Makes leaves for the members that have none in `mesh` yet, signed by the CA there.
///
/// # Errors
/// When one is missing and the CA cannot be loaded, or something cannot be written.
pub fn add_missing(
    mesh: &Path,
    trust_domain: &TrustDomain,
    members: &[Member],
    valid_for: Duration,
    now: OffsetDateTime,
) -> anyhow::Result<Vec<NodeId>> {
    let has_none = |member: &&Member| !mesh.join(member.node.as_str()).join("server.pem").exists();
    let missing: Vec<_> = members.iter().filter(has_none).collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let authority = Authority::load(mesh, now)
        .with_context(|| format!("{} has no leaf yet, and the mesh CA cannot sign one", missing[0].node))?;
    missing.iter().try_for_each(|member| make_node(mesh, &authority, trust_domain, member, valid_for, now))?;
    Ok(missing.into_iter().map(|member| member.node.clone()).collect())
}

/// Every node of a cluster with so many data-nodes, the operator and the metrics scraper.
///
/// # Errors
/// Never; the names are well-formed.
pub fn members(data_nodes: u16) -> anyhow::Result<Vec<Member>> {
    let data = (1..=data_nodes).map(|n| ("data-node", n));
    let one_each = [("coordinator", 1), ("proxy", 1), ("operator", 1), ("metrics", 1)];
    one_each.into_iter().chain(data).map(|(role, n)| member(role, n)).collect()
}

fn member(role: &str, n: u16) -> anyhow::Result<Member> {
    Ok(Member { role: Role::new(role)?, node: NodeId::new(&format!("{role}-{n}"))? })
}

/// What a node's leaf says: both names, both usages.
///
/// # Errors
/// Never; checked names fit into a certificate.
pub fn node_request(trust_domain: &TrustDomain, member: &Member) -> anyhow::Result<Request> {
    let Member { role, node } = member;
    Ok(Request {
        subject: common_name(node.as_str()),
        sans: vec![
            SanType::DnsName(format!("{role}.{trust_domain}").try_into()?),
            SanType::URI(format!("spiffe://{trust_domain}/{role}/{node}").try_into()?),
        ],
        usages: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        key: KeyKind::EcP256,
    })
}

fn make_node(
    mesh: &Path,
    authority: &Authority,
    trust_domain: &TrustDomain,
    member: &Member,
    valid_for: Duration,
    now: OffsetDateTime,
) -> anyhow::Result<()> {
    let leaf = authority.issue(&node_request(trust_domain, member)?, valid_for, now)?;
    let mut files = vec![NewFile::public("ca.pem", authority.cert_pem())];
    files.extend(pair("server", &leaf));
    folder::create_versioned(&folder::place_of(&mesh.join(member.node.as_str())), &files, now)
}

/// Key first, leaf last: the order in which a flat folder is replaced.
pub(super) fn pair(stem: &str, issued: &Issued) -> [NewFile; 2] {
    [
        NewFile::secret(&format!("{stem}.key"), &issued.key_pem),
        NewFile::public(&format!("{stem}.pem"), &issued.cert_pem),
    ]
}

/// As `openssl x509 -CAcreateserial` leaves it: the last serial used, in upper-case hex.
pub(super) fn serial_file(serial: &str) -> NewFile {
    NewFile::public("ca.srl", &format!("{}\n", serial.to_uppercase()))
}

fn refuse_existing(path: &Path) -> anyhow::Result<()> {
    ensure!(
        path.symlink_metadata().is_err(),
        "{} exists already and is not overwritten; replace leaves with `meshctl certs renew`, or choose another --out",
        path.display()
    );
    Ok(())
}

fn place(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::rename(from, to).with_context(|| format!("could not put the new certificates in place at {}", to.display()))?;
    folder::sync(to.parent().unwrap_or(Path::new(".")))
}
