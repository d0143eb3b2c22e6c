//! A gRPC client of your own, over internaltls. Everything it needs is in this file. Start `echo_server` first, then:
//!
//! ```sh
//! cargo run --example echo_client -- certs/mesh/proxy-1 127.0.0.1:7000 data-node hello
//! ```
//! The arguments are the folder with this node's server.pem, server.key and ca.pem (its name is the node's, and the role
//! is that name without its number), where to call, the role that must answer there, and what to say.
use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;

use http::uri::PathAndQuery;
use internaltls::{Channel, Endpoint, Files, Mesh, MeshConfig, NodeId, Role};
use tonic::{Request, client::Grpc};
use tonic_prost::ProstCodec;

/// What a .proto file would say. With generated code, give the channel to `EchoClient::new(…)`.
#[derive(Clone, PartialEq, prost::Message)]
struct Text {
    #[prost(string, tag = "1")]
    text: String,
}

/// Loads the certificates in `folder`. Nothing is dialled before the first call.
pub(crate) async fn connect(folder: &Path, address: SocketAddr, role: &str) -> Result<Channel, Box<dyn Error>> {
    let node = folder.file_name().and_then(|name| name.to_str()).ok_or("the folder has no name")?;
    let own_role = node.rsplit_once('-').map_or(node, |(role, _number)| role);
    let files = Files::new(folder.join("server.pem"), folder.join("server.key"), folder.join("ca.pem"));
    let mesh = Mesh::open(MeshConfig::new(Role::new(own_role)?, NodeId::new(node)?, files)).await?;
    Ok(mesh.channel(Role::new(role)?, Endpoint::from(address)))
}

/// One call. A channel is cheap to clone; all clones share its connections.
pub(crate) async fn say(channel: &Channel, text: &str) -> Result<String, Box<dyn Error>> {
    let mut grpc = Grpc::new(channel.clone());
    grpc.ready().await?;
    let (path, codec) = (PathAndQuery::from_static("/echo.Echo/Say"), ProstCodec::<Text, Text>::default());
    let answer = grpc.unary(Request::new(Text { text: text.to_owned() }), path, codec).await?;
    Ok(answer.into_inner().text)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [folder, address, role, text] = &args[..] else { return Err("usage: FOLDER ADDRESS ROLE TEXT".into()) };
    let channel = connect(Path::new(folder), address.parse()?, role).await?;
    println!("{}", say(&channel, text).await?);
    Ok(())
}
