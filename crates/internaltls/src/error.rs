//! What can go wrong, grouped by whose fault it is.
//!
//! 1. [`LoadError`]: the files'. Each names the file, the setting that points at it, and the remedy.
//! 2. [`VerifyError`]: the peer's. Its [`Reason`] has a label for metrics; its leaf's names go with it, for logs.
//! 3. `Display` says what this layer could not do and never prints its source. No error holds a byte of a file.
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::{CertificateError, OtherError};

use crate::client::ProbeError;
use crate::clock::rfc3339;
use crate::identity::IdentityError;
use crate::material::trusted::FileError;
use crate::policy::PolicyError;

/// What a file of the material is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Part {
    /// The leaf and its intermediates.
    Certificate,
    /// The leaf's key.
    Key,
    /// The trust anchors.
    Ca,
    /// The leaf to dial with.
    ClientCertificate,
    /// The key of the leaf to dial with.
    ClientKey,
    /// A revocation list.
    Crl,
    /// Hashes of distrusted keys.
    Distrust,
    /// The policy.
    Policy,
}

/// One file of the material, and the setting that points at it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct MaterialFile {
    /// What it is for.
    pub part: Part,
    /// Where it is.
    pub path: PathBuf,
    /// Whether it is the edge's, not the mesh's.
    pub edge: bool,
}

impl MaterialFile {
    /// The setting that points at it, as in milvus.yaml.
    #[must_use]
    pub fn field(&self) -> &'static str {
        match (self.part, self.edge) {
            (Part::Certificate, false) => "internaltls.serverPemPath",
            (Part::Certificate, true) => "tls.serverPemPath",
            (Part::Key, false) => "internaltls.serverKeyPath",
            (Part::Key, true) => "tls.serverKeyPath",
            (Part::Ca, false) => "internaltls.caPemPath",
            (Part::Ca, true) => "tls.caPemPath",
            (Part::ClientCertificate, _) => "internaltls.clientPemPath",
            (Part::ClientKey, _) => "internaltls.clientKeyPath",
            (Part::Crl, false) => "internaltls.crlPath",
            (Part::Crl, true) => "tls.crlPath",
            (Part::Distrust, false) => "internaltls.distrustPath",
            (Part::Distrust, true) => "tls.distrustPath",
            (Part::Policy, _) => "internaltls.policyPath",
        }
    }

    fn noun(&self) -> &'static str {
        match self.part {
            Part::Certificate => "certificate",
            Part::Key => "key",
            Part::Ca => "CA",
            Part::ClientCertificate => "client certificate",
            Part::ClientKey => "client key",
            Part::Crl => "CRL",
            Part::Distrust => "distrust",
            Part::Policy => "policy",
        }
    }
}

impl fmt::Display for MaterialFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} file {} ({})", self.noun(), self.path.display(), self.field())
    }
}

/// Who may do what with a file that we could not read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Access {
    /// The file's owner.
    pub owner: u32,
    /// Its permission bits.
    pub mode: u32,
    /// Who we are.
    pub our_uid: u32,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "owner uid {}, mode {:04o}, we run as uid {}", self.owner, self.mode & 0o7777, self.our_uid)
    }
}

/// Why a set of material was not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// A path leads nowhere.
    #[error("{0} does not exist: put it there or correct the path")]
    Missing(MaterialFile),
    /// A path leads to a folder.
    #[error("{0} is a folder: name the file in it")]
    Folder(MaterialFile),
    /// A path leads to a FIFO, a socket or a device.
    #[error("{file} is a {kind}, not a regular file: put the file itself there")]
    NotRegular {
        /// Which.
        file: MaterialFile,
        /// What it is.
        kind: &'static str,
    },
    /// The file system does not answer.
    #[error("{file} has not answered since {}: a hung mount? mount it anew, or let the setting name a file elsewhere", rfc3339(*.since))]
    Hangs {
        /// Which.
        file: MaterialFile,
        /// Since when it has been waited for.
        since: SystemTime,
    },
    /// A file has no bytes.
    #[error("{0} is empty: write it again")]
    Empty(MaterialFile),
    /// A file is larger than any of its kind.
    #[error("{file} is larger than {limit} bytes: is it the right file?")]
    TooLarge {
        /// Which.
        file: MaterialFile,
        /// Bytes.
        limit: u64,
    },
    /// A file cannot be read.
    #[error("{file} cannot be read ({}): let uid {} read it, as with `chown {} {}`", access_words(*.access), our_uid(*.access), our_uid(*.access), .file.path.display())]
    Unreadable {
        /// Which.
        file: MaterialFile,
        /// Who may do what, where that can be told.
        access: Option<Access>,
        /// What the system said.
        source: io::Error,
    },
    /// Files changed under every read.
    #[error("the files of {0} changed at each of several reads: write them once, or swap one symlink")]
    Changing(MaterialFile),
    /// A key can be replaced by others.
    #[error("{file}: {} can be written by others than its owner (mode {:04o}), who could replace the key: run `chmod go-w {}`", .path.display(), .mode & 0o7777, .path.display())]
    KeyWritable {
        /// The key.
        file: MaterialFile,
        /// The file or its folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A trusted file can be replaced by others.
    #[error("{file}: {} can be written by everybody (mode {:04o}), who could replace the file: run `chmod go-w {}`", .path.display(), .mode & 0o7777, .path.display())]
    Writable {
        /// Which.
        file: MaterialFile,
        /// The file, or a folder on the way to it.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A PEM block is cut off or garbled, or what looks like one stands among comments.
    #[error("{file} is not whole PEM: line {line}, at block {block}: {what}; write it again")]
    BadPem {
        /// Which.
        file: MaterialFile,
        /// The block that is open there, or the last one before, from 1.
        block: usize,
        /// Counted from 1.
        line: usize,
        /// What is wrong with it, in our words.
        what: &'static str,
    },
    /// A PEM block of a label that is not read here and may hold what would be missed.
    #[error("{file}: PEM block {block} (line {line}) cannot be used, its label is {label}: {remedy}")]
    PemLabel {
        /// Which.
        file: MaterialFile,
        /// Counted from 1.
        block: usize,
        /// The line of its BEGIN, from 1.
        line: usize,
        /// One that is known, or words for one that is not.
        label: &'static str,
        /// What to do.
        remedy: &'static str,
    },
    /// More PEM blocks than any file of the material has.
    #[error("{file} holds more than {limit} PEM blocks: leave the certificates that are needed")]
    TooManyBlocks {
        /// Which.
        file: MaterialFile,
        /// Blocks.
        limit: usize,
    },
    /// DER where PEM is asked for.
    #[error(
        "{0} is DER, not PEM: convert it, as with `openssl x509 -inform der`, `openssl pkey -inform der` or `openssl crl -inform der`"
    )]
    Der(MaterialFile),
    /// No certificate block.
    #[error("{0} holds no certificate: it needs a block `-----BEGIN CERTIFICATE-----`")]
    NoCertificate(MaterialFile),
    /// No key block.
    #[error(
        "{0} holds no private key: it needs a block `-----BEGIN PRIVATE KEY-----` (PKCS#8), `RSA PRIVATE KEY` (PKCS#1) or `EC PRIVATE KEY` (SEC1)"
    )]
    NoKey(MaterialFile),
    /// More than one key block.
    #[error("{file} holds {count} private keys: leave the one of the certificate")]
    SeveralKeys {
        /// Which.
        file: MaterialFile,
        /// How many.
        count: usize,
    },
    /// A key under a pass phrase.
    #[error(
        "{0} is encrypted, and there is no one here to ask for its pass phrase: decrypt it, as with `openssl pkey -in KEY -out KEY.plain`, and keep it 0600"
    )]
    EncryptedKey(MaterialFile),
    /// A key of a kind that TLS here cannot use.
    #[error("{0} holds a key that cannot be used: make it ECDSA on P-256 or P-384, or RSA of 2048 to 8192 bits")]
    UnusableKey(MaterialFile),
    /// A certificate that is no X.509 v3 certificate.
    #[error("{file}: certificate number {number} cannot be parsed: issue it again as X.509 v3")]
    BadCertificate {
        /// Which.
        file: MaterialFile,
        /// Counted from 1.
        number: usize,
    },
    /// A certificate among the trust anchors that is no CA.
    #[error(
        "{file}: certificate number {number} (`{subject}`) is no CA (it lacks CA:TRUE): take it out, and put the CA that signed it there if it is missing"
    )]
    LeafAsAnchor {
        /// Which.
        file: MaterialFile,
        /// Counted from 1.
        number: usize,
        /// Its distinguished name.
        subject: String,
    },
    /// A list that is no CRL, or of a kind not supported.
    #[error("{file} holds a CRL that cannot be used ({what}): publish a complete, direct, signed v2 CRL")]
    BadCrl {
        /// Which.
        file: MaterialFile,
        /// What is wrong with it.
        what: &'static str,
    },
    /// More CRLs than are read.
    #[error("{file}: {what}; the rest of them is left out: remove CRLs that are out of use")]
    TooManyCrls {
        /// Which.
        file: MaterialFile,
        /// Of what there is too much.
        what: &'static str,
    },
    /// A CRL path with no CRL.
    #[error("{0} holds no CRL: it needs a block `-----BEGIN X509 CRL-----`, or remove the setting")]
    NoCrl(MaterialFile),
    /// A line of the distrust file that is no hash.
    #[error("{file}: line {line} is not a SHA-256 in hex (64 digits): correct it")]
    BadDistrust {
        /// Which.
        file: MaterialFile,
        /// Counted from 1.
        line: usize,
    },
    /// A distrust file whose last line gives another number of entries than it has.
    #[error(
        "{file} ends in `# end {says}` but has {holds} entries, so that none is taken out: correct the number, or write the file again"
    )]
    DistrustCount {
        /// Which.
        file: MaterialFile,
        /// What its last line says.
        says: usize,
        /// How many it has.
        holds: usize,
    },
    /// A distrust file that lacks entries in force and does not take them out.
    #[error(
        "{file} lacks {count} entries that are in force, and they stay: to take them out end the file in `# end COUNT`, COUNT being the number of its entries"
    )]
    DistrustKept {
        /// Which.
        file: MaterialFile,
        /// How many hashes of keys and of certificates.
        count: usize,
    },
    /// A CRL below the one in force.
    #[error(
        "{file} holds a CRL of `{issuer}` ({rank}) that is older than the one in force ({in_force}) and is ignored: publish one with a higher number"
    )]
    CrlOlder {
        /// Which.
        file: MaterialFile,
        /// Its issuer's distinguished name.
        issuer: String,
        /// Its number and time.
        rank: String,
        /// Those of the one in force.
        in_force: String,
    },
    /// A CRL below the one in force that lies beside it and knows something else.
    #[error(
        "{file} holds a CRL of `{issuer}` ({rank}) that {what} the one in force ({in_force}), which has the higher number, and it is ignored: remove it if the one in force is right, or publish one with a higher number"
    )]
    CrlPassedOver {
        /// Which.
        file: MaterialFile,
        /// Its issuer's distinguished name.
        issuer: String,
        /// Its number and time.
        rank: String,
        /// How it differs, in our words.
        what: &'static str,
        /// Number and time of the one in force.
        in_force: String,
    },
    /// A CRL in the name of a CA of the bundle, of another key.
    #[error(
        "{file} holds a CRL in the name of `{issuer}`, a CA of the bundle, that none of its keys signed, and it counts for nobody: remove it, or put the CA that signed it in the bundle"
    )]
    CrlUnsigned {
        /// Which.
        file: MaterialFile,
        /// Its issuer's distinguished name.
        issuer: String,
    },
    /// Two CRLs of one number with other contents, or without a number and of one time.
    #[error(
        "two CRLs of `{issuer}` differ and have one rank ({rank}), so the entries of both count: publish one with a higher number in {file}"
    )]
    CrlTied {
        /// Where one of them is, or the setting.
        file: MaterialFile,
        /// Their issuer's distinguished name.
        issuer: String,
        /// Their number and time.
        rank: String,
    },
    /// A CRL in force that is not on disk any more.
    #[error(
        "{file} holds the CRL of `{issuer}` ({rank}) no longer, and it stays in force: put it back or publish the next one, or take its CA out of the bundle"
    )]
    CrlGone {
        /// The setting.
        file: MaterialFile,
        /// Its issuer's distinguished name.
        issuer: String,
        /// Its number and time.
        rank: String,
    },
    /// Lists are in force whose setting is gone.
    #[error("{} is not set, and what it named before stays in force: set it again, or remove this process's folder under internaltls.statePath and start it anew", .0.field())]
    ListUnset(MaterialFile),
    /// What is on disk of the lists is not all in force, or more is.
    #[error("{first}{}", and_more(*.more))]
    Lists {
        /// The first thing found.
        first: String,
        /// How many more there are.
        more: usize,
    },
    /// The state of a process is not as it was written.
    #[error("the state file {} is damaged ({what}), and without it those who were distrusted before may get in: restore it, or see that the CRLs and the distrust list name everybody and remove {}, to begin with what they say", .path.display(), .folder.display())]
    StateDamaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it, in our words.
        what: &'static str,
        /// The folder of the state.
        folder: PathBuf,
    },
    /// The state of a process cannot be trusted or read.
    #[error("what was in force when the process ran last is kept in {} and cannot be used", .folder.display())]
    StateFile {
        /// The folder of the state.
        folder: PathBuf,
        /// Why.
        source: FileError,
    },
    /// What a running process had kept is gone or changed.
    #[error("the state file {} {what} while the process ran; it is written again: find out who does that, for a start without it may let in those who were distrusted before", .path.display())]
    StateLost {
        /// Which.
        path: PathBuf,
        /// What became of it, in our words.
        what: &'static str,
    },
    /// The state cannot be kept.
    #[error("what is in force cannot be kept in {}, so that a restart would forget entries that the files no longer name: let uid {} write there, or set internaltls.statePath", .path.display(), rustix::process::geteuid().as_raw())]
    StateUnwritable {
        /// The folder of the state.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A key of another leaf.
    #[error("{key} is not the key of the leaf in {certificate}: install the pair that was issued together")]
    KeyMismatch {
        /// The certificate.
        certificate: MaterialFile,
        /// The key.
        key: MaterialFile,
    },
    /// Only one half of the separate client pair is set.
    #[error("internaltls.clientPemPath and internaltls.clientKeyPath belong together: set both or none")]
    HalfAPair,
    /// A mode of the edge that asks for TLS, and no leaf.
    #[error("tls.serverPemPath and tls.serverKeyPath are not set, and tlsMode asks for TLS: set both, or tlsMode 0")]
    NoLeaf,
    /// No CA where one is needed.
    #[error("{}caPemPath is not set, and without trust anchors no peer can be verified: set it", if *.edge { "tls." } else { "internaltls." })]
    NoCa {
        /// Whether the edge asks.
        edge: bool,
    },
    /// All trust anchors are out of date.
    #[error("{0} holds no CA that is valid now: add the new one")]
    NoValidCa(MaterialFile),
    /// The leaf's time is over.
    #[error("{file}: the leaf expired at {}: renew it", rfc3339(*.not_after))]
    Expired {
        /// Which.
        file: MaterialFile,
        /// Its end.
        not_after: SystemTime,
    },
    /// The leaf's time has not come.
    #[error("{file}: the leaf is not valid before {}: set this host's clock, or issue leaves backdated by some minutes", rfc3339(*.not_before))]
    NotYetValid {
        /// Which.
        file: MaterialFile,
        /// Its beginning.
        not_before: SystemTime,
    },
    /// A CA in the leaf's place.
    #[error(
        "{0}: its first certificate is a CA (CA:TRUE or keyCertSign), and a CA is never served: put the leaf first; if there is no other, as `openssl req -x509` makes one, make it with `-addext basicConstraints=critical,CA:FALSE -addext subjectAltName=DNS:NAME`, or by a CA, as `meshctl certs init` does"
    )]
    CaAsLeaf(MaterialFile),
    /// No SAN at all.
    #[error("{0}: the leaf has no subject alternative name, and the CN is never read: issue it with a DNS SAN")]
    NoSan(MaterialFile),
    /// Several names where one must be told.
    #[error("{file}: the leaf bears several DNS names ({}) and none is a node's: set internaltls.sni to the one that all nodes use", .names.join(", "))]
    SeveralNames {
        /// Which.
        file: MaterialFile,
        /// Its DNS SANs.
        names: Vec<String>,
    },
    /// The shared name cannot be sent as SNI.
    #[error("`{name}` cannot be the name that all nodes share: set internaltls.sni to a DNS name that the leaf bears")]
    BadSharedName {
        /// The text found, in the setting or in the leaf.
        name: String,
    },
    /// The name that peers will ask for is not in the leaf.
    #[error("{file}: the leaf must bear the DNS SAN `{expected}`, but bears {}: issue it so, or correct internaltls.sni", listed(.names))]
    NameMissing {
        /// Which.
        file: MaterialFile,
        /// What peers ask for.
        expected: String,
        /// What it bears.
        names: Vec<String>,
    },
    /// The names of the leaf do not say who we are.
    #[error(
        "{file}: the leaf does not say who this node is: issue it with the DNS SAN `<role>.<trust domain>` and the URI SAN `spiffe://<trust domain>/<role>/<node id>`"
    )]
    BadIdentity {
        /// Which.
        file: MaterialFile,
        /// Why.
        source: IdentityError,
    },
    /// The leaf is another node's.
    #[error("{file}: the leaf is of {found}, but this process is {expected}: install its own leaf")]
    OtherNode {
        /// Which.
        file: MaterialFile,
        /// Whose it is.
        found: String,
        /// Who we are.
        expected: String,
    },
    /// The leaf may not be used as it must be.
    #[error("{file}: the leaf's extended key usage lacks {missing}: issue it with {missing}")]
    Usage {
        /// Which.
        file: MaterialFile,
        /// `serverAuth` or `clientAuth`.
        missing: &'static str,
    },
    /// A key that can be broken.
    #[error("{file}: the leaf's key is {what}: use ECDSA on P-256 or P-384, or RSA of 2048 bits or more")]
    WeakKey {
        /// Which.
        file: MaterialFile,
        /// Its kind.
        what: String,
    },
    /// The leaf does not chain to our own trust anchors, or is refused by our own lists.
    #[error(
        "{certificate} is refused by our own {ca}: issue the leaf by a CA in that bundle, and put intermediates after it"
    )]
    Untrusted {
        /// The leaf's.
        certificate: MaterialFile,
        /// The bundle's.
        ca: MaterialFile,
        /// Why.
        source: Box<VerifyError>,
    },
    /// A CA above our own leaf constrains URI names.
    #[error(
        "{certificate}: a CA above the leaf has a name constraint on URIs, and URI name constraints cannot be used here: issue that CA's certificate without them, and put it into {ca}"
    )]
    UriConstraint {
        /// The leaf's.
        certificate: MaterialFile,
        /// The bundle's.
        ca: MaterialFile,
    },
    /// A peer that is connected now would be refused, though nobody listed it.
    #[error(
        "{ca} would cut off {peer}, which is connected now, so it is held back: let the bundle hold the old CA beside the new one until every leaf is renewed, as `meshctl ca rotate` does (with `--adopt DIR` where all files were replaced by those of the CA in DIR); to remove a peer on purpose, list it in internaltls.distrustPath or a CRL"
    )]
    Orphan {
        /// The bundle's.
        ca: MaterialFile,
        /// Who.
        peer: String,
        /// By which certificate, and why it would be refused.
        source: Box<VerifyError>,
    },
    /// A live peer was asked, and would not have it.
    #[error(
        "{file} does not pass the trial with {peer}, so it is held back: let that peer trust the CA of the new leaf first, as `meshctl ca rotate` does; to remove the peer on purpose, list it in internaltls.distrustPath or a CRL"
    )]
    PeerTrial {
        /// The leaf's.
        file: MaterialFile,
        /// Who.
        peer: String,
        /// What it said.
        source: Box<ProbeError>,
    },
    /// A peer that cannot be asked may not know the CA of the new leaf yet.
    #[error(
        "{file} is of a CA that is new here, and {peer}, which dials this node and cannot be asked, has shown no leaf of that CA yet: it is served when that peer does, or when the CA has been in the bundle for {} s", .patience.as_secs()
    )]
    Unheard {
        /// The leaf's.
        file: MaterialFile,
        /// Who.
        peer: String,
        /// How long it waits at most.
        patience: std::time::Duration,
    },
    /// With CRLs, a CA that none of them is of.
    #[error(
        "{crl} holds no CRL signed by the CA `{subject}` of {ca}: every leaf of that CA would be refused; put its CRL there first"
    )]
    CaWithoutCrl {
        /// Where it should be.
        crl: MaterialFile,
        /// The bundle's.
        ca: MaterialFile,
        /// The CA's distinguished name.
        subject: String,
    },
    /// New files are of the other layout.
    #[error(
        "{file} changed from {from} to {to}: a running mesh cannot change its layout of certificates or its shared name; restart all nodes with it"
    )]
    LayoutChanged {
        /// Which.
        file: MaterialFile,
        /// What is served.
        from: String,
        /// What is on disk.
        to: String,
    },
    /// A handshake in memory, candidate against candidate, failed.
    #[error("a trial handshake with {file} failed")]
    Trial {
        /// The leaf's.
        file: MaterialFile,
        /// Why.
        source: rustls::Error,
    },
    /// rustls refuses to build a config.
    #[error("no TLS config can be made of {file}")]
    Config {
        /// The leaf's.
        file: MaterialFile,
        /// Why.
        source: rustls::Error,
    },
    /// The policy file is no policy.
    #[error("{file} is no policy: correct it")]
    Policy {
        /// Which.
        file: MaterialFile,
        /// Why.
        source: PolicyError,
    },
    /// The task that reads files ended.
    #[error("reading the material was interrupted: try again")]
    Interrupted,
}

impl LoadError {
    /// The part of the material whose file it names, of those that revoke.
    pub(crate) fn part(&self) -> Option<Part> {
        match self {
            Self::Missing(file)
            | Self::Folder(file)
            | Self::Empty(file)
            | Self::NotRegular { file, .. }
            | Self::Hangs { file, .. }
            | Self::TooLarge { file, .. }
            | Self::Unreadable { file, .. }
            | Self::Writable { file, .. }
            | Self::Changing(file)
            | Self::BadPem { file, .. }
            | Self::PemLabel { file, .. }
            | Self::TooManyBlocks { file, .. }
            | Self::Der(file)
            | Self::BadCrl { file, .. }
            | Self::TooManyCrls { file, .. }
            | Self::NoCrl(file)
            | Self::BadDistrust { file, .. }
            | Self::DistrustCount { file, .. } => Some(file.part),
            _ => None,
        }
    }

    /// Whether only what peers say stands against the set: it may pass later with no file changed.
    pub(crate) fn is_about_peers(&self) -> bool {
        matches!(self, Self::Orphan { .. } | Self::PeerTrial { .. } | Self::Unheard { .. })
    }
}

fn access_words(access: Option<Access>) -> String {
    access.map_or_else(|| "its permissions cannot be told".to_owned(), |access| access.to_string())
}

fn our_uid(access: Option<Access>) -> u32 {
    access.map_or_else(|| rustix::process::geteuid().as_raw(), |access| access.our_uid)
}

fn and_more(more: usize) -> String {
    if more == 0 { String::new() } else { format!("; and {more} more, which the status names") }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Why a peer was refused, and by which names it went.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the peer's certificate ({leaf}) is refused: {reason}")]
pub struct VerifyError {
    /// Why.
    pub reason: Reason,
    /// The leaf, by serial and SANs, as far as it could be read.
    pub leaf: LeafNames,
}

/// A leaf as logs tell it: its serial and its names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LeafNames {
    /// Lower-case hex.
    pub serial: String,
    /// All SANs, as text.
    pub sans: Vec<String>,
}

impl fmt::Display for LeafNames {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.serial.is_empty() {
            return f.write_str("not readable");
        }
        write!(f, "serial {}, names {}", self.serial, listed(&self.sans))
    }
}

/// Why a certificate is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// No certificate was shown.
    #[error("no certificate was shown")]
    NoCertificate,
    /// It cannot be parsed.
    #[error("it cannot be parsed")]
    BadEncoding,
    /// It, or one above it, is over.
    #[error("it, or a CA above it, expired at {}", rfc3339(*.not_after))]
    Expired {
        /// The end.
        not_after: SystemTime,
    },
    /// It, or one above it, has not begun.
    #[error("it, or a CA above it, is not valid before {}: compare the clocks of both hosts", rfc3339(*.not_before))]
    NotYetValid {
        /// The beginning.
        not_before: SystemTime,
    },
    /// No anchor of ours signed it.
    #[error("no CA in our bundle signed it")]
    UnknownIssuer,
    /// The anchor that signed it is out of date.
    #[error("the CA in our bundle that could have signed it is not valid now")]
    AnchorExpired,
    /// A signature does not verify.
    #[error("a signature in its chain does not verify")]
    BadSignature,
    /// A rule of path building is broken.
    #[error("its chain breaks a rule: {0}")]
    BadChain(&'static str),
    /// Too many intermediates.
    #[error("its chain is longer than {limit} intermediates")]
    ChainTooLong {
        /// The limit.
        limit: usize,
    },
    /// The chain, or a certificate, is beyond a limit.
    #[error("its chain has more than {limit} {what}")]
    OverLimit {
        /// What is bounded.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// A CA above it constrains URI names.
    #[error(
        "a CA above it has a name constraint on URIs, and URI name constraints cannot be used here: issue that CA's certificate without them"
    )]
    UriConstraint,
    /// A CA above it may not be used for such leaves.
    #[error("the extended key usage of a CA above it lacks {missing}")]
    CaUsage {
        /// `serverAuth` or `clientAuth`.
        missing: &'static str,
    },
    /// A CA used as a leaf.
    #[error("it is a CA (CA:TRUE or keyCertSign), not a leaf")]
    CaAsLeaf,
    /// A key that can be broken.
    #[error("its key is {0}")]
    WeakKey(String),
    /// No SAN.
    #[error("it has no subject alternative name")]
    NoSan,
    /// Its extended key usage does not fit.
    #[error("its extended key usage lacks {missing}")]
    WrongUsage {
        /// `serverAuth` or `clientAuth`.
        missing: &'static str,
    },
    /// Its names do not say who it is.
    #[error("{0}")]
    BadIdentity(IdentityError),
    /// It is of another role or bears another name.
    #[error("it is not `{expected}`")]
    NameMismatch {
        /// Who was meant.
        expected: String,
    },
    /// It is of another node.
    #[error("it is not of node `{expected}`")]
    NodeMismatch {
        /// Which was meant.
        expected: String,
    },
    /// A CRL lists it or a CA above it.
    #[error("it, or a CA above it, is revoked")]
    Revoked,
    /// No CRL of ours speaks of it, or none that is fresh.
    #[error("its revocation cannot be told: {0}")]
    UnknownRevocation(&'static str),
    /// The CRL of ours that would tell is too old.
    #[error(
        "the CRL of `{issuer}` is past its next update ({}) by more than internaltls.crl.graceSeconds: publish a new one",
        rfc3339(*.next_update)
    )]
    StaleCrl {
        /// Who should have issued the next one.
        issuer: String,
        /// When that was due.
        next_update: SystemTime,
    },
    /// Its key, or that of a CA above it, is on the distrust list.
    #[error("its key, or that of a CA above it, is on the distrust list")]
    Distrusted,
    /// Not the key that all nodes share.
    #[error("its key is not the one that all nodes share")]
    UnknownSharedKey,
}

impl Reason {
    /// One word for metrics, from a fixed set.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no-certificate",
            Self::BadEncoding => "bad-encoding",
            Self::Expired { .. } => "expired",
            Self::NotYetValid { .. } => "not-yet-valid",
            Self::UnknownIssuer => "unknown-issuer",
            Self::AnchorExpired => "anchor-expired",
            Self::BadSignature => "bad-signature",
            Self::BadChain(_) => "bad-chain",
            Self::ChainTooLong { .. } => "chain-too-long",
            Self::OverLimit { .. } => "over-limit",
            Self::UriConstraint => "uri-constraint",
            Self::CaUsage { .. } => "ca-usage",
            Self::CaAsLeaf => "ca-as-leaf",
            Self::WeakKey(_) => "weak-key",
            Self::NoSan => "no-san",
            Self::WrongUsage { .. } => "wrong-usage",
            Self::BadIdentity(_) => "bad-identity",
            Self::NameMismatch { .. } => "name-mismatch",
            Self::NodeMismatch { .. } => "node-mismatch",
            Self::Revoked => "revoked",
            Self::UnknownRevocation(_) => "unknown-revocation",
            Self::StaleCrl { .. } => "stale-crl",
            Self::Distrusted => "distrusted",
            Self::UnknownSharedKey => "unknown-shared-key",
        }
    }
}

impl VerifyError {
    /// One word for metrics, from a fixed set.
    #[must_use]
    pub fn label(&self) -> &'static str {
        self.reason.label()
    }

    /// Whether somebody listed the peer: a CRL, or the distrust list. Every other reason may be an accident.
    #[must_use]
    pub fn is_distrust(&self) -> bool {
        matches!(self.reason, Reason::Revoked | Reason::Distrusted)
    }

    /// Whether its chain is more than anything is let in with, whatever the material.
    pub(crate) fn is_over_limit(&self) -> bool {
        matches!(self.reason, Reason::OverLimit { .. } | Reason::ChainTooLong { .. })
    }

    /// Whether it could not be told, for want of a fresh CRL: reason to refuse a handshake, none to end a connection.
    #[must_use]
    pub fn is_stale_list(&self) -> bool {
        matches!(self.reason, Reason::StaleCrl { .. })
    }

    /// Our reason inside an error of rustls, where it was ours that refused.
    #[must_use]
    pub fn of(error: &rustls::Error) -> Option<&Self> {
        match error {
            rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => inner.downcast_ref(),
            _ => None,
        }
    }

    /// Our reason inside an error of a TLS stream.
    #[must_use]
    pub fn in_io(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref::<rustls::Error>().and_then(Self::of)
    }

    /// As rustls carries it. Always as our own error: the variants of rustls would lose the names that a log needs.
    pub(crate) fn into_rustls(self) -> rustls::Error {
        rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(Arc::new(self))))
    }
}
