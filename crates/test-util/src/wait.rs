//! Waiting for a condition, never for a time.
use std::fmt::Display;
use std::time::{Duration, Instant};

/// How long between two looks.
const PACE: Duration = Duration::from_millis(20);

/// Looks until `look` answers `Ok`, and gives what it answered.
///
/// # Panics
/// When `within` has passed; the message tells `what` was waited for and the last state seen.
pub fn until<T, S: Display>(what: &str, within: Duration, mut look: impl FnMut() -> Result<T, S>) -> T {
    let start = Instant::now();
    loop {
        match look() {
            Ok(seen) => return seen,
            Err(state) if start.elapsed() > within => panic!("{what}: not within {within:?}; last seen: {state}"),
            Err(_) => pause(),
        }
    }
}

/// [`until`] for a yes or no.
///
/// # Panics
/// As [`until`].
pub fn until_true(what: &str, within: Duration, mut look: impl FnMut() -> bool) {
    until(what, within, || if look() { Ok(()) } else { Err("not yet") });
}

/// Looks for all of `during`, and wants `look` to answer `Ok` each time: for what must not happen.
///
/// # Panics
/// When `look` answers `Err`; the message tells what it said.
pub fn throughout<S: Display>(what: &str, during: Duration, mut look: impl FnMut() -> Result<(), S>) {
    let start = Instant::now();
    while start.elapsed() < during {
        if let Err(state) = look() {
            panic!("{what}: broken after {:?}: {state}", start.elapsed());
        }
        pause();
    }
}

/// The pace between two looks. A parked thread may wake early, which costs a look and nothing else.
fn pause() {
    std::thread::park_timeout(PACE);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_what_was_seen() {
        let mut looks = 0;
        let seen = until("three looks", Duration::from_secs(5), || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err(looks) }
        });
        assert_eq!(seen, 3);
    }

    #[test]
    #[should_panic(expected = "a miracle: not within 10ms; last seen: nothing yet")]
    fn tells_the_last_state() {
        until::<(), _>("a miracle", Duration::from_millis(10), || Err("nothing yet"));
    }
}
