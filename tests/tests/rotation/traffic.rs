//! A steady mixed load over the mesh, and which of its failures are allowed.
//!
//! 1. Four kinds of calls to each server at once: small ones, ones of a mebibyte, streams shorter than the grace and streams
//!    longer than it. Nothing is tried again.
//! 2. A call that failed is allowed to fail if it ran for the grace or longer, or if a step meant to cut its server's
//!    connections while it ran; and its status is UNAVAILABLE. Everything else is a loss.
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use internaltls::Channel;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tonic::client::Grpc;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::scene::SERVERS;
use crate::wire::{COUNT, SAY, Text};

/// A call that takes so long hangs.
const HANG: Duration = Duration::from_secs(90);
const MEBIBYTE: usize = 1 << 20;

/// What a call asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Small,
    Large,
    Short,
    Long,
}

/// How many callers of each kind a server has, and the pause between two calls of one.
const CALLERS: [(Kind, usize, Duration); 4] = [
    (Kind::Small, 3, Duration::from_millis(20)),
    (Kind::Large, 1, Duration::from_millis(150)),
    (Kind::Short, 2, Duration::from_millis(20)),
    (Kind::Long, 1, Duration::from_millis(20)),
];

/// A call that failed.
#[derive(Debug, Clone)]
struct Failure {
    kind: Kind,
    server: usize,
    began: Instant,
    ended: Instant,
    code: Code,
    said: String,
}

impl Failure {
    fn told(&self) -> String {
        let (kind, server, took) = (self.kind, self.server, self.ended - self.began);
        format!("{kind:?} call to server {server} after {took:.1?}: {:?}, {}", self.code, self.said)
    }
}

/// A time in which a server's connections are meant to be cut.
#[derive(Debug, Clone, Copy)]
struct Cut {
    server: usize,
    from: Instant,
    until: Option<Instant>,
}

/// What came of the calls.
#[derive(Debug, Default)]
struct Tally {
    answered: [usize; 4],
    /// Small ones alone, by server.
    small_by: [usize; SERVERS],
    small: Vec<(Instant, Duration)>,
    failures: Vec<Failure>,
    cuts: Vec<Cut>,
}

/// The running load.
pub(crate) struct Traffic {
    over: Arc<AtomicBool>,
    tally: Arc<Mutex<Tally>>,
    callers: Vec<JoinHandle<()>>,
    grace: Duration,
}

impl Traffic {
    pub(crate) fn start(runtime: &Handle, servers: &[Channel], grace: Duration) -> Self {
        let (over, tally) = (Arc::new(AtomicBool::new(false)), Arc::<Mutex<Tally>>::default());
        let mut callers = Vec::new();
        for (server, channel) in servers.iter().enumerate() {
            for (kind, count, pause) in CALLERS {
                for _ in 0..count {
                    let caller = Caller { kind, server, grace, channel: channel.clone() };
                    callers.push(runtime.spawn(caller.call_until(Arc::clone(&over), Arc::clone(&tally), pause)));
                }
            }
        }
        Self { over, tally, callers, grace }
    }

    /// From this moment on calls to this server may fail.
    pub(crate) fn cut_begins(&self, server: usize, from: Instant) {
        lock(&self.tally).cuts.push(Cut { server, from, until: None });
    }

    /// Calls that begin from now on may not fail any more.
    pub(crate) fn cut_ends(&self) {
        let now = Instant::now();
        lock(&self.tally).cuts.iter_mut().filter(|cut| cut.until.is_none()).for_each(|cut| cut.until = Some(now));
    }

    /// Calls that failed and were not allowed to.
    pub(crate) fn losses(&self) -> Vec<String> {
        let tally = lock(&self.tally);
        tally.failures.iter().filter(|failure| is_loss(failure, &tally.cuts, self.grace)).map(Failure::told).collect()
    }

    /// Small calls that this server answered.
    pub(crate) fn answered_by(&self, server: usize) -> usize {
        lock(&self.tally).small_by[server]
    }

    /// Calls of this kind that were answered.
    pub(crate) fn answered(&self, kind: Kind) -> usize {
        lock(&self.tally).answered[kind as usize]
    }

    /// The time of each small call that ended between these two moments, ascending.
    pub(crate) fn latencies(&self, from: Instant, until: Instant) -> Vec<Duration> {
        let tally = lock(&self.tally);
        let within = tally.small.iter().filter(|(ended, _)| (from..until).contains(ended));
        let mut all: Vec<_> = within.map(|(_, took)| *took).collect();
        all.sort();
        all
    }

    /// Calls under way end, and with them the load.
    pub(crate) fn stop(&mut self, runtime: &Handle) -> Report {
        self.over.store(true, Ordering::SeqCst);
        for caller in self.callers.drain(..) {
            runtime.block_on(caller).unwrap();
        }
        let losses = self.losses();
        let tally = lock(&self.tally);
        Report { answered: tally.answered, allowed: tally.failures.len() - losses.len(), losses }
    }
}

/// The end of a load.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) answered: [usize; 4],
    pub(crate) allowed: usize,
    pub(crate) losses: Vec<String>,
}

/// Whether a call that failed was not allowed to.
fn is_loss(failure: &Failure, cuts: &[Cut], grace: Duration) -> bool {
    let overlaps = |cut: &Cut| {
        cut.server == failure.server
            && cut.from <= failure.ended
            && cut.until.is_none_or(|until| failure.began <= until)
    };
    let outlived = failure.ended - failure.began >= grace;
    failure.code != Code::Unavailable || !(outlived || cuts.iter().any(overlaps))
}

struct Caller {
    kind: Kind,
    server: usize,
    grace: Duration,
    channel: Channel,
}

impl Caller {
    async fn call_until(self, over: Arc<AtomicBool>, tally: Arc<Mutex<Tally>>, pause: Duration) {
        while !over.load(Ordering::SeqCst) {
            let began = Instant::now();
            let came = tokio::time::timeout(HANG, self.call()).await;
            self.note(began, came.unwrap_or_else(|_| Err(Status::deadline_exceeded("no end in time"))), &tally);
            tokio::time::sleep(pause).await;
        }
    }

    fn note(&self, began: Instant, came: Result<(), Status>, tally: &Mutex<Tally>) {
        let (ended, mut tally) = (Instant::now(), lock(tally));
        match came {
            Ok(()) => {
                tally.answered[self.kind as usize] += 1;
                if self.kind == Kind::Small {
                    tally.small_by[self.server] += 1;
                    tally.small.push((ended, ended - began));
                }
            }
            Err(status) => {
                let (kind, server, code) = (self.kind, self.server, status.code());
                tally.failures.push(Failure { kind, server, began, ended, code, said: status.message().to_owned() });
            }
        }
    }

    async fn call(&self) -> Result<(), Status> {
        match self.kind {
            Kind::Small => self.say(16).await,
            Kind::Large => self.say(MEBIBYTE).await,
            Kind::Short => self.count(self.grace / 4).await,
            Kind::Long => self.count(self.grace * 2).await,
        }
    }

    async fn say(&self, size: usize) -> Result<(), Status> {
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await?;
        let asked = Text { ballast: vec![7; size], ..Text::default() };
        let (path, codec) = (PathAndQuery::from_static(SAY), ProstCodec::<Text, Text>::default());
        let answer = grpc.unary(Request::new(asked.clone()), path, codec).await?.into_inner();
        if answer == asked { Ok(()) } else { Err(Status::data_loss("another answer than was asked for")) }
    }

    async fn count(&self, during: Duration) -> Result<(), Status> {
        const ANSWERS: u32 = 20;
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await?;
        let pace = u32::try_from(during.as_millis()).unwrap_or(u32::MAX) / ANSWERS;
        let asked = Request::new(Text { count: ANSWERS, pace, ..Text::default() });
        let (path, codec) = (PathAndQuery::from_static(COUNT), ProstCodec::<Text, Text>::default());
        let mut answers = grpc.server_streaming(asked, path, codec).await?.into_inner();
        let mut next = 0;
        while let Some(answer) = answers.message().await? {
            if answer.count != next {
                return Err(Status::data_loss(format!("answer {} where {next} was due", answer.count)));
            }
            next += 1;
        }
        if next == ANSWERS { Ok(()) } else { Err(Status::data_loss(format!("the stream ended after {next}"))) }
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The judge is judged: a suite that allows everything would pass.
#[test]
fn only_long_calls_and_meant_cuts_may_fail() {
    let (start, grace) = (Instant::now(), Duration::from_secs(2));
    let at = |seconds| start + Duration::from_secs(seconds);
    let failure = |began, ended, code| Failure {
        kind: Kind::Small,
        server: 0,
        began: at(began),
        ended: at(ended),
        code,
        said: String::new(),
    };
    let cut = |server, from, until| Cut { server, from: at(from), until: Some(at(until)) };
    let is_loss = |failure, cuts: &[Cut]| is_loss(&failure, cuts, grace);
    assert!(is_loss(failure(10, 11, Code::Unavailable), &[]));
    assert!(!is_loss(failure(10, 12, Code::Unavailable), &[]), "as long as the grace");
    assert!(!is_loss(failure(10, 11, Code::Unavailable), &[cut(0, 11, 20)]), "cut at its end");
    assert!(!is_loss(failure(10, 11, Code::Unavailable), &[cut(0, 5, 10)]), "cut at its beginning");
    assert!(is_loss(failure(10, 11, Code::Unavailable), &[cut(1, 5, 20), cut(0, 5, 9), cut(0, 12, 20)]));
    assert!(is_loss(failure(10, 200, Code::DeadlineExceeded), &[cut(0, 5, 300)]), "a call that hangs");
    assert!(is_loss(failure(10, 20, Code::DataLoss), &[cut(0, 5, 300)]), "another answer than was asked for");
}
