//! Who runs where. Decides; ports are asked for through [`Choose`], nothing else is touched.
//!
//! 1. The proxy is the first process: its health port is the base, where Milvus has it.
//! 2. What the user's file names counts. What it does not name is ours: TLS at the edge, mutual TLS within, ports as
//!    documented. Addresses are loopback whatever the file says, but for clients' and probes' where `--address` does.
//! 3. What is told is where it can be reached: an address that means "all" is told as loopback, and clients are told a
//!    name where that leads to the address, else the address itself.
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use internaltls::identity::TrustDomain;

use super::Args;
use super::config::Keys;

/// The name that the edge's leaf bears.
pub const HOST: &str = "localhost";

/// What leads to [`HOST`] on every host: `::1` does on some.
const HOST_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Where ports come from.
pub trait Choose {
    /// `wanted`, if it is free at this address; `what` and `flag` are for the message if it is not. `None`: any free one.
    ///
    /// # Errors
    /// When it is taken, or not ours to take.
    fn port(&mut self, at: IpAddr, wanted: Option<u16>, what: &str, flag: &str) -> anyhow::Result<u16>;
    /// Whether every port that nobody named is to be a free one.
    fn all_free(&self) -> bool;
}

/// A cluster to be.
#[derive(Clone)]
pub struct Plan {
    /// Its folder, absolute.
    pub dir: PathBuf,
    /// The user's file, if there is one.
    pub base: Option<PathBuf>,
    /// What the user named, by key. Passwords are among it.
    pub given: Keys,
    /// In the order in which they stop: proxy, data-nodes, coordinator.
    pub nodes: Vec<Node>,
    /// Where clients and probes are served.
    pub address: IpAddr,
    /// Clients' TLS.
    pub tls_mode: u8,
    /// Whether we make the edge's certificates.
    pub own_edge: bool,
    /// Whether we make the nodes' certificates.
    pub own_mesh: bool,
    /// How the mesh is named.
    pub trust_domain: TrustDomain,
    /// The port for gRPC.
    pub grpc: u16,
    /// The port for REST: its own, or that of gRPC.
    pub rest: u16,
}

/// Without what the user named: passwords are among it.
impl fmt::Debug for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plan").field("dir", &self.dir).field("nodes", &self.nodes).finish_non_exhaustive()
    }
}

/// A process to be.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it is.
    pub role: Role,
    /// Which one.
    pub name: String,
    /// Its mesh listener.
    pub internal: SocketAddr,
    /// /healthz and /livez.
    pub health: SocketAddr,
    /// /status and /metrics.
    pub management: SocketAddr,
    /// The folder that it reads.
    pub config: PathBuf,
    /// The file that it writes.
    pub log: PathBuf,
}

/// The roles that are started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Terminates the edge.
    Proxy,
    /// Owns shards.
    DataNode,
    /// Knows who owns what.
    Coordinator,
}

impl Role {
    /// As in certificates and in `meshctl run`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Proxy => "proxy",
            Self::DataNode => "data-node",
            Self::Coordinator => "coordinator",
        }
    }
}

impl Plan {
    /// The folder of certificates that `verify` and `renew` look into.
    #[must_use]
    pub fn certs(&self) -> PathBuf {
        let theirs = self.given.get("internaltls.serverPemPath").and_then(|path| Path::new(path).parent());
        match theirs {
            Some(folder) if !self.own_mesh => folder.to_owned(),
            _ => self.dir.join("certs"),
        }
    }

    /// The address that clients dial, if they are not told [`HOST`]; the edge's leaf must bear it.
    #[must_use]
    pub fn dialled(&self) -> Option<IpAddr> {
        Some(self.address).filter(|address| !address.is_unspecified() && *address != HOST_ADDRESS)
    }

    /// `host:port` for clients.
    #[must_use]
    pub fn for_clients(&self, port: u16) -> String {
        match self.dialled() {
            None => format!("{HOST}:{port}"),
            Some(address) => SocketAddr::new(address, port).to_string(),
        }
    }
}

/// Where a listener on `address` can be reached from this host.
fn reached(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        one => one,
    }
}

/// Decides, or says why it cannot be.
///
/// # Errors
/// When a port is taken, or a key names what no cluster can have.
pub fn plan(args: &Args, dir: &Path, given: Keys, ports: &mut impl Choose) -> anyhow::Result<Plan> {
    let nobody_names = |keys: [&str; 3]| keys.iter().all(|key| !given.contains_key(key));
    let at = args.address;
    let grpc = edge_port(at, args.port, &given, "proxy.port", 19_530, "clients", "--port", ports)?;
    let rest = match (args.http_port, given.contains_key("proxy.port") && !given.contains_key("proxy.http.port")) {
        // A file that names proxy.port alone means what Milvus means: REST shares it.
        (None, true) => grpc,
        _ => edge_port(at, args.http_port, &given, "proxy.http.port", 8_080, "REST", "--http-port", ports)?,
    };
    Ok(Plan {
        dir: dir.to_owned(),
        base: args.config.as_ref().map(std::path::absolute).transpose()?,
        nodes: nodes(args, dir, ports)?,
        address: args.address,
        tls_mode: tls_mode(args, &given)?,
        own_edge: nobody_names(["tls.serverPemPath", "tls.serverKeyPath", "tls.caPemPath"]),
        own_mesh: nobody_names(["internaltls.serverPemPath", "internaltls.serverKeyPath", "internaltls.caPemPath"]),
        trust_domain: given.get("internaltls.trustDomain").map_or("mesh.internal", String::as_str).parse()?,
        grpc,
        rest,
        given,
    })
}

fn tls_mode(args: &Args, given: &Keys) -> anyhow::Result<u8> {
    let named = given.get("common.security.tlsMode").map(|text| text.parse());
    let named = named.transpose().context("common.security.tlsMode must be 0, 1 or 2")?;
    let mode = args.tls_mode.or(named).unwrap_or(1);
    ensure!(mode <= 2, "common.security.tlsMode must be 0, 1 or 2");
    Ok(mode)
}

#[expect(clippy::too_many_arguments, reason = "one line a port where it is called, and nowhere else")]
fn edge_port(
    at: IpAddr,
    flag: Option<u16>,
    given: &Keys,
    key: &str,
    default: u16,
    what: &str,
    name: &str,
    ports: &mut impl Choose,
) -> anyhow::Result<u16> {
    let named = given.get(key).map(|text| text.parse()).transpose().with_context(|| format!("{key} must be a port"))?;
    let fallback = if ports.all_free() { None } else { Some(default) };
    ports.port(at, flag.or(named).filter(|port| *port != 0).or(fallback), what, name)
}

fn nodes(args: &Args, dir: &Path, ports: &mut impl Choose) -> anyhow::Result<Vec<Node>> {
    let data = (1..=args.data_nodes).map(|n| (Role::DataNode, n, (n == 1).then_some(21_124)));
    let all = [(Role::Proxy, 1, Some(19_529))].into_iter().chain(data).chain([(Role::Coordinator, 1, Some(22_125))]);
    let base = args.management_port.or((!ports.all_free()).then_some(9_091));
    all.enumerate()
        .map(|(nth, (role, n, internal))| node(args.address, dir, nth, role, n, internal, base, ports))
        .collect()
}

#[expect(clippy::too_many_arguments, reason = "one call, in a loop over what differs")]
fn node(
    address: IpAddr,
    dir: &Path,
    nth: usize,
    role: Role,
    n: u16,
    internal: Option<u16>,
    base: Option<u16>,
    ports: &mut impl Choose,
) -> anyhow::Result<Node> {
    let name = format!("{}-{n}", role.name());
    let internal = internal.filter(|_| !ports.all_free());
    let of_base = |more: usize| base.map(|base| u16::try_from(usize::from(base) + 2 * nth + more)).transpose();
    let too_high = "--management-port leaves no room for two ports a process; choose a lower one";
    let mut port =
        |at, wanted, what: String, flag| anyhow::Ok(SocketAddr::new(reached(at), ports.port(at, wanted, &what, flag)?));
    let (base_flag, loopback) = ("--management-port", IpAddr::V4(Ipv4Addr::LOCALHOST));
    Ok(Node {
        internal: port(loopback, internal, format!("{name} in the mesh"), "--free-ports")?,
        health: port(address, of_base(0).context(too_high)?, format!("health of {name}"), base_flag)?,
        management: port(loopback, of_base(1).context(too_high)?, format!("status of {name}"), base_flag)?,
        config: dir.join("config").join(&name),
        log: dir.join("logs").join(format!("{name}.log")),
        role,
        name,
    })
}
