//! Acknowledged rows survive SIGKILL, and a batch cut by it is there whole or not at all.
//!
//! A program of its own, not the usual harness: it starts itself as the writer that is killed.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use rpc::columns::{Column, Key, Values};
use rpc::common::KeyValuePair;
use rpc::fields::Fields;
use rpc::schema::{CollectionSchema, DataType, FieldSchema};
use vector_store::{Shard, storage};

const BATCH: i64 = 100;
const ACKNOWLEDGED: usize = 20;
const WRITE: &str = "write-until-killed";

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    match &arguments[1..] {
        [role, folder] if role == WRITE => runtime.block_on(write(Path::new(folder))),
        _ => runtime.block_on(acknowledged_rows_survive_a_kill()),
    }
}

fn fields() -> Fields {
    let dim = KeyValuePair { key: "dim".to_owned(), value: "4".to_owned() };
    let key = FieldSchema {
        name: "id".to_owned(),
        is_primary_key: true,
        data_type: DataType::Int64.into(),
        ..FieldSchema::default()
    };
    let vector = FieldSchema {
        name: "vector".to_owned(),
        data_type: DataType::FloatVector.into(),
        type_params: vec![dim],
        ..FieldSchema::default()
    };
    Fields::parse(&CollectionSchema { fields: vec![key, vector], ..CollectionSchema::default() }).unwrap()
}

async fn open(folder: &Path) -> Shard {
    Shard::open(storage::folder(folder).unwrap(), "shard", fields()).await.unwrap()
}

/// Inserts batch after batch, four at a time, and says which are acknowledged, until it is killed.
async fn write(folder: &Path) {
    let shard = open(folder).await;
    for round in 0.. {
        let batches = (0..4).map(|lane| acknowledge(&shard, round * 4 + lane));
        futures_util::future::join_all(batches).await;
    }
}

async fn acknowledge(shard: &Shard, batch: i64) {
    let ids: Vec<i64> = (batch * BATCH..(batch + 1) * BATCH).collect();
    let data = ids.iter().flat_map(|id| [*id as f32; 4]).collect();
    let columns =
        vec![Column::new("id", Values::Int64(ids)), Column::new("vector", Values::FloatVector { dim: 4, data })];
    shard.insert(columns).await.unwrap();
    println!("{batch}");
}

fn kill_after_acknowledgements(folder: &Path) -> Vec<i64> {
    let mut writer =
        Command::new(std::env::current_exe().unwrap()).arg(WRITE).arg(folder).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(writer.stdout.take().unwrap()).lines();
    let mut acknowledged: Vec<i64> =
        lines.by_ref().take(ACKNOWLEDGED).map(|line| line.unwrap().parse().unwrap()).collect();
    writer.kill().unwrap();
    writer.wait().unwrap();
    // Said before the kill, read after it.
    acknowledged.extend(lines.map_while(Result::ok).filter_map(|line| line.parse::<i64>().ok()));
    acknowledged
}

async fn acknowledged_rows_survive_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let acknowledged = kill_after_acknowledgements(folder.path());
    assert!(acknowledged.len() >= ACKNOWLEDGED, "the writer ended early: {acknowledged:?}");
    let shard = open(folder.path()).await;
    assert_eq!(shard.count() as i64 % BATCH, 0, "a batch is there in part");
    for batch in acknowledged {
        let keys: Vec<Key> = (batch * BATCH..(batch + 1) * BATCH).map(Key::Int64).collect();
        let found = shard.get(keys, &["id".to_owned()]).await.unwrap();
        assert_eq!(found[0].len() as i64, BATCH, "batch {batch} was acknowledged");
    }
}
