//! `openapi.yaml` in the eyes of other tools, and its page.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails panics")]

use std::time::Duration;

use devkit::contract::{self, App};

/// The gate has this time for schemathesis.
const BOUND: Duration = Duration::from_secs(180);
/// Calls for each operation and phase. `cargo contract` sends more.
const EXAMPLES: u32 = 8;

#[tokio::test]
async fn the_linters_of_openapi_find_nothing() {
    tokio::task::spawn_blocking(contract::lint).await.unwrap().unwrap_or_else(|error| panic!("{error:#}"));
}

#[tokio::test]
async fn schemathesis_finds_no_answer_that_the_contract_does_not_have() {
    // This crate does not depend on the app, so cargo has not built it for this test.
    assert!(devkit::cargo().args(["build", "--bin", "handler"]).status().unwrap().success());
    let app = App::start(&devkit::target_dir().join("debug/handler")).await.unwrap();

    let calls = app.explore(EXAMPLES, 1, BOUND).await.unwrap_or_else(|error| panic!("{error:#}"));

    assert!(calls > 300, "{calls} calls");
}
