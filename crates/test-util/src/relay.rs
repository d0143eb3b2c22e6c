//! A relay between two processes that records every byte, if it is to, and that can refuse, stall, delay and cut.
use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// What the relay does with what it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Passes it on.
    Forward,
    /// Closes each new connection at once; those that are open go on.
    Refuse,
    /// Keeps connections open and passes nothing on until the mode changes.
    Stall,
    /// Passes each chunk on after this long.
    Delay(Duration),
}

/// One relay in front of one address.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: SocketAddr,
    mode: Mutex<Mode>,
    changed: Condvar,
    over: AtomicBool,
    open: Mutex<HashMap<u64, [TcpStream; 2]>>,
    next: AtomicU64,
    /// `None` where nothing is kept.
    records: Option<Mutex<Vec<Record>>>,
}

type Record = Arc<Mutex<Vec<u8>>>;

impl Relay {
    /// A relay on a free port that forwards to `target`.
    ///
    /// # Panics
    /// When the machine has no free port.
    #[must_use]
    pub fn to(target: SocketAddr) -> Self {
        Self::with(target, Some(Mutex::default()))
    }

    /// One that keeps nothing of what it passes on: for loads that last.
    ///
    /// # Panics
    /// When the machine has no free port.
    #[must_use]
    pub fn forgetful(target: SocketAddr) -> Self {
        Self::with(target, None)
    }

    fn with(target: SocketAddr, records: Option<Mutex<Vec<Record>>>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let shared = Arc::new(Shared {
            target,
            mode: Mutex::new(Mode::Forward),
            changed: Condvar::new(),
            over: AtomicBool::new(false),
            open: Mutex::default(),
            next: AtomicU64::new(0),
            records,
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accepting.accept(&listener));
        Self { address, shared }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what it does, from the next chunk on.
    pub fn set(&self, mode: Mode) {
        *lock(&self.shared.mode) = mode;
        self.shared.changed.notify_all();
    }

    /// Ends every open connection.
    pub fn cut(&self) {
        for stream in lock(&self.shared.open).values().flatten() {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// What was sent, a record for each direction of each connection; nothing where nothing is kept.
    #[must_use]
    pub fn records(&self) -> Vec<Vec<u8>> {
        self.shared
            .records
            .iter()
            .flat_map(|records| lock(records).clone())
            .collect::<Vec<_>>()
            .iter()
            .map(|record| lock(record).clone())
            .collect()
    }

    /// Whether `needle` stands in any record.
    #[must_use]
    pub fn saw(&self, needle: &[u8]) -> bool {
        self.records().iter().any(|record| record.windows(needle.len()).any(|window| window == needle))
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        self.set(Mode::Refuse);
        self.cut();
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn accept(self: &Arc<Self>, listener: &TcpListener) {
        for client in listener.incoming().map_while(Result::ok) {
            if self.over.load(Ordering::SeqCst) {
                return;
            }
            if *lock(&self.mode) != Mode::Refuse {
                let this = Arc::clone(self);
                thread::spawn(move || this.join(client));
            }
        }
    }

    fn join(self: &Arc<Self>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(self.target) else { return };
        let ends = client.try_clone().and_then(|c| Ok((c, server.try_clone()?)));
        let keep = client.try_clone().and_then(|c| Ok([c, server.try_clone()?]));
        let (Ok((client_out, server_out)), Ok(keep)) = (ends, keep) else { return };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.open).insert(number, keep);
        let this = Arc::clone(self);
        let back = thread::spawn(move || this.pump(server, client_out));
        self.pump(client, server_out);
        let _ = back.join();
        lock(&self.open).remove(&number);
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream) {
        let record = self.records.as_ref().map(|records| {
            let record = Record::default();
            lock(records).push(Arc::clone(&record));
            record
        });
        let mut chunk = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = from.read(&mut chunk) {
            self.hold();
            if let Some(record) = &record {
                lock(record).extend_from_slice(&chunk[..length]);
            }
            if to.write_all(&chunk[..length]).is_err() {
                break;
            }
        }
        let _ = (to.shutdown(Shutdown::Write), from.shutdown(Shutdown::Read));
    }

    /// Waits as the mode says.
    fn hold(&self) {
        let mode = lock(&self.mode);
        let mode = self.changed.wait_while(mode, |mode| *mode == Mode::Stall).unwrap_or_else(PoisonError::into_inner);
        if let Mode::Delay(delay) = *mode {
            drop(mode);
            thread::park_timeout(delay);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wait;

    fn echo() -> SocketAddr {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut &stream));
            }
        });
        address
    }

    fn say(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<Vec<u8>> {
        let mut answer = vec![0; text.len()];
        stream.write_all(text)?;
        stream.read_exact(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn forwards_and_records_both_ways() {
        let relay = Relay::to(echo());
        let mut stream = TcpStream::connect(relay.address()).unwrap();
        assert_eq!(say(&mut stream, b"marker").unwrap(), b"marker");
        assert_eq!(relay.records(), [b"marker", b"marker"]);
        assert!(relay.saw(b"arke") && !relay.saw(b"other"));
    }

    #[test]
    fn stalls_until_told_otherwise() {
        let relay = Relay::to(echo());
        let mut stream = TcpStream::connect(relay.address()).unwrap();
        say(&mut stream, b"before").unwrap();
        relay.set(Mode::Stall);
        stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        assert!(say(&mut stream, b"held").is_err());
        relay.set(Mode::Forward);
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut answer = [0; 4];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"held");
    }

    #[test]
    fn refuses_new_and_cuts_open() {
        let relay = Relay::to(echo());
        let mut open = TcpStream::connect(relay.address()).unwrap();
        say(&mut open, b"before").unwrap();
        relay.set(Mode::Refuse);
        say(&mut open, b"goes on").unwrap();
        let mut new = TcpStream::connect(relay.address()).unwrap();
        assert!(say(&mut new, b"refused").is_err());
        relay.cut();
        wait::until_true("the open connection ends", Duration::from_secs(5), || say(&mut open, b"x").is_err());
    }
}
