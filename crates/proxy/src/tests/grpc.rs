//! The gRPC edge, as stock clients use it.
use base64::Engine;
use prost::Message;
use rpc::milvus::milvus_service_client::MilvusServiceClient;
use rpc::milvus::*;
use rpc::schema::{CollectionSchema, DataType, FieldData, FloatArray, VectorField, field_data::Field, vector_field};
use tonic::{Code, Request};
use tower::ServiceExt;
use tower::util::BoxCloneSyncService;

use super::fake::{self, Fake};
use crate::columns;
use crate::key::{self, Key};
use crate::schema::tests::simple;
use crate::{Users, Wire};

fn client(fake: &Fake, users: &Users) -> MilvusServiceClient<Wire> {
    let (grpc, _) = crate::routers(fake.cluster.clone(), users, node::Health::default());
    MilvusServiceClient::new(through(grpc)).max_decoding_message_size(usize::MAX)
}

fn through(grpc: axum::Router) -> Wire {
    BoxCloneSyncService::new(tower::service_fn(move |request: http::Request<tonic::body::Body>| {
        let grpc = grpc.clone();
        async move { grpc.oneshot(request).await.map(|reply| reply.map(tonic::body::Body::new)).map_err(|e| match e {}) }
    }))
}

fn open() -> MilvusServiceClient<Wire> {
    client(&fake::cluster(), &Users::Open)
}

async fn make(client: &mut MilvusServiceClient<Wire>, schema: &CollectionSchema) -> rpc::common::Status {
    let request = CreateCollectionRequest {
        collection_name: "c".into(),
        schema: schema.encode_to_vec().into(),
        ..Default::default()
    };
    client.create_collection(request).await.unwrap().into_inner()
}

async fn ready(client: &mut MilvusServiceClient<Wire>, schema: &CollectionSchema) {
    assert_eq!(make(client, schema).await.code, 0);
    let index = CreateIndexRequest { collection_name: "c".into(), field_name: "vector".into(), ..Default::default() };
    assert_eq!(client.create_index(index).await.unwrap().into_inner().code, 0);
    let load = LoadCollectionRequest { collection_name: "c".into(), ..Default::default() };
    assert_eq!(client.load_collection(load).await.unwrap().into_inner().code, 0);
}

fn vectors(dim: i64, data: Vec<f32>) -> FieldData {
    let data = Some(vector_field::Data::FloatVector(FloatArray { data }));
    let field = Some(Field::Vectors(VectorField { dim, data }));
    FieldData { field_name: "vector".into(), r#type: DataType::FloatVector.into(), field, ..Default::default() }
}

fn rows(ids: Vec<i64>) -> InsertRequest {
    let floats = ids.iter().flat_map(|&id| [id as f32, 1.0]).collect();
    InsertRequest {
        collection_name: "c".into(),
        num_rows: ids.len() as u32,
        fields_data: vec![columns::longs("id", ids), vectors(2, floats)],
        ..Default::default()
    }
}

#[tokio::test]
async fn missing_collection_is_code_100() {
    let request = DescribeCollectionRequest { collection_name: "nope".into(), ..Default::default() };
    let status = open().describe_collection(request).await.unwrap().into_inner().status.unwrap();
    assert_eq!((status.code, status.error_code), (100, rpc::common::ErrorCode::CollectionNotExists as i32));
    assert_eq!(status.reason, "can't find collection[database=default][collection=nope]");
}

#[tokio::test]
async fn database_travels_in_metadata() {
    let mut request = Request::new(ShowCollectionsRequest::default());
    request.metadata_mut().insert("dbname", "other".parse().unwrap());
    let status = open().show_collections(request).await.unwrap().into_inner().status.unwrap();
    assert_eq!((status.code, status.reason.as_str()), (800, "database not found[database=other]"));
}

#[tokio::test]
async fn making_the_same_again_succeeds() {
    let mut client = open();
    let schema = simple(DataType::Int64);
    assert_eq!(make(&mut client, &schema).await.code, 0);
    assert_eq!(make(&mut client, &schema).await.code, 0);
    let other = make(&mut client, &simple(DataType::VarChar)).await;
    assert!(other.reason.contains("create duplicate collection"), "{other:?}");
}

#[tokio::test]
async fn inserted_rows_are_counted_and_found() {
    let mut client = open();
    ready(&mut client, &simple(DataType::Int64)).await;
    let inserted = client.insert(rows((0..50).collect())).await.unwrap().into_inner();
    assert_eq!(inserted.insert_cnt, 50);
    assert_eq!(key::from_ids(inserted.i_ds), (0..50).map(Key::Int).collect::<Vec<_>>());
    let query = QueryRequest {
        collection_name: "c".into(),
        expr: "id in [9, 3, 70]".into(),
        output_fields: vec!["*".into()],
        ..Default::default()
    };
    let found = client.query(query).await.unwrap().into_inner();
    assert_eq!(key::of_column(&found.fields_data[0]), [Key::Int(3), Key::Int(9)]);
    assert!(found.session_ts > 0);
}

#[tokio::test]
async fn unloaded_collections_are_not_read() {
    let mut client = open();
    assert_eq!(make(&mut client, &simple(DataType::Int64)).await.code, 0);
    let query = QueryRequest { collection_name: "c".into(), expr: "id == 1".into(), ..Default::default() };
    let status = client.query(query).await.unwrap().into_inner().status.unwrap();
    assert_eq!((status.code, status.reason.as_str()), (101, "collection not loaded[collection=c]"));
    let load = LoadCollectionRequest { collection_name: "c".into(), ..Default::default() };
    assert_eq!(client.load_collection(load).await.unwrap().into_inner().code, 700);
}

#[tokio::test]
async fn unbuilt_calls_are_named() {
    let error = open().rename_collection(RenameCollectionRequest::default()).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Unimplemented, "RenameCollection is not implemented"));
}

#[tokio::test]
async fn unbuilt_filters_are_not_retried() {
    let mut client = open();
    ready(&mut client, &simple(DataType::Int64)).await;
    let query = QueryRequest { collection_name: "c".into(), expr: "age > 3".into(), ..Default::default() };
    assert_eq!(client.query(query).await.unwrap_err().code(), Code::Unimplemented);
}

#[tokio::test]
async fn calls_that_do_not_exist_are_named() {
    let (grpc, _) = crate::routers(fake::cluster().cluster, &Users::Open, node::Health::default());
    let request = http::Request::post("/milvus.proto.milvus.MilvusService/Nope")
        .header("content-type", "application/grpc")
        .body(axum::body::Body::empty());
    let reply = grpc.oneshot(request.unwrap()).await.unwrap();
    assert_eq!(reply.headers()["grpc-status"], "12");
    assert_eq!(reply.headers()["grpc-message"], "/milvus.proto.milvus.MilvusService/Nope is not implemented");
}

#[tokio::test]
async fn every_call_bears_credentials() {
    let fake = fake::cluster();
    let mut client = client(&fake, &Users::Root("Milvus".into()));
    assert_eq!(client.connect(ConnectRequest::default()).await.unwrap_err().code(), Code::Unauthenticated);
    let with = |token: &str| {
        let mut request = Request::new(ConnectRequest::default());
        let token = base64::engine::general_purpose::STANDARD.encode(token);
        request.metadata_mut().insert("authorization", token.parse().unwrap());
        request
    };
    assert_eq!(client.connect(with("root:wrong")).await.unwrap_err().code(), Code::Unauthenticated);
    assert!(client.connect(with("root:Milvus")).await.is_ok());
}

#[tokio::test]
async fn a_missing_node_is_unavailable_and_named() {
    let fake = fake::cluster();
    let mut client = client(&fake, &Users::Open);
    ready(&mut client, &simple(DataType::Int64)).await;
    fake.nodes[0].go();
    let error = client.insert(rows((0..50).collect())).await.unwrap_err();
    assert_eq!((error.code(), error.message()), (Code::Unavailable, "data-node data-node-1: connection refused"));
    assert!(client.check_health(CheckHealthRequest {}).await.unwrap().into_inner().is_healthy);
}

#[tokio::test]
async fn messages_of_64_mb_pass() {
    let mut client = open();
    let mut schema = simple(DataType::Int64);
    schema.fields[1].type_params[0].value = "32768".into();
    ready(&mut client, &schema).await;
    let request = InsertRequest {
        collection_name: "c".into(),
        num_rows: 520,
        fields_data: vec![columns::longs("id", (0..520).collect()), vectors(32_768, vec![0.5; 520 * 32_768])],
        ..Default::default()
    };
    assert!(request.encoded_len() > 64 << 20);
    assert_eq!(client.insert(request).await.unwrap().into_inner().insert_cnt, 520);
}

#[tokio::test]
async fn health_needs_no_credentials() {
    use rpc::health::HealthCheckRequest;
    use rpc::health::health_check_response::ServingStatus;
    use rpc::health::health_client::HealthClient;

    let health = node::Health::default();
    let gate = health.require("peer");
    let (grpc, _) = crate::routers(fake::cluster().cluster, &Users::Root("Milvus".into()), health);
    let mut client = HealthClient::new(through(grpc));
    let mut check = async |service: &str| {
        let answer = client.check(HealthCheckRequest { service: service.into() }).await;
        answer.map(|reply| reply.into_inner().status()).map_err(|status| status.code())
    };
    for service in ["", "milvus.proto.milvus.MilvusService"] {
        gate.close("gone");
        assert_eq!(check(service).await, Ok(ServingStatus::NotServing), "{service}");
        gate.open();
        assert_eq!(check(service).await, Ok(ServingStatus::Serving), "{service}");
    }
    assert_eq!(check("milvus.Nope").await, Err(Code::NotFound));
}

#[tokio::test]
async fn long_names_fail_their_own_call() {
    let long = "n".repeat(200 << 10);
    let request = DescribeCollectionRequest { collection_name: long.clone(), ..Default::default() };
    let status = open().describe_collection(request).await.unwrap().into_inner().status.unwrap();
    assert_eq!((status.code, status.error_code), (1100, rpc::common::ErrorCode::IllegalArgument as i32));
    assert!(status.reason.len() < 1_024, "{}", status.reason.len());
    assert!(status.reason.ends_with("the length of a collection name must be less than 255 characters"));
    let mut client = open();
    ready(&mut client, &simple(DataType::Int64)).await;
    let field = CreateIndexRequest { collection_name: "c".into(), field_name: long.clone(), ..Default::default() };
    let status = client.create_index(field).await.unwrap().into_inner();
    assert!(status.code == 1100 && status.reason.len() < 1_024, "{}: {}", status.code, status.reason.len());
    let partition =
        GetLoadStateRequest { collection_name: "c".into(), partition_names: vec![long.clone()], ..Default::default() };
    let status = client.get_load_state(partition).await.unwrap().into_inner().status.unwrap();
    assert!(status.code == 1100 && status.reason.len() < 1_024, "{}: {}", status.code, status.reason.len());
    let filter = QueryRequest { collection_name: "c".into(), expr: format!("{long} > 3"), ..Default::default() };
    let error = client.query(filter).await.unwrap_err();
    assert!(error.message().len() < 2_048, "{}", error.message().len());
    let drop = DropCollectionRequest { collection_name: "a-b".into(), ..Default::default() };
    let status = client.drop_collection(drop).await.unwrap().into_inner();
    assert_eq!(
        status.reason,
        "Invalid collection name: a-b. collection name can only contain numbers, letters and underscores"
    );
}

#[tokio::test]
async fn panic_is_an_error_of_its_call() {
    let (grpc, _) = crate::routers(fake::broken(), &Users::Open, node::Health::default());
    let mut client = MilvusServiceClient::new(through(grpc));
    let error = client.show_collections(ShowCollectionsRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), Code::Internal);
    assert!(!error.message().contains("secret"), "{error}");
    assert!(client.connect(ConnectRequest::default()).await.is_ok());
}
