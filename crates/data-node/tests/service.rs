//! A data-node over the mesh, with a coordinator made for the test.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod cluster;

use cluster::{COORDINATOR_AWAY, Coordinator, DataNode, rows, spec};
use rpc::columns::{Column, Values, ids};
use rpc::mesh::{
    CountRequest, DropShardRequest, FlushRequest, GetRequest, InsertRequest, Metric, OpenShardRequest, SearchRequest,
};
use rpc::schema::IDs;
use tonic::Code;

fn int_ids(keys: &[i64]) -> Option<IDs> {
    ids(Values::Int64(keys.to_vec()))
}

fn insert(shard: &str, keys: &[i64], vectors: &[f32]) -> InsertRequest {
    InsertRequest { shard_id: shard.to_owned(), columns: rows(keys, vectors) }
}

fn search(shard: &str, query: &[f32], limit: u32) -> SearchRequest {
    SearchRequest {
        shard_id: shard.to_owned(),
        field: "vector".to_owned(),
        metric: Metric::L2.into(),
        limit,
        queries: vec![query.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<u8>>().into()],
        output_fields: vec!["vector".to_owned()],
    }
}

fn get(shard: &str, keys: &[i64]) -> GetRequest {
    let output_fields = vec!["id".to_owned(), "vector".to_owned()];
    GetRequest { shard_id: shard.to_owned(), ids: int_ids(keys), output_fields }
}

#[tokio::test]
async fn stores_rows_and_finds_them() {
    let node = DataNode::start(&Coordinator::default()).await;
    let mut client = node.client();
    client.open_shard(OpenShardRequest { shard: Some(spec("a")) }).await.unwrap();
    let stored = client.insert(insert("a", &[1, 2, 3], &[0.0, 0.0, 3.0, 4.0, 1.0, 0.0])).await.unwrap();
    assert_eq!(stored.into_inner().rows, 3);
    client.flush(FlushRequest { shard_id: "a".to_owned() }).await.unwrap();
    let count = client.count(CountRequest { shard_id: "a".to_owned() }).await.unwrap();
    assert_eq!(count.into_inner().rows, 3);

    let found = client.search(search("a", &[3.0, 3.0], 2)).await.unwrap().into_inner();
    assert_eq!((found.hits, found.ids, found.scores), (vec![2], int_ids(&[2, 3]), vec![1.0, 13.0]));
    let vectors = Column::try_from(found.columns[0].clone()).unwrap();
    assert_eq!(vectors.values, Values::FloatVector { dim: 2, data: vec![3.0, 4.0, 1.0, 0.0] });

    let got = client.get(get("a", &[3, 9, 1])).await.unwrap().into_inner();
    assert_eq!(got.columns, rows(&[3, 1], &[1.0, 0.0, 0.0, 0.0]));
}

#[tokio::test]
async fn empty_answers_are_typed() {
    let node = DataNode::start(&Coordinator::assigning(&["a"])).await;
    let got = node.client().get(get("a", &[7])).await.unwrap().into_inner();
    let kinds: Vec<i32> = got.columns.iter().map(|column| column.r#type).collect();
    assert_eq!(kinds, [5, 101]);
    let vector = Column::try_from(got.columns[1].clone()).unwrap();
    assert_eq!(vector.values, Values::FloatVector { dim: 2, data: vec![] });
    let found = node.client().search(search("a", &[3.0, 3.0], 2)).await.unwrap().into_inner();
    assert_eq!((found.hits, found.ids), (vec![0], int_ids(&[])));
}

#[tokio::test]
async fn asks_about_a_shard_it_does_not_know() {
    let coordinator = Coordinator::default();
    let node = DataNode::start(&coordinator).await;
    let unknown = node.client().count(CountRequest { shard_id: "b".to_owned() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound, "{unknown:?}");
    coordinator.assign(&["b"]);
    let known = node.client().count(CountRequest { shard_id: "b".to_owned() }).await.unwrap();
    assert_eq!(known.into_inner().rows, 0);
}

#[tokio::test]
async fn says_when_the_coordinator_is_away() {
    let coordinator = Coordinator::default();
    let node = DataNode::start(&coordinator).await;
    coordinator.leave();
    let error = node.client().count(CountRequest { shard_id: "b".to_owned() }).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    assert!(error.message().contains(COORDINATOR_AWAY), "{error:?}");
}

#[tokio::test]
async fn comes_up_with_its_shards() {
    let coordinator = Coordinator::default();
    let first = DataNode::start(&coordinator).await;
    coordinator.assign(&["a", "b", "c"]);
    first.client().insert(insert("b", &[5], &[5.0, 5.0])).await.unwrap();
    first.shards.close().await;

    coordinator.leave();
    let second = DataNode::over(&coordinator, &first.objects).await;
    let coming_up = second.coming_up();
    let said_once = |reasons: &str| reasons.matches(COORDINATOR_AWAY).count() == 1;
    second.wait_until("the reason names the coordinator, once", said_once).await;
    coordinator.come_back();
    coming_up.await.unwrap();
    assert!(second.health.ready(), "{:?}", second.health.reasons());
    assert_eq!(second.client().get(get("b", &[5])).await.unwrap().into_inner().columns, rows(&[5], &[5.0, 5.0]));
}

#[tokio::test]
async fn destroys_what_was_dropped_while_it_was_away() {
    let coordinator = Coordinator::assigning(&["a"]);
    let first = DataNode::start(&coordinator).await;
    first.client().insert(insert("a", &[1], &[1.0, 1.0])).await.unwrap();
    first.shards.close().await;

    coordinator.drop_shard("a");
    let second = DataNode::over(&coordinator, &first.objects).await;
    second.coming_up().await.unwrap();
    assert_eq!(coordinator.confirmed(), ["a"]);
    assert_eq!(second.objects_left().await, 0);
}

#[tokio::test]
async fn dropping_a_shard_destroys_its_rows() {
    let coordinator = Coordinator::assigning(&["a"]);
    let node = DataNode::start(&coordinator).await;
    node.client().insert(insert("a", &[1], &[1.0, 1.0])).await.unwrap();
    coordinator.drop_shard("a");
    for _twice in 0..2 {
        node.client().drop_shard(DropShardRequest { shard_id: "a".to_owned() }).await.unwrap();
    }
    let error = node.client().count(CountRequest { shard_id: "a".to_owned() }).await.unwrap_err();
    assert_eq!((error.code(), node.objects_left().await), (Code::NotFound, 0));
}

#[tokio::test]
async fn lets_go_of_a_shard_that_another_process_took() {
    let coordinator = Coordinator::assigning(&["a"]);
    let first = DataNode::start(&coordinator).await;
    first.client().insert(insert("a", &[1], &[1.0, 1.0])).await.unwrap();
    let second = DataNode::over(&coordinator, &first.objects).await;
    second.coming_up().await.unwrap();

    let error = first.client().insert(insert("a", &[2], &[2.0, 2.0])).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error:?}");
    assert!(first.shards.get("a").await.is_none(), "it would answer from rows it no longer hears of");
    assert_eq!(second.client().insert(insert("a", &[3], &[3.0, 3.0])).await.unwrap().into_inner().rows, 1);
}

#[tokio::test]
async fn refuses_what_does_not_fit() {
    let node = DataNode::start(&Coordinator::assigning(&["a"])).await;
    let mut client = node.client();
    let wide = client.insert(insert("a", &[1], &[1.0, 2.0, 3.0])).await.unwrap_err();
    assert_eq!(wide.code(), Code::InvalidArgument, "{wide:?}");
    assert!(wide.message().contains("dimension 2, found 3"), "{wide:?}");
    let metric = SearchRequest { metric: 9, ..search("a", &[1.0, 1.0], 1) };
    assert_eq!(client.search(metric).await.unwrap_err().code(), Code::InvalidArgument);
    let odd = SearchRequest { queries: vec![vec![0; 7].into()], ..search("a", &[], 1) };
    assert_eq!(client.search(odd).await.unwrap_err().code(), Code::InvalidArgument);
    let outside = client.drop_shard(DropShardRequest { shard_id: "../a".to_owned() }).await.unwrap_err();
    assert_eq!(outside.code(), Code::InvalidArgument);
}

#[tokio::test]
async fn takes_and_gives_large_messages() {
    const ROWS: i64 = 5_000;
    let node = DataNode::start(&Coordinator::assigning_wide("a", 1_024)).await;
    let keys: Vec<i64> = (0..ROWS).collect();
    let request = insert("a", &keys, &vec![0.5; keys.len() * 1_024]);
    let mut client = node.client();
    assert_eq!(client.insert(request).await.unwrap().into_inner().rows, ROWS as u64);
    let got = client.get(get("a", &keys)).await.unwrap().into_inner();
    let bytes = prost::Message::encoded_len(&got);
    assert!(bytes > 16 << 20, "{bytes} bytes prove no limit far above the usual 4 MiB");
}
