//! All leaves have expired and no node reaches another, by a clock that the test sets: new files alone bring every link back.
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use internaltls::clock::{Clock, TestClock};
use internaltls::{Channel, ChannelError, Endpoint, Mesh, Reload};
use tokio::task::JoinHandle;
use tonic::{Code, Status};

use super::bench::{Echo, by_hand, call, until};
use super::pki::{Authority, Node};

const DAY: Duration = Duration::from_secs(86_400);
/// Nothing but the poll sees new files.
const POLL: Duration = Duration::from_secs(1);
/// A dialer that was refused a moment before its peer had new files rests for less than this.
const REST: Duration = Duration::from_secs(4);

/// One of two nodes that call each other.
struct End {
    node: Node,
    mesh: Mesh,
    echo: Echo,
}

impl End {
    async fn start(ca: &Authority, role: &str, id: &str, clock: &Arc<TestClock>) -> Self {
        let node = ca.node(role, id);
        let mut config = by_hand(&node, node.files());
        config.reload = Reload { poll: POLL, ..config.reload };
        let mesh = Mesh::open_with(config, clock.clone()).await.unwrap();
        let echo = Echo::start(mesh.clone()).await;
        Self { node, mesh, echo }
    }

    fn channel(&self, to: &Self) -> Channel {
        self.mesh.channel(to.node.role.clone(), Endpoint::from(to.echo.address).of(to.node.id.clone()))
    }
}

/// Two nodes, both of which serve and dial.
struct Stage {
    ca: Authority,
    clock: Arc<TestClock>,
    ends: [End; 2],
    links: [Channel; 2],
}

impl Stage {
    async fn start() -> Self {
        let (ca, clock) = (Authority::new(), Arc::new(TestClock::at(SystemTime::now())));
        let ends = [
            End::start(&ca, "data-node", "data-node-1", &clock).await,
            End::start(&ca, "coordinator", "coordinator-1", &clock).await,
        ];
        let links = [ends[0].channel(&ends[1]), ends[1].channel(&ends[0])];
        Self { ca, clock, ends, links }
    }

    /// A call in each direction that does not end.
    async fn hold(&self) -> Vec<JoinHandle<Result<String, Status>>> {
        let mut held = Vec::new();
        for (link, served_by) in self.links.iter().zip(self.ends.iter().rev()) {
            let link = link.clone();
            held.push(tokio::spawn(async move { call(&link, "hold").await }));
            served_by.echo.held.notified().await;
        }
        held
    }

    fn connections(&self) -> [usize; 2] {
        self.ends.each_ref().map(|end| end.mesh.registry().snapshot().len())
    }

    async fn call_both(&self) -> [Result<String, Status>; 2] {
        [call(&self.links[0], "").await, call(&self.links[1], "").await]
    }
}

fn has_expired(status: &Status) -> bool {
    let unreachable = std::error::Error::source(status).and_then(|source| source.downcast_ref());
    match unreachable {
        Some(ChannelError::Unreachable { reason, .. }) => reason.label() == "expired",
        other => panic!("{other:?} of {status}"),
    }
}

#[tokio::test]
async fn renewed_files_alone_bring_links_back_within_the_poll() {
    let stage = Stage::start().await;
    let held = stage.hold().await;
    assert_eq!(stage.connections(), [2, 2]);
    // The machines slept, or nobody looked after the leaves.
    stage.clock.advance(30 * DAY);
    for call in held {
        assert_eq!(call.await.unwrap().unwrap_err().code(), Code::Unavailable);
    }
    until("no link is left", async || stage.connections(), |left| *left == [0, 0]).await;
    for refused in stage.call_both().await {
        assert!(has_expired(&refused.unwrap_err()));
    }
    assert_eq!(stage.ends.each_ref().map(|end| end.mesh.generation()), [Some(1), Some(1)], "nothing else is served");
    let written = Instant::now();
    let serials = stage.ends.each_ref().map(|end| stage.ca.renew_at(&end.node, stage.clock.now()));
    // Each call is answered with the serial that its dialler showed.
    let answers = async || stage.call_both().await.map(Result::ok);
    let wanted = serials.map(Some);
    until("calls go both ways, under the new leaves", answers, |answers| *answers == wanted).await;
    assert!(written.elapsed() < POLL + REST, "{:?}", written.elapsed());
    assert_eq!(stage.connections(), [2, 2]);
}

/// One node is renewed and the other is not: nobody is let in with an expired leaf, and no restart is needed in the end.
#[tokio::test]
async fn a_node_that_is_renewed_late_comes_back_late() {
    let stage = Stage::start().await;
    assert_eq!(stage.call_both().await.map(|answer| answer.is_ok()), [true, true]);
    stage.clock.advance(2 * DAY);
    until("no link is left", async || stage.connections(), |left| *left == [0, 0]).await;
    stage.ca.renew_at(&stage.ends[0].node, stage.clock.now());
    until("one node has its new leaf", async || stage.ends[0].mesh.generation(), |number| *number == Some(2)).await;
    for refused in stage.call_both().await {
        refused.unwrap_err();
    }
    assert_eq!(stage.connections(), [0, 0]);
    stage.ca.renew_at(&stage.ends[1].node, stage.clock.now());
    let answered = async || stage.call_both().await.map(|answer| answer.is_ok());
    until("calls go both ways", answered, |answered| *answered == [true, true]).await;
}
