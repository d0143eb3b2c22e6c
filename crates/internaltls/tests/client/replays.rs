//! A call is sent again if the peer cannot have looked at it, and never otherwise.
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use internaltls::{Channel, ChannelError, Endpoint};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Request, Status};

use super::bench::{Text, call, plaintext, send};
use super::scripted::{HEADERS, Raw, listen, serve};

/// The first connection goes to the script, all others are served. What was served is counted.
struct Server {
    address: SocketAddr,
    served: Arc<AtomicUsize>,
    _accepting: AbortOnDropHandle<()>,
}

impl Server {
    async fn first<S, F>(script: S) -> Self
    where
        S: FnOnce(Raw) -> F + Send + 'static,
        F: Future<Output = ()> + Send,
    {
        let (listener, served) = (listen().await, Arc::new(AtomicUsize::new(0)));
        let (address, counter) = (listener.local_addr().unwrap(), Arc::clone(&served));
        let accepting = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move { script(Raw::begin(stream).await).await });
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(stream, usize::MAX, Arc::clone(&counter)));
            }
        });
        Self { address, served, _accepting: AbortOnDropHandle::new(accepting) }
    }

    async fn channel(&self) -> Channel {
        plaintext().await.channel("data-node".parse().unwrap(), Endpoint::from(self.address))
    }

    fn served(&self) -> usize {
        self.served.load(Ordering::Relaxed)
    }
}

fn of_size(size: usize) -> Request<Text> {
    Request::new(Text { text: String::new(), ballast: vec![7; size] })
}

fn error_of(status: &Status) -> &ChannelError {
    std::error::Error::source(status).unwrap().downcast_ref().unwrap()
}

#[tokio::test]
async fn go_away_below_the_call_sends_it_again() {
    let server = Server::first(|mut raw| async move {
        raw.read_request().await;
        raw.go_away(0).await;
        raw.until_closed().await;
    });
    let server = server.await;
    let channel = server.channel().await;
    send(&channel, of_size(10_000)).await.unwrap();
    assert_eq!(server.served(), 1);
}

#[tokio::test]
async fn refused_streams_are_sent_again() {
    let server = Server::first(|mut raw| async move {
        let stream = raw.read_request().await;
        raw.reset(stream, h2::Reason::REFUSED_STREAM).await;
        raw.go_away(stream).await;
        raw.until_closed().await;
    });
    let server = server.await;
    let channel = server.channel().await;
    send(&channel, of_size(10_000)).await.unwrap();
    assert_eq!(server.served(), 1);
}

#[tokio::test]
async fn lost_connections_are_never_sent_again() {
    let server = Server::first(|mut raw| async move {
        raw.read_request().await;
    });
    let server = server.await;
    let channel = server.channel().await;
    let status = call(&channel, "").await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(matches!(error_of(&status), ChannelError::Broken { .. }), "{status:?}");
    assert!(status.message().contains(&format!("data-node at {}", server.address)), "{status}");
    assert_eq!(server.served(), 0);
    call(&channel, "").await.unwrap();
    assert_eq!(server.served(), 1, "the channel has dialled anew");
}

#[tokio::test]
async fn calls_at_or_below_a_go_away_that_then_break_are_not_sent_again() {
    let server = Server::first(|mut raw| async move {
        let stream = raw.read_request().await;
        raw.go_away(stream).await;
    });
    let server = server.await;
    let status = call(&server.channel().await, "").await.unwrap_err();
    assert!(matches!(error_of(&status), ChannelError::Broken { .. }), "{status:?}");
    assert_eq!(server.served(), 0);
}

#[tokio::test]
async fn resets_for_other_reasons_are_not_sent_again() {
    for (reason, code) in [(h2::Reason::CANCEL, Code::Cancelled), (h2::Reason::INTERNAL_ERROR, Code::Internal)] {
        let server = Server::first(move |mut raw| async move {
            let stream = raw.read_request().await;
            raw.reset(stream, reason).await;
            raw.until_closed().await;
        });
        let server = server.await;
        let status = call(&server.channel().await, "").await.unwrap_err();
        assert_eq!(status.code(), code, "{status:?}");
        assert_eq!(server.served(), 0);
    }
}

#[tokio::test]
async fn large_calls_turned_away_half_sent_are_sent_again() {
    let server = half_read().await;
    send(&server.channel().await, of_size(1 << 20)).await.unwrap();
    assert_eq!(server.served(), 1);
}

#[tokio::test]
async fn huge_calls_turned_away_half_sent_are_not_sent_again() {
    let server = half_read().await;
    let channel = server.channel().await;
    let status = send(&channel, of_size(5 << 20)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(matches!(error_of(&status), ChannelError::TurnedAway { .. }), "{status:?}");
    assert_eq!(server.served(), 0);
}

/// Turns its first call away when it has read a part of it.
async fn half_read() -> Server {
    let first = Server::first(|mut raw| async move {
        // The client's first window is 65,535 bytes: by the head and one frame, the whole message was taken from the call.
        raw.read_until(|frame| frame.kind == HEADERS).await;
        let mut frames = 0;
        while frames < 3 {
            raw.read_until(|frame| frame.kind == super::scripted::DATA).await;
            frames += 1;
        }
        raw.go_away(0).await;
        raw.until_closed().await;
    });
    first.await
}

#[tokio::test]
async fn peers_that_turn_everything_away_are_not_asked_for_ever() {
    let listener = listen().await;
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let accepting = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let counter = Arc::clone(&counter);
            tokio::spawn(async move {
                let mut raw = Raw::begin(stream).await;
                raw.read_request().await;
                counter.fetch_add(1, Ordering::Relaxed);
                raw.go_away(0).await;
                raw.until_closed().await;
            });
        }
    });
    let _accepting = AbortOnDropHandle::new(accepting);
    let channel = plaintext().await.channel("data-node".parse().unwrap(), Endpoint::from(address));
    let status = call(&channel, "").await.unwrap_err();
    assert!(matches!(error_of(&status), ChannelError::TurnedAway { .. }), "{status:?}");
    assert_eq!(asked.load(Ordering::Relaxed), 8);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_go_aways_loses_no_call() {
    const CALLS: usize = 600;
    let (listener, served) = (listen().await, Arc::new(AtomicUsize::new(0)));
    let (address, counter) = (listener.local_addr().unwrap(), Arc::clone(&served));
    let connections = Arc::new(AtomicUsize::new(0));
    let dialled = Arc::clone(&connections);
    let accepting = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            dialled.fetch_add(1, Ordering::Relaxed);
            tokio::spawn(serve(stream, 3, Arc::clone(&counter)));
        }
    });
    let _accepting = AbortOnDropHandle::new(accepting);
    let channel = plaintext().await.channel("data-node".parse().unwrap(), Endpoint::from(address));
    let mut callers = JoinSet::new();
    for _ in 0..12 {
        let channel = channel.clone();
        callers.spawn(async move {
            for _ in 0..CALLS / 12 {
                call(&channel, "").await?;
            }
            Ok::<_, Status>(())
        });
    }
    while let Some(ended) = callers.join_next().await {
        ended.unwrap().unwrap();
    }
    assert_eq!(served.load(Ordering::Relaxed), CALLS, "each call was served once");
    assert!(connections.load(Ordering::Relaxed) > 10, "no storm");
}
