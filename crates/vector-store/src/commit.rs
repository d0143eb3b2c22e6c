//! When what was written becomes durable.
//!
//! 1. Whoever has written asks for a flush at once: a lone write waits for nobody.
//! 2. One flush runs at a time. All that was written meanwhile is in the next one, whose first waiter asks for it; the
//!    others find their rows durable then. So writes that come together share a flush, without a timer.

use std::sync::atomic::{AtomicU64, Ordering};

use slatedb::{Db, WriteBatch};
use tokio::sync::Mutex;

/// The writes of one store.
#[derive(Debug, Default)]
pub(crate) struct Commits {
    /// The newest write.
    written: AtomicU64,
    /// The newest write of the last flush; held while the next one runs.
    durable: Mutex<u64>,
}

impl Commits {
    /// Writes, and returns once it is durable; the write's place in the order of all.
    pub(crate) async fn write(&self, db: &Db, batch: WriteBatch) -> Result<u64, slatedb::Error> {
        let written = db.write(batch).await?;
        self.written.fetch_max(written.seqnum(), Ordering::AcqRel);
        self.flush(db, written.seqnum()).await?;
        written.await_durable().await?;
        Ok(written.seqnum())
    }

    async fn flush(&self, db: &Db, wanted: u64) -> Result<(), slatedb::Error> {
        let mut durable = self.durable.lock().await;
        if *durable < wanted {
            let written = self.written.load(Ordering::Acquire);
            db.flush().await?;
            *durable = written;
        }
        Ok(())
    }
}
