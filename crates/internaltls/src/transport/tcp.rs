//! TCP sockets and their options.
//!
//! 1. `TCP_NODELAY` is on: a call's last frame must not wait for an acknowledgement.
//! 2. `TCP_USER_TIMEOUT` bounds how long sent bytes may stay unacknowledged, so that a peer whose host vanished in the
//!    middle of an answer is found without HTTP/2's help.
//! 3. Keepalive probes find a host that vanished while nothing was being sent.
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::config::Limits;

/// Connections that the kernel may hold for us until the accept loop has its next turn, and as many SYNs. The accept loop
/// waits for nothing, so this only has to span a stall of its thread; beyond it the kernel drops SYNs, and a client tries
/// again a second later. `net.core.somaxconn` (4,096 since Linux 5.4) bounds it.
///
/// `TCP_DEFER_ACCEPT` was tried in thought and left out: silent connections would lie in the queue of SYNs instead, which
/// is as long as this, and push out those that mean it.
const BACKLOG: u32 = 4_096;

/// Binds and listens. An address in the wait of an earlier process can be taken again.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Dials one address, without a time-out of its own.
pub(crate) async fn dial(address: SocketAddr, limits: &Limits) -> io::Result<TcpStream> {
    let stream = TcpStream::connect(address).await?;
    tune(&stream, limits)?;
    Ok(stream)
}

/// Sets the options on a connected socket, dialled or accepted.
pub(crate) fn tune(stream: &TcpStream, limits: &Limits) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&keepalive(limits))?;
    set_user_timeout(&socket, limits.keepalive_timeout)
}

fn keepalive(limits: &Limits) -> TcpKeepalive {
    // The kernel counts whole seconds, and refuses zero and more than a signed 16-bit number of them.
    let in_range = |d: Duration| d.clamp(Duration::from_secs(1), Duration::from_secs(32_767));
    TcpKeepalive::new()
        .with_time(in_range(limits.keepalive_interval))
        .with_interval(in_range(limits.keepalive_timeout / 3))
        .with_retries(3)
}

#[cfg(target_os = "linux")]
fn set_user_timeout(socket: &SockRef<'_>, timeout: Duration) -> io::Result<()> {
    socket.set_tcp_user_timeout(Some(timeout))
}

#[cfg(not(target_os = "linux"))]
fn set_user_timeout(_: &SockRef<'_>, _: Duration) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sockets_bear_their_options() {
        let listener = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let limits = Limits { keepalive_timeout: Duration::from_secs(7), ..Limits::default() };
        let dialled = dial(listener.local_addr().unwrap(), &limits).await.unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        tune(&accepted, &limits).unwrap();
        for stream in [dialled, accepted] {
            let socket = SockRef::from(&stream);
            assert!(stream.nodelay().unwrap());
            assert!(socket.keepalive().unwrap());
            #[cfg(target_os = "linux")]
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(7)));
        }
    }

    #[tokio::test]
    async fn a_port_in_use_is_an_error() {
        let first = listen(([127, 0, 0, 1], 0).into()).unwrap();
        let second = listen(first.local_addr().unwrap()).unwrap_err();
        assert_eq!(second.kind(), io::ErrorKind::AddrInUse);
    }
}
