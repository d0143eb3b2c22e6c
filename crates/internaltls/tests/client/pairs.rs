//! The examples, as a stranger would run them.
use super::pki::Authority;

#[path = "../../examples/echo_client.rs"]
#[expect(dead_code, reason = "its main is not called here")]
mod echo_client;
#[path = "../../examples/echo_server.rs"]
#[expect(dead_code, reason = "its main is not called here")]
mod echo_server;

#[tokio::test]
async fn the_example_pair_talks() {
    let ca = Authority::new();
    let (server, client) = (ca.node("data-node", "data-node-1"), ca.node("proxy", "proxy-1"));
    let server = echo_server::start(&server.folder, ([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = server.local_addr();
    tokio::spawn(server.serve(std::future::pending()));
    let channel = echo_client::connect(&client.folder, address, "data-node").await.unwrap();
    let answer = echo_client::say(&channel, "hello").await.unwrap();
    assert_eq!(answer, "hello, says spiffe://mesh.internal/proxy/proxy-1");
}

#[tokio::test]
async fn the_example_server_refuses_other_roles() {
    let ca = Authority::new();
    let (server, client) = (ca.node("data-node", "data-node-1"), ca.node("coordinator", "coordinator-1"));
    let server = echo_server::start(&server.folder, ([127, 0, 0, 1], 0).into()).await.unwrap();
    let address = server.local_addr();
    tokio::spawn(server.serve(std::future::pending()));
    let channel = echo_client::connect(&client.folder, address, "data-node").await.unwrap();
    let refused = echo_client::say(&channel, "hello").await.unwrap_err();
    let status = refused.downcast_ref::<tonic::Status>().unwrap();
    assert_eq!(status.code(), tonic::Code::PermissionDenied, "{status:?}");
}

#[test]
fn each_example_is_short() {
    for (name, text) in [
        ("echo_server", include_str!("../../examples/echo_server.rs")),
        ("echo_client", include_str!("../../examples/echo_client.rs")),
    ] {
        assert!(text.lines().count() < 60, "{name}");
    }
}
