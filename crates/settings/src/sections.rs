//! The checked types, and how each is made of its keys.
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use internaltls::config::{EdgeConfig, EdgeMode, Endpoint, Files, Limits, Reload};
use internaltls::identity::{NodeId, TrustDomain};

use crate::Secret;
use crate::error::SettingsError;
use crate::keys::*;
use crate::values::{Values, shown};

/// The proxy's listeners.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// What clients' ports listen on.
    pub address: IpAddr,
    /// Milvus gRPC; REST too where it has no port of its own.
    pub port: u16,
    /// Whether REST is served.
    pub http_enabled: bool,
    /// REST alone.
    pub http_port: Option<u16>,
    /// What its port in the mesh listens on.
    pub internal_address: IpAddr,
    /// In the mesh.
    pub internal_port: u16,
}

/// One port in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// What it listens on.
    pub address: IpAddr,
    /// Its port; 0 takes any free one.
    pub port: u16,
}

impl Listener {
    /// Both together.
    #[must_use]
    pub fn socket(&self) -> SocketAddr {
        SocketAddr::new(self.address, self.port)
    }
}

/// Where the nodes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cluster {
    /// The coordinator.
    pub coordinator: Endpoint,
    /// All data-nodes. Each endpoint names its node.
    pub data_nodes: Vec<(NodeId, Endpoint)>,
}

/// Ports for people and probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Management {
    /// /healthz and /livez, in plaintext.
    pub health: Listener,
    /// Status, metrics and the web page.
    pub management: Listener,
}

/// Users, on top of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Users {
    /// Whether calls must name a user.
    pub authorization_enabled: bool,
    /// The password of root.
    pub default_root_password: Secret,
}

/// Mutual TLS between nodes.
#[derive(Debug, Clone)]
pub struct InternalTls {
    /// `common.security.internaltlsEnabled`.
    pub enabled: bool,
    /// Set whenever `enabled` is.
    pub files: Option<Files>,
    /// The name of the one leaf that all nodes share.
    pub sni: Option<String>,
    /// The domain that all names are in.
    pub trust_domain: TrustDomain,
    /// policy.yaml.
    pub policy: Option<PathBuf>,
    /// Where an operator's word for a set that is held back would be; none: `reload-force` beside the leaf.
    pub force: Option<PathBuf>,
    /// The folder that holds a folder for each node that keeps which lists are in force.
    pub state: PathBuf,
    /// How files are followed; the edge's too.
    pub reload: Reload,
    /// Bounds on peers; on clients too.
    pub limits: Limits,
}

/// Where rows are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// A folder.
    Local {
        /// It is created where it is missing.
        path: PathBuf,
    },
    /// A bucket.
    S3(S3),
}

/// A bucket of an object storage that speaks S3.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3 {
    /// `http://host:port`, or `https://…` with `tls`.
    pub endpoint: String,
    /// Whether it is reached over TLS.
    pub tls: bool,
    /// Its trust anchors. `None`: the system's.
    pub ca: Option<PathBuf>,
    /// The bucket.
    pub bucket: String,
    /// The prefix of every object.
    pub root: String,
    /// Its region.
    pub region: String,
    /// Set both or none.
    pub access_key_id: Option<Secret>,
    /// Set both or none.
    pub secret_access_key: Option<Secret>,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names say it")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// In lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl FromStr for LogLevel {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        match text.to_ascii_lowercase().as_str() {
            "error" | "panic" | "fatal" => Ok(Self::Error),
            "warn" => Ok(Self::Warn),
            "info" => Ok(Self::Info),
            "debug" => Ok(Self::Debug),
            "trace" => Ok(Self::Trace),
            _ => Err("debug, info, warn or error".to_owned()),
        }
    }
}

pub(crate) fn proxy(values: &Values) -> Result<Proxy, SettingsError> {
    let address = values.get(&PROXY_ADDRESS)?;
    Ok(Proxy {
        address,
        internal_address: values.find(&PROXY_INTERNAL_ADDRESS)?.unwrap_or(address),
        port: values.get(&PROXY_PORT)?,
        http_enabled: values.get(&PROXY_HTTP)?,
        http_port: values.find(&PROXY_HTTP_PORT)?,
        internal_port: values.get(&PROXY_INTERNAL_PORT)?,
    })
}

pub(crate) fn listener(values: &Values, address: &Key<IpAddr>, port: &Key<u16>) -> Result<Listener, SettingsError> {
    Ok(Listener { address: values.get(address)?, port: values.get(port)? })
}

pub(crate) fn cluster(values: &Values) -> Result<Cluster, SettingsError> {
    Ok(Cluster { coordinator: values.get(&CLUSTER_COORDINATOR)?, data_nodes: values.get(&CLUSTER_DATA_NODES)? })
}

pub(crate) fn management(values: &Values) -> Result<Management, SettingsError> {
    Ok(Management {
        health: listener(values, &HEALTH_ADDRESS, &HEALTH_PORT)?,
        management: listener(values, &MANAGEMENT_ADDRESS, &MANAGEMENT_PORT)?,
    })
}

pub(crate) fn users(values: &Values) -> Result<Users, SettingsError> {
    Ok(Users { authorization_enabled: values.get(&AUTHORIZATION)?, default_root_password: values.get(&ROOT_PASSWORD)? })
}

pub(crate) fn edge(values: &Values) -> Result<EdgeConfig, SettingsError> {
    let mode = values.get(&TLS_MODE)?;
    Ok(EdgeConfig {
        mode,
        files: edge_files(values, mode)?,
        min_version: values.find(&EDGE_MIN_VERSION)?,
        require_client_auth_eku: values.get(&EDGE_REQUIRE_EKU)?,
        reload: reload(values)?,
        limits: limits(values)?,
        state: None,
    })
}

/// In mode 1 the CA is not read: nothing is verified with it, so a missing one must not stop the proxy.
fn edge_files(values: &Values, mode: EdgeMode) -> Result<Option<Files>, SettingsError> {
    let because = match mode {
        EdgeMode::Off => return Ok(None),
        EdgeMode::OneWay => "`common.security.tlsMode` is 1",
        EdgeMode::TwoWay => "`common.security.tlsMode` is 2",
    };
    let two_way = mode == EdgeMode::TwoWay;
    Ok(Some(Files {
        cert: values.need(&EDGE_CERT, because)?,
        key: values.need(&EDGE_KEY, because)?,
        ca: two_way.then(|| values.need(&EDGE_CA, because)).transpose()?,
        client_cert: None,
        client_key: None,
        crl: two_way.then(|| values.find(&EDGE_CRL)).transpose()?.flatten(),
        distrust: two_way.then(|| values.find(&EDGE_DISTRUST)).transpose()?.flatten(),
    }))
}

pub(crate) fn internal(values: &Values) -> Result<InternalTls, SettingsError> {
    available(values)?;
    answered(values)?;
    let enabled = values.get(&INTERNAL_TLS)?;
    Ok(InternalTls {
        enabled,
        files: enabled.then(|| mesh_files(values)).transpose()?,
        sni: values.find(&MESH_SNI)?,
        trust_domain: values.get(&MESH_TRUST_DOMAIN)?,
        policy: values.find(&MESH_POLICY)?,
        force: values.find(&RELOAD_FORCE)?,
        state: state(values)?,
        reload: reload(values)?,
        limits: limits(values)?,
    })
}

/// Beside the rows, where nothing else is said.
fn state(values: &Values) -> Result<PathBuf, SettingsError> {
    Ok(match values.find(&MESH_STATE)? {
        Some(state) => state,
        None => local(values)?.join("internaltls"),
    })
}

fn local(values: &Values) -> Result<PathBuf, SettingsError> {
    Ok(values.find(&LOCAL_PATH)?.unwrap_or_else(|| PathBuf::from("data")))
}

/// Values that have their place but no code behind them yet are refused, not passed over.
fn available(values: &Values) -> Result<(), SettingsError> {
    only(values, &MESH_MODE, "strict")?;
    only(values, &MESH_CLIENT, "tls")?;
    only(values, &MESH_TRANSPORT, "tcp")?;
    match values.given(&MESH_PERMISSIVE_UNTIL) {
        None => Ok(()),
        Some(given) => Err(SettingsError::NotAvailable {
            place: given.place.clone(),
            key: MESH_PERMISSIVE_UNTIL.info.path,
            value: shown(&given.text),
            instead: "internaltls.mode: strict",
        }),
    }
}

fn only(values: &Values, key: &Key<&'static str>, built: &'static str) -> Result<(), SettingsError> {
    let value = values.get(key)?;
    match values.given(key) {
        Some(given) if value != built => Err(SettingsError::NotAvailable {
            place: given.place.clone(),
            key: key.info.path,
            value: format!("`{value}`"),
            instead: built,
        }),
        _ => Ok(()),
    }
}

/// Whoever gives mesh material must have said whether it is used.
fn answered(values: &Values) -> Result<(), SettingsError> {
    if values.given(&INTERNAL_TLS).is_some() {
        return Ok(());
    }
    let paths = [&MESH_CERT, &MESH_KEY, &MESH_CA, &MESH_CLIENT_CERT, &MESH_CLIENT_KEY, &MESH_CRL, &MESH_DISTRUST];
    match paths.iter().find_map(|key| Some((key, values.given(key)?))) {
        None => Ok(()),
        Some((key, given)) => Err(SettingsError::SwitchAbsent { place: given.place.clone(), key: key.info.path }),
    }
}

fn mesh_files(values: &Values) -> Result<Files, SettingsError> {
    let because = "`common.security.internaltlsEnabled` is true";
    let (client_cert, client_key) = both(values, &MESH_CLIENT_CERT, &MESH_CLIENT_KEY)?;
    Ok(Files {
        cert: values.need(&MESH_CERT, because)?,
        key: values.need(&MESH_KEY, because)?,
        ca: Some(values.need(&MESH_CA, because)?),
        client_cert,
        client_key,
        crl: values.find(&MESH_CRL)?,
        distrust: values.find(&MESH_DISTRUST)?,
    })
}

/// Two keys that only mean something together.
fn both<T>(values: &Values, one: &Key<T>, other: &Key<T>) -> Result<(Option<T>, Option<T>), SettingsError> {
    let set = |key: &Key<T>| format!("`{}` is set", key.info.path);
    let found = (values.find(one)?, values.find(other)?);
    match found {
        (Some(_), None) => Err(SettingsError::Missing { key: other.info.path, because: set(one) }),
        (None, Some(_)) => Err(SettingsError::Missing { key: one.info.path, because: set(other) }),
        _ => Ok(found),
    }
}

fn reload(values: &Values) -> Result<Reload, SettingsError> {
    Ok(Reload {
        poll: values.get(&RELOAD_POLL)?,
        debounce: values.get(&RELOAD_DEBOUNCE)?,
        retry: values.get(&RELOAD_RETRY)?,
        watch: values.get(&RELOAD_WATCH)?,
        trials: values.get(&RELOAD_TRIALS)? as usize,
        trial_timeout: values.get(&RELOAD_TRIAL_TIMEOUT)?,
        previous_key: values.get(&MESH_PREVIOUS_KEY)?,
        crl_grace: values.get(&CRL_GRACE)?,
    })
}

fn limits(values: &Values) -> Result<Limits, SettingsError> {
    Ok(Limits {
        half_open: values.get(&HANDSHAKE_HALF_OPEN)? as usize,
        hello_timeout: values.get(&HANDSHAKE_TIMEOUT)?,
        handshakes: values.get(&HANDSHAKE_MAX)? as usize,
        handshakes_per_address: values.get(&HANDSHAKE_MAX_ADDRESS)? as usize,
        handshake_timeout: values.get(&HANDSHAKE_TIMEOUT)?,
        handshake_bytes: values.get(&HANDSHAKE_BYTES)?,
        connect: values.get(&CONNECT)?,
        first_request: values.get(&FIRST_REQUEST)?,
        idle: values.get(&IDLE)?,
        keepalive_interval: values.get(&KEEPALIVE_INTERVAL)?,
        keepalive_timeout: values.get(&KEEPALIVE_TIMEOUT)?,
        streams: values.get(&STREAMS)?,
        max_pending: values.get(&MAX_PENDING)? as usize,
        drain: values.get(&DRAIN)?,
    })
}

pub(crate) fn storage(values: &Values) -> Result<Storage, SettingsError> {
    match values.find(&MINIO_BUCKET)? {
        Some(bucket) => Ok(Storage::S3(s3(values, bucket)?)),
        None => Ok(Storage::Local { path: local(values)? }),
    }
}

fn s3(values: &Values, bucket: String) -> Result<S3, SettingsError> {
    let tls = values.get(&MINIO_SSL)?;
    let (host, port) = values.need(&MINIO_ADDRESS, "`minio.bucketName` is set")?;
    let port = port.map_or_else(|| values.get(&MINIO_PORT), Ok)?;
    let (access_key_id, secret_access_key) = both(values, &MINIO_KEY_ID, &MINIO_KEY)?;
    Ok(S3 {
        endpoint: format!("{}://{}", if tls { "https" } else { "http" }, Endpoint::new(host, port)),
        tls,
        ca: values.find(&MINIO_CA)?,
        bucket,
        root: values.get(&MINIO_ROOT)?,
        region: values.find(&MINIO_REGION)?.unwrap_or_else(|| "us-east-1".to_owned()),
        access_key_id,
        secret_access_key,
    })
}

/// A password that everybody knows is said aloud.
pub(crate) fn password_notice(values: &Values) -> Result<Option<String>, SettingsError> {
    let known = values.get(&AUTHORIZATION)? && values.given(&ROOT_PASSWORD).is_none();
    Ok(known.then(|| {
        "users are asked for a password, and root's is the documented one: set common.security.defaultRootPassword"
            .to_owned()
    }))
}

/// Material of the edge that its mode leaves unread.
pub(crate) fn edge_warnings(values: &Values) -> Result<Vec<String>, SettingsError> {
    let mode = values.get(&TLS_MODE)?;
    let first =
        |keys: &[&Key<PathBuf>]| keys.iter().find_map(|key| Some((key.info.path, values.given(key)?.place.clone())));
    let unread = match mode {
        EdgeMode::Off => first(&[&EDGE_CERT, &EDGE_KEY, &EDGE_CA, &EDGE_CRL, &EDGE_DISTRUST]),
        EdgeMode::OneWay => first(&[&EDGE_CRL, &EDGE_DISTRUST]),
        EdgeMode::TwoWay => None,
    };
    let Some((key, place)) = unread else { return Ok(Vec::new()) };
    let (is, answer) = match (mode, values.given(&TLS_MODE)) {
        (EdgeMode::OneWay, _) => {
            ("is 1: clients show no certificate, so it revokes nothing", "set common.security.tlsMode to 2")
        }
        (_, None) => ("is not set: clients are served in plaintext", "set common.security.tlsMode to 1 or 2"),
        (_, Some(_)) => ("is 0: clients are served in plaintext", "set common.security.tlsMode to 1 or 2"),
    };
    Ok(vec![format!("{place}: {key} is set, but common.security.tlsMode {is}; {answer}, or remove the key")])
}

pub(crate) fn storage_notice(values: &Values) -> Option<String> {
    let address = values.given(&MINIO_ADDRESS)?;
    match values.given(&MINIO_BUCKET) {
        Some(_) => None,
        None => Some(format!(
            "{}: minio.address is {} but minio.bucketName is not set: rows are kept in the local folder",
            address.place,
            shown(&address.text)
        )),
    }
}
