//! Durations as an operator writes them: `20s`, `15m`, `12h`, `90d`.
use std::time::Duration;

/// Reads one number with one unit.
///
/// # Errors
/// A sentence that says what is expected, when the text is not such a duration or is zero.
pub fn parse(text: &str) -> Result<Duration, String> {
    let expected =
        || format!("`{text}` is not a duration above zero: write a number and a unit, such as 20s, 15m, 12h or 90d");
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(expected)?;
    let (number, unit) = text.split_at(split);
    let number: u64 = number.parse().map_err(|_| expected())?;
    let seconds = number.checked_mul(seconds_of(unit).ok_or_else(expected)?).ok_or_else(expected)?;
    if seconds == 0 { Err(expected()) } else { Ok(Duration::from_secs(seconds)) }
}

/// `days` as a duration.
#[must_use]
pub fn days(days: u32) -> Duration {
    Duration::from_secs(u64::from(days) * 86_400)
}

fn seconds_of(unit: &str) -> Option<u64> {
    match unit {
        "s" => Some(1),
        "m" => Some(60),
        "h" => Some(3_600),
        "d" => Some(86_400),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_each_unit() {
        let read: Vec<_> = ["20s", "15m", "12h", "90d"].map(|text| parse(text).map(|d| d.as_secs())).into();
        assert_eq!(read, [Ok(20), Ok(900), Ok(43_200), Ok(7_776_000)]);
    }

    #[test]
    fn refuses_what_is_no_duration() {
        for text in ["", "20", "s", "0s", "-1s", "1w", "1.5h", "99999999999999999999s", "18446744073709551615d"] {
            assert!(parse(text).is_err_and(|e| e.contains("20s")), "{text}");
        }
    }
}
