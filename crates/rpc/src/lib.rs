//! Generated gRPC types of the Milvus API and of the mesh's own services, and their conversions.
//!
//! 1. All types of messages are generated from `proto/` at build time; by hand are only their conversions.
//! 2. What proxy and data-node must agree on lives here: columns, the hash of rows over shards, the built-in policy.
//!
//! The parts: [`milvus`], [`schema`], [`common`], [`msg`] (the Milvus API), [`mesh`] (our own services), [`health`] (gRPC's),
//! [`fields`] and [`columns`] (schemas and `FieldData`, checked), [`shards`] (where a row lives), [`policy`] (who may call what).

pub use generated::grpc::health::v1 as health;
pub use generated::mesh::v1 as mesh;
pub use generated::milvus::proto::{common, milvus, msg, schema};
pub use shards::{KeyRef, shard_of};

pub mod columns;
pub mod fields;
pub mod policy;
pub mod shards;

/// Largest message of the mesh, in bytes, both ways. As large as a request at the edge: all of its rows may belong to one shard.
pub const MAX_MESSAGE_BYTES: usize = 256 << 20;

#[expect(unused_qualifications, unreachable_pub, clippy::allow_attributes, reason = "generated code")]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/generated.rs"));
}
