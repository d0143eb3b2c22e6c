//! The command line that every role shares. What is given here lies over the configuration.
use std::path::PathBuf;

use anyhow::Context as _;
use internaltls::config::Endpoint;
use internaltls::identity::NodeId;
use settings::{LogLevel, Settings, Storage};

/// Flags of every role.
#[derive(Debug, Clone, clap::Args)]
pub struct NodeArgs {
    /// The configuration: a file, or a folder of milvus.yaml, default.yaml and user.yaml.
    #[arg(long, value_name = "PATH", default_value = "config/milvus.yaml")]
    pub config: PathBuf,
    /// This node's id, unique within its role [default: ROLE-1].
    #[arg(long, value_name = "ID")]
    pub node: Option<NodeId>,
    /// The port in the mesh; 0 takes a free one.
    #[arg(long)]
    pub port: Option<u16>,
    /// The port of /healthz and /livez.
    #[arg(long, value_name = "PORT")]
    pub health_port: Option<u16>,
    /// The port of status, metrics and the web page.
    #[arg(long, value_name = "PORT")]
    pub management_port: Option<u16>,
    /// Where the coordinator is.
    #[arg(long, value_name = "HOST:PORT", value_parser = settings::endpoint)]
    pub coordinator: Option<Endpoint>,
    /// A data-node; once for each. Together they replace the configured list.
    #[arg(long = "data-node", value_name = "ID=HOST:PORT", value_parser = settings::named_endpoint)]
    pub data_nodes: Vec<(NodeId, Endpoint)>,
    /// Keep rows in this folder.
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// debug, info, warn or error.
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
}

impl Default for NodeArgs {
    fn default() -> Self {
        Self {
            config: PathBuf::from("config/milvus.yaml"),
            node: None,
            port: None,
            health_port: None,
            management_port: None,
            coordinator: None,
            data_nodes: Vec::new(),
            data: None,
            log_level: None,
        }
    }
}

impl NodeArgs {
    /// The configuration with these flags over it.
    ///
    /// # Errors
    /// What the configuration is refused for.
    pub fn settings(&self, role: &str) -> anyhow::Result<Settings> {
        let mut settings = Settings::load(&self.config).context("configuration was refused")?;
        self.lay_over(&mut settings, role);
        Ok(settings)
    }

    /// This node's id.
    pub(crate) fn id(&self, role: &str) -> anyhow::Result<NodeId> {
        match &self.node {
            Some(id) => Ok(id.clone()),
            None => Ok(NodeId::new(&format!("{role}-1"))?),
        }
    }

    fn lay_over(&self, settings: &mut Settings, role: &str) {
        if let Some(port) = self.port {
            *internal_port(settings, role) = port;
        }
        settings.management.health.port = self.health_port.unwrap_or(settings.management.health.port);
        settings.management.management.port = self.management_port.unwrap_or(settings.management.management.port);
        settings.log_level = self.log_level.unwrap_or(settings.log_level);
        self.lay_over_cluster(settings);
    }

    fn lay_over_cluster(&self, settings: &mut Settings) {
        if let Some(coordinator) = &self.coordinator {
            settings.cluster.coordinator = coordinator.clone();
        }
        if !self.data_nodes.is_empty() {
            settings.cluster.data_nodes.clone_from(&self.data_nodes);
        }
        if let Some(path) = &self.data {
            settings.storage = Storage::Local { path: path.clone() };
        }
    }
}

fn internal_port<'s>(settings: &'s mut Settings, role: &str) -> &'s mut u16 {
    match role {
        "proxy" => &mut settings.proxy.internal_port,
        "coordinator" => &mut settings.coordinator.port,
        _ => &mut settings.data_node.port,
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(Debug, clap::Parser)]
    struct Cli {
        #[command(flatten)]
        node: NodeArgs,
    }

    fn settings(role: &str, flags: &[&str]) -> Settings {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("milvus.yaml");
        std::fs::write(&file, settings::reference()).unwrap();
        let config = ["role", "--config", file.to_str().unwrap()];
        Cli::parse_from(config.iter().chain(flags)).node.settings(role).unwrap()
    }

    #[test]
    fn flags_lie_over_the_configuration() {
        let flags = ["--port", "7", "--data", "/rows", "--coordinator", "h:1", "--log-level", "debug"];
        let settings = settings("proxy", &flags);
        assert_eq!(settings.proxy.internal_port, 7);
        assert_eq!(settings.coordinator.port, 22125, "another role's port stays");
        assert_eq!(settings.storage, Storage::Local { path: "/rows".into() });
        assert_eq!(settings.cluster.coordinator.to_string(), "h:1");
        assert_eq!(settings.log_level, LogLevel::Debug);
    }

    #[test]
    fn data_nodes_replace_the_list() {
        let settings = settings("coordinator", &["--data-node", "a=h:1", "--data-node", "b=h:2"]);
        let names: Vec<_> = settings.cluster.data_nodes.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn refuses_an_endpoint_without_port() {
        let error = Cli::try_parse_from(["role", "--coordinator", "h"]).unwrap_err();
        assert!(error.to_string().contains("host:port"), "{error}");
    }

    #[test]
    fn defaults_are_those_of_the_command_line() {
        let parsed = Cli::parse_from(["role"]).node;
        assert_eq!(format!("{parsed:?}"), format!("{:?}", NodeArgs::default()));
    }
}
