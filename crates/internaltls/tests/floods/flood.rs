//! The attacker.
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::bench::until;

/// A fatal alert, `internal_error`.
const TURNED_AWAY: [u8; 7] = [21, 3, 3, 0, 2, 2, 80];

/// What a connection of the attacker does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Attack {
    /// No byte.
    Silent,
    /// The beginning of a ClientHello.
    Partial,
    /// The same, and then a byte a second.
    Trickle,
    /// A whole ClientHello, and no answer to what comes back.
    Hello,
    /// What is no TLS.
    Garbage,
}

impl Attack {
    pub(crate) const ALL: [Self; 5] = [Self::Hello, Self::Silent, Self::Partial, Self::Trickle, Self::Garbage];
}

/// What became of an attack.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Told {
    /// Connections that were opened.
    pub(crate) opened: usize,
    /// Those that heard an alert before.
    pub(crate) alerts: usize,
}

#[derive(Debug, Default)]
struct Counts {
    opened: AtomicUsize,
    alerts: AtomicUsize,
    stop: AtomicBool,
}

impl Counts {
    fn told(&self) -> Told {
        let now = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        Told { opened: now(&self.opened), alerts: now(&self.alerts) }
    }
}

/// An attack under way.
pub(crate) struct Flood {
    count: usize,
    counts: Arc<Counts>,
    thread: JoinHandle<()>,
}

/// One connection of it, again and again.
struct Bot {
    attack: Attack,
    from: Ipv4Addr,
    to: SocketAddr,
    hello: Arc<[u8]>,
    pause: Duration,
    counts: Arc<Counts>,
}

impl Flood {
    /// `hello` is a whole ClientHello, `again` how many are opened again each second.
    pub(crate) fn start(
        attack: Attack,
        to: SocketAddr,
        hello: Vec<u8>,
        count: usize,
        addresses: u8,
        again: u32,
    ) -> Self {
        let counts = Arc::new(Counts::default());
        // Spread, so that those who were closed at once do not come again at once.
        let pause = move |nth: usize| {
            2 * Duration::from_secs(count as u64) / again * (nth * 7_919 % count) as u32 / count as u32
        };
        let bot = {
            let (hello, counts) = (Arc::<[u8]>::from(hello), Arc::clone(&counts));
            move |nth: usize| {
                let last = u8::try_from(nth % usize::from(addresses)).unwrap() + 1;
                let from = Ipv4Addr::new(127, 0, 0, last);
                Bot { attack, from, to, hello: Arc::clone(&hello), pause: pause(nth), counts: Arc::clone(&counts) }
            }
        };
        let stop = Arc::clone(&counts);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                (0..count).for_each(|nth| drop(tokio::spawn(bot(nth).run())));
                while !stop.stop.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
            });
        });
        Self { count, counts, thread }
    }

    /// Waits until it was opened as a whole.
    pub(crate) async fn is_up(&self) {
        until("the flood is up", async || self.counts.told(), |told| told.opened >= self.count).await;
    }

    /// Closes all of it.
    pub(crate) fn stop(self) -> Told {
        self.counts.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.counts.told()
    }
}

impl Bot {
    async fn run(self) {
        loop {
            if self.once().await.is_err() {
                // Out of ports, or reset: what counts is how many come about.
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            tokio::time::sleep(self.pause).await;
        }
    }

    async fn once(&self) -> std::io::Result<()> {
        let socket = TcpSocket::new_v4()?;
        socket.bind((self.from, 0).into())?;
        let mut stream = socket.connect(self.to).await?;
        self.counts.opened.fetch_add(1, Ordering::Relaxed);
        let heard = self.attack(&mut stream).await;
        if heard?.ends_with(&TURNED_AWAY) {
            self.counts.alerts.fetch_add(1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Goes on until the other side closes. What was heard.
    async fn attack(&self, stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
        let begun = &self.hello[..60];
        match self.attack {
            Attack::Silent => {}
            Attack::Partial | Attack::Trickle => stream.write_all(begun).await?,
            Attack::Hello => stream.write_all(&self.hello).await?,
            Attack::Garbage => stream.write_all(&[0xa5; 600]).await?,
        }
        let mut heard = Vec::new();
        if self.attack == Attack::Trickle {
            for byte in &self.hello[60..self.hello.len() - 1] {
                let read = tokio::time::timeout(Duration::from_secs(1), stream.read_buf(&mut heard)).await;
                match read {
                    Ok(Ok(0)) => return Ok(heard),
                    Ok(read) => drop(read?),
                    Err(_) => stream.write_all(&[*byte]).await?,
                }
            }
        }
        stream.read_to_end(&mut heard).await?;
        Ok(heard)
    }
}
