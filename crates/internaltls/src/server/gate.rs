//! How many handshakes may be under way, who goes on and who gives way.
//!
//! 1. The [`Table`] decides; here its verdicts reach the tasks that do the handshakes. `accept` never waits for it.
//! 2. A [`Permit`] lives as long as the handshake, not as long as the connection.
//! 3. Whoever must end hears it from its own task, which tells the client and closes the socket: the accept loop does
//!    neither.
use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

use super::refusal::Refusal;
use super::table::{Bounds, Table, Ticket, Verdict};
use crate::config::Limits;
use crate::transport::descriptors;

/// Of the descriptors of this process, handshakes without keys may have one in so many.
const DESCRIPTORS: usize = 4;

/// The limits of one listener.
#[derive(Debug)]
pub(crate) struct Gate {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    table: Table,
    tasks: HashMap<Ticket, Arc<Notify>>,
}

impl Inner {
    fn wake(&self, tickets: impl IntoIterator<Item = Ticket>) {
        tickets.into_iter().filter_map(|ticket| self.tasks.get(&ticket)).for_each(|task| task.notify_one());
    }
}

/// The right to do one handshake; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    gate: Arc<Gate>,
    ticket: Ticket,
    task: Arc<Notify>,
}

impl Gate {
    /// A gate that lets through what `limits` say.
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        let bounds = Bounds {
            half_open: limits.half_open.min(descriptors::limit() / DESCRIPTORS).max(1),
            keys: limits.handshakes.max(1),
            keys_per_address: limits.handshakes_per_address.max(1),
            hello_time: limits.hello_timeout,
            keys_time: limits.handshake_timeout,
        };
        Arc::new(Self { inner: Mutex::new(Inner { table: Table::new(bounds), tasks: HashMap::new() }) })
    }

    /// Lets a connection in that was just accepted; at the bound another one goes.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> Permit {
        let task = Arc::new(Notify::new());
        let mut inner = self.lock();
        let (ticket, displaced) = inner.table.enter(network(address), Instant::now());
        inner.tasks.insert(ticket, Arc::clone(&task));
        inner.wake(displaced);
        Permit { gate: Arc::clone(self), ticket, task }
    }

    /// Displaces one handshake, so that its descriptor can be had.
    pub(crate) fn shed(&self) {
        let mut inner = self.lock();
        let displaced = inner.table.displace(Instant::now());
        inner.wake(displaced);
    }

    /// The peer at this address proved who it is.
    pub(crate) fn authenticated(&self, address: IpAddr) {
        self.lock().table.authenticated(network(address), Instant::now());
    }

    /// Whether new connections are hard to make now.
    pub(crate) fn is_pressed(&self) -> bool {
        self.lock().table.is_pressed(Instant::now())
    }

    /// Ends every handshake.
    pub(crate) fn close(&self) {
        let mut inner = self.lock();
        inner.table.close();
        inner.tasks.values().for_each(|task| task.notify_one());
    }

    /// No code panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// Never, unless the handshake must end: then why.
    pub(crate) async fn lost(&self) -> Refusal {
        loop {
            let (verdict, pause) = {
                let (inner, now) = (self.gate.lock(), Instant::now());
                (inner.table.verdict(self.ticket, now), inner.table.pause(self.ticket, now))
            };
            if let Some(refusal) = refused(verdict) {
                return refusal;
            }
            self.woken_or_after(pause).await;
        }
    }

    /// The ClientHello is whole: waits for its turn to compute keys.
    ///
    /// # Errors
    /// Why the handshake must end.
    pub(crate) async fn turn(&self) -> Result<(), Refusal> {
        {
            let mut inner = self.gate.lock();
            let promoted = inner.table.ready(self.ticket, Instant::now());
            inner.wake(promoted);
        }
        loop {
            let verdict = self.gate.lock().table.verdict(self.ticket, Instant::now());
            match verdict {
                Verdict::Go => return Ok(()),
                Verdict::Wait(pause) => self.woken_or_after(pause).await,
                Verdict::Displaced | Verdict::Overdue | Verdict::Closed => return refused(verdict).map_or(Ok(()), Err),
            }
        }
    }

    /// Our answer is out: from here on the client is waited for.
    pub(crate) fn answered(&self) {
        self.gate.lock().table.answered(self.ticket, Instant::now());
    }

    async fn woken_or_after(&self, pause: std::time::Duration) {
        // Either way the table is asked again.
        let _ = tokio::time::timeout(pause, self.task.notified()).await;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut inner = self.gate.lock();
        inner.tasks.remove(&self.ticket);
        let promoted = inner.table.leave(self.ticket, Instant::now());
        inner.wake(promoted);
    }
}

fn refused(verdict: Verdict) -> Option<Refusal> {
    match verdict {
        Verdict::Go | Verdict::Wait(_) => None,
        Verdict::Displaced => Some(Refusal::Crowded),
        Verdict::Overdue => Some(Refusal::Timeout),
        Verdict::Closed => Some(Refusal::Shutdown),
    }
}

/// What counts as one address: an IPv4 address, or the /64 that one IPv6 host commonly has to itself.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn gate(half_open: usize, handshakes: usize) -> Arc<Gate> {
        Gate::new(&Limits { half_open, handshakes, handshakes_per_address: handshakes, ..Limits::default() })
    }

    #[tokio::test]
    async fn invariant_8_the_displaced_hear_of_it() {
        let gate = gate(1, 1);
        let first = gate.enter([10, 0, 0, 1].into());
        assert!(first.lost().now_or_never().is_none());
        let _second = gate.enter([10, 0, 0, 1].into());
        assert!(matches!(first.lost().now_or_never(), Some(Refusal::Crowded)));
    }

    #[tokio::test]
    async fn a_slot_is_handed_on() {
        let gate = gate(4, 1);
        let (first, second) = (gate.enter([10, 0, 0, 1].into()), gate.enter([10, 0, 0, 2].into()));
        first.turn().await.unwrap();
        let mut waiting = std::pin::pin!(second.turn());
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(first);
        waiting.await.unwrap();
    }

    #[tokio::test]
    async fn closing_ends_all() {
        let gate = gate(4, 1);
        let (first, second) = (gate.enter([10, 0, 0, 1].into()), gate.enter([10, 0, 0, 2].into()));
        first.turn().await.unwrap();
        gate.close();
        assert!(matches!(first.lost().await, Refusal::Shutdown));
        assert!(matches!(second.turn().await, Err(Refusal::Shutdown)));
    }

    #[test]
    fn nothing_is_kept_of_what_is_over() {
        let gate = gate(4, 1);
        drop(gate.enter([10, 0, 0, 1].into()));
        assert!(gate.lock().tasks.is_empty());
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
