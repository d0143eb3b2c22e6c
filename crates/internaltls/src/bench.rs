//! The transport without the mesh, for the benchmarks alone: what our own layers cost is told by a client and a server that
//! have this and nothing else of ours.
use tokio::io::{AsyncRead, AsyncWrite};

/// What lies beneath TLS.
pub fn beneath<Io: AsyncRead + AsyncWrite + Unpin>(io: Io) -> impl AsyncRead + AsyncWrite + Unpin {
    crate::transport::read_ahead::ReadAhead::new(io)
}

/// What lies between HTTP/2 and TLS. The task that drives HTTP/2 must be counted by `turns`.
pub fn above<Io: AsyncRead + AsyncWrite + Unpin>(
    io: Io,
    turns: &Turns,
) -> impl AsyncRead + AsyncWrite + Unpin + use<Io> {
    crate::transport::gathered::Gathered::new(io, turns.0.clone())
}

/// The turns of one connection's task.
#[derive(Debug, Clone, Default)]
pub struct Turns(crate::transport::gathered::Turns);

impl Turns {
    /// The task, counted.
    pub fn count<F: Future>(&self, task: F) -> impl Future<Output = F::Output> + use<F> {
        self.0.count(task)
    }
}
