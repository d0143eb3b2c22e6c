//! A node of a mesh with an echo service, for tests of what the library does to long calls and large ones: the cluster has none.
//!
//! Its status is one JSON document to whoever connects to the second address.
mod wire;

use std::convert::Infallible;
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use futures_util::{Stream, stream};
use internaltls::{Files, Mesh, MeshConfig, NodeId, Policy, Role};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

use wire::{COUNT, SAY, Text};

#[derive(Parser)]
struct Args {
    role: Role,
    node: NodeId,
    /// The folder of its server.pem, server.key and ca.pem
    folder: PathBuf,
    /// Where it serves
    listen: SocketAddr,
    /// Where it tells its status
    status: SocketAddr,
    #[arg(long)]
    crl: PathBuf,
    #[arg(long)]
    distrust: PathBuf,
    #[arg(long)]
    grace_seconds: u64,
    /// How often it looks at its files whatever the kernel tells of them
    #[arg(long, default_value_t = 30)]
    poll_seconds: u64,
}

#[tokio::main(worker_threads = 2)]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mesh = Mesh::open(config(&args)).await?;
    tokio::spawn(tell(TcpListener::bind(args.status).await?, mesh.clone()));
    let policy = Policy::from_rules([("proxy", "/echo.Echo/*")])?;
    let server = mesh.server(tower::service_fn(serve)).policy(policy).bind(args.listen).await?;
    Ok(server.serve(async { tokio::signal::ctrl_c().await.unwrap_or(()) }).await?)
}

fn config(args: &Args) -> MeshConfig {
    let file = |name: &str| args.folder.join(name);
    let mut files = Files::new(file("server.pem"), file("server.key"), file("ca.pem"));
    files.crl = Some(args.crl.clone());
    files.distrust = Some(args.distrust.clone());
    let mut config = MeshConfig::new(args.role.clone(), args.node.clone(), files);
    config.limits.drain = Duration::from_secs(args.grace_seconds);
    config.reload.poll = Duration::from_secs(args.poll_seconds);
    config
}

async fn tell(listener: TcpListener, mesh: Mesh) {
    while let Ok((mut asker, _)) = listener.accept().await {
        let text = serde_json::to_vec(&mesh.status()).unwrap_or_default();
        let _ = asker.write_all(&text).await;
        let _ = asker.shutdown().await;
    }
}

async fn serve(request: http::Request<Body>) -> Result<http::Response<Body>, Infallible> {
    let mut grpc = Grpc::new(ProstCodec::<Text, Text>::default());
    Ok(match request.uri().path() {
        SAY => grpc.unary(tower::service_fn(say), request).await,
        COUNT => grpc.server_streaming(tower::service_fn(count), request).await,
        _ => Status::unimplemented("Say and Count are all there is").into_http(),
    })
}

async fn say(request: Request<Text>) -> Result<Response<Text>, Status> {
    Ok(Response::new(request.into_inner()))
}

async fn count(request: Request<Text>) -> Result<Response<Answers>, Status> {
    Ok(Response::new(Box::pin(answers(request.into_inner()))))
}

type Answers = std::pin::Pin<Box<dyn Stream<Item = Result<Text, Status>> + Send>>;

fn answers(asked: Text) -> impl Stream<Item = Result<Text, Status>> + Send {
    let pace = Duration::from_millis(asked.pace.into());
    stream::unfold(0, move |sent| async move {
        if sent == asked.count {
            return None;
        }
        tokio::time::sleep(pace).await;
        Some((Ok(Text { count: sent, ..Text::default() }), sent + 1))
    })
}
