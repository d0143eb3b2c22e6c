//! Where the nodes of a role are: a list, or a stream of lists.
use std::fmt;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream, Stream};

use crate::config::Endpoint;

/// The endpoints of a [`Channel`](super::Channel).
pub struct Endpoints(BoxStream<'static, Vec<Endpoint>>);

impl Endpoints {
    /// A list that never changes.
    pub fn fixed(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let list: Vec<Endpoint> = endpoints.into_iter().collect();
        Self(stream::iter([list]).boxed())
    }

    /// Lists that take one another's place. An endpoint that is in the next list too keeps its connection; the calls on
    /// one that is not may finish. Calls made before the first list wait for it. After the end of the stream the last
    /// list stays.
    pub fn changing(lists: impl Stream<Item = Vec<Endpoint>> + Send + 'static) -> Self {
        Self(lists.boxed())
    }

    /// The next list; waits for ever once the last one was handed out.
    pub(super) async fn next(&mut self) -> Vec<Endpoint> {
        match self.0.next().await {
            Some(list) => list,
            None => std::future::pending().await,
        }
    }
}

impl From<Endpoint> for Endpoints {
    fn from(endpoint: Endpoint) -> Self {
        Self::fixed([endpoint])
    }
}

impl From<Vec<Endpoint>> for Endpoints {
    fn from(endpoints: Vec<Endpoint>) -> Self {
        Self::fixed(endpoints)
    }
}

impl fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoints").finish_non_exhaustive()
    }
}
