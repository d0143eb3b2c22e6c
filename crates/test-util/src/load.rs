//! A steady load of calls at the edge, half of which dial anew each time.
//!
//! 1. Every call is checked: a row is inserted, then read back; the read goes to the data-node that has the row.
//! 2. Four callers: two over gRPC on one connection each for all of the load, one over gRPC and one over REST that dial for
//!    every call.
//! 3. Nothing is tried again. What fails is in the report, with the caller's name.
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rpc::milvus::milvus_service_client::MilvusServiceClient;
use rpc::milvus::{InsertRequest, QueryRequest};
use rpc::schema::{
    DataType, FieldData, FloatArray, LongArray, ScalarField, VectorField, field_data, scalar_field, vector_field,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::cluster::Edge;
use crate::command::curl;

/// The collection that the load fills: `id` and a vector of four.
pub const COLLECTION: &str = "load";
/// No call may take longer, whatever is swapped under it.
const CALL_DEADLINE: Duration = Duration::from_secs(20);
/// The pace of one caller.
const PACE: Duration = Duration::from_millis(10);

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// A running load.
#[derive(Debug)]
pub struct Load {
    over: Arc<AtomicBool>,
    tally: Arc<Tally>,
    thread: Option<JoinHandle<()>>,
}

/// What came of a load.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Calls that were answered rightly.
    pub calls: usize,
    /// Handshakes at the edge.
    pub dials: usize,
    /// Every failure, with the caller's name.
    pub failures: Vec<String>,
    /// The longest call.
    pub longest: Duration,
}

impl Report {
    /// That every call was answered rightly.
    ///
    /// # Panics
    /// When one was not.
    pub fn assert_no_failure(&self) {
        let some = &self.failures[..self.failures.len().min(5)];
        assert!(self.failures.is_empty(), "{} of {} calls failed: {some:#?}", self.failures.len(), self.calls);
        assert!(self.calls > 0, "the load made no call");
    }
}

#[derive(Debug, Default)]
struct Tally {
    next_id: AtomicI64,
    report: Mutex<Report>,
}

impl Load {
    /// Makes the collection and starts calling.
    ///
    /// # Panics
    /// When the collection cannot be made.
    #[must_use]
    pub fn start(edge: &Edge) -> Self {
        create(edge);
        let (over, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Tally::default()));
        let target = Target::of(edge);
        let (o, t) = (Arc::clone(&over), Arc::clone(&tally));
        let thread = std::thread::spawn(move || call_until(&o, &t, &target));
        let load = Self { over, tally, thread: Some(thread) };
        crate::wait::until("the load's first calls", Duration::from_secs(20), || match load.seen() {
            report if report.calls >= 8 || !report.failures.is_empty() => Ok(()),
            report => Err(format!("{report:?}")),
        });
        load
    }

    /// What has come of it so far.
    #[must_use]
    pub fn seen(&self) -> Report {
        self.tally.report.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits for so many more calls.
    pub fn more_calls(&self, calls: usize) {
        let until = self.seen().calls + calls;
        crate::wait::until("more calls", Duration::from_secs(60), || match self.seen() {
            report if report.calls >= until || !report.failures.is_empty() => Ok(()),
            report => Err(report.calls),
        });
    }

    /// Ends it; calls under way are finished and counted.
    #[must_use]
    pub fn stop(mut self) -> Report {
        self.end();
        self.seen()
    }

    fn end(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

fn create(edge: &Edge) {
    let url = format!("{}://{}/v2/vectordb/collections/create", edge.scheme(), edge.grpc);
    let body = json!({"collectionName": COLLECTION, "dimension": 4, "metricType": "L2"}).to_string();
    let arguments =
        edge.curl().into_iter().chain(["-H", "Content-Type: application/json", "-d", &body, &url].map(String::from));
    let answer = curl(arguments);
    assert_eq!(answer.body["code"], 0, "the load's collection: {answer:?}");
}

/// Where to call.
#[derive(Debug, Clone)]
struct Target {
    address: String,
    grpc: Option<Arc<ClientConfig>>,
    rest: Option<Arc<ClientConfig>>,
}

impl Target {
    fn of(edge: &Edge) -> Self {
        let config = |alpn: &[&str]| edge.credentials().map(|credentials| credentials.config(alpn));
        Self { address: edge.grpc.clone(), grpc: config(&["h2"]), rest: config(&["http/1.1"]) }
    }

    async fn connect(&self, tls: Option<&Arc<ClientConfig>>) -> Result<Box<dyn Stream>, Failure> {
        let tcp = TcpStream::connect(&self.address).await?;
        tcp.set_nodelay(true)?;
        let Some(config) = tls else { return Ok(Box::new(tcp)) };
        let name = ServerName::try_from("localhost").expect("a DNS name");
        Ok(Box::new(TlsConnector::from(Arc::clone(config)).connect(name, tcp).await?))
    }
}

trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

fn call_until(over: &AtomicBool, tally: &Tally, target: &Target) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime can be made");
    runtime.block_on(async {
        tokio::join!(
            keep(over, tally, target),
            keep(over, tally, target),
            repeat("gRPC dialled anew", over, tally, async |id| Client::dial(tally, target).await?.call(id).await),
            repeat("REST dialled anew", over, tally, async |id| rest(tally, target, id).await),
        );
    });
}

async fn keep(over: &AtomicBool, tally: &Tally, target: &Target) {
    match Client::dial(tally, target).await {
        Ok(client) => repeat("gRPC on one connection", over, tally, async |id| client.clone().call(id).await).await,
        Err(failure) => tally.failed("gRPC on one connection", &failure),
    }
}

async fn repeat(name: &str, over: &AtomicBool, tally: &Tally, mut call: impl AsyncFnMut(i64) -> Result<(), Failure>) {
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while !over.load(Ordering::SeqCst) {
        pace.tick().await;
        let (start, id) = (Instant::now(), tally.next_id.fetch_add(1, Ordering::SeqCst));
        match tokio::time::timeout(CALL_DEADLINE, call(id)).await {
            Ok(Ok(())) => tally.answered(start.elapsed()),
            Ok(Err(failure)) => tally.failed(name, &failure),
            Err(_) => tally.failed(name, &"no answer in time".into()),
        }
    }
}

impl Tally {
    fn answered(&self, took: Duration) {
        let mut report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        report.calls += 1;
        report.longest = report.longest.max(took);
    }

    fn dialled(&self) {
        self.report.lock().unwrap_or_else(PoisonError::into_inner).dials += 1;
    }

    fn failed(&self, name: &str, failure: &Failure) {
        let mut text = format!("{name}: {failure}");
        let mut source = failure.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        self.report.lock().unwrap_or_else(PoisonError::into_inner).failures.push(text);
    }
}

/// A Milvus client on one connection.
#[derive(Clone)]
struct Client {
    sender: hyper::client::conn::http2::SendRequest<tonic::body::Body>,
    origin: http::Uri,
}

impl Client {
    async fn dial(tally: &Tally, target: &Target) -> Result<Self, Failure> {
        let stream = target.connect(target.grpc.as_ref()).await?;
        tally.dialled();
        let (sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let scheme = if target.grpc.is_some() { "https" } else { "http" };
        Ok(Self { sender, origin: format!("{scheme}://{}", target.address).parse()? })
    }

    async fn call(self, id: i64) -> Result<(), Failure> {
        let sender = self.sender;
        let service = tower::service_fn(move |request| sender.clone().send_request(request));
        let mut client = MilvusServiceClient::with_origin(service, self.origin);
        let inserted = client.insert(insert_of(id)).await?.into_inner();
        succeeded("insert", inserted.status.as_ref())?;
        let found = client.query(query_of(id)).await?.into_inner();
        succeeded("query", found.status.as_ref())?;
        let ids: Vec<i64> = found.fields_data.iter().filter(|field| field.field_name == "id").flat_map(longs).collect();
        if ids == [id] { Ok(()) } else { Err(format!("inserted {id}, read back {ids:?}").into()) }
    }
}

fn succeeded(what: &str, status: Option<&rpc::common::Status>) -> Result<(), Failure> {
    match status {
        Some(status) if status.code != 0 => Err(format!("{what}: {} {}", status.code, status.reason).into()),
        _ => Ok(()),
    }
}

fn insert_of(id: i64) -> InsertRequest {
    let ids = ScalarField { data: Some(scalar_field::Data::LongData(LongArray { data: vec![id] })) };
    let floats = vector_field::Data::FloatVector(FloatArray { data: vector_of(id).to_vec() });
    let vector = VectorField { dim: 4, data: Some(floats) };
    let column = |name: &str, kind: DataType, field| FieldData {
        r#type: kind.into(),
        field_name: name.into(),
        field: Some(field),
        ..FieldData::default()
    };
    InsertRequest {
        collection_name: COLLECTION.into(),
        fields_data: vec![
            column("id", DataType::Int64, field_data::Field::Scalars(ids)),
            column("vector", DataType::FloatVector, field_data::Field::Vectors(vector)),
        ],
        num_rows: 1,
        ..InsertRequest::default()
    }
}

fn query_of(id: i64) -> QueryRequest {
    QueryRequest {
        collection_name: COLLECTION.into(),
        expr: format!("id in [{id}]"),
        output_fields: vec!["id".into()],
        ..QueryRequest::default()
    }
}

fn longs(field: &FieldData) -> Vec<i64> {
    match &field.field {
        Some(field_data::Field::Scalars(ScalarField { data: Some(scalar_field::Data::LongData(longs)) })) => {
            longs.data.clone()
        }
        _ => Vec::new(),
    }
}

#[expect(clippy::cast_precision_loss, reason = "any vector does")]
fn vector_of(id: i64) -> [f32; 4] {
    [id as f32, 1.0, 0.0, 0.0]
}

async fn rest(tally: &Tally, target: &Target, id: i64) -> Result<(), Failure> {
    let stream = target.connect(target.rest.as_ref()).await?;
    tally.dialled();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let row = json!({"collectionName": COLLECTION, "data": [{"id": id, "vector": vector_of(id)}]});
    post(&mut sender, "entities/insert", &row).await?;
    let found = post(&mut sender, "entities/get", &json!({"collectionName": COLLECTION, "id": id})).await?;
    let right = found["data"].as_array().is_some_and(|rows| rows.len() == 1 && rows[0]["id"] == id);
    if right { Ok(()) } else { Err(format!("inserted {id}, read back {found}").into()) }
}

async fn post(
    sender: &mut hyper::client::conn::http1::SendRequest<Full<Bytes>>,
    path: &str,
    body: &Value,
) -> Result<Value, Failure> {
    let request = http::Request::post(format!("/v2/vectordb/{path}"))
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(Full::from(body.to_string()))?;
    let response = sender.send_request(request).await?;
    let bytes = response.into_body().collect().await?.to_bytes();
    let answer: Value = serde_json::from_slice(&bytes)?;
    if answer["code"] == 0 { Ok(answer) } else { Err(format!("{path}: {answer}").into()) }
}
