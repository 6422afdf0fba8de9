//! Hostile clients and providers: each would take the files or the memory of the process.

use std::time::Duration;

use devkit::stand_ins::faults::Line;
use devkit::stand_ins::openai::{Endpoint, Reply};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Setup, Visionary, azurite, with_faults_before};

#[tokio::test]
async fn many_reads_at_once_hold_few_connections_to_storage_and_leave_room_for_an_image() {
    let (table, storage) = with_faults_before(azurite().table_port()).await;
    let visionary = Setup::default().set("AzureWebJobsStorage", storage).start().await;
    table.set(Line::Slow(Duration::from_millis(300)));
    let handler = visionary.handler(0);

    let reads: Vec<_> = (0..200).map(|_| handler.request(Method::GET, "/api/quota").spawn()).collect();
    let image = handler.post("a fox").send().await;

    assert_eq!(image.status, 200, "{}", image.body);
    for read in reads {
        let read = read.await.expect("the task ends");
        assert_eq!(read.status, 200, "{}", read.body);
    }
    // The service may see the end of a connection after the start of the next one.
    let most = table.most_connections();
    assert!((20..100).contains(&most), "{most} connections were open");
}

/// Without a limit, a client that sends a byte now and then holds all connections of the process.
#[tokio::test]
async fn slow_bodies_of_a_caller_are_limited_and_others_are_served() {
    let visionary = Visionary::start().await;
    let send_slowly = async || {
        let mut connection = visionary.connect().await;
        let half = "POST /api/generateImage HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{\"pro";
        connection.write_all(half.as_bytes()).await.expect("the handler reads");
        let mut answer = String::new();
        // It ends when the handler closes the connection.
        connection.read_to_string(&mut answer).await.expect("an answer");
        answer
    };
    let mut slow: FuturesUnordered<_> = (0..25).map(|_| send_slowly()).collect();

    for _ in 0..5 {
        let answer = tokio::time::timeout(Duration::from_secs(20), slow.next()).await;
        let answer = answer.expect("a slow request beyond the limit is refused within 20 s").expect("one of 25");
        assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
        assert!(answer.contains("x-error-code: busy"), "{answer}");
        assert!(answer.contains("retry-after: "), "{answer}");
    }
    assert_eq!(visionary.generate("a fox").await.status, 200, "a body that comes at once needs no slot");
    let late = tokio::time::timeout(Duration::from_secs(90), slow.next()).await;
    let late = late.expect("the others end within 90 s").expect("one of 20");
    assert!(late.starts_with("HTTP/1.1 400"), "{late}");
}

#[tokio::test]
async fn an_answer_with_huge_texts_is_stored_and_recorded() {
    let visionary = Visionary::start().await;
    let huge = "x".repeat(2 * 1024 * 1024);
    visionary.openai.script(
        Endpoint::Images,
        Reply::normal().patch(move |answer| {
            answer["data"][0]["revised_prompt"] = json!(huge);
            answer["size"] = json!(huge);
            answer["quality"] = json!(huge);
        }),
    );

    let image = visionary.post("a fox").accept_json().send().await;

    assert_eq!(image.status, 200, "{}", image.body);
    let length = |name: &str| image.json()[name].as_str().map(str::len);
    assert_eq!(["revisedPrompt", "size", "quality"].map(length), [Some(32_000), Some(50), Some(50)]);
    assert_eq!(visionary.accounted().await["images"], 1, "the table has taken the outcome");
}
