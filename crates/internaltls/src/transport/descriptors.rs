//! How many descriptors this process may have.
//!
//! The soft limit of many systems is 1,024, for the sake of programs that use `select`; nothing here does. So a listener
//! raises it to the hard limit when it is bound, as the Go runtime does at its start.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_is_the_hard_one() {
        raise();
        let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
        assert_eq!(current, maximum);
    }
}
