//! Peers whose connection we ended for a successor, until that comes.
//!
//! 1. A rotation takes the connection of a peer that did nothing, and until it dials again it is not connected. Who asks at that
//!    moment whom a candidate would cut off must not be told "nobody": lists and a bundle that change together make two
//!    generations, and the first of them would silence every peer against the second.
//! 2. So what such a peer showed is remembered for [`AWAITED`], for as many as [`MOST`]. A peer that does not come back by
//!    then has gone.
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustls::pki_types::CertificateDer;

use super::facts::ConnectionFacts;

/// How long a peer has to dial again: some times what a call in a cluster at work takes to come.
const AWAITED: Duration = Duration::from_secs(10);
/// How many are remembered; more than a mesh has nodes.
const MOST: usize = 1024;

/// What a peer showed on a connection.
#[derive(Debug, Clone)]
pub(crate) struct Shown {
    pub(crate) facts: Arc<ConnectionFacts>,
    /// Leaf first.
    pub(crate) chain: Arc<[CertificateDer<'static>]>,
}

/// The peers that are awaited, oldest first.
#[derive(Debug, Default)]
pub(super) struct Awaited(Mutex<VecDeque<(Instant, Shown)>>);

impl Awaited {
    pub(super) fn add(&self, shown: Shown, now: Instant) {
        let mut awaited = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        awaited.retain(|(since, _)| now.saturating_duration_since(*since) < AWAITED);
        if awaited.len() == MOST {
            awaited.pop_front();
        }
        awaited.push_back((now, shown));
    }

    pub(super) fn list(&self, now: Instant) -> Vec<Shown> {
        let awaited = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counts = |(since, _): &&(Instant, Shown)| now.saturating_duration_since(*since) < AWAITED;
        awaited.iter().filter(counts).map(|(_, shown)| shown.clone()).collect()
    }
}
