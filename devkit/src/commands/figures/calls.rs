//! Counts the storage requests for one image, with a TCP proxy before each storage service.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use devkit::queue::Queue;
use devkit::stand_ins::azurite::Azurite;
use devkit::stand_ins::faults::Faults;
use devkit::stand_ins::openai::OpenAi;
use serde_json::json;

use super::{LIMITED, generate, start_handler};

/// The labels of the six counts.
pub(super) const LABELS: [&str; 6] = [
    "plain, until the answer",
    "plain, in total",
    "with an Idempotency-Key, in total",
    "with events, in total",
    "job, until it is accepted",
    "job, its delivery",
];
/// The number of images over which each count is averaged.
const IMAGES: usize = 20;
/// The wait for the writes that follow an answer; they take milliseconds.
const QUIET_AFTER: Duration = Duration::from_millis(300);

/// The mean number of requests for one image, in the order of [`LABELS`].
pub(super) async fn count(program: &Path, azurite: &Azurite, provider: &OpenAi) -> anyhow::Result<[f64; 6]> {
    let mut storage = azurite.connection_string();
    let mut proxies = Vec::new();
    for port in azurite.ports() {
        let proxy = Faults::before(port).await?;
        storage = storage.replace(&format!(":{port}/"), &format!(":{}/", proxy.port()));
        proxies.push(proxy);
    }
    let requests = || proxies.iter().map(Faults::requests).sum::<usize>();
    let handler = start_handler(program, &storage, provider, LIMITED).await?.0;
    let queue = Queue::open(&azurite.connection_string(), "visionary-jobs")?;
    let url = format!("{}/api/generateImage", handler.url);
    let post = |headers: Vec<(&'static str, String)>| {
        let request = handler.http.post(&url).header("x-user", "anna").body(r#"{"prompt":"a fox"}"#);
        headers.into_iter().fold(request, |request, (name, value)| request.header(name, value))
    };
    generate(&handler, "anna").await?;
    tokio::time::sleep(QUIET_AFTER).await;
    let mut sums = [0; 6];
    for number in 0..IMAGES {
        let mut before = requests();
        let mut add = |index: usize, from: &mut usize| {
            let now = requests();
            sums[index] += now - *from;
            *from = now;
        };
        ensure!(post(vec![]).send().await?.status() == 200, "a plain request failed");
        let mut start = before;
        add(0, &mut start);
        tokio::time::sleep(QUIET_AFTER).await;
        add(1, &mut before);
        let key = format!("{number}-{}", fastrand::u64(..));
        ensure!(
            post(vec![("idempotency-key", key)]).send().await?.status() == 200,
            "a request with an Idempotency-Key failed"
        );
        tokio::time::sleep(QUIET_AFTER).await;
        add(2, &mut before);
        let answer = post(vec![("accept", "text/event-stream".to_owned())]).send().await?;
        ensure!(answer.text().await?.contains("event: image"), "a request with events failed");
        tokio::time::sleep(QUIET_AFTER).await;
        add(3, &mut before);
        ensure!(
            post(vec![("prefer", "respond-async".to_owned())]).send().await?.status() == 202,
            "no job was accepted"
        );
        tokio::time::sleep(QUIET_AFTER).await;
        add(4, &mut before);
        let message = queue.take_text().await.context("the queue has no message for the job")?;
        let envelope = json!({"Data": {"job": message}, "Metadata": {}});
        let delivered = handler.http.post(format!("{}/processImage", handler.url)).json(&envelope).send().await?;
        ensure!(delivered.status() == 200, "the delivery of a job failed");
        tokio::time::sleep(QUIET_AFTER).await;
        add(5, &mut before);
    }
    let mean =
        |sum: usize| f64::from(u32::try_from(sum).unwrap_or(u32::MAX)) / f64::from(u32::try_from(IMAGES).unwrap_or(1));
    Ok(sums.map(mean))
}
