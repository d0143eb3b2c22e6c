//! A request body that can be sent again, as long as it is small or no byte of it was taken.
//!
//! 1. hyper takes a body by value and drops it when a call fails. So the body lives on a [`Tape`] that the call holds
//!    too, and what hyper gets is a reader of that tape.
//! 2. Frames are kept as they pass, by reference count, until they exceed [`KEPT`], or [`LARGE`] while the process has
//!    [`LENT_AT_MOST`] to lend; from then on, or once an answer has begun, the body cannot be sent again and nothing is kept.
//!    A large call needs that, too: h2 answers the ping of a GOAWAY before it writes heads that wait behind other calls'
//!    bytes, so the peer's last stream may be one below a call whose body was handed over already.
//! 3. A rewound tape has a new reader. The old one, which hyper may still be polling, reads nothing more.
//! 4. A reader never claims to be at its end before it was polled. So the request's head never ends the stream by
//!    itself, and "no frame was taken" proves that the peer has at most a head: never a whole request.
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use crate::connections::Place;

/// Bytes of a body that are kept for a second sending, whatever else is kept.
pub(super) const KEPT: usize = 64 * 1024;
/// The same where they can be lent: what gRPC allows a message by default. A larger request is sent once.
const LARGE: usize = 4 * 1024 * 1024;
/// What all calls of a process together may borrow.
const LENT_AT_MOST: usize = 64 * 1024 * 1024;

/// How much is lent now.
static LENT: AtomicUsize = AtomicUsize::new(0);

/// A body's part of what is lent; given back when dropped.
#[derive(Debug)]
struct Loan {
    of: &'static AtomicUsize,
    size: usize,
}

impl Loan {
    /// Whether a body of this size may be kept.
    fn covers(&mut self, size: usize) -> bool {
        if size <= KEPT.max(self.size) {
            return true;
        }
        let (more, fits) = (size - self.size, size <= LARGE);
        let lend = |lent: usize| (fits && lent + more <= LENT_AT_MOST).then_some(lent + more);
        let lent = self.of.fetch_update(Ordering::Relaxed, Ordering::Relaxed, lend).is_ok();
        self.size += if lent { more } else { 0 };
        lent
    }
}

impl Default for Loan {
    fn default() -> Self {
        Self { of: &LENT, size: 0 }
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.of.fetch_sub(self.size, Ordering::Relaxed);
    }
}

/// One request body, shared by the call and by the connection that is sending it.
#[derive(Debug, Clone)]
pub(super) struct Tape(Arc<Mutex<Reel>>);

/// What a connection sends from. Only the newest reader of a tape reads.
#[derive(Debug)]
pub(super) struct Reader {
    tape: Tape,
    turn: u32,
    /// Until a frame is taken, or nobody will take one.
    place: Option<Place>,
}

impl Reader {
    /// Counts the request as queued until hyper begins to send it, or gives it up.
    pub(super) fn queued(self, place: Place) -> Self {
        Self { place: Some(place), ..self }
    }
}

#[derive(Debug)]
struct Reel {
    source: Body,
    /// Of the whole body: a head is written before a frame is taken, again for every turn.
    hint: SizeHint,
    turn: u32,
    taken: bool,
    kept: Vec<Kept>,
    size: usize,
    loan: Loan,
    next: usize,
    ended: bool,
    lost: bool,
}

#[derive(Debug, Clone)]
enum Kept {
    Data(Bytes),
    Trailers(HeaderMap),
}

impl Tape {
    /// The tape of a body, and its first reader.
    pub(super) fn new(source: Body) -> (Self, Reader) {
        let hint = source.size_hint();
        let (kept, size, loan, next, turn) = (Vec::new(), 0, Loan::default(), 0, 0);
        let reel = Reel { source, hint, turn, taken: false, kept, size, loan, next, ended: false, lost: false };
        let tape = Self(Arc::new(Mutex::new(reel)));
        (tape.clone(), Reader { tape, turn, place: None })
    }

    /// A reader from the beginning; `None` when the beginning is not kept any more. Earlier readers end.
    pub(super) fn rewind(&self) -> Option<Reader> {
        let mut reel = self.reel();
        if reel.lost {
            return None;
        }
        reel.turn += 1;
        reel.taken = false;
        reel.next = 0;
        Some(Reader { tape: self.clone(), turn: reel.turn, place: None })
    }

    /// Whether the newest reader took nothing yet.
    pub(super) fn untouched(&self) -> bool {
        !self.reel().taken
    }

    /// An answer has begun: nothing will be sent again, so nothing needs to be kept.
    pub(super) fn release(&self) {
        self.reel().lose();
    }

    /// A poisoned lock means that the source panicked while it was polled: its call has failed already.
    fn reel(&self) -> MutexGuard<'_, Reel> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reel {
    fn lose(&mut self) {
        self.lost = true;
        self.kept = Vec::new();
        self.loan = Loan::default();
        self.next = 0;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.taken = true;
        if let Some(kept) = self.kept.get(self.next) {
            self.next += 1;
            return Poll::Ready(Some(Ok(kept.clone().into_frame())));
        }
        let polled = Pin::new(&mut self.source).poll_frame(cx);
        match &polled {
            Poll::Ready(Some(Ok(frame))) => self.keep(frame),
            Poll::Ready(Some(Err(_))) => self.lose(),
            Poll::Ready(None) => self.ended = true,
            Poll::Pending => {}
        }
        polled
    }

    fn keep(&mut self, frame: &Frame<Bytes>) {
        if self.lost {
            return;
        }
        self.size += frame.data_ref().map_or(0, Bytes::len);
        match Kept::of(frame) {
            Some(kept) if self.loan.covers(self.size) => {
                self.kept.push(kept);
                self.next += 1;
            }
            _ => self.lose(),
        }
    }

    fn at_end(&self) -> bool {
        self.taken && self.next >= self.kept.len() && (self.ended || self.source.is_end_stream())
    }
}

impl Kept {
    fn of(frame: &Frame<Bytes>) -> Option<Self> {
        let data = frame.data_ref().cloned().map(Self::Data);
        data.or_else(|| frame.trailers_ref().cloned().map(Self::Trailers))
    }

    fn into_frame(self) -> Frame<Bytes> {
        match self {
            Self::Data(data) => Frame::data(data),
            Self::Trailers(trailers) => Frame::trailers(trailers),
        }
    }
}

impl http_body::Body for Reader {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.place = None;
        let mut reel = self.tape.reel();
        if reel.turn == self.turn {
            reel.poll(cx)
        } else {
            Poll::Ready(Some(Err(Status::cancelled("the request is being sent on another connection"))))
        }
    }

    fn is_end_stream(&self) -> bool {
        self.tape.reel().at_end()
    }

    fn size_hint(&self) -> SizeHint {
        self.tape.reel().hint
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;

    use http_body_util::BodyExt;

    use super::*;

    /// Yields its frames one by one, as a stream of messages would.
    struct Frames(VecDeque<Frame<Bytes>>);

    impl http_body::Body for Frames {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(Ok))
        }
    }

    fn tape(sizes: &[usize]) -> (Tape, Reader) {
        let frames = sizes.iter().enumerate().map(|(i, n)| Frame::data(Bytes::from(vec![i as u8; *n])));
        Tape::new(Body::new(Frames(frames.collect())))
    }

    async fn read(reader: Reader) -> Bytes {
        reader.collect().await.unwrap().to_bytes()
    }

    #[tokio::test]
    async fn small_bodies_read_the_same_twice() {
        let (tape, reader) = tape(&[3, 5, 7]);
        let first = read(reader).await;
        let second = read(tape.rewind().unwrap()).await;
        assert_eq!(first.len(), 15);
        assert_eq!(first, second);
    }

    #[tokio::test]
    async fn half_read_bodies_start_over() {
        let (tape, mut half) = tape(&[3, 5, 7]);
        half.frame().await.unwrap().unwrap();
        assert!(!tape.untouched());
        assert_eq!(read(tape.rewind().unwrap()).await.len(), 15);
    }

    #[tokio::test]
    async fn trailers_are_kept_too() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x", "y".parse().unwrap());
        let frames = [Frame::data(Bytes::from_static(b"a")), Frame::trailers(trailers.clone())];
        let (tape, _) = Tape::new(Body::new(Frames(frames.into())));
        for _ in 0..2 {
            let read = tape.rewind().unwrap().collect().await.unwrap();
            assert_eq!(read.trailers(), Some(&trailers));
        }
    }

    #[tokio::test]
    async fn bodies_up_to_the_limit_are_kept() {
        for limit in [KEPT, LARGE] {
            let (exact, reader) = tape(&[limit - 1, 1]);
            assert_eq!(read(reader).await.len(), limit);
            assert_eq!(read(exact.rewind().unwrap()).await.len(), limit);
        }
        let (over, reader) = tape(&[LARGE, 1]);
        assert_eq!(read(reader).await.len(), LARGE + 1);
        assert!(over.rewind().is_none());
        assert!(over.reel().kept.is_empty());
    }

    #[test]
    fn what_is_lent_is_bounded_and_given_back() {
        static OWN: AtomicUsize = AtomicUsize::new(0);
        let loan = || Loan { of: &OWN, size: 0 };
        assert!(!loan().covers(LARGE + 1), "a huge body is never kept");
        let mut loans: Vec<_> = (0..LENT_AT_MOST / LARGE).map(|_| loan()).collect();
        assert!(loans.iter_mut().all(|loan| loan.covers(LARGE)));
        let mut late = loan();
        assert!(late.covers(KEPT) && !late.covers(KEPT + 1), "all is lent, and small bodies need none of it");
        drop(loans);
        assert!(late.covers(LARGE));
        drop(late);
        assert_eq!(OWN.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn large_bodies_start_over_while_untouched() {
        let (tape, reader) = tape(&[KEPT * 4]);
        drop(reader);
        assert!(tape.untouched());
        assert_eq!(read(tape.rewind().unwrap()).await.len(), KEPT * 4);
    }

    #[tokio::test]
    async fn released_bodies_are_forgotten_but_go_on() {
        let (tape, mut reader) = tape(&[3, 5]);
        reader.frame().await.unwrap().unwrap();
        tape.release();
        assert!(tape.rewind().is_none());
        assert_eq!(read(reader).await.len(), 5);
    }

    #[tokio::test]
    async fn overtaken_readers_read_nothing() {
        let (tape, mut old) = tape(&[3]);
        let new = tape.rewind().unwrap();
        assert!(old.frame().await.unwrap().is_err());
        assert_eq!(read(new).await.len(), 3);
    }

    #[test]
    fn heads_never_end_the_stream() {
        let (_, reader) = Tape::new(Body::empty());
        assert!(!http_body::Body::is_end_stream(&reader));
    }
}
