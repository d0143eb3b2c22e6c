//! Users on top of TLS: a certificate says nothing about who the user is.
use serde_json::{Value, json};
use test_util::cluster::Edge;

use crate::fixtures::{milvus, plan, python, rest};

const WITH_USERS: &str = "common:\n  security:\n    authorizationEnabled: true\n    defaultRootPassword: Opal-7\n";

#[test]
fn asks_for_the_password_in_mode_0() {
    asks_for_the_password(0);
}

#[test]
fn asks_for_the_password_in_mode_1() {
    asks_for_the_password(1);
}

/// The client certificate is right each time, and never stands in for the password.
#[test]
fn asks_for_the_password_in_mode_2() {
    asks_for_the_password(2);
}

fn asks_for_the_password(mode: u8) {
    let cluster = plan().config(WITH_USERS).tls_mode(mode).start();
    let edge = cluster.edge();
    assert!(connect(edge, json!({"token": "root:Opal-7"}))["listed"].is_array());
    assert!(connect(edge, json!({"user": "root", "password": "Opal-7"}))["listed"].is_array());
    for wrong in [json!({}), json!({"token": "root:Milvus"}), json!({"token": "other:Opal-7"})] {
        let seen = connect(edge, wrong.clone());
        assert!(seen["error"].is_string(), "let in with {wrong}: {seen}");
    }
    assert_eq!(listed(edge, &["-H", "Authorization: Bearer root:Opal-7"]), (200, json!(0)));
    assert_eq!(listed(edge, &["-u", "root:Opal-7"]), (200, json!(0)));
    for wrong in [&[][..], &["-H", "Authorization: Bearer root:Milvus"], &["-u", "root:wrong"]] {
        assert_eq!(listed(edge, wrong), (401, json!(1800)), "{wrong:?}");
    }
    let logs: String = cluster.members().iter().map(|member| cluster.log(&member.node)).collect();
    assert!(!logs.contains("Opal-7"), "the password stands in a log");
}

fn connect(edge: &Edge, user: Value) -> Value {
    let mut client = milvus(edge);
    client.as_object_mut().unwrap().extend(user.as_object().unwrap().clone());
    python().run("connect.py", &json!({"client": client}))
}

fn listed(edge: &Edge, arguments: &[&str]) -> (u16, Value) {
    let answer = rest(edge, arguments, "collections/list");
    (answer.status, answer.body["code"].clone())
}
