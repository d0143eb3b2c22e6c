//! Threads that serve connections.
//!
//! 1. Each has a runtime of its own, of this one thread. A connection stays with its thread from the handshake to the last
//!    byte, and so do its calls: nothing of them is handed from one core to another, which on small calls costs as much as
//!    the calls do.
//! 2. The accept loop and its limits stay where they are; each connection goes to the thread that serves the fewest. Were the
//!    threads to accept by themselves (SO_REUSEPORT), a hash of the addresses would choose, and of a few connections most
//!    may fall to one thread.
//! 3. A thread ends a moment later than the last connection: last words are still read out (see `linger`).
use std::io;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, Handle};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::linger::LINGER;

/// Threads that serve connections, each with a runtime of its own that a connection never leaves; see
/// [`PolicedServer::threads`](crate::PolicedServer::threads). Cheap to clone; the threads end with the last clone and the
/// last listener that uses them.
///
/// Small calls cost about half as much processor time this way, for nothing is handed from core to core; one thread for each
/// core is a good number. The price: a service that blocks its thread, or computes for long, holds up every connection of
/// that thread. Such work belongs on `tokio::task::spawn_blocking`.
#[derive(Debug, Clone)]
pub struct Threads(Arc<Workers>);

#[derive(Debug)]
struct Workers {
    all: Vec<Worker>,
    _over: DropGuard,
}

#[derive(Debug)]
struct Worker {
    runtime: Handle,
    /// One more reference for each connection.
    serving: Arc<()>,
}

impl Threads {
    /// Starts so many threads, one at least.
    ///
    /// # Errors
    /// The system has no more of them, or no descriptors for their runtimes.
    pub fn start(count: usize) -> io::Result<Self> {
        let over = CancellationToken::new();
        let all = (0..count.max(1)).map(|nth| Worker::start(nth, over.clone())).collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(Workers { all, _over: over.drop_guard() })))
    }

    /// Starts one for each core that this process may use.
    ///
    /// # Errors
    /// As [`Threads::start`].
    pub fn one_a_core() -> io::Result<Self> {
        Self::start(std::thread::available_parallelism().map_or(1, std::num::NonZero::get))
    }

    /// Gives a connection to the thread that serves the fewest.
    pub(super) fn serve<F>(
        &self,
        tracker: &TaskTracker,
        stream: TcpStream,
        connection: impl FnOnce(TcpStream) -> F + Send + 'static,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        let workers = self.0.all.iter();
        let Some(worker) = workers.min_by_key(|worker| Arc::strong_count(&worker.serving)) else { return };
        let serving = Arc::clone(&worker.serving);
        // From one runtime's reactor to the other's.
        let Ok(stream) = stream.into_std() else { return };
        let task = async move {
            if let Ok(stream) = TcpStream::from_std(stream) {
                connection(stream).await;
            }
            drop(serving);
        };
        tracker.spawn_on(task, &worker.runtime);
    }
}

impl Worker {
    fn start(nth: usize, over: CancellationToken) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let thread = move || {
            runtime.block_on(async {
                over.cancelled().await;
                tokio::time::sleep(LINGER).await;
            });
            // A call that blocks in the file system must not keep the thread.
            runtime.shutdown_background();
        };
        std::thread::Builder::new().name(format!("mesh-{nth}")).spawn(thread)?;
        Ok(Self { runtime: handle, serving: Arc::default() })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn connections_are_spread_evenly_and_stay() {
        let threads = Threads::start(3).unwrap();
        let tracker = TaskTracker::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (tell, mut told) = mpsc::unbounded_channel();
        let mut clients = Vec::new();
        for _ in 0..9 {
            clients.push(TcpStream::connect(listener.local_addr().unwrap()).await.unwrap());
            let (stream, _) = listener.accept().await.unwrap();
            let tell = tell.clone();
            threads.serve(&tracker, stream, async move |stream| {
                tell.send(std::thread::current().name().map(str::to_owned)).unwrap();
                stream.readable().await.unwrap();
                tell.send(std::thread::current().name().map(str::to_owned)).unwrap();
            });
        }
        let mut spread = BTreeMap::new();
        for _ in 0..9 {
            *spread.entry(told.recv().await.unwrap()).or_insert(0) += 1;
        }
        assert_eq!(spread.into_values().collect::<Vec<_>>(), [3, 3, 3]);
        drop(clients);
        tracker.close();
        tracker.wait().await;
        assert!(threads.0.all.iter().all(|worker| Arc::strong_count(&worker.serving) == 1));
    }
}
