//! The REST edge, as curl would use it.
use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use tower::ServiceExt;

use super::fake::{self, Fake};
use crate::Users;

struct Edge {
    fake: Fake,
    users: Users,
}

fn edge() -> Edge {
    Edge { fake: fake::cluster(), users: Users::Open }
}

impl Edge {
    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (StatusCode, Value) {
        let mut request = Request::builder().method(method).uri(format!("/v2/vectordb/{path}"));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (_, rest) = crate::routers(self.fake.cluster.clone(), &self.users);
        let response = rest.oneshot(request.body(Body::from(body.to_owned())).unwrap()).await.unwrap();
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        self.send("POST", path, &[], &body.to_string()).await.1
    }

    async fn with_rows(self) -> Self {
        let made = json!({"collectionName": "c", "dimension": 2, "metricType": "L2"});
        assert_eq!(self.post("collections/create", made).await, json!({"code": 0, "data": {}}));
        let rows: Vec<Value> =
            (0..20).map(|n| json!({"id": n, "vector": [n, 0.5], "color": format!("c{n}")})).collect();
        let inserted = self.post("entities/insert", json!({"collectionName": "c", "data": rows})).await;
        assert_eq!(inserted["data"]["insertCount"], json!(20), "{inserted}");
        self
    }
}

#[tokio::test]
async fn documented_get_lists_collections() {
    let edge = edge().with_rows().await;
    let got = edge.send("GET", "collections/list", &[("Request-Timeout", "10")], "").await;
    assert_eq!(got, (StatusCode::OK, json!({"code": 0, "data": ["c"]})));
}

#[tokio::test]
async fn quick_collection_is_ready() {
    let edge = edge().with_rows().await;
    let described = edge.post("collections/describe", json!({"collectionName": "c"})).await;
    let data = &described["data"];
    assert_eq!(data["load"], json!("LoadStateLoaded"));
    assert_eq!(data["enableDynamicField"], json!(true));
    assert_eq!(data["indexes"], json!([{"indexName": "vector", "fieldName": "vector", "metricType": "L2"}]));
    let names: Vec<&Value> = data["fields"].as_array().unwrap().iter().map(|field| &field["name"]).collect();
    assert_eq!(names, ["id", "vector"]);
    let stats = edge.post("collections/get_stats", json!({"collectionName": "c"})).await;
    assert_eq!(stats["data"], json!({"rowCount": 20}));
}

#[tokio::test]
async fn rows_come_back_by_key() {
    let edge = edge().with_rows().await;
    let got = edge.post("entities/get", json!({"collectionName": "c", "id": [7, 3, 99]})).await;
    let want = json!([{"id": 3, "vector": [3.0, 0.5], "color": "c3"}, {"id": 7, "vector": [7.0, 0.5], "color": "c7"}]);
    assert_eq!(got, json!({"code": 0, "cost": 0, "data": want}));
    let query = json!({"collectionName": "c", "filter": "id in [5]", "outputFields": ["color"]});
    assert_eq!(edge.post("entities/query", query).await["data"], json!([{"id": 5, "color": "c5"}]));
    let count = json!({"collectionName": "c", "outputFields": ["count(*)"]});
    assert_eq!(edge.post("entities/query", count).await["data"], json!([{"count(*)": 20}]));
}

#[tokio::test]
async fn search_merges_all_shards() {
    let edge = edge().with_rows().await;
    let body = json!({"collectionName": "c", "data": [[4.2, 0.5], [18.9, 0.5]], "limit": 3, "outputFields": ["color"]});
    let got = edge.post("entities/search", body).await;
    let ids: Vec<&Value> = got["data"].as_array().unwrap().iter().map(|hit| &hit["id"]).collect();
    assert_eq!(ids, [4, 5, 3, 19, 18, 17]);
    assert_eq!(got["topks"], json!([3, 3]));
    assert_eq!(got["data"][0]["color"], json!("c4"));
}

#[tokio::test]
async fn long_integers_can_be_texts() {
    let edge = edge().with_rows().await;
    let body = json!({"collectionName": "c", "id": "3", "outputFields": ["id"]}).to_string();
    let (_, got) = edge.send("POST", "entities/get", &[("Accept-Type-Allow-Int64", "false")], &body).await;
    assert_eq!(got["data"], json!([{"id": "3"}]));
}

#[tokio::test]
async fn failures_have_their_codes() {
    let edge = edge().with_rows().await;
    let code = async |path: &str, body: &str| edge.send("POST", path, &[], body).await.1["code"].clone();
    assert_eq!(code("collections/describe", "").await, 1801);
    assert_eq!(code("collections/describe", "{}").await, 1802);
    assert_eq!(code("collections/describe", r#"{"collectionName": 1}"#).await, 1801);
    assert_eq!(code("collections/describe", r#"{"collectionName": "nope"}"#).await, 100);
    assert_eq!(code("collections/list", r#"{"dbName": "other"}"#).await, 800);
    assert_eq!(code("entities/insert", r#"{"collectionName": "c", "data": [{"id": 1}]}"#).await, 1804);
    assert_eq!(code("entities/get", r#"{"collectionName": "c", "id": "x"}"#).await, 1806);
    assert_eq!(code("collections/create", r#"{"collectionName": "d"}"#).await, 1100);
}

#[tokio::test]
async fn unbuilt_is_named_and_unknown_is_404() {
    let edge = edge().with_rows().await;
    let (status, body) = edge.send("POST", "users/list", &[], "{}").await;
    assert_eq!((status, &body["code"]), (StatusCode::NOT_IMPLEMENTED, &json!(10)));
    assert_eq!(body["message"], json!("/v2/vectordb/users/list is not implemented"));
    let filtered = json!({"collectionName": "c", "filter": "color == 'c1'"}).to_string();
    assert_eq!(edge.send("POST", "entities/query", &[], &filtered).await.0, StatusCode::NOT_IMPLEMENTED);
    assert_eq!(edge.send("POST", "nope/list", &[], "{}").await.0, StatusCode::NOT_FOUND);
    assert_eq!(edge.send("PUT", "collections/list", &[], "{}").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn credentials_are_checked_first() {
    let edge = Edge { users: Users::Root("Milvus".into()), ..edge() };
    let (status, body) = edge.send("GET", "collections/list", &[], "").await;
    assert_eq!((status, body["code"].clone()), (StatusCode::UNAUTHORIZED, json!(1800)));
    let wrong = [("Authorization", "Bearer root:wrong")];
    assert_eq!(edge.send("POST", "collections/list", &wrong, "junk").await.0, StatusCode::UNAUTHORIZED);
    let right = [("Authorization", "Bearer root:Milvus")];
    assert_eq!(edge.send("POST", "collections/list", &right, "{}").await.1, json!({"code": 0, "data": []}));
}

#[tokio::test]
async fn a_missing_node_fails_the_whole() {
    let edge = edge().with_rows().await;
    edge.fake.nodes[1].go();
    let got = edge.post("entities/search", json!({"collectionName": "c", "data": [[1, 2]]})).await;
    assert_eq!(got["code"], json!(2));
    assert_eq!(got["message"], json!("data-node data-node-2: connection refused"));
}
