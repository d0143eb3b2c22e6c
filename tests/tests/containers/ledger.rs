//! A load over several collections that keeps books: which rows were acknowledged, which calls failed and what they said.
//!
//! Collections are spread over the data-nodes, so whatever happens to one node must be seen by some of them and not by the others.
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use serde_json::{Value, json};
use test_util::clients::post;
use test_util::cluster::Edge;
use test_util::wait;

const COLLECTIONS: usize = 6;
const PACE: Duration = Duration::from_millis(20);

/// The running load.
pub(crate) struct Ledger {
    edge: Edge,
    over: Arc<AtomicBool>,
    books: Arc<Mutex<Books>>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default, Clone)]
pub(crate) struct Books {
    /// Collection and id of every acknowledged row.
    pub(crate) acknowledged: BTreeSet<(usize, i64)>,
    /// What each failed call said.
    pub(crate) failures: Vec<String>,
    /// Calls in all.
    pub(crate) calls: usize,
}

impl Ledger {
    /// Makes the collections and begins.
    pub(crate) fn start(edge: &Edge) -> Self {
        for n in 0..COLLECTIONS {
            let made = post(
                edge,
                "collections/create",
                &json!({"collectionName": name(n), "dimension": 2, "metricType": "L2"}),
            );
            assert_eq!(made.body["code"], 0, "{made:?}");
        }
        let (over, books) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Books::default())));
        let writer = |part: usize| {
            let (edge, over, books) = (edge.clone(), over.clone(), books.clone());
            std::thread::spawn(move || write(part, &edge, &over, &books))
        };
        let threads = (0..2).map(writer).collect();
        let ledger = Self { edge: edge.clone(), over, books, threads };
        ledger.rows_more("the first rows", 2 * COLLECTIONS);
        ledger
    }

    pub(crate) fn books(&self) -> Books {
        self.books.lock().unwrap().clone()
    }

    /// Waits for so many more rows; calls in between may fail.
    pub(crate) fn rows_more(&self, what: &str, rows: usize) {
        let until = self.books().acknowledged.len() + rows;
        wait::until(what, Duration::from_secs(90), || match self.books() {
            books if books.acknowledged.len() >= until => Ok(()),
            books => Err(format!("{} rows, failures {:?}", books.acknowledged.len(), books.failures.last())),
        });
    }

    /// Waits until every collection has taken a row since now.
    pub(crate) fn all_serve(&self, what: &str) {
        let before: Vec<usize> = (0..COLLECTIONS).map(|n| self.rows_of(n)).collect();
        wait::until(what, Duration::from_secs(90), || {
            let late: Vec<_> = (0..COLLECTIONS).filter(|n| self.rows_of(*n) == before[*n]).collect();
            if late.is_empty() { Ok(()) } else { Err(format!("not yet {late:?}: {:?}", self.books().failures.last())) }
        });
    }

    fn rows_of(&self, n: usize) -> usize {
        self.books().acknowledged.iter().filter(|(of, _)| *of == n).count()
    }

    /// Failures from now on.
    pub(crate) fn failures_of(&self, during: impl FnOnce()) -> Vec<String> {
        let before = self.books().failures.len();
        during();
        self.books().failures.split_off(before)
    }

    /// Ends it, and reads back every acknowledged row.
    pub(crate) fn close(mut self) -> Books {
        self.over.store(true, Ordering::SeqCst);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
        let books = self.books();
        for n in 0..COLLECTIONS {
            let ids: Vec<i64> = books.acknowledged.iter().filter(|(of, _)| *of == n).map(|(_, id)| *id).collect();
            for page in ids.chunks(100) {
                let read = post(
                    &self.edge,
                    "entities/get",
                    &json!({"collectionName": name(n), "id": page, "outputFields": ["id"]}),
                );
                let found: BTreeSet<i64> =
                    read.body["data"].as_array().into_iter().flatten().filter_map(|row| row["id"].as_i64()).collect();
                let lost: Vec<_> = page.iter().filter(|id| !found.contains(id)).collect();
                assert!(lost.is_empty(), "{}: acknowledged and lost: {lost:?}: {:?}", name(n), read.body["message"]);
            }
        }
        books
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
    }
}

fn name(n: usize) -> String {
    format!("ledger_{n}")
}

/// One row at a time, each collection in turn.
fn write(part: usize, edge: &Edge, over: &AtomicBool, books: &Mutex<Books>) {
    let mut id = i64::try_from(part).unwrap();
    while !over.load(Ordering::SeqCst) {
        let n = usize::try_from(id).unwrap() / 2 % COLLECTIONS;
        let row = json!({"collectionName": name(n), "data": [{"id": id, "vector": [1.0, 0.5]}]});
        let said = outcome(edge, &row);
        let mut books = books.lock().unwrap();
        books.calls += 1;
        match said {
            Ok(()) => drop(books.acknowledged.insert((n, id))),
            Err(why) => books.failures.push(why),
        }
        drop(books);
        id += 2;
        std::thread::park_timeout(PACE);
    }
}

fn outcome(edge: &Edge, row: &Value) -> Result<(), String> {
    let answer = post(edge, "entities/insert", row);
    if answer.status == 200 && answer.body["code"] == 0 { Ok(()) } else { Err(format!("{answer:?}")) }
}
