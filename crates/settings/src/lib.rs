//! milvus.yaml as checked types.
//!
//! 1. A configuration is a file or a folder (milvus.yaml, default.yaml, user.yaml, each over the one before), then the
//!    environment over it. What comes out is checked: a [`Settings`] that exists can be used.
//! 2. One table of keys drives parsing, defaults, environment names, the check for unknown keys and config/milvus.yaml.
//! 3. A typing error in what guards traffic is an error, never a key passed over, and so is an empty value of a key that
//!    protects ([`KeyInfo::guards`]). Keys of other parts of Milvus are counted in one notice.
//! 4. A relative path counts from the folder of the file that names it; in an environment variable, from the current folder.
//! 5. Nothing is logged here: what there is to say stands in [`Settings::notices`] and [`Settings::warnings`], for whoever
//!    has a log.
//! 6. No secret is in an error, a notice or a Debug, however it was mistyped.
//!
//! `keys` the table · `parse` one value · `layers` files → entries · `environment` · `check` unknown keys ·
//! `values` layers over one another · `sections` the types · `reference` config/milvus.yaml
#![warn(missing_docs)]

mod check;
mod environment;
mod error;
mod keys;
mod layers;
mod parse;
mod reference;
mod secret;
mod sections;
mod values;

#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};

use internaltls::config::{EdgeConfig, Endpoint, MeshConfig, Security};
use internaltls::identity::{NodeId, Role};

pub use environment::variables;
pub use error::{Place, SettingsError};
pub use keys::{KEYS, KeyInfo};
pub use reference::reference;
pub use secret::Secret;
pub use sections::{Cluster, InternalTls, Listener, LogLevel, Management, Proxy, S3, Storage, Users};

use keys::{COORDINATOR_ADDRESS, COORDINATOR_PORT, DATA_NODE_ADDRESS, DATA_NODE_PORT, LOG_LEVEL, THREADS};
use values::Values;

/// A configuration that was checked as a whole.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The proxy's listeners.
    pub proxy: Proxy,
    /// The coordinator's port in the mesh.
    pub coordinator: Listener,
    /// A data-node's port in the mesh.
    pub data_node: Listener,
    /// Where the nodes are.
    pub cluster: Cluster,
    /// Ports for people and probes.
    pub management: Management,
    /// Users, on top of TLS.
    pub users: Users,
    /// Clients' TLS.
    pub edge: EdgeConfig,
    /// Mutual TLS between nodes.
    pub internal: InternalTls,
    /// Where rows are kept.
    pub storage: Storage,
    /// Threads that connections are served on; 0: one for each core.
    pub threads: usize,
    /// How much is logged.
    pub log_level: LogLevel,
    /// What an operator should know: keys that are not read, variables without effect. A line each.
    pub notices: Vec<String>,
    /// What an operator should change: material that is named and not used. A line each, with the answer.
    pub warnings: Vec<String>,
}

impl Settings {
    /// Reads a file or a folder, and the environment.
    ///
    /// # Errors
    /// [`SettingsError`], naming place, key and remedy.
    pub fn load(path: &Path) -> Result<Self, SettingsError> {
        Self::load_with_env(path, variables()?.into_iter())
    }

    /// Reads a file or a folder, and variables given by the caller.
    ///
    /// # Errors
    /// [`SettingsError`], naming place, key and remedy.
    pub fn load_with_env(
        path: &Path,
        variables: impl Iterator<Item = (String, String)>,
    ) -> Result<Self, SettingsError> {
        let mut values = Values::default();
        let (mut others, mut warnings) = (Vec::new(), Vec::new());
        for mut layer in layers::read(path)? {
            warnings.append(&mut layer.warnings);
            others.append(&mut check::unknown(&layer)?);
            values.put(&layer)?;
        }
        let (environment, mut notices) = environment::layer(variables)?;
        values.put(&environment)?;
        // One folder of several files is one warning.
        warnings.dedup();
        notices.extend(warnings);
        notices.extend(others_notice(&others));
        notices.extend(sections::storage_notice(&values));
        notices.extend(sections::password_notice(&values)?);
        Self::from_values(&values, notices)
    }

    fn from_values(values: &Values, notices: Vec<String>) -> Result<Self, SettingsError> {
        Ok(Self {
            proxy: sections::proxy(values)?,
            coordinator: sections::listener(values, &COORDINATOR_ADDRESS, &COORDINATOR_PORT)?,
            data_node: sections::listener(values, &DATA_NODE_ADDRESS, &DATA_NODE_PORT)?,
            cluster: sections::cluster(values)?,
            management: sections::management(values)?,
            users: sections::users(values)?,
            edge: sections::edge(values)?,
            internal: sections::internal(values)?,
            storage: sections::storage(values)?,
            threads: values.get(&THREADS)? as usize,
            log_level: values.get(&LOG_LEVEL)?,
            notices,
            warnings: sections::edge_warnings(values)?,
        })
    }

    /// What this process tells the mesh about itself.
    #[must_use]
    pub fn mesh_config(&self, role: Role, node: NodeId) -> MeshConfig {
        let internal = &self.internal;
        let tls = |files| Security::Tls { files, shared_name: internal.sni.clone() };
        let state = Some(self.state_folder(&role, &node, "mesh"));
        MeshConfig {
            trust_domain: internal.trust_domain.clone(),
            role,
            node,
            security: internal.files.clone().map_or(Security::Plaintext, tls),
            reload: internal.reload,
            limits: internal.limits,
            policy: internal.policy.clone(),
            force: internal.force.clone(),
            state,
        }
    }

    /// The proxy's external listener, without a place to keep what is in force.
    #[must_use]
    pub fn edge_config(&self) -> EdgeConfig {
        self.edge.clone()
    }

    /// The external listener of this node.
    #[must_use]
    pub fn edge_config_of(&self, role: &Role, node: &NodeId) -> EdgeConfig {
        EdgeConfig { state: Some(self.state_folder(role, node, "edge")), ..self.edge.clone() }
    }

    /// No two nodes share one, whatever they share otherwise.
    fn state_folder(&self, role: &Role, node: &NodeId, of: &str) -> PathBuf {
        self.internal.state.join(format!("{role}-{node}")).join(of)
    }
}

/// What a file or folder and the variables name, by key, whether or not it makes a whole: text as a file would have it, a
/// mapping as `id=host:port,…`, a path joined with the folder it counts from. For tools that write a configuration over
/// another. Secrets are among it, in the clear.
///
/// # Errors
/// [`SettingsError`], when something cannot be read or an unknown key is named.
pub fn named(
    path: Option<&Path>,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<std::collections::BTreeMap<&'static str, String>, SettingsError> {
    let mut values = Values::default();
    for layer in path.map(layers::read).transpose()?.unwrap_or_default() {
        check::unknown(&layer)?;
        values.put(&layer)?;
    }
    values.put(&environment::layer(variables)?.0)?;
    Ok(values.texts())
}

/// Places alone: a word in the place of a key may be a password that slipped out of its line.
fn others_notice(others: &[Place]) -> Option<String> {
    let (first, count) = (others.first()?, others.len());
    let keys = if count == 1 { "key is" } else { "keys are" };
    Some(format!("{first}: {count} other {keys} not read, this the first of them"))
}

/// `host:port`, as in `cluster.coordinator` and in a flag.
///
/// # Errors
/// A sentence that says what would have fitted.
pub fn endpoint(text: &str) -> Result<Endpoint, String> {
    parse::endpoint(flag(text)).map_err(|expected| format!("`{text}` must be {expected}"))
}

/// `ID=HOST:PORT`, as in a flag.
///
/// # Errors
/// A sentence that says what would have fitted.
pub fn named_endpoint(text: &str) -> Result<(NodeId, Endpoint), String> {
    parse::named_endpoint(flag(text)).map_err(|expected| format!("`{text}` must be {expected}"))
}

fn flag(text: &str) -> parse::Text<'_> {
    parse::Text { text, folder: Path::new("") }
}
