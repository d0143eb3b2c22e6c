//! Compiles `proto/` in Rust alone: protox reads it, tonic-prost-build writes the types. No protoc is needed.

use std::error::Error;

const ROOT: &str = "../../proto";

const FILES: [&str; 8] = [
    "milvus/common.proto",
    "milvus/schema.proto",
    "milvus/msg.proto",
    "milvus/milvus.proto",
    "grpc/health/v1/health.proto",
    "mesh/v1/identity.proto",
    "mesh/v1/coordinator.proto",
    "mesh/v1/data_node.proto",
];

/// Fields that may be large and are only passed on: as `Bytes` they share the buffer they arrived in.
const SHARED: [&str; 6] = [
    ".milvus.proto.milvus.SearchRequest.placeholder_group",
    ".milvus.proto.milvus.CreateCollectionRequest.schema",
    ".milvus.proto.common.PlaceholderValue.values",
    ".milvus.proto.schema.JSONArray.data",
    ".mesh.v1.ShardSpec.schema",
    ".mesh.v1.SearchRequest.queries",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed={ROOT}");
    println!("cargo::rerun-if-changed=build.rs");
    let files = protox::compile(FILES, [ROOT])?;
    let mut build = tonic_prost_build::configure().build_transport(false).include_file("generated.rs");
    for path in SHARED {
        build = build.bytes(path);
    }
    build.compile_fds(files)?;
    Ok(())
}
