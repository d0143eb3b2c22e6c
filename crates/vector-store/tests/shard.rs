//! A shard as its users see it, on a folder of its own.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStore;
use proptest::prelude::*;
use rpc::columns::{Column, Key, Values};
use rpc::common::KeyValuePair;
use rpc::fields::Fields;
use rpc::schema::{CollectionSchema, DataType, FieldSchema};
use vector_store::{Error, Metric, Shard, destroy, storage};

const PATH: &str = "shards/one";

fn field(name: &str, data_type: DataType, param: Option<(&str, &str)>) -> FieldSchema {
    FieldSchema {
        name: name.to_owned(),
        data_type: data_type.into(),
        type_params: param.map(|(k, v)| KeyValuePair { key: k.to_owned(), value: v.to_owned() }).into_iter().collect(),
        ..FieldSchema::default()
    }
}

fn schema(key: FieldSchema, dim: &str) -> Fields {
    let fields = vec![
        FieldSchema { is_primary_key: true, ..key },
        field("vector", DataType::FloatVector, Some(("dim", dim))),
        FieldSchema { nullable: true, ..field("note", DataType::VarChar, Some(("max_length", "20"))) },
    ];
    let schema = CollectionSchema { fields, enable_dynamic_field: true, ..CollectionSchema::default() };
    Fields::parse(&schema).unwrap()
}

fn numbered() -> Fields {
    schema(field("id", DataType::Int64, None), "2")
}

fn named() -> Fields {
    schema(field("id", DataType::VarChar, Some(("max_length", "20"))), "2")
}

fn rows(ids: &[i64], vectors: &[f32]) -> Vec<Column> {
    vec![
        Column::new("id", Values::Int64(ids.to_vec())),
        Column::new("vector", Values::FloatVector { dim: vectors.len() / ids.len(), data: vectors.to_vec() }),
    ]
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

struct Folder {
    _dir: tempfile::TempDir,
    objects: Arc<dyn ObjectStore>,
}

impl Folder {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let objects = storage::folder(dir.path()).unwrap();
        Self { _dir: dir, objects }
    }

    async fn open(&self, fields: Fields) -> Shard {
        self.try_open(fields).await.unwrap()
    }

    async fn try_open(&self, fields: Fields) -> Result<Shard, Error> {
        Shard::open(Arc::clone(&self.objects), PATH, fields).await
    }
}

async fn vectors_of(shard: &Shard, keys: &[i64]) -> Vec<f32> {
    let keys = keys.iter().map(|key| Key::Int64(*key)).collect();
    match shard.get(keys, &names(&["vector"])).await.unwrap().remove(0).values {
        Values::FloatVector { data, .. } => data,
        other => panic!("not a vector: {other:?}"),
    }
}

#[tokio::test]
async fn reads_rows_back_after_reopening() {
    let folder = Folder::new();
    let all = names(&["id", "vector", "note", "$meta"]);
    let written = vec![
        Column::new("id", Values::VarChar(names(&["b", "a", ""]))),
        Column::new("vector", Values::FloatVector { dim: 2, data: vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0] }),
        Column { valid: Some(vec![true, false, true]), ..Column::new("note", Values::VarChar(names(&["x", "", "z"]))) },
        Column::new("$meta", Values::Json(vec![Bytes::from_static(b"{\"k\":1}"), Bytes::new(), Bytes::new()])),
    ];
    let keys = ["b", "a", ""].map(|key| Key::VarChar(key.to_owned())).to_vec();
    let shard = folder.open(named()).await;
    assert_eq!(shard.insert(written.clone()).await.unwrap(), 3);
    assert_eq!(shard.get(keys.clone(), &all).await.unwrap(), written);
    shard.close().await.unwrap();

    let shard = folder.open(named()).await;
    assert_eq!(shard.count(), 3);
    assert_eq!(shard.get(keys, &all).await.unwrap(), written);
}

#[tokio::test]
async fn acknowledged_rows_outlive_a_drop() {
    let folder = Folder::new();
    let shard = folder.open(numbered()).await;
    shard.insert(rows(&[-7, 7], &[1.0, 2.0, 3.0, 4.0])).await.unwrap();
    drop(shard);
    let shard = folder.open(numbered()).await;
    assert_eq!(vectors_of(&shard, &[7, -7]).await, [3.0, 4.0, 1.0, 2.0]);
}

async fn log_objects(objects: &Arc<dyn ObjectStore>) -> usize {
    use futures_util::TryStreamExt;
    let found: Vec<_> = objects.list(None).try_collect().await.unwrap();
    found.iter().filter(|object| object.location.as_ref().contains("/wal/")).count()
}

/// On a store that takes its time: the first write of all goes out alone, those that come meanwhile go out together.
#[tokio::test]
async fn inserts_that_come_together_share_a_flush() {
    use object_store::throttle::{ThrottleConfig, ThrottledStore};
    let slow = ThrottleConfig { wait_put_per_call: std::time::Duration::from_millis(50), ..ThrottleConfig::default() };
    let objects: Arc<dyn ObjectStore> = Arc::new(ThrottledStore::new(object_store::memory::InMemory::new(), slow));
    let shard = Shard::open(Arc::clone(&objects), PATH, numbered()).await.unwrap();
    let before = log_objects(&objects).await;
    let inserts = (0..40).map(|id| {
        let shard = shard.clone();
        async move { shard.insert(rows(&[id], &[1.0, 2.0])).await.unwrap() }
    });
    futures_util::future::join_all(inserts).await;
    let flushed = log_objects(&objects).await - before;
    assert!((1..=8).contains(&flushed), "{flushed} objects for 40 inserts");
    shard.insert(rows(&[40], &[1.0, 2.0])).await.unwrap();
    assert_eq!(log_objects(&objects).await - before, flushed + 1, "a lone insert asks for its own flush");
    drop(shard);
    assert_eq!(Shard::open(objects, PATH, numbered()).await.unwrap().count(), 41);
}

#[tokio::test]
async fn later_row_replaces_earlier() {
    let folder = Folder::new();
    let shard = folder.open(numbered()).await;
    shard.insert(rows(&[1, 2], &[1.0, 1.0, 2.0, 2.0])).await.unwrap();
    shard.insert(rows(&[2, 3, 3], &[0.0, 9.0, 0.0, 0.0, 3.0, 3.0])).await.unwrap();
    for _reopened in 0..2 {
        let shard = folder.open(numbered()).await;
        assert_eq!(shard.count(), 3);
        assert_eq!(vectors_of(&shard, &[1, 2, 3]).await, [1.0, 1.0, 0.0, 9.0, 3.0, 3.0]);
        let hits = shard.search("vector", Metric::Cosine, vec![vec![0.0, 1.0]], 1, &[]).await.unwrap();
        assert_eq!(hits.keys.values, Values::Int64(vec![2]));
    }
}

#[tokio::test]
async fn replaced_row_is_found_by_its_new_vector() {
    let folder = Folder::new();
    let shard = folder.open(numbered()).await;
    shard.insert(rows(&[1, 2], &[1.0, 0.0, 2.0, 0.0])).await.unwrap();
    shard.insert(rows(&[1], &[0.0, 5.0])).await.unwrap();
    let hits = shard.search("vector", Metric::Cosine, vec![vec![0.0, 1.0]], 2, &[]).await.unwrap();
    assert_eq!((hits.keys.values, hits.scores), (Values::Int64(vec![1, 2]), vec![1.0, 0.0]));
}

#[tokio::test]
async fn one_bad_row_keeps_all_out() {
    let folder = Folder::new();
    let shard = folder.open(numbered()).await;
    let error = shard.insert(rows(&[1, 2], &[1.0, 1.0, 2.0, f32::INFINITY])).await.unwrap_err();
    assert!(matches!(error, Error::Columns(_)), "{error:?}");
    assert_eq!(shard.count(), 0);
    drop(shard);
    assert_eq!(folder.open(numbered()).await.count(), 0);
}

#[tokio::test]
async fn concurrent_inserts_of_a_key_agree_with_the_store() {
    let folder = Folder::new();
    let shard = folder.open(numbered()).await;
    let insert = |value: u8| {
        let shard = shard.clone();
        async move { shard.insert(rows(&[1], &[value.into(), 0.0])).await }
    };
    let inserted = futures_util::future::join_all((0..50).map(insert)).await;
    assert!(inserted.iter().all(Result::is_ok), "{inserted:?}");
    let shown = vectors_of(&shard, &[1]).await;
    shard.close().await.unwrap();
    assert_eq!(vectors_of(&folder.open(numbered()).await, &[1]).await, shown);
}

#[tokio::test]
async fn abandoned_insert_reaches_the_index() {
    let folder = Folder::new();
    let shard = folder.open(numbered()).await;
    let mut insert = Box::pin(shard.insert(rows(&[1], &[1.0, 1.0])));
    assert!(futures_util::poll!(insert.as_mut()).is_pending());
    drop(insert);
    // Inserts become visible in the order the store took them, so the second one tells of the first.
    shard.insert(rows(&[2], &[2.0, 2.0])).await.unwrap();
    let seen = tokio::time::timeout(std::time::Duration::from_secs(30), async {
        while shard.count() < 2 {
            tokio::task::yield_now().await;
        }
    });
    assert!(seen.await.is_ok(), "{} rows", shard.count());
}

#[tokio::test]
async fn fenced_writer_is_told_it_is_not_the_owner() {
    let folder = Folder::new();
    let first = folder.open(numbered()).await;
    first.insert(rows(&[1], &[1.0, 1.0])).await.unwrap();
    let second = folder.open(numbered()).await;
    let error = first.insert(rows(&[2], &[2.0, 2.0])).await.unwrap_err();
    assert!(matches!(error, Error::NotOwner(_)), "{error:?}");
    second.insert(rows(&[3], &[3.0, 3.0])).await.unwrap();
    drop((first, second));
    let shard = folder.open(numbered()).await;
    assert_eq!((shard.count(), vectors_of(&shard, &[1, 2, 3]).await.len()), (2, 4));
}

#[tokio::test]
async fn closed_shard_says_so() {
    let folder = Folder::new();
    let shard = folder.open(numbered()).await;
    shard.close().await.unwrap();
    shard.close().await.unwrap();
    let error = shard.insert(rows(&[1], &[1.0, 1.0])).await.unwrap_err();
    assert!(matches!(error, Error::Closed), "{error:?}");
}

#[tokio::test]
async fn destroyed_shard_leaves_nothing() {
    let folder = Folder::new();
    let shard = folder.open(numbered()).await;
    shard.insert(rows(&[1], &[1.0, 1.0])).await.unwrap();
    shard.destroy().await.unwrap();
    let left: Vec<_> = futures_util::TryStreamExt::try_collect(folder.objects.list(None)).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
    destroy(&folder.objects, PATH).await.unwrap();
    assert_eq!(folder.open(numbered()).await.count(), 0);
}

#[tokio::test]
async fn another_schema_does_not_read_as_rows() {
    let folder = Folder::new();
    let shard = folder.open(numbered()).await;
    shard.insert(rows(&[1], &[1.0, 1.0])).await.unwrap();
    shard.close().await.unwrap();
    let other = schema(field("id", DataType::Int64, None), "3");
    let error = folder.try_open(other).await.unwrap_err();
    assert!(matches!(&error, Error::Corrupt(what) if what.contains("vector")), "{error:?}");
}

#[tokio::test]
async fn cosine_of_zero_vector_is_zero() {
    let folder = Folder::new();
    let shard = folder.open(numbered()).await;
    shard.insert(rows(&[1, 2, 3], &[0.0, 0.0, 1.0, 0.0, -1.0, 0.0])).await.unwrap();
    let hits = shard.search("vector", Metric::Cosine, vec![vec![1.0, 0.0], vec![0.0, 0.0]], 3, &[]).await.unwrap();
    assert_eq!(hits.counts, [3, 3]);
    assert_eq!(hits.scores, [1.0, 0.0, -1.0, 0.0, 0.0, 0.0]);
    assert!(hits.scores.iter().all(|score| *score != 0.0 || score.is_sign_positive()), "{:?}", hits.scores);
    assert_eq!(hits.keys.values, Values::Int64(vec![2, 1, 3, 1, 2, 3]));
}

#[tokio::test]
async fn what_is_no_number_is_farthest() {
    let folder = Folder::new();
    let shard = folder.open(numbered()).await;
    shard.insert(rows(&[1, 2, 3], &[f32::MAX, -f32::MAX, f32::MAX, f32::MAX, 0.0, 1.0])).await.unwrap();
    for limit in 0..4 {
        let hits = shard.search("vector", Metric::Ip, vec![vec![f32::MAX; 2]], limit, &[]).await.unwrap();
        assert_eq!(hits.keys.values, Values::Int64([2, 3, 1][..limit].to_vec()));
        assert_eq!(hits.scores, [f32::INFINITY, f32::MAX, f32::NEG_INFINITY][..limit]);
    }
}

/// Few queries are answered where they were asked, many on a thread of their own.
#[tokio::test]
async fn many_queries_find_what_each_finds_alone() {
    let folder = Folder::new();
    let (dim, count) = (64, 1_000);
    let shard = folder.open(schema(field("id", DataType::Int64, None), "64")).await;
    let number = |at: usize| (at * 7_919 % 1_013) as f32;
    let ids: Vec<i64> = (0..count).collect();
    shard.insert(rows(&ids, &(0..count as usize * dim).map(number).collect::<Vec<_>>())).await.unwrap();
    let queries: Vec<Vec<f32>> = (0..64).map(|query| (0..dim).map(|at| number(query + 3 * at)).collect()).collect();
    let together = shard.search("vector", Metric::L2, queries.clone(), 5, &names(&["vector"])).await.unwrap();
    let mut alone = (vec![], vec![]);
    for query in queries {
        let hits = shard.search("vector", Metric::L2, vec![query], 5, &[]).await.unwrap();
        let Values::Int64(keys) = hits.keys.values else { panic!("keys are Int64") };
        alone.0.extend(keys);
        alone.1.extend(hits.scores);
    }
    assert_eq!((together.keys.values, together.scores), (Values::Int64(alone.0), alone.1));
}

#[tokio::test]
async fn refuses_queries_that_do_not_fit() {
    let folder = Folder::new();
    let shard = folder.open(numbered()).await;
    let refused = async |field: &str, query: Vec<f32>, output: &str| {
        let output = names(&[output]);
        shard.search(field, Metric::L2, vec![query], 1, &output).await.unwrap_err().to_string()
    };
    assert!(refused("vector", vec![1.0], "id").await.contains("dimension 1, expected 2"));
    assert!(refused("vector", vec![f32::NAN, 1.0], "id").await.contains("not finite"));
    assert!(refused("note", vec![1.0, 1.0], "id").await.contains("no vector field"));
    assert!(refused("vector", vec![1.0, 1.0], "nil").await.contains("nil"));
}

/// The hits of a plain sort in double precision: what search must find.
fn expected(metric: Metric, data: &[Vec<f32>], query: &[f32], limit: usize) -> Vec<f64> {
    let mut scores: Vec<f64> = data.iter().map(|row| score(metric, row, query)).collect();
    scores.sort_by(|a, b| if metric.smaller_is_nearer() { a.total_cmp(b) } else { b.total_cmp(a) });
    scores.truncate(limit);
    scores
}

fn score(metric: Metric, a: &[f32], b: &[f32]) -> f64 {
    let pairs = || a.iter().zip(b).map(|(a, b)| (f64::from(*a), f64::from(*b)));
    let dot: f64 = pairs().map(|(a, b)| a * b).sum();
    let norm = |v: &[f32]| v.iter().map(|n| f64::from(*n).powi(2)).sum::<f64>().sqrt();
    match metric {
        Metric::L2 => pairs().map(|(a, b)| (a - b).powi(2)).sum(),
        Metric::Ip => dot,
        Metric::Cosine if norm(a) * norm(b) == 0.0 => 0.0,
        Metric::Cosine => dot / (norm(a) * norm(b)),
    }
}

fn data() -> impl Strategy<Value = (Vec<Vec<f32>>, Vec<f32>, usize)> {
    // Whole numbers in a small range: ties are common.
    (1..40_usize).prop_flat_map(|dim| {
        let vector = move || prop::collection::vec((-4_i8..4).prop_map(f32::from), dim);
        (prop::collection::vec(vector(), 1..600), vector(), 1..700_usize)
    })
}

async fn check_recall(data: Vec<Vec<f32>>, query: Vec<f32>, limit: usize) {
    let objects: Arc<dyn ObjectStore> = Arc::new(object_store::memory::InMemory::new());
    let fields = schema(field("id", DataType::Int64, None), &query.len().to_string());
    let shard = Shard::open(objects, PATH, fields).await.unwrap();
    let ids: Vec<i64> = (0..data.len() as i64).rev().collect();
    shard.insert(rows(&ids, &data.concat())).await.unwrap();
    for metric in [Metric::L2, Metric::Ip, Metric::Cosine] {
        let hits = shard.search("vector", metric, vec![query.clone(); 2], limit, &names(&["id"])).await.unwrap();
        let count = limit.min(data.len());
        assert_eq!(hits.counts, [count, count]);
        assert_eq!(hits.scores[..count], hits.scores[count..]);
        assert_eq!(hits.columns[0], hits.keys);
        let Values::Int64(keys) = &hits.keys.values else { panic!("keys are Int64") };
        for (hit, expected) in expected(metric, &data, &query, limit).into_iter().enumerate() {
            let own = score(metric, &data[data.len() - 1 - keys[hit] as usize], &query);
            assert!((own - expected).abs() < 1e-4, "{metric:?}: hit {hit} scores {own}, expected {expected}");
            assert!((f64::from(hits.scores[hit]) - expected).abs() < 1e-4, "{metric:?}: {}", hits.scores[hit]);
        }
        let tied = (1..count).filter(|hit| hits.scores[*hit] == hits.scores[hit - 1]);
        tied.for_each(|hit| assert!(keys[hit - 1] < keys[hit], "ties come by key"));
    }
    shard.close().await.unwrap();
}

#[test]
fn search_finds_what_a_plain_sort_finds() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() };
    proptest!(config, |((data, query, limit) in data())| {
        runtime.block_on(check_recall(data, query, limit));
    });
}
