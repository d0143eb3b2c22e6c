//! Every key that we read, once.
//!
//! 1. A row drives everything: how a value is parsed, its default, the names of its environment variables, the check for
//!    unknown keys and the reference text in config/milvus.yaml.
//! 2. A row is typed: whoever reads [`PROXY_PORT`] gets a `u16` or an error that names the key and the place.
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use internaltls::config::{EdgeMode, Endpoint, TlsVersion};
use internaltls::identity::{NodeId, TrustDomain};

use crate::Secret;
use crate::parse::{self, Parsed, Text};
use crate::sections::LogLevel;

/// A row without its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyInfo {
    /// Dotted, in its documented case.
    pub path: &'static str,
    /// As one would write it; `None`: not set.
    pub default: Option<&'static str>,
    /// What it means, with its unit.
    pub about: &'static str,
    /// Never shown.
    pub secret: bool,
    /// A mapping of names to values, not one value.
    pub map: bool,
    /// A file or a folder: a relative one counts from the folder of the file that names it.
    pub file: bool,
    /// Without it more is let in, shown or sent in plaintext than it may have said: an empty value is an error, for a
    /// template that expanded to nothing must not take protection away unseen.
    pub guards: bool,
}

impl KeyInfo {
    /// The last part of the path.
    #[must_use]
    pub fn leaf(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }

    /// The environment variables that override it: the path in upper case with underscores, and the same with the words
    /// of a key set apart (`MINIO_ACCESS_KEY_ID`), as Milvus takes both.
    #[must_use]
    pub fn env_names(&self) -> Vec<String> {
        let joined = self.path.replace('.', "_").to_ascii_uppercase();
        let split = split_words(self.path).replace('.', "_").to_ascii_uppercase();
        if joined == split { vec![joined] } else { vec![joined, split] }
    }
}

/// `accessKeyID` → `access_Key_ID`.
fn split_words(path: &str) -> String {
    let mut out = String::new();
    let mut before = '.';
    for c in path.chars() {
        if c.is_ascii_uppercase() && before.is_ascii_lowercase() {
            out.push('_');
        }
        out.push(c);
        before = c;
    }
    out
}

/// A row with the type of its value.
#[derive(Debug)]
pub(crate) struct Key<T> {
    pub(crate) info: KeyInfo,
    pub(crate) parse: fn(Text<'_>) -> Parsed<T>,
}

macro_rules! keys {
    ($($name:ident: $type:ty = $path:literal, $parse:path, $default:expr, $about:literal $(, $flag:ident)*;)*) => {
        $(
            pub(crate) const $name: Key<$type> = Key {
                info: KeyInfo { path: $path, default: $default, about: $about, $($flag: true,)* ..PLAIN },
                parse: $parse,
            };
        )*
        /// Every key, in the order of the reference.
        pub const KEYS: &[KeyInfo] = &[$($name.info),*];
    };
}

const NONE: Option<&str> = None;
const PLAIN: KeyInfo =
    KeyInfo { path: "", default: None, about: "", secret: false, map: false, file: false, guards: false };

keys! {
    TLS_MODE: EdgeMode = "common.security.tlsMode", parse::tls_mode, Some("0"),
        "Clients' TLS: 0 off, 1 one-way (the proxy shows a certificate), 2 two-way (clients show one too).", guards;
    INTERNAL_TLS: bool = "common.security.internaltlsEnabled", parse::switch, Some("false"),
        "Mutual TLS between all nodes. false: internal traffic is plaintext.", guards;
    AUTHORIZATION: bool = "common.security.authorizationEnabled", parse::switch, Some("false"),
        "Ask users for a name and password, on top of TLS.", guards;
    ROOT_PASSWORD: Secret = "common.security.defaultRootPassword", parse::secret, Some("Milvus"),
        "The password of the user root.", secret, guards;

    EDGE_CERT: PathBuf = "tls.serverPemPath", parse::path, NONE,
        "Clients' TLS: the proxy's leaf, then intermediates. PEM. A relative path counts from the folder of the file that names it.", file, guards;
    EDGE_KEY: PathBuf = "tls.serverKeyPath", parse::path, NONE,
        "Its private key. PEM, not encrypted.", file, guards;
    EDGE_CA: PathBuf = "tls.caPemPath", parse::path, NONE,
        "Trust anchors for clients' certificates. Read in mode 2 only.", file, guards;
    EDGE_CRL: PathBuf = "tls.crlPath", parse::path, NONE,
        "A certificate revocation list of clients, or a folder of them. Read in mode 2 only.", file, guards;
    EDGE_DISTRUST: PathBuf = "tls.distrustPath", parse::path, NONE,
        "SHA-256 hashes of clients' leaves and CAs that are trusted no longer, as internaltls.distrustPath. Read in mode 2 only.", file, guards;
    EDGE_MIN_VERSION: TlsVersion = "tls.minVersion", parse::tls_version, NONE,
        "The lowest protocol version: 1.2 or 1.3. Not set: 1.2 in mode 1, 1.3 in mode 2.", guards;
    EDGE_REQUIRE_EKU: bool = "tls.requireClientAuthEku", parse::switch, Some("false"),
        "Refuse a client leaf whose extended key usage does not name clientAuth. false: accepted, warned of and counted.", guards;

    MESH_CERT: PathBuf = "internaltls.serverPemPath", parse::path, NONE,
        "Mesh: this node's leaf, then intermediates. PEM.", file, guards;
    MESH_KEY: PathBuf = "internaltls.serverKeyPath", parse::path, NONE,
        "Its private key. PEM, not encrypted.", file, guards;
    MESH_CA: PathBuf = "internaltls.caPemPath", parse::path, NONE,
        "Trust anchors for all other nodes.", file, guards;
    MESH_SNI: String = "internaltls.sni", parse::text, NONE,
        "Where all nodes share one leaf: the name it bears. Not set: read from the leaf.";
    MESH_PREVIOUS_KEY: Duration = "internaltls.previousKeySeconds", parse::seconds_or_none, Some("600"),
        "Where all nodes share one leaf: seconds that the key before the one in use is still accepted. Longer while a connected peer shows it; never once it has expired or is distrusted.";
    MESH_CLIENT_CERT: PathBuf = "internaltls.clientPemPath", parse::path, NONE,
        "A separate leaf to dial with. Not set: the server pair.", file, guards;
    MESH_CLIENT_KEY: PathBuf = "internaltls.clientKeyPath", parse::path, NONE,
        "The key of that leaf.", file, guards;
    MESH_CRL: PathBuf = "internaltls.crlPath", parse::path, NONE,
        "A certificate revocation list, or a folder of them.", file, guards;
    MESH_DISTRUST: PathBuf = "internaltls.distrustPath", parse::path, NONE,
        "SHA-256 hashes of leaves and CAs that are trusted no longer, one a line in hex: `spki:` and a public key's, `cert:` and a certificate's, or either without a mark. Adding needs nothing; entries leave only where the last line is `# end COUNT`, COUNT being how many there are.", file, guards;
    MESH_STATE: PathBuf = "internaltls.statePath", parse::path, NONE,
        "The folder in which each node keeps, under its own name, which CRLs and distrust entries are in force, those of clients' TLS too. Not set: internaltls in localStorage.path. Nothing is written where no list is set.";
    MESH_TRUST_DOMAIN: TrustDomain = "internaltls.trustDomain", parse::trust_domain, Some("mesh.internal"),
        "The domain that all nodes' names are in.", guards;
    MESH_POLICY: PathBuf = "internaltls.policyPath", parse::path, NONE,
        "Which role may call what. Not set: the built-in policy, which policy.yaml beside this file shows.", file, guards;
    MESH_MODE: &'static str = "internaltls.mode", parse::mode, Some("strict"),
        "strict: nothing but mutual TLS. permissive is not available yet.";
    MESH_PERMISSIVE_UNTIL: String = "internaltls.permissiveUntil", parse::text, NONE,
        "The date that permissive mode ends. Not available yet.";
    MESH_CLIENT: &'static str = "internaltls.client", parse::client, Some("tls"),
        "How this node dials: tls. plaintext is not available yet.";
    MESH_TRANSPORT: &'static str = "internaltls.transport", parse::transport, Some("tcp"),
        "What carries the mesh: tcp. quic is not available yet.";

    RELOAD_POLL: Duration = "internaltls.reload.pollSeconds", parse::seconds, Some("30"),
        "Seconds between two comparisons of the files' hashes, whatever the watcher says. These four hold for clients' TLS too.";
    RELOAD_DEBOUNCE: Duration = "internaltls.reload.debounceMilliseconds", parse::milliseconds, Some("100"),
        "Milliseconds that a burst of file events must be quiet before the files are read.";
    RELOAD_RETRY: Duration = "internaltls.reload.retrySeconds", parse::seconds, Some("2"),
        "Seconds until files that did not fit are tried again.";
    RELOAD_WATCH: bool = "internaltls.reload.watch", parse::switch, Some("true"),
        "Ask the kernel for file events. false: the poll alone.";
    RELOAD_TRIALS: u32 = "internaltls.reload.trialPeers", parse::few, Some("3"),
        "Live peers, one a role, that are asked whether they would accept a new leaf or bundle before it is served. 0: nobody.";
    RELOAD_TRIAL_TIMEOUT: Duration = "internaltls.reload.trialTimeoutSeconds", parse::seconds, Some("3"),
        "Seconds that such a peer has to answer. One that says nothing in this time is not waited for.";
    RELOAD_FORCE: PathBuf = "internaltls.reload.forcePath", parse::path, NONE,
        "Where an operator names, by the hash in status and log, a set held back for the sake of peers that is to be served all the same, once. Not set: reload-force beside serverPemPath.", file;
    CRL_GRACE: Duration = "internaltls.crl.graceSeconds", parse::seconds_or_none, Some("3600"),
        "Seconds that a CRL is good after its next update was due. Then new handshakes are refused; live connections stay. 0: none. It holds for clients' TLS too.", guards;
    HANDSHAKE_TIMEOUT: Duration = "internaltls.handshake.timeoutSeconds", parse::seconds, Some("10"),
        "Seconds that a client has for a whole ClientHello, and again for the rest of the handshake; both shrink while others wait. The bounds from here on hold for clients' TLS too.";
    HANDSHAKE_HALF_OPEN: u32 = "internaltls.handshake.maxHalfOpen", parse::count, Some("1024"),
        "Connections at once on a listener that have not sent a whole ClientHello, or wait after it; beyond it the address that has the most loses its oldest.";
    HANDSHAKE_MAX: u32 = "internaltls.handshake.maxConcurrent", parse::count, Some("256"),
        "Handshakes at once on a listener whose keys are computed; others wait for their turn.";
    HANDSHAKE_MAX_ADDRESS: u32 = "internaltls.handshake.maxPerAddress", parse::count, Some("64"),
        "Of those, from one address.";
    HANDSHAKE_BYTES: usize = "internaltls.handshake.maxBytes", parse::bytes, Some("65536"),
        "Bytes read from a peer during a handshake.";
    CONNECT: Duration = "internaltls.connectSeconds", parse::seconds, Some("5"),
        "Seconds that a dial may take: name, TCP, TLS and the peer's first HTTP/2 frame.";
    FIRST_REQUEST: Duration = "internaltls.firstRequestSeconds", parse::seconds, Some("30"),
        "Seconds from the end of the handshake to the first request.";
    IDLE: Duration = "internaltls.idleSeconds", parse::seconds, Some("900"),
        "Seconds that a connection may stay open without a call under way.";
    KEEPALIVE_INTERVAL: Duration = "internaltls.keepalive.intervalSeconds", parse::seconds, Some("10"),
        "Seconds between two HTTP/2 pings to a peer that says nothing.";
    KEEPALIVE_TIMEOUT: Duration = "internaltls.keepalive.timeoutSeconds", parse::seconds, Some("10"),
        "Seconds that such a ping may stay unanswered.";
    THREADS: u32 = "internaltls.threads", parse::few, Some("0"),
        "Threads that connections are served on, clients' too; each connection stays with one of them. 0: one for each core.";
    STREAMS: u32 = "internaltls.maxStreams", parse::count, Some("1000"),
        "Calls under way at once on one connection. At the edge also the calls that a client may cancel at once, and each second.";
    MAX_PENDING: u32 = "internaltls.maxPending", parse::count, Some("4096"),
        "Calls to one role that wait for a connection, or for a place on one. More are refused.";
    DRAIN: Duration = "internaltls.drain.graceSeconds", parse::seconds, Some("30"),
        "Seconds that running calls may go on once their connection drains.";

    PROXY_ADDRESS: IpAddr = "proxy.address", parse::address, Some("0.0.0.0"),
        "The address that the proxy's ports listen on.", guards;
    PROXY_PORT: u16 = "proxy.port", parse::port, Some("19530"),
        "Milvus gRPC; and REST, where proxy.http.port is not set. 0 takes any free port, here and below.";
    PROXY_HTTP: bool = "proxy.http.enabled", parse::switch, Some("true"),
        "Serve REST.";
    PROXY_HTTP_PORT: u16 = "proxy.http.port", parse::port, NONE,
        "A port of its own for REST. Not set: REST shares proxy.port, under TLS too.";
    PROXY_INTERNAL_ADDRESS: IpAddr = "proxy.internalAddress", parse::address, NONE,
        "The address of its port in the mesh. Not set: proxy.address.", guards;
    PROXY_INTERNAL_PORT: u16 = "proxy.internalPort", parse::port, Some("19529"),
        "The proxy's port in the mesh.";
    COORDINATOR_ADDRESS: IpAddr = "coordinator.address", parse::address, Some("0.0.0.0"),
        "The address that the coordinator listens on.", guards;
    COORDINATOR_PORT: u16 = "coordinator.port", parse::port, Some("22125"),
        "The coordinator's port in the mesh.";
    DATA_NODE_ADDRESS: IpAddr = "dataNode.address", parse::address, Some("0.0.0.0"),
        "The address that a data-node listens on.", guards;
    DATA_NODE_PORT: u16 = "dataNode.port", parse::port, Some("21124"),
        "A data-node's port in the mesh.";

    CLUSTER_COORDINATOR: Endpoint = "cluster.coordinator", parse::endpoint, Some("127.0.0.1:22125"),
        "Where the coordinator is: host:port.";
    CLUSTER_DATA_NODES: Vec<(NodeId, Endpoint)> = "cluster.dataNodes", parse::nodes, Some("data-node-1=127.0.0.1:21124"),
        "All data-nodes, `id: host:port` a line. A later file's list replaces an earlier one's.", map;

    HEALTH_ADDRESS: IpAddr = "management.healthAddress", parse::address, Some("0.0.0.0"),
        "Where /healthz and /livez answer, in plaintext, and nothing else.", guards;
    HEALTH_PORT: u16 = "management.healthPort", parse::port, Some("9091"),
        "Their port.";
    MANAGEMENT_ADDRESS: IpAddr = "management.address", parse::address, Some("127.0.0.1"),
        "Where status, metrics and the web page answer. On any address but loopback only over mutual TLS, to operator and metrics.";
    MANAGEMENT_PORT: u16 = "management.port", parse::port, Some("9092"),
        "Their port.";

    LOCAL_PATH: PathBuf = "localStorage.path", parse::path, NONE,
        "The folder that rows are kept in, where no bucket is named. Not set: `data` in the current folder.", file;
    MINIO_ADDRESS: (String, Option<u16>) = "minio.address", parse::host, NONE,
        "The object storage's host, or host:port. Alone it chooses nothing: see bucketName.";
    MINIO_PORT: u16 = "minio.port", parse::port, Some("9000"),
        "Its port, where the address names none.";
    MINIO_BUCKET: String = "minio.bucketName", parse::text, NONE,
        "The bucket. Setting it is what chooses object storage over the local folder.";
    MINIO_ROOT: String = "minio.rootPath", parse::text, Some("files"),
        "The prefix of every object.";
    MINIO_SSL: bool = "minio.useSSL", parse::switch, Some("false"),
        "Speak TLS to the object storage.", guards;
    MINIO_CA: PathBuf = "minio.ssl.tlsCACert", parse::path, NONE,
        "Its trust anchors. Not set: the system's.", file, guards;
    MINIO_REGION: String = "minio.region", parse::text, NONE,
        "Its region. Not set: us-east-1.";
    MINIO_KEY_ID: Secret = "minio.accessKeyID", parse::secret, NONE,
        "Its access key.", secret;
    MINIO_KEY: Secret = "minio.secretAccessKey", parse::secret, NONE,
        "Its secret key.", secret;

    LOG_LEVEL: LogLevel = "log.level", parse::log_level, Some("info"),
        "debug, info, warn or error.";
}
