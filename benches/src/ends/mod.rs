//! The two ends of each variant: a server of [`Echo`](crate::echo::Echo), and a dialler of it.
mod bare;
mod mesh;
mod stock;

use std::net::SocketAddr;
use std::path::Path;

use anyhow::Result;
use internaltls::Threads;
use tokio::runtime::{Builder, Runtime};

pub use self::bare::BareDialler;
pub use self::mesh::MeshDialler;
pub use self::stock::StockDialler;
use crate::echo::Wire;
use crate::material::End;
use crate::variant::Variant;

/// Makes connections to one server.
pub trait Dialler: Send + Sync + 'static {
    /// What calls go through.
    type Wire: Wire;

    /// A new connection. It may be made with the first call.
    ///
    /// # Errors
    /// When the server cannot be reached.
    fn dial(&self) -> impl Future<Output = Result<Self::Wire>> + Send;
}

/// The runtime that one end of a variant lives on.
///
/// # Errors
/// When the system has no threads left.
pub fn runtime(variant: Variant, end: End) -> Result<Runtime> {
    let mut builder = match (variant.ends(), end) {
        (Variant::Tonic | Variant::TonicTls | Variant::MeshShared, _) => Builder::new_multi_thread(),
        // Two channels, so that each can have a core; the server has threads of its own.
        (Variant::MeshLanes, End::Client) => Builder::new_multi_thread(),
        _ => Builder::new_current_thread(),
    };
    Ok(builder.enable_all().build()?)
}

/// Serves on a free port of the loopback address, tells which, and goes on until `over` is ready.
///
/// # Errors
/// When the certificates below `folder` are not fit, or the listener breaks.
pub async fn serve(
    variant: Variant,
    folder: &Path,
    tell: impl FnOnce(SocketAddr) + Send,
    over: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    match variant.ends() {
        Variant::Tonic => stock::serve(None, tell, over).await,
        Variant::TonicTls => stock::serve(Some(folder), tell, over).await,
        Variant::Plain => mesh::serve(None, None, tell, over).await,
        Variant::Mesh | Variant::MeshShared => mesh::serve(Some(folder), None, tell, over).await,
        Variant::MeshLanes => mesh::serve(Some(folder), Some(Threads::one_a_core()?), tell, over).await,
        other => bare::serve(other, folder, tell, over).await,
    }
}
