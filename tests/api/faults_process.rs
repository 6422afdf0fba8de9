//! Faults of the process, the client and the load: the caller's answer, the provider's draw requests, and
//! the gallery afterwards. Faults of the provider are in faults.rs, those of storage in
//! faults_storage.rs.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use devkit::memory;
use devkit::stand_ins::openai::{self, Endpoint, Painting};
use futures_util::future::join_all;
use tokio::io::AsyncWriteExt as _;

use crate::gallery::image_names;
use crate::harness::{Client, Setup, WIRES, eventually};
use crate::pages::indexed_names;

// The process.

#[tokio::test]
async fn twenty_sigkills_lose_no_image_that_had_reached_the_process_and_none_is_paid_twice() {
    let openai = openai::Options { delay: Duration::from_millis(40), ..Default::default() };
    let setup = Setup { handlers: 2, openai, own_account: true, ..Setup::default() };
    let (mut chaos, _held) = setup.start().await.into_chaos();

    let counts = chaos.kill(200, 20).await.unwrap();

    println!("{counts}");
    assert_eq!((counts.sent, counts.lost, counts.damaged, counts.twice, counts.odd), (200, 0, 0, 0, 0), "{counts}");
    assert_eq!((counts.left_open, counts.agrees), (0, true), "{counts}");
    assert_eq!(counts.asked, counts.drawn, "one image for each draw request: {counts}");
    assert_eq!(counts.drawn, counts.listed + counts.died_on_the_way, "{counts}");
    assert!(counts.answered > 0 && counts.broken > 0, "there were answers and kills: {counts}");
    // Each process compares the index with the container at its start.
    let listed = Client::of(&chaos.host.url()).get("/api/getImages").await.json();
    let listed: BTreeSet<String> = image_names(&listed).into_iter().collect();
    let look = async || indexed_names(&chaos.connection_string, &chaos.container).await.into_iter().collect();
    let agrees = |indexed: &BTreeSet<String>| *indexed == listed;
    eventually("the index has the images of the container", look, agrees).await;
}

// The client. generate_image.rs has the client that leaves while the provider draws.

#[tokio::test]
async fn the_client_leaves_and_the_process_stops() {
    for wire in WIRES {
        let mut visionary = Setup::wire(wire).start().await;
        let hold = visionary.hold_next_image();
        let request = visionary.post("a fox").spawn();
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
async fn a_stopping_process_refuses_the_requests_that_wait_for_a_draw_permit() {
    let visionary = Setup::default().set("MAX_CONCURRENT_GENERATIONS", "1").start().await;
    let hold = visionary.hold_next_image();
    let drawing = visionary.post("a fox").spawn();
    hold.reached(1).await;
    let mut waiting = visionary.post("a fox").events().stream().await;
    assert_eq!(waiting.until("progress").await["phase"], "queued");

    visionary.host.terminate_handler(0);

    assert_eq!(waiting.until("error").await["code"], "busy");
    hold.release();
    assert_eq!(drawing.await.unwrap().status, 200);
    assert_eq!(visionary.openai.requests(Endpoint::Images).len(), 1);
}

/// The app may or may not read such a request. If it requests an image, the image is stored.
#[tokio::test]
async fn ten_clients_leave_right_after_their_requests() {
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

        let requests = visionary.openai.requests(Endpoint::Images).len();
        assert_eq!([visionary.openai.images_drawn().len(), visionary.list().await.len()], [requests; 2], "{wire:?}");
    }
}

// Load.

#[tokio::test]
async fn each_of_500_concurrent_requests_gets_an_image_or_busy_and_memory_is_bounded() {
    let openai = openai::Options { delay: Duration::from_secs(1), ..Default::default() };
    let (mut chaos, _held) = Setup { openai, own_account: true, ..Setup::default() }.start().await.into_chaos();

    let counts = chaos.rush(500).await.unwrap();

    println!("{counts}");
    assert_eq!(counts.answered + counts.busy, 500, "{counts}");
    // 16 generations draw and 64 wait; more are admitted when the first have ended.
    assert!(counts.answered >= 80, "{counts}");
    assert_eq!([counts.asked, counts.drawn, counts.listed], [counts.answered; 3], "{counts}");
    assert!(counts.peak_bytes < 100 * 1024 * 1024, "{counts}");
    // A busy answer does not use the quota.
    let quota = Client::of(&chaos.host.url()).get("/api/quota").await.json();
    assert_eq!(quota["used"], counts.answered);
}

#[tokio::test]
async fn sixteen_concurrent_images_of_8_mib_take_less_than_400_mib() {
    let mut image = b"\x89PNG\r\n\x1a\n".to_vec();
    image.resize(8 * 1024 * 1024, 7);
    let openai = openai::Options { painting: Painting::Fixed(Bytes::from(image)), ..Default::default() };
    let visionary = Setup { openai, ..Setup::default() }.start().await;
    let hold = visionary.hold_all_images();

    let requests: Vec<_> = (0..16).map(|_| visionary.post("a fox").spawn()).collect();
    hold.reached(16).await;
    hold.release();
    let answers = join_all(requests).await;

    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().status == 200));
    let peak = memory::peak_bytes(visionary.host.handler_pid(0).unwrap()).unwrap();
    println!("peak {} MiB", peak / 1024 / 1024);
    assert!(peak < 400 * 1024 * 1024, "{} MiB", peak / 1024 / 1024);
}
