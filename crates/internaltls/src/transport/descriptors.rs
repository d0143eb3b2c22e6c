//! How many descriptors this process may have.
//!
//! The soft limit of many systems is 1,024, for the sake of programs that use `select`; nothing here does. So a listener
//! raises it to the hard limit when it is bound, as the Go runtime does at its start.
//!
//! A part of them is reserved: accepted sockets never take it, so that whatever peers do, the process can still open its
//! certificates and lists, and dial. The kernel gives the lowest free number, so a number within the reserve means that
//! all below it are taken.
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Once;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, once a process.
pub(crate) fn raise() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        if current == maximum {
            return;
        }
        match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
            Ok(()) => tracing::debug!(?current, ?maximum, "raised the limit of open files"),
            Err(error) => tracing::warn!(?current, ?maximum, %error, "cannot raise the limit of open files"),
        }
    });
}

/// The soft limit now.
pub(crate) fn limit() -> usize {
    getrlimit(Resource::Nofile).current.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX)
}

/// The most that is reserved.
const RESERVE: usize = 64;
/// Of a small limit, this part.
const RESERVED_PART: usize = 4;

/// Whether an accepted socket took a descriptor that is reserved for files and dials.
pub(crate) fn is_reserved(socket: &impl AsRawFd) -> bool {
    within_reserve(socket.as_raw_fd(), limit())
}

fn within_reserve(number: RawFd, limit: usize) -> bool {
    let first = limit - RESERVE.min(limit / RESERVED_PART);
    usize::try_from(number).is_ok_and(|number| number >= first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reserve_is_the_top_of_the_table() {
        for (limit, first) in [(1_024, 960), (256, 192), (40, 30), (usize::MAX, usize::MAX - 64)] {
            assert!(RawFd::try_from(first).is_err() || within_reserve(RawFd::try_from(first).unwrap(), limit));
            let below = RawFd::try_from(first - 1).unwrap_or(RawFd::MAX);
            assert!(!within_reserve(below, limit), "{below} of {limit}");
        }
    }

    #[test]
    fn the_soft_limit_is_the_hard_one() {
        raise();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
