//! The proxy: the Milvus API at the edge, fanned out over the mesh.
//!
//! 1. It has no state: what a collection is, it asks the coordinator in every call; rows live in the data-nodes.
//! 2. Two edges, one service. gRPC (`grpc`) and REST v2 (`rest`) translate to the same requests; what is decided is
//!    decided below them, so both answer alike.
//! 3. Never a wrong success: what is not built says so by name, and a node that cannot be reached fails the whole call.
//!
//! The parts, from the edge inwards: `grpc` and `rest`, [`Users`], `service` (what each call does), the pure parts it
//! decides with (`schema`, `rows`, `filter`, `plan`, `merge`, `output`, `metric`, `names`, `columns`, `key`, `clock`), and
//! [`Cluster`] (the calls over the mesh). `process` puts it on its ports.
mod clock;
mod cluster;
mod columns;
mod error;
mod filter;
mod grpc;
mod key;
mod merge;
mod metric;
mod names;
mod output;
mod plan;
mod process;
mod rest;
mod rows;
mod schema;
mod service;
mod users;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;

pub use cluster::{Cluster, Wire};
pub use process::{Args, main_with, run};
pub use users::Users;

/// The two edges over one cluster: gRPC, then REST. `health` is what probes by gRPC are told.
pub fn routers(cluster: Cluster, users: &Users, health: node::Health) -> (Router, Router) {
    let service = Arc::new(service::Service::new(cluster));
    (grpc::router(service.clone(), users.clone(), health), rest::router(service, users.clone()))
}
