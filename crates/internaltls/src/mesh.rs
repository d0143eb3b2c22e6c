//! The facade: one process's part in the mesh.
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use http::uri::Authority;
use http::{Request, Response};
use serde::Serialize;
use tonic::body::Body;

use crate::client::{self, Channel, Endpoints};
use crate::clock::{Clock, SystemClock};
use crate::config::{Files, MeshConfig, Security};
use crate::connections::{ConnectionStatus, Registry};
use crate::error::LoadError;
use crate::identity::{Role, role_name};
use crate::material::{Connected, Force, MaterialStatus, Purpose, Reloaded, Store};
use crate::server::service::erase;
use crate::server::{self, ServerBuilder};
use crate::telemetry::{Ended, Telemetry};
use crate::ticker;

/// One process's part in the mesh: its material, and every listener and dialer that uses it. Cheap to clone; clones are
/// the same mesh.
///
/// There is no mesh without fit material: [`Mesh::open`] fails, and nothing listens or dials before it succeeded. With
/// [`Security::Plaintext`] the same calls work without TLS, and every peer is `plaintext`.
#[derive(Clone)]
pub struct Mesh {
    inner: Arc<Inner>,
}

struct Inner {
    config: MeshConfig,
    store: Option<Arc<Store>>,
    registry: Registry,
    telemetry: Telemetry,
    clock: Arc<dyn Clock>,
    runtime: tokio::runtime::Handle,
}

/// Why a mesh could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The files are not fit. The source names file, field and remedy.
    #[error("the internal certificates of {role}/{node} do not load")]
    Load {
        /// What this process is.
        role: String,
        /// Which one it is.
        node: String,
        /// What is wrong.
        source: LoadError,
    },
}

/// What a mesh says of itself. Serializes to JSON; times are RFC 3339 in UTC.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct MeshStatus {
    /// What this process is.
    pub role: String,
    /// Which one it is.
    pub node: String,
    /// `tls` or `plaintext`.
    pub security: &'static str,
    /// What is served and since when; `None` in plaintext.
    pub material: Option<MaterialStatus>,
    /// Every live connection, inbound and outbound, oldest first.
    pub connections: Vec<ConnectionStatus>,
    /// How many of them were made under which generation.
    pub connections_by_generation: BTreeMap<u64, usize>,
    /// How many connections were ended, by reason.
    pub ended: Ended,
}

impl fmt::Debug for Mesh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.inner.config;
        f.debug_struct("Mesh").field("role", &config.role).field("node", &config.node).finish_non_exhaustive()
    }
}

impl Mesh {
    /// Loads and checks the material, and follows it from then on. Must be called in a tokio runtime: the mesh's tasks
    /// run there.
    ///
    /// # Errors
    /// [`OpenError`] when the files are not fit. Nothing falls back to plaintext.
    pub async fn open(config: MeshConfig) -> Result<Self, OpenError> {
        Self::open_with(config, Arc::new(SystemClock)).await
    }

    /// The same by another clock. For tests.
    ///
    /// # Errors
    /// As [`Mesh::open`].
    pub async fn open_with(config: MeshConfig, clock: Arc<dyn Clock>) -> Result<Self, OpenError> {
        let telemetry = Telemetry::new();
        let store = match &config.security {
            Security::Plaintext => None,
            Security::Tls { files, shared_name } => {
                Some(load(&config, files, shared_name.as_deref(), &clock, &telemetry).await?)
            }
        };
        let registry = Registry::new(telemetry.clone());
        let runtime = tokio::runtime::Handle::current();
        if let Some(store) = &store {
            let (limits, trials, trial_timeout) = (config.limits, config.reload.trials, config.reload.trial_timeout);
            let (registry, telemetry, runtime) = (registry.clone(), telemetry.clone(), runtime.clone());
            ticker::start(store, registry.clone(), Arc::clone(&clock), limits.drain);
            let force = Force::at(force_path(&config));
            store.heed(Connected { registry, limits, telemetry, runtime, trials, trial_timeout, force });
        }
        Ok(Self { inner: Arc::new(Inner { config, store, registry, telemetry, clock, runtime }) })
    }

    /// A server of tonic's `Routes`, of one generated server, or of any other service of HTTP requests. It still needs a
    /// policy and an address.
    pub fn server<S, B>(&self, routes: S) -> ServerBuilder
    where
        S: tower_service::Service<Request<Body>, Response = Response<B>, Error = Infallible>,
        S: Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let Inner { config, store, registry, telemetry, clock, .. } = &*self.inner;
        let context = server::Context {
            store: store.clone(),
            limits: config.limits,
            registry: registry.clone(),
            telemetry: telemetry.clone(),
            local: self.local(),
            clock: Arc::clone(clock),
        };
        ServerBuilder::new(context, erase(routes))
    }

    /// A channel to the nodes of `role`, or to one node: see [`Endpoint::of`](crate::Endpoint::of). Nothing is dialled
    /// before the first call.
    pub fn channel(&self, role: Role, endpoints: impl Into<Endpoints>) -> Channel {
        let Inner { config, store, registry, telemetry, clock, runtime } = &*self.inner;
        let context = client::Context {
            store: store.clone(),
            limits: config.limits,
            registry: registry.clone(),
            telemetry: telemetry.clone(),
            local: self.local(),
            clock: Arc::clone(clock),
            runtime: runtime.clone(),
        };
        let authority = authority(&role_name(&role, &config.trust_domain));
        Channel::new(role, authority, endpoints.into(), context)
    }

    /// Reads all files now instead of at the next event, and waits until lists, policy, leaf, key and CAs are all looked at: for
    /// peers that are asked, too, but for no longer than [`Reload::trial_timeout`](crate::Reload::trial_timeout). The number of the
    /// newest generation that it made; `None` when nothing changed, or in plaintext.
    ///
    /// # Errors
    /// [`LoadError`] when some of them are not fit; what was served of these is served on.
    pub async fn reload(&self) -> Result<Option<u64>, LoadError> {
        let Some(store) = &self.inner.store else { return Ok(None) };
        match store.reload().await? {
            Reloaded::Published(number) => Ok(Some(number)),
            Reloaded::Unchanged => Ok(None),
        }
    }

    /// Number of the generation in use, from 1 on; `None` in plaintext.
    #[must_use]
    pub fn generation(&self) -> Option<u64> {
        self.inner.store.as_ref().map(|store| store.current().number)
    }

    /// Material and connections of now.
    #[must_use]
    pub fn status(&self) -> MeshStatus {
        let Inner { config, store, registry, telemetry, .. } = &*self.inner;
        MeshStatus {
            role: config.role.to_string(),
            node: config.node.to_string(),
            security: if store.is_some() { "tls" } else { "plaintext" },
            material: store.as_ref().map(|store| store.status()),
            connections: registry.snapshot(),
            connections_by_generation: registry.by_generation(),
            ended: telemetry.ended(),
        }
    }

    /// What is counted.
    #[must_use]
    pub fn telemetry(&self) -> &Telemetry {
        &self.inner.telemetry
    }

    /// Every live connection.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.inner.registry
    }

    /// What the mesh was opened with.
    #[must_use]
    pub fn config(&self) -> &MeshConfig {
        &self.inner.config
    }

    fn local(&self) -> String {
        let config = &self.inner.config;
        format!("{}/{}", config.role, config.node)
    }
}

/// Where an operator's word would be: beside the certificate where nothing else is said.
fn force_path(config: &MeshConfig) -> PathBuf {
    let beside = |files: &Files| files.cert.with_file_name("reload-force");
    match (&config.force, &config.security) {
        (Some(path), _) => path.clone(),
        (None, Security::Tls { files, .. }) => beside(files),
        (None, Security::Plaintext) => PathBuf::new(),
    }
}

async fn load(
    config: &MeshConfig,
    files: &Files,
    shared_name: Option<&str>,
    clock: &Arc<dyn Clock>,
    telemetry: &Telemetry,
) -> Result<Arc<Store>, OpenError> {
    let purpose = Purpose::Mesh {
        trust_domain: config.trust_domain.clone(),
        role: config.role.clone(),
        node: config.node.clone(),
        shared_name: shared_name.map(str::to_owned),
    };
    let (clock, telemetry) = (Arc::clone(clock), Arc::new(telemetry.clone()));
    let (policy, state) = (config.policy.clone(), config.state.clone());
    let opened = Store::open_with_state(purpose, files.clone(), policy, state, config.reload, clock, telemetry).await;
    opened.map_err(|source| OpenError::Load { role: config.role.to_string(), node: config.node.to_string(), source })
}

/// Role and trust domain are names of DNS, so this always is an authority; peers do not read it.
fn authority(name: &str) -> Authority {
    name.parse().unwrap_or_else(|_| Authority::from_static("mesh.internal"))
}
