//! The `grpc-timeout` header: how long the caller will wait.
use std::time::Duration;

use http::HeaderMap;

const HEADER: &str = "grpc-timeout";
const MOST_DIGITS: usize = 8;

/// The caller's time-out; `None` when it names none or none that the gRPC specification knows.
pub(crate) fn timeout(headers: &HeaderMap) -> Option<Duration> {
    parse(headers.get(HEADER)?.to_str().ok()?)
}

/// One to eight digits and a unit.
fn parse(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let digits = text.strip_suffix(unit)?;
    if digits.len() > MOST_DIGITS || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        'H' => Some(Duration::from_secs(amount * 3_600)),
        'M' => Some(Duration::from_secs(amount * 60)),
        'S' => Some(Duration::from_secs(amount)),
        'm' => Some(Duration::from_millis(amount)),
        'u' => Some(Duration::from_micros(amount)),
        'n' => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reads_every_unit() {
        let seconds = Duration::from_secs;
        assert_eq!(parse("2H"), Some(seconds(7_200)));
        assert_eq!(parse("3M"), Some(seconds(180)));
        assert_eq!(parse("4S"), Some(seconds(4)));
        assert_eq!(parse("5m"), Some(Duration::from_millis(5)));
        assert_eq!(parse("6u"), Some(Duration::from_micros(6)));
        assert_eq!(parse("7n"), Some(Duration::from_nanos(7)));
        assert_eq!(parse("99999999H"), Some(seconds(99_999_999 * 3_600)));
    }

    #[test]
    fn ignores_what_is_no_timeout() {
        for text in ["", "S", "12", "1s", "-1S", "+1S", "123456789S", "1.5S", "1 S", "é"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,12}") {
            let _ = parse(&text);
        }
    }
}
