//! `mesh.Trial/Check`: "would you accept the certificate that I am about to serve?"
//!
//! 1. The library answers it by itself, ahead of policy, to every node with a certificate of ours.
//! 2. It answers about the caller's own certificate alone: the leaf asked about must bear the caller's names.
//! 3. It answers by what is served now, and each peer may ask only so often.
//! 4. What does not fit a handshake is refused while it is decoded, before it is copied.
//!
//! As protobuf: `message Question { repeated bytes chain = 1; }` (DER, leaf first) and
//! `message Answer { bool accepted = 1; string reason = 2; }`.
use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::{Buf, BufMut};
use http::Request;
use prost::DecodeError;
use prost::encoding::{self, DecodeContext, WireType};
use rustls::pki_types::CertificateDer;
use tonic::body::Body;
use tonic::{Response, Status};
use tonic_prost::ProstCodec;

use crate::connections::PeerInfo;
use crate::identity::Identity;
use crate::material::Store;
use crate::server::service::{Service, erase};
use crate::telemetry::Telemetry;
use crate::verify::{CHAIN_BYTES, Expected, PeerSide, SENT, leaf_facts};

/// The path of the call.
pub(crate) const PATH: &str = "/mesh.Trial/Check";
/// Bytes of a question: of the longest chain that a handshake takes, and of what protobuf adds to it.
const MESSAGE_LIMIT: usize = CHAIN_BYTES + 1024;
/// Bytes of an answer: its reason is a sentence.
pub(crate) const ANSWER_LIMIT: usize = 16 * 1024;
/// Questions that a peer may ask at once, and how soon one more is granted.
const BURST: u32 = 64;
const REFILL: Duration = Duration::from_millis(100);
/// Peers whose questions are counted; more than a mesh has.
const PEERS: usize = 4096;

/// The chain that the caller is about to serve.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Question {
    /// DER, leaf first.
    pub(crate) chain: Vec<Vec<u8>>,
    /// More certificates than a chain may have were in it. They were not decoded.
    too_many: bool,
}

impl Question {
    pub(crate) fn of(chain: &[CertificateDer<'_>]) -> Self {
        Self { chain: chain.iter().map(|der| der.to_vec()).collect(), too_many: false }
    }
}

/// As derived, but with a bound on the number of certificates: a message of many empty ones is small and takes much memory.
impl prost::Message for Question {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        encoding::bytes::encode_repeated(1, &self.chain, buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        self.too_many |= tag == 1 && self.chain.len() == SENT;
        if tag == 1 && !self.too_many {
            encoding::bytes::merge_repeated(wire_type, &mut self.chain, buf, ctx)
        } else {
            encoding::skip_field(wire_type, tag, buf, ctx)
        }
    }

    fn encoded_len(&self) -> usize {
        encoding::bytes::encoded_len_repeated(1, &self.chain)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// Whether it would be accepted.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Answer {
    #[prost(bool, tag = "1")]
    pub(crate) accepted: bool,
    /// Why not.
    #[prost(string, tag = "2")]
    pub(crate) reason: String,
}

/// What answers on a listener of the mesh.
pub(crate) fn service(store: Arc<Store>, telemetry: Telemetry) -> Service {
    let answerer = Arc::new(Answerer { store, telemetry, asked: Mutex::default() });
    erase(tower::service_fn(move |request: Request<Body>| {
        let answerer = Arc::clone(&answerer);
        async move {
            let unary = tower::service_fn(move |question| {
                let answer = answerer.counted(&question);
                async move { answer }
            });
            let mut grpc = tonic::server::Grpc::new(ProstCodec::<Answer, Question>::default())
                .max_decoding_message_size(MESSAGE_LIMIT);
            Ok::<_, Infallible>(grpc.unary(unary, request).await)
        }
    }))
}

struct Answerer {
    store: Arc<Store>,
    telemetry: Telemetry,
    asked: Mutex<HashMap<String, Bucket>>,
}

/// How many questions of one peer are left, as of a moment.
#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: u32,
    at: Instant,
}

impl Bucket {
    fn take(&mut self, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.at).as_millis() / REFILL.as_millis();
        if earned > 0 {
            (self.left, self.at) = (BURST.min(self.left.saturating_add(u32::try_from(earned).unwrap_or(BURST))), now);
        }
        let granted = self.left > 0;
        self.left -= u32::from(granted);
        granted
    }
}

impl Answerer {
    fn counted(&self, request: &tonic::Request<Question>) -> Result<Response<Answer>, Status> {
        let answer = self.answer(request);
        let result = match &answer {
            Ok(answer) if answer.accepted => "ok",
            Ok(_) => "refused",
            Err(_) => "error",
        };
        self.telemetry.trial("answered", result);
        answer.map(Response::new)
    }

    fn answer(&self, request: &tonic::Request<Question>) -> Result<Answer, Status> {
        let caller = request.extensions().get::<PeerInfo>().map(PeerInfo::identity);
        let Some(caller @ Identity::Node { trust_domain, role, node }) = caller else {
            return Err(Status::unimplemented("only a node with a certificate of its own has something to try"));
        };
        if !self.granted(&caller.to_string()) {
            return Err(Status::resource_exhausted("too many trials: ask again in a second"));
        }
        let question = request.get_ref();
        if question.too_many {
            return Err(Status::invalid_argument(format!("a chain has {SENT} certificates at most")));
        }
        let chain: Vec<_> = question.chain.iter().map(|der| CertificateDer::from(der.as_slice())).collect();
        let foreign = || Status::invalid_argument("only your own certificate can be asked about");
        let facts = leaf_facts(&chain).map_err(|_| foreign())?;
        if Identity::from_names(trust_domain, &facts.dns, &facts.uris).ok().as_ref() != Some(caller) {
            return Err(foreign());
        }
        let expected = Expected { role: role.clone(), node: Some(node.clone()) };
        Ok(match self.store.current().vouch(&chain, PeerSide::Server, Some(&expected)) {
            Ok(_) => Answer { accepted: true, reason: String::new() },
            Err(why) => Answer { accepted: false, reason: why.to_string() },
        })
    }

    fn granted(&self, caller: &str) -> bool {
        let (now, mut asked) = (Instant::now(), self.asked.lock().unwrap_or_else(PoisonError::into_inner));
        if asked.len() >= PEERS {
            asked.clear();
        }
        asked.entry(caller.to_owned()).or_insert(Bucket { left: BURST, at: now }).take(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invariant_8_a_question_is_bounded_while_decoded() {
        use prost::Message as _;
        let of = |count| Question { chain: vec![vec![0x30, 0]; count], too_many: false };
        let decoded = |count| Question::decode(of(count).encode_to_vec().as_slice()).unwrap();
        assert_eq!(decoded(0), of(0));
        assert_eq!(decoded(SENT), of(SENT));
        for count in [SENT + 1, 20_000] {
            assert_eq!(decoded(count), Question { too_many: true, ..of(SENT) }, "{count}");
        }
        // A field that a later version may add is passed over.
        let with_another = [of(1).encode_to_vec(), vec![0x12, 1, 7]].concat();
        assert_eq!(Question::decode(with_another.as_slice()).unwrap(), of(1));
    }

    #[test]
    fn a_peer_may_ask_only_so_often() {
        let start = Instant::now();
        let mut bucket = Bucket { left: BURST, at: start };
        assert!((0..BURST).all(|_| bucket.take(start)));
        assert!(!bucket.take(start));
        assert!(!bucket.take(start + REFILL / 2));
        assert!(bucket.take(start + REFILL));
        assert!(!bucket.take(start + REFILL));
    }
}
