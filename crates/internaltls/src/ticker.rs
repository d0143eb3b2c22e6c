//! Once a second: what the wall clock alone decides.
//!
//! 1. The clock is asked anew each time. A timer set at the handshake would not notice that the clock was set, or that the
//!    machine slept.
//! 2. One task a mesh or an edge, however many connections there are. It holds the material weakly and ends with it.
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

use crate::clock::Clock;
use crate::connections::Registry;
use crate::material::Store;

const TICK: Duration = Duration::from_secs(1);

/// Begins to tick, for as long as `store` lives. `grace` is the time that a drain has. Must be called in a tokio runtime.
pub(crate) fn start(store: &Arc<Store>, registry: Registry, clock: Arc<dyn Clock>, grace: Duration) {
    tokio::spawn(run(Arc::downgrade(store), registry, clock, grace));
}

async fn run(store: Weak<Store>, registry: Registry, clock: Arc<dyn Clock>, grace: Duration) {
    let mut ticks = interval(TICK);
    // A tick that is late is not made up for.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(store) = store.upgrade() else { return };
        store.look_at_the_clock();
        store.retire_keys(&registry);
        registry.expire(clock.now(), grace);
    }
}
