//! The REST edge, as curl would use it.
use axum::body::Body;
use axum::http::{Request, Response, StatusCode, Version};
use futures_util::stream;
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
    /// What a client gets that sends JSON and says so, where `headers` do not say otherwise.
    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (StatusCode, Value) {
        let json = [("content-type", "application/json")];
        let named = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let headers: Vec<_> = headers.iter().chain(json.iter().filter(|_| !named)).copied().collect();
        let response = self.raw(method, path, &headers, Body::from(body.to_owned()), Version::HTTP_11).await;
        let status = response.status();
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
        (status, serde_json::from_slice(&bytes).unwrap())
    }

    async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Body,
        version: Version,
    ) -> Response<Body> {
        let mut request = Request::builder().method(method).uri(format!("/v2/vectordb/{path}")).version(version);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (_, rest) = crate::routers(self.fake.cluster.clone(), &self.users, node::Health::default());
        rest.oneshot(request.body(body).unwrap()).await.unwrap()
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

/// Every path and what a browser sends for a page of another site without asking: a form or a text by POST, or a GET.
#[tokio::test]
async fn foreign_pages_change_nothing() {
    let edge = edge().with_rows().await;
    let drop = r#"{"collectionName": "c"}"#;
    for kind in [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "text/plain",
        "",
        "application/json,text/plain",
        "application/jsonp",
    ] {
        let (status, body) = edge.send("POST", "collections/drop", &[("Content-Type", kind)], drop).await;
        assert_eq!((status, &body["code"]), (StatusCode::UNSUPPORTED_MEDIA_TYPE, &json!(1801)), "{kind}: {body}");
        assert!(body["message"].as_str().unwrap().contains("send Content-Type: application/json"), "{body}");
    }
    let two = [("Content-Type", "application/json"), ("Content-Type", "text/plain")];
    assert_eq!(edge.send("POST", "collections/drop", &two, drop).await.0, StatusCode::UNSUPPORTED_MEDIA_TYPE);
    let none = edge.raw("POST", "collections/drop", &[], Body::from(drop), Version::HTTP_2).await;
    assert_eq!(none.status(), StatusCode::UNSUPPORTED_MEDIA_TYPE);
    assert_eq!(none.headers()["accept"], "application/json");
    for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"] {
        let json = [("Content-Type", "application/json")];
        let refused = edge.raw(method, "collections/drop", &json, Body::from(drop), Version::HTTP_11).await;
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert_eq!(refused.headers()["allow"], "POST", "{method}");
        assert!(!refused.headers().keys().any(|name| name.as_str().starts_with("access-control")), "{method}");
    }
    assert_eq!(edge.post("collections/has", json!({"collectionName": "c"})).await["data"], json!({"has": true}));
    for kind in ["application/json", "Application/JSON; charset=utf-8", " application/json ;x"] {
        let (status, body) = edge.send("POST", "collections/drop", &[("Content-Type", kind)], drop).await;
        assert_eq!((status, &body["code"]), (StatusCode::OK, &json!(0)), "{kind}: {body}");
    }
}

#[tokio::test]
async fn reads_take_get_and_any_type() {
    let edge = edge().with_rows().await;
    let form = [("Content-Type", "application/x-www-form-urlencoded")];
    let listed = edge.send("POST", "collections/list", &form, "{}").await;
    assert_eq!(listed, (StatusCode::OK, json!({"code": 0, "data": ["c"]})), "curl -d sends this type");
    let (status, body) = edge.send("DELETE", "collections/list", &[], "{}").await;
    assert_eq!((status, &body["code"]), (StatusCode::METHOD_NOT_ALLOWED, &json!(405)));
    let refused = edge.raw("PUT", "collections/list", &[], Body::empty(), Version::HTTP_11).await;
    assert_eq!(refused.headers()["allow"], "GET, POST");
    assert_eq!(edge.send("PUT", "nope/list", &[], "{}").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn refused_encodings_are_named() {
    let edge = edge().with_rows().await;
    for path in ["entities/query", "entities/insert"] {
        for coding in ["gzip", "br", "identity, gzip"] {
            let headers = [("Content-Type", "application/json"), ("Content-Encoding", coding)];
            let refused = edge.raw("POST", path, &headers, Body::from("\u{1f}"), Version::HTTP_11).await;
            let (status, accepted) = (refused.status(), refused.headers()["accept-encoding"].clone());
            let body: Value =
                serde_json::from_slice(&axum::body::to_bytes(refused.into_body(), usize::MAX).await.unwrap()).unwrap();
            assert_eq!((status, &body["code"]), (StatusCode::UNSUPPORTED_MEDIA_TYPE, &json!(1801)), "{body}");
            assert_eq!(accepted, "identity");
            assert!(body["message"].as_str().unwrap().contains(&format!("`{coding}`")), "{body}");
        }
        let identity = [("Content-Encoding", "identity")];
        assert_eq!(edge.send("POST", path, &identity, "{}").await.0, StatusCode::OK);
    }
}

/// A body of which nothing ever comes, as of a client that waits for 100.
fn held_back() -> Body {
    Body::from_stream(stream::pending::<Result<String, std::io::Error>>())
}

const WAITS: [(&str, &str); 2] = [("Content-Type", "application/json"), ("Expect", "100-Continue")];

#[tokio::test(start_paused = true)]
async fn held_back_bodies_are_refused_at_once() {
    let edge = edge().with_rows().await;
    // The clock stands still but for timers: this is the time that the client waited.
    let began = tokio::time::Instant::now();
    let refused = edge.raw("PUT", "entities/insert", &WAITS, held_back(), Version::HTTP_11).await;
    assert_eq!((refused.status(), began.elapsed()), (StatusCode::METHOD_NOT_ALLOWED, std::time::Duration::ZERO));
}

#[tokio::test]
async fn long_names_fail_their_own_call() {
    let edge = edge().with_rows().await;
    let long = "n".repeat(200 << 10);
    for (path, field, code) in [
        ("collections/describe", "collectionName", 1100),
        ("collections/drop", "collectionName", 1100),
        ("collections/list", "dbName", 800),
        ("entities/query", "collectionName", 1100),
    ] {
        let answer = edge.post(path, json!({field: &long})).await;
        assert_eq!(answer["code"], json!(code), "{path}");
        let message = answer["message"].as_str().unwrap();
        assert!(message.len() < 2_048, "{path}: {}", message.len());
    }
    let text = edge.post("collections/describe", json!({"collectionName": long})).await["message"].clone();
    assert!(
        text.as_str().unwrap().ends_with("the length of a collection name must be less than 255 characters"),
        "{text}"
    );
}

#[tokio::test]
async fn panic_is_an_error_of_its_call() {
    let fake = Fake { cluster: fake::broken(), nodes: Vec::new() };
    let edge = Edge { fake, users: Users::Open };
    let (status, body) = edge.send("POST", "collections/list", &[], "{}").await;
    assert_eq!((status, &body["code"]), (StatusCode::INTERNAL_SERVER_ERROR, &json!(65_535)));
    assert!(!body.to_string().contains("secret"), "{body}");
}
