//! Text that somebody else wrote: the names in a peer's certificate, its reasons, its error messages.
//!
//! 1. It is cut where it enters, before it is stored: a peer fills neither a log nor a status page.
//! 2. Control characters are escaped, and so are the format characters that reorder or hide text: a line stays one line,
//!    and what is read is what was written.
//! 3. What is compared (a SAN with an expected name) is never cut text; what is shown always is.
use std::fmt::Write;

/// Bytes of a name: a SAN, a subject, a server name. The longest name of a node fits.
const NAME: usize = 512;
/// Bytes of a sentence: a reason, an error message.
const SENTENCE: usize = 1024;
/// Bytes of the text of an error that may be ours, with its paths and its remedy, as well as a library's.
const CAUSE: usize = 4 * 1024;

/// A name that a peer wrote, fit to be stored and shown: at most 512 bytes and an ellipsis.
#[must_use]
pub fn name(text: &str) -> String {
    cut(text, NAME)
}

/// One cause in a chain of errors, for a library's error may quote a peer: at most 4 KiB and an ellipsis.
#[must_use]
pub fn cause(text: &str) -> String {
    cut(text, CAUSE)
}

/// An error and all its causes on one line, outermost first, for a log or a status. Any of them may quote a peer: each is
/// cut, its control characters escaped.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(|error| cause(&error.to_string())).collect::<Vec<_>>().join(": ")
}

/// A sentence that a peer wrote, fit to be stored and shown: at most 1 KiB and an ellipsis.
#[must_use]
pub fn sentence(text: &str) -> String {
    cut(text, SENTENCE)
}

/// At most `most` bytes and an ellipsis where something was left out.
fn cut(text: &str, most: usize) -> String {
    let mut out = String::with_capacity(text.len().min(most));
    for c in text.chars() {
        let before = out.len();
        if misleads(c) {
            // Writing to a string does not fail.
            let _ = write!(out, "{}", c.escape_unicode());
        } else {
            out.push(c);
        }
        if out.len() > most {
            out.truncate(before);
            out.push('…');
            break;
        }
    }
    out
}

/// Control characters, and the invisible ones of Unicode that break lines, reorder text or join to nothing.
fn misleads(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cuts_and_escapes_foreign_text() {
        assert_eq!(name("proxy.mesh.internal"), "proxy.mesh.internal");
        assert_eq!(name("a\nb\x1b[31m\u{202e}c"), "a\\u{a}b\\u{1b}[31m\\u{202e}c");
        assert_eq!(name(&"x".repeat(NAME)).len(), NAME);
        let long = name(&"x".repeat(100_000));
        assert_eq!(long.len(), NAME + '…'.len_utf8());
        assert!(long.ends_with("x…"));
    }

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Outer(&'static str, #[source] std::io::Error);

    #[test]
    fn cuts_and_escapes_every_cause() {
        let inner = std::io::Error::other(format!("a\n{}", "x".repeat(CAUSE)));
        let outer = Outer("a\x1b[2J", inner);
        let told = chain(&outer);
        assert!(!told.contains(['\n', '\x1b']) && told.len() < 3 * CAUSE, "{told}");
        assert!(told.contains("a\\u{1b}[2J"), "{told}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn harness_invariant_8_foreign_text_is_bounded(text in any::<String>(), times in 1..200_usize) {
            for (out, most) in [(name(&text.repeat(times)), NAME), (sentence(&text.repeat(times)), SENTENCE), (cause(&text.repeat(times)), CAUSE)] {
                prop_assert!(out.len() <= most + '…'.len_utf8());
                prop_assert!(!out.chars().any(misleads), "{:?}", out);
            }
        }
    }
}
