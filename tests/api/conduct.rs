//! The process: its log, its end, and its restart.

use std::time::Duration;

use devkit::stand_ins::host::{Level, LogLine};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{API_KEY, Setup, Visionary, WIRES, eventually, status_line};

#[tokio::test]
async fn no_secret_prompt_or_signed_link_is_logged_at_any_level() {
    for wire in WIRES {
        let setup =
            Setup::wire(wire).set("RUST_LOG", "trace,azure_core=trace,azure_storage=trace,hyper=trace,reqwest=trace");
        let visionary = setup.start().await;

        let answer = visionary.generate("the secret fox").await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        visionary.generate("something forbidden, too").await;
        let (name, url) = visionary.list().await.remove(0);
        let token = visionary.get("/api/generateSASToken?code=the-key").await.body;
        let last = visionary.get("/api/getChatGPTSuggestion").await;
        let id = last.header("x-azure-functions-invocationid");
        visionary.host.wait_for_log(|line| line.text.contains(id)).await;

        let signature = |text: &str| text.split("sig=").nth(1).unwrap().to_owned();
        let secrets = [
            API_KEY,
            "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50u",
            "SharedKey",
            "Bearer",
            "secret fox",
            "forbidden",
            "the-key",
            &name,
            &signature(&url),
            &signature(&token),
            "sig=",
        ];
        let logs = visionary.host.logs();
        assert!(logs.len() >= 5, "there is a log");
        for line in logs {
            for secret in secrets {
                assert!(!line.text.contains(secret), "{secret} is in {}", line.text);
            }
        }
    }
}

#[tokio::test]
async fn the_log_is_json_lines_on_stdout_and_stderr_is_empty() {
    let visionary = Visionary::start().await;

    let answer = visionary.generate("a fox").await;
    let id = answer.header("x-azure-functions-invocationid");
    let is_answered = |line: &LogLine| line.text.contains(id) && line.text.contains("request_answered");
    visionary.host.wait_for_log(is_answered).await;

    for line in visionary.host.logs() {
        assert_eq!(line.level, Level::Information, "{}", line.text);
        let event: Value = serde_json::from_str(&line.text).expect("JSON");
        assert!(event["message"].is_string() && event["timestamp"].is_string(), "{}", line.text);
    }
    let lines = visionary.host.logs();
    let answered = lines.iter().find(|line| is_answered(line)).unwrap();
    let event: Value = serde_json::from_str(&answered.text).unwrap();
    assert_eq!(event["http.status"], 200);
    assert_eq!(event["span"]["function.name"], "generateImage");
    assert!(event["duration_ms"].is_u64());
}

#[tokio::test]
async fn a_stopping_process_ends_its_requests_first() {
    let visionary = Visionary::start().await;
    let hold = visionary.hold_next_image();
    let request = visionary.handler(0).post("a fox").spawn();
    hold.reached(1).await;

    visionary.host.terminate_handler(0);
    visionary.host.wait_for_log(|line| line.text.contains("asked to stop")).await;
    hold.release();

    assert_eq!(request.await.unwrap().body, "Image uploaded successfully");
    visionary.host.wait_for_log(|line| line.text.contains("process_stopped")).await;
    visionary.host.stop().await;
}

#[tokio::test]
async fn ctrl_c_stops_the_process_with_exit_code_0() {
    let visionary = Visionary::start().await;
    let statuses = visionary.host.stop().await;
    assert_eq!(statuses[0].and_then(|status| status.code()), Some(0));
}

#[tokio::test]
async fn a_killed_handler_is_started_again_and_serves() {
    let mut visionary = Visionary::start().await;
    visionary.generate("a fox").await;

    visionary.host.kill_handler(0).await;
    assert_eq!(visionary.get("/api/getImages").await.status, 503);
    visionary.host.start_handler(0).await.unwrap();

    assert_eq!(visionary.list().await.len(), 1);
}

/// Half a request, or a client that sends nothing, is no reason to stay.
#[tokio::test]
async fn silent_connections_do_not_keep_a_process_from_stopping() {
    let visionary = Visionary::start().await;
    let mut silent = Vec::new();
    for sent in
        ["", "GET /api/getIm", "POST /api/generateImage HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{\"pro"]
    {
        let mut connection = visionary.connect().await;
        connection.write_all(sent.as_bytes()).await.unwrap();
        silent.push(connection);
    }
    assert_eq!(visionary.get("/api/getImages").await.status, 200);

    visionary.host.terminate_handler(0);

    let exits = visionary.host.wait_for_exits(0, 1);
    tokio::time::timeout(Duration::from_secs(60), exits).await.expect("the process ends within 60 s");
    assert_eq!(visionary.host.exits(0), [Some(0)]);
    drop(silent);
}

#[tokio::test]
async fn a_second_signal_ends_the_process_while_an_image_is_drawn() {
    let visionary = Visionary::start().await;
    let hold = visionary.hold_next_image();
    let request = visionary.post("a fox").spawn();
    hold.reached(1).await;

    visionary.host.terminate_handler(0);
    visionary.host.wait_for_log(|line| line.text.contains("process_stopping")).await;
    // Signals within two seconds are one: Ctrl-C in a terminal reaches the handler twice.
    let is_hurried = |logs: &Vec<LogLine>| logs.iter().any(|line| line.text.contains("process_hurried"));
    let signal = async || {
        visionary.host.terminate_handler(0);
        visionary.host.logs()
    };
    eventually("the process hurries", signal, is_hurried).await;

    let exits = visionary.host.wait_for_exits(0, 1);
    tokio::time::timeout(Duration::from_secs(60), exits).await.expect("the process ends within 60 s");
    hold.release();
    request.abort();
}

/// The body has 30 s, and the head of the next request 75 s.
#[tokio::test]
async fn half_a_body_is_refused_and_half_a_head_is_closed() {
    let visionary = Visionary::start().await;
    let (mut body, mut head) = (visionary.connect().await, visionary.connect().await);
    let half = "POST /api/generateImage HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{\"pro";
    body.write_all(half.as_bytes()).await.unwrap();
    head.write_all(b"GET /api/getIm").await.unwrap();

    let refused = tokio::time::timeout(Duration::from_secs(90), status_line(&mut body)).await;
    assert_eq!(refused.expect("an answer within 90 s"), "HTTP/1.1 400");
    let mut rest = Vec::new();
    let closed = tokio::time::timeout(Duration::from_secs(150), head.read_to_end(&mut rest)).await;
    // hyper answers 408 or closes without an answer.
    closed.expect("the connection is closed within 150 s").ok();
    assert_eq!(visionary.get("/api/getImages").await.status, 200);
}

/// A client that asks again and again and reads nothing holds memory and a connection.
#[tokio::test]
async fn a_client_that_reads_no_answer_is_disconnected() {
    let visionary = Visionary::start().await;
    let mut connection = visionary.connect().await;
    let requests = "GET /api/styles HTTP/1.1\r\nHost: x\r\n\r\n".repeat(100);

    let disconnected = async {
        loop {
            // Once all buffers are full, the write waits until the connection is closed.
            if connection.write_all(requests.as_bytes()).await.is_err() {
                return;
            }
        }
    };

    tokio::time::timeout(Duration::from_secs(170), disconnected).await.expect("disconnected within 170 s");
    assert_eq!(visionary.get("/api/getImages").await.status, 200);
}
