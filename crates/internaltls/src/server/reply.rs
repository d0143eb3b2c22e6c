//! What a reply may carry beside its messages: the one place that all replies of mesh and edge pass.
//!
//! 1. Headers and trailers travel in header blocks, and a block that is too large for the receiver breaks the whole connection
//!    (h2 gives up at four times what it takes): one reply would take all calls of that connection with it. So a block is
//!    bounded here, well below what any gRPC client takes (8 KiB is the least that is recommended).
//! 2. A status message is cut to [`TEXT`] bytes as percent-encoded, between two characters, and ends in `...` then. Details
//!    of a status that are larger than that are left out: they repeat and refine, and half of them is not readable.
//! 3. What a service itself put into a block is never changed. If it is too large, the call fails, with RESOURCE_EXHAUSTED or,
//!    where no gRPC is spoken, with 500.
//! 4. A block that is small, as nearly all are, is added up and nothing else.
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use tonic::body::Body;
use tonic::{Code, Status};

/// Bytes of a status message, percent-encoded, and of its details, encoded as well.
pub(super) const TEXT: usize = 1_024;
/// Bytes of a header block, as RFC 9113 section 6.5.2 counts them.
pub(super) const BLOCK: usize = 8 * 1_024;
/// What the section adds for each field.
const FIELD: usize = 32;
const CUT: &str = "...";

const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";
const DETAILS: &str = "grpc-status-details-bin";

/// The size of a header block, as RFC 9113 section 6.5.2 counts it.
pub(crate) fn block_size(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD).sum()
}

/// Bounds the head of a response, which bears the status where there are no trailers.
pub(super) fn bound_head(mut response: Response<Body>) -> Response<Body> {
    match bound(response.headers_mut()) {
        Ok(()) => response,
        Err(size) if is_grpc(response.headers()) => too_large(size).into_http(),
        Err(_) => {
            tracing::warn!("an answer's headers are too large: it is replaced by an error");
            let mut refused = Response::new(Body::empty());
            *refused.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            refused
        }
    }
}

/// Bounds trailers.
pub(super) fn bound_trailers(trailers: &mut HeaderMap) {
    if let Err(size) = bound(trailers) {
        trailers.clear();
        // The status is of our own making, so its message fits a header.
        let _ = too_large(size).add_header(trailers);
    }
}

/// Cuts what may be cut.
///
/// # Errors
/// The size of what is left, if it is still too large.
fn bound(fields: &mut HeaderMap) -> Result<(), usize> {
    if block_size(fields) <= TEXT {
        return Ok(());
    }
    if fields.contains_key(STATUS) {
        if let Some(message) = fields.get_mut(MESSAGE) {
            cut(message);
        }
        // Of a repeated field the first one counts, and that was cut.
        if fields.get_all(MESSAGE).iter().count() > 1
            && let Some(first) = fields.remove(MESSAGE)
        {
            fields.insert(MESSAGE, first);
        }
        if fields.get_all(DETAILS).iter().map(HeaderValue::len).sum::<usize>() > TEXT {
            fields.remove(DETAILS);
        }
    }
    match block_size(fields) {
        size if size > BLOCK => Err(size),
        _ => Ok(()),
    }
}

fn too_large(size: usize) -> Status {
    Status::new(
        Code::ResourceExhausted,
        format!("the answer's metadata has {size} bytes, and {BLOCK} at most can be sent: let the service send less"),
    )
}

fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

fn cut(message: &mut HeaderValue) {
    if message.len() <= TEXT {
        return;
    }
    let bytes = message.as_bytes();
    let kept = [&bytes[..boundary(bytes, TEXT - CUT.len())], CUT.as_bytes()].concat();
    // What was a header's value is one without its end.
    *message = HeaderValue::from_bytes(&kept).unwrap_or(HeaderValue::from_static(CUT));
}

/// The last boundary between two characters of percent-encoded UTF-8 at or before `at`.
fn boundary(bytes: &[u8], at: usize) -> usize {
    // Not within an escape.
    let escape = (at.saturating_sub(2)..at).find(|start| bytes[*start] == b'%');
    let mut end = escape.filter(|start| start + 3 > at).unwrap_or(at);
    // Not before a byte that continues a character: at most three of them do.
    for _ in 0..3 {
        if !continues(&bytes[end..]) {
            break;
        }
        let width = if end >= 3 && bytes[end - 3] == b'%' { 3 } else { 1 };
        end = end.saturating_sub(width);
    }
    end
}

/// Whether the next byte of the text, escaped or not, is 10xxxxxx.
fn continues(rest: &[u8]) -> bool {
    match rest {
        [b'%', high, ..] => matches!(high, b'8' | b'9' | b'A' | b'B' | b'a' | b'b'),
        [byte, ..] => byte & 0xc0 == 0x80,
        [] => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trailers_of(status: &Status) -> HeaderMap {
        let mut trailers = HeaderMap::new();
        status.add_header(&mut trailers).unwrap();
        trailers
    }

    fn message(fields: &HeaderMap) -> String {
        Status::from_header_map(fields).unwrap().message().to_owned()
    }

    #[test]
    fn small_replies_are_untouched() {
        let mut trailers =
            trailers_of(&Status::with_details(Code::NotFound, "no such collection", vec![7; 200].into()));
        let before = trailers.clone();
        bound_trailers(&mut trailers);
        assert_eq!(trailers, before);
    }

    #[test]
    fn a_long_message_is_cut_on_a_character() {
        for letter in ["a", "é", "€", "😀", "%", " "] {
            for shift in 0..12 {
                let text = format!("{}{}", "x".repeat(shift), letter.repeat(200_000));
                let mut trailers = trailers_of(&Status::not_found(text.clone()));
                bound_trailers(&mut trailers);
                let kept = message(&trailers);
                let kept = kept.strip_suffix(CUT).unwrap();
                assert!(text.starts_with(kept) && kept.len() > shift, "{letter} {shift}: {kept}");
                assert!(trailers[MESSAGE].len() <= TEXT && trailers[MESSAGE].len() > TEXT - 16, "{letter} {shift}");
            }
        }
    }

    #[test]
    fn large_details_go_before_the_message() {
        let status = Status::with_details(Code::NotFound, "no such collection", vec![7; 2_000].into());
        let mut trailers = trailers_of(&status);
        bound_trailers(&mut trailers);
        assert!(!trailers.contains_key(DETAILS));
        assert_eq!((message(&trailers).as_str(), &trailers[STATUS]), ("no such collection", &HeaderValue::from(5)));
    }

    #[test]
    fn other_trailers_that_are_too_large_fail_the_call() {
        let mut trailers = trailers_of(&Status::ok(""));
        trailers.insert("x-notes", "n".repeat(BLOCK).parse().unwrap());
        bound_trailers(&mut trailers);
        assert_eq!(Status::from_header_map(&trailers).unwrap().code(), Code::ResourceExhausted);
        assert!(!trailers.contains_key("x-notes"));
    }

    #[test]
    fn a_rest_answer_keeps_its_headers_or_fails() {
        let of = |size: usize| {
            let response = Response::builder().header("x-notes", "n".repeat(size)).body(Body::empty()).unwrap();
            bound_head(response).status()
        };
        assert_eq!((of(4_000), of(BLOCK)), (StatusCode::OK, StatusCode::INTERNAL_SERVER_ERROR));
    }

    fn fields() -> impl Strategy<Value = HeaderMap> {
        let status = prop::option::of((0..17_i32, "\\PC{0,3000}", prop::collection::vec(any::<u8>(), 0..3_000)));
        let other = prop::collection::vec(("x-[a-z]{1,20}", "[ -~]{0,4000}"), 0..4);
        (status, other).prop_map(|(status, other)| {
            let mut fields = HeaderMap::new();
            if let Some((code, text, details)) = status {
                Status::with_details(code.into(), text, details.into()).add_header(&mut fields).unwrap();
            }
            for (name, value) in other {
                let name: http::HeaderName = name.parse().unwrap();
                fields.append(name, value.parse().unwrap());
            }
            fields
        })
    }

    proptest! {
        /// Whatever a service answers: the block is bounded, the code stays unless the block was too large, and the message is
        /// readable and the beginning of what it was.
        #[test]
        fn invariant_8_every_reply_is_bounded(before in fields()) {
            let mut after = before.clone();
            bound_trailers(&mut after);
            prop_assert!(block_size(&after) <= BLOCK);
            if let (Some(was), Some(is)) = (Status::from_header_map(&before), Status::from_header_map(&after)) {
                let replaced = is.message().starts_with("the answer's metadata has ");
                prop_assert_eq!(is.code(), if replaced { Code::ResourceExhausted } else { was.code() });
                if !replaced && is.message() != was.message() {
                    let kept = is.message().strip_suffix(CUT).unwrap();
                    prop_assert!(was.message().starts_with(kept));
                }
            }
            let mut again = after.clone();
            bound_trailers(&mut again);
            prop_assert_eq!(again, after);
        }

        /// Bytes that no gRPC library would write are cut as well, and nothing panics.
        #[test]
        fn any_value_can_be_cut(value in prop::collection::vec(0x20..=0xff_u8, 1_000..1_100)) {
            let Ok(mut value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
            cut(&mut value);
            prop_assert!(value.len() <= TEXT);
        }
    }
}
