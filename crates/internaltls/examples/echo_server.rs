//! A gRPC service of your own, over internaltls. Everything it needs is in this file.
//!
//! ```sh
//! cargo mesh certs init --out certs
//! cargo run --example echo_server -- certs/mesh/data-node-1 127.0.0.1:7000
//! ```
//! The first argument is the folder with this node's server.pem, server.key and ca.pem; its name is the node's, and the
//! role is that name without its number. Replace the files, and the next connection has the new certificate.
use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;

use internaltls::{Files, Mesh, MeshConfig, NodeId, PeerInfo, Policy, Role, Server};
use tonic::{Request, Response, Status, body::Body, server::Grpc};
use tonic_prost::ProstCodec;

/// What a .proto file would say. With generated code, give `EchoServer::new(…)` to `mesh.server`.
#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

/// Answers with the caller's words and the caller's name, as its certificate proves it.
async fn echo(request: Request<Text>) -> Result<Response<Text>, Status> {
    let peer = request.extensions().get::<PeerInfo>().map(|peer| peer.identity().to_string());
    let text = format!("{}, says {}", request.get_ref().text, peer.unwrap_or_default());
    Ok(Response::new(Text { text }))
}

/// Loads the certificates in `folder` and listens on `address`.
pub(crate) async fn start(folder: &Path, address: SocketAddr) -> Result<Server, Box<dyn Error>> {
    let node = folder.file_name().and_then(|name| name.to_str()).ok_or("the folder has no name")?;
    let role = node.rsplit_once('-').map_or(node, |(role, _number)| role);
    let files = Files::new(folder.join("server.pem"), folder.join("server.key"), folder.join("ca.pem"));
    let mesh = Mesh::open(MeshConfig::new(Role::new(role)?, NodeId::new(node)?, files)).await?;
    let service = tower::service_fn(|request: http::Request<Body>| async {
        let mut grpc = Grpc::new(ProstCodec::<Text, Text>::default());
        Ok::<_, Infallible>(grpc.unary(tower::service_fn(echo), request).await)
    });
    let policy = Policy::from_rules([("proxy", "/echo.Echo/*")])?;
    Ok(mesh.server(service).policy(policy).bind(address).await?)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let (Some(folder), Some(address)) = (args.next(), args.next()) else { return Err("usage: FOLDER ADDRESS".into()) };
    let server = start(Path::new(&folder), address.parse()?).await?;
    println!("listening on {}", server.local_addr());
    Ok(server.serve(async { tokio::signal::ctrl_c().await.unwrap_or(()) }).await?)
}
