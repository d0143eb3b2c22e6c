//! The accept loop.
//!
//! 1. It does nothing but accept: handshakes run elsewhere, under the [`Gate`], and the loop never waits for one to end. So
//!    the kernel's backlog is short, and a client's SYN is not lost in it.
//! 2. An error of one connection is passed over; a lack of descriptors or memory makes handshakes give way, backs off and
//!    goes on, up to a second at a time; only a listener that is itself broken ends the loop.
//! 3. A connection that took one of the last descriptors, which are [reserved](descriptors) for files and dials, is closed
//!    at once and counts as a lack of them: no number of peers keeps a list of the distrusted from being read.
//! 4. Every error is counted; a second has one line in the log at most.
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};

use super::gate::{Gate, Permit};
use super::throttle::Throttle;
use crate::telemetry::Telemetry;
use crate::transport::descriptors;

const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Where connections come from.
pub(crate) trait Source: Sync {
    /// The next connection.
    fn next(&self) -> impl Future<Output = io::Result<(TcpStream, SocketAddr)>> + Send;
}

impl Source for TcpListener {
    async fn next(&self) -> io::Result<(TcpStream, SocketAddr)> {
        self.accept().await
    }
}

/// What an error of accept calls for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// One connection came to nothing: go on.
    Connection,
    /// The process or the host lacks something: pause and go on.
    Exhausted,
    /// The listener is broken.
    Listener,
}

impl Fault {
    fn of(error: &io::Error) -> Self {
        use rustix::io::Errno;
        match error.raw_os_error().map(Errno::from_raw_os_error) {
            Some(Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::OPNOTSUPP) => Self::Listener,
            Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM) => Self::Exhausted,
            Some(_) => Self::Connection,
            None => Self::Exhausted,
        }
    }

    fn label(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Exhausted => "exhausted",
            Self::Listener => "listener",
        }
    }
}

/// Handshakes that give way when descriptors run out: more than one, so that the loop does not pause for each.
const SHED: usize = 16;

/// Accepts until the listener breaks, and hands every connection with its permit to `take`.
pub(crate) async fn accept_all(
    source: &impl Source,
    gate: &Arc<Gate>,
    telemetry: &Telemetry,
    take: impl Fn(TcpStream, SocketAddr, Permit),
) -> io::Error {
    let throttle = Throttle::new(Duration::from_secs(1));
    let mut pause = FIRST_PAUSE;
    loop {
        match source.next().await.and_then(within_limit) {
            Ok((stream, address)) => {
                pause = FIRST_PAUSE;
                take(stream, address, gate.enter(address.ip()));
            }
            Err(error) => {
                let fault = Fault::of(&error);
                report(&error, fault, telemetry, &throttle);
                match fault {
                    Fault::Connection => {}
                    Fault::Exhausted => {
                        (0..SHED).for_each(|_| gate.shed());
                        pause = back_off(pause).await;
                    }
                    Fault::Listener => return error,
                }
            }
        }
    }
}

/// The connection, or the error that accept will give when the reserve too is used up.
fn within_limit((stream, address): (TcpStream, SocketAddr)) -> io::Result<(TcpStream, SocketAddr)> {
    if descriptors::is_reserved(&stream) {
        return Err(rustix::io::Errno::MFILE.into());
    }
    Ok((stream, address))
}

/// Waits for the pause and says how long the next one is.
async fn back_off(pause: Duration) -> Duration {
    tokio::time::sleep(pause).await;
    (pause * 2).min(LONGEST_PAUSE)
}

fn report(error: &io::Error, fault: Fault, telemetry: &Telemetry, throttle: &Throttle) {
    telemetry.accept_error(fault.label());
    if let Some(suppressed) = throttle.permit(Instant::now()) {
        tracing::warn!(%error, kind = fault.label(), suppressed, "a connection could not be accepted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Limits;
    use crate::transport::tcp;
    use std::collections::VecDeque;
    use std::sync::Mutex;

    /// Yields the scripted errors, then connections of the listener.
    struct Script {
        errors: Mutex<VecDeque<i32>>,
        listener: TcpListener,
    }

    impl Source for Script {
        async fn next(&self) -> io::Result<(TcpStream, SocketAddr)> {
            let error = self.errors.lock().unwrap().pop_front();
            match error {
                Some(code) => Err(io::Error::from_raw_os_error(code)),
                None => self.listener.accept().await,
            }
        }
    }

    fn script(errors: &[rustix::io::Errno]) -> (Script, SocketAddr) {
        let listener = tcp::listen(([127, 0, 0, 1], 0).into()).unwrap();
        let address = listener.local_addr().unwrap();
        (Script { errors: Mutex::new(errors.iter().map(|e| e.raw_os_error()).collect()), listener }, address)
    }

    #[tokio::test]
    async fn goes_on_after_running_out_of_descriptors() {
        use rustix::io::Errno;
        let (script, address) = script(&[Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::CONNABORTED]);
        let (gate, telemetry) = (Gate::new(&Limits::default()), Telemetry::new());
        let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
        let started = Instant::now();
        let take = |_, _, _| tell.send(()).unwrap();
        tokio::select! {
            error = accept_all(&script, &gate, &telemetry, take) => panic!("ended with {error}"),
            served = async { let _client = TcpStream::connect(address).await.unwrap(); told.recv().await } => served.unwrap(),
        }
        assert!(started.elapsed() >= FIRST_PAUSE * 7, "it paused 5, 10 and 20 ms");
        let text = telemetry.encode();
        assert!(text.contains("internaltls_accept_errors_total{kind=\"exhausted\"} 3"), "{text}");
        assert!(text.contains("internaltls_accept_errors_total{kind=\"connection\"} 1"), "{text}");
    }

    #[tokio::test]
    async fn a_lack_of_descriptors_makes_handshakes_give_way() {
        let (script, _) = script(&[rustix::io::Errno::MFILE]);
        let (gate, telemetry) = (Gate::new(&Limits::default()), Telemetry::new());
        let silent = gate.enter([10, 0, 0, 1].into());
        tokio::select! {
            error = accept_all(&script, &gate, &telemetry, |_, _, _| ()) => panic!("ended with {error}"),
            lost = silent.lost() => assert_eq!(lost.label(), "crowded"),
        }
    }

    #[tokio::test]
    async fn a_broken_listener_ends_the_loop() {
        let (script, _) = script(&[rustix::io::Errno::BADF]);
        let error = accept_all(&script, &Gate::new(&Limits::default()), &Telemetry::new(), |_, _, _| ()).await;
        assert_eq!(Fault::of(&error), Fault::Listener);
    }

    #[tokio::test]
    async fn pauses_grow_to_a_second() {
        assert_eq!(back_off(Duration::from_millis(5)).await, Duration::from_millis(10));
        assert_eq!((LONGEST_PAUSE * 2).min(LONGEST_PAUSE), LONGEST_PAUSE);
    }
}
