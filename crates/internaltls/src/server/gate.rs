//! How many handshakes may be under way: in all, and from one address.
//!
//! 1. A slot of the whole is taken before `accept`, so that at the limit connections wait in the kernel's backlog and
//!    cost us nothing.
//! 2. An address over its share is refused at once: it must not hold up the others.
//! 3. A permit lives as long as the handshake, not as long as the connection.
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Limits;

/// The limits of one listener.
#[derive(Debug)]
pub(crate) struct Gate {
    total: Arc<Semaphore>,
    share: usize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
}

/// One of the slots of the whole.
#[derive(Debug)]
pub(crate) struct Slot {
    _slot: OwnedSemaphorePermit,
}

/// The right to do one handshake; given back when dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    gate: Arc<Gate>,
    address: IpAddr,
    _slot: Slot,
}

impl Gate {
    /// A gate that lets through what `limits` say.
    pub(crate) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            total: Arc::new(Semaphore::new(limits.handshakes.clamp(1, Semaphore::MAX_PERMITS))),
            share: limits.handshakes_per_address.max(1),
            by_address: Mutex::default(),
        })
    }

    /// Waits until fewer handshakes are under way than the limit.
    pub(crate) async fn slot(&self) -> Slot {
        let permit = Arc::clone(&self.total).acquire_owned().await;
        Slot { _slot: permit.expect("the semaphore lives in the gate and is never closed") }
    }

    /// Uses a slot for a handshake with `address`; `None` when it has its share already.
    pub(crate) fn admit(self: &Arc<Self>, slot: Slot, address: IpAddr) -> Option<Permit> {
        let address = network(address);
        let mut by_address = self.lock();
        let count = by_address.entry(address).or_default();
        if *count >= self.share {
            return None;
        }
        *count += 1;
        Some(Permit { gate: Arc::clone(self), address, _slot: slot })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.by_address.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.gate.lock().entry(self.address) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
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
    use super::*;
    use futures_util::FutureExt;

    fn gate(handshakes: usize, handshakes_per_address: usize) -> Arc<Gate> {
        Gate::new(&Limits { handshakes, handshakes_per_address, ..Limits::default() })
    }

    fn now(gate: &Gate) -> Option<Slot> {
        gate.slot().now_or_never()
    }

    #[test]
    fn invariant_8_one_address_cannot_take_all() {
        let gate = gate(3, 2);
        let [a, b]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let first = gate.admit(now(&gate).unwrap(), a);
        let _second = gate.admit(now(&gate).unwrap(), a).unwrap();
        assert!(gate.admit(now(&gate).unwrap(), a).is_none());
        let other = gate.admit(now(&gate).unwrap(), b);
        assert!(other.is_some() && now(&gate).is_none());
        drop(first);
        assert!(gate.admit(now(&gate).unwrap(), a).is_some());
    }

    #[test]
    fn addresses_are_forgotten_when_done() {
        let gate = gate(3, 2);
        drop(gate.admit(now(&gate).unwrap(), [10, 0, 0, 1].into()));
        assert!(gate.lock().is_empty());
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let of = |text: &str| network(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:10.0.0.1"), of("10.0.0.1"));
    }
}
