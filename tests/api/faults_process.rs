//! Faults of the process, the client and the load: what the caller saw, how often the provider was
//! asked to draw, and what is in the gallery afterwards. Faults of the provider are in faults.rs, those
//! of storage in faults_storage.rs.

use std::time::Duration;

use bytes::Bytes;
use devkit::memory;
use devkit::stand_ins::openai::{self, Endpoint, Hold, Painting, Reply};
use reqwest::Method;
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;

use crate::harness::{Setup, WIRES};
use crate::sse::Events;

// The process.

#[tokio::test]
async fn twenty_sigkills_lose_nothing_that_had_reached_the_process_and_nothing_is_paid_twice() {
    let openai = openai::Options { delay: Duration::from_millis(40), ..Default::default() };
    let setup = Setup { handlers: 2, openai, own_account: true, ..Setup::default() };
    let (mut chaos, _held) = setup.start().await.into_chaos();
    let counts = chaos.kill(200, 20).await.unwrap();
    println!("{counts}");
    assert_eq!((counts.sent, counts.lost, counts.damaged, counts.twice, counts.odd), (200, 0, 0, 0, 0), "{counts}");
    assert_eq!((counts.left_open, counts.agrees), (0, true), "{counts}");
    assert_eq!(counts.asked, counts.drawn, "drawn exactly as often as asked: {counts}");
    assert_eq!(counts.drawn, counts.listed + counts.died_on_the_way, "{counts}");
    assert!(counts.answered > 0 && counts.broken > 0, "kills and answers came: {counts}");
}

// The client. That it may leave while the provider draws is in generate_image.rs.

#[tokio::test]
async fn the_client_leaves_at_once() {
    for wire in WIRES {
        let mut visionary = Setup::wire(wire).start().await;
        let hold = Hold::new();
        visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
        // Sent, and gone: nothing is read.
        let request = visionary.request(Method::POST, "/api/generateImage").body(r#"{"prompt":"a fox"}"#);
        let request = tokio::spawn(request.send());
        visionary.openai.wait_for_requests(Endpoint::Images, 1).await;
        request.abort();
        visionary.host.terminate_handler(0);
        visionary.host.wait_for_log(|line| line.text.contains("asked to stop")).await;
        hold.release();
        visionary.host.wait_for_exits(0, 1).await;
        visionary.host.start_handler(0).await.unwrap();
        assert_eq!(visionary.openai.images_drawn().len(), 1);
        assert_eq!(visionary.list().await.len(), 1, "{wire:?}");
    }
}

#[tokio::test]
async fn who_waits_for_a_turn_when_the_process_stops_is_sent_away_and_nothing_is_paid() {
    let visionary = Setup::default().set("MAX_CONCURRENT_GENERATIONS", "1").start().await;
    let hold = Hold::new();
    visionary.openai.script(Endpoint::Images, Reply::normal().held_by(&hold));
    let stop = async {
        hold.reached(1).await;
        let request = visionary.request(Method::POST, "/api/generateImage").header("accept", "text/event-stream");
        let mut events = Events::of(request.body(r#"{"prompt":"a fox"}"#).send().await.unwrap());
        assert_eq!(events.until("progress").await["phase"], "queued");
        visionary.host.terminate_handler(0);
        assert_eq!(events.until("error").await["code"], "busy");
        hold.release();
    };
    let (one, ()) = tokio::join!(visionary.generate("a fox"), stop);
    assert_eq!(one.status, 200);
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
}

/// Whether it was heard or not: what is asked for is drawn, and what is drawn is stored.
#[tokio::test]
async fn the_client_leaves_before_it_is_heard() {
    for wire in WIRES {
        let mut visionary = Setup::wire(wire).start().await;
        let address = visionary.host.url().replace("http://", "");
        for _ in 0..10 {
            let mut client = tokio::net::TcpStream::connect(&address).await.unwrap();
            let request =
                "POST /api/generateImage HTTP/1.1\r\nhost: x\r\ncontent-length: 18\r\n\r\n{\"prompt\":\"a fox\"}";
            client.write_all(request.as_bytes()).await.unwrap();
        }
        assert_eq!(visionary.generate("a fox").await.status, 200);
        visionary.host.terminate_handler(0);
        visionary.host.wait_for_exits(0, 1).await;
        visionary.host.start_handler(0).await.unwrap();
        let asked = visionary.openai.requests(Endpoint::Images).len();
        assert_eq!([visionary.openai.images_drawn().len(), visionary.list().await.len()], [asked; 2], "{wire:?}");
    }
}

// Load.

#[tokio::test]
async fn of_500_at_once_each_ends_in_a_image_or_in_busy_and_memory_is_bounded() {
    let openai = openai::Options { delay: Duration::from_secs(1), ..Default::default() };
    let (mut chaos, _held) = Setup { openai, own_account: true, ..Setup::default() }.start().await.into_chaos();
    let counts = chaos.rush(500).await.unwrap();
    println!("{counts}");
    assert_eq!(counts.answered + counts.busy, 500, "{counts}");
    // 16 work and 64 wait; more get in once the first are done.
    assert!(counts.answered >= 80, "{counts}");
    assert_eq!([counts.asked, counts.drawn, counts.listed], [counts.answered; 3], "{counts}");
    assert!(counts.peak_bytes < 100 * 1024 * 1024, "{counts}");
    // Who was sent away has not used the quota.
    let quota = reqwest::get(format!("{}/api/quota", chaos.host.url())).await.unwrap();
    assert_eq!(quota.json::<Value>().await.unwrap()["used"], counts.answered);
}

#[tokio::test]
async fn sixteen_images_of_8_mib_at_once_stay_under_400_mib() {
    let mut image = b"\x89PNG\r\n\x1a\n".to_vec();
    image.resize(8 * 1024 * 1024, 7);
    let openai = openai::Options { painting: Painting::Fixed(Bytes::from(image)), ..Default::default() };
    let visionary = Setup { openai, ..Setup::default() }.start().await;
    let hold = Hold::new();
    visionary.openai.script_always(Endpoint::Images, Reply::normal().held_by(&hold));
    let all = futures_util::future::join_all((0..16).map(|_| visionary.generate("a fox")));
    let release = async {
        hold.reached(16).await;
        hold.release();
    };
    let (answers, ()) = tokio::join!(all, release);
    assert!(answers.iter().all(|answer| answer.status == 200));
    let peak = memory::peak_bytes(visionary.host.handler_pid(0).unwrap()).unwrap();
    println!("peak {} MiB", peak / 1024 / 1024);
    assert!(peak < 400 * 1024 * 1024, "{} MiB", peak / 1024 / 1024);
}
