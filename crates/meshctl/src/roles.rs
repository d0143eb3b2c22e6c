//! The three roles as libraries: what `run` and `run standalone` call.
use node::Node;

use crate::up::plan::Role;

/// Serves as `role` until the node's shutdown.
pub(crate) async fn serve(role: Role, node: Node) -> anyhow::Result<()> {
    match role {
        Role::DataNode => data_node::run(node).await,
        Role::Coordinator => coordinator::run(node).await,
        Role::Proxy => proxy::run(node).await,
    }
}
