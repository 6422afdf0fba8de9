//! How often storage is asked for one image, counted on the lines to its services.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use devkit::queue::Queue;
use devkit::stand_ins::azurite::Azurite;
use devkit::stand_ins::faults::Faults;
use devkit::stand_ins::openai::OpenAi;
use serde_json::json;

use super::{Handler, LIMITED};

/// What is counted.
pub(super) const LABELS: [&str; 6] = [
    "plain, before the answer",
    "plain, in all",
    "with an Idempotency-Key, in all",
    "events, in all",
    "a job, until it is accepted",
    "a job's delivery",
];
const IMAGES: usize = 20;
/// Writes still owed after an answer take milliseconds.
const QUIET_AFTER: Duration = Duration::from_millis(300);

/// The mean of several images.
pub(super) async fn count(program: &Path, azurite: &Azurite, provider: &OpenAi) -> anyhow::Result<[f64; 6]> {
    let mut storage = azurite.connection_string();
    let mut lines = Vec::new();
    for port in azurite.ports() {
        let line = Faults::before(port).await?;
        storage = storage.replace(&format!(":{port}/"), &format!(":{}/", line.port()));
        lines.push(line);
    }
    let requests = || lines.iter().map(Faults::requests).sum::<usize>();
    let handler = Handler::start(program, &storage, provider, LIMITED).await?.0;
    let queue = Queue::open(&azurite.connection_string(), "visionary-jobs")?;
    let url = format!("{}/api/generateImage", handler.url);
    let post = |headers: Vec<(&'static str, String)>| {
        let request = handler.http.post(&url).header("x-user", "anna").body(r#"{"prompt":"a fox"}"#);
        headers.into_iter().fold(request, |request, (name, value)| request.header(name, value))
    };
    handler.generate("anna").await?;
    tokio::time::sleep(QUIET_AFTER).await;
    let mut sums = [0; 6];
    for number in 0..IMAGES {
        let mut before = requests();
        let mut add = |index: usize, from: &mut usize| {
            let now = requests();
            sums[index] += now - *from;
            *from = now;
        };
        ensure!(post(vec![]).send().await?.status() == 200, "plain");
        let mut start = before;
        add(0, &mut start);
        tokio::time::sleep(QUIET_AFTER).await;
        add(1, &mut before);
        let key = format!("{number}-{}", fastrand::u64(..));
        ensure!(post(vec![("idempotency-key", key)]).send().await?.status() == 200, "keyed");
        tokio::time::sleep(QUIET_AFTER).await;
        add(2, &mut before);
        let answer = post(vec![("accept", "text/event-stream".to_owned())]).send().await?;
        ensure!(answer.text().await?.contains("event: image"), "events");
        tokio::time::sleep(QUIET_AFTER).await;
        add(3, &mut before);
        ensure!(post(vec![("prefer", "respond-async".to_owned())]).send().await?.status() == 202, "a job");
        tokio::time::sleep(QUIET_AFTER).await;
        add(4, &mut before);
        let message = queue.take_text().await.context("the job's message")?;
        let envelope = json!({"Data": {"job": message}, "Metadata": {}});
        let delivered = handler.http.post(format!("{}/processImage", handler.url)).json(&envelope).send().await?;
        ensure!(delivered.status() == 200, "a delivery");
        tokio::time::sleep(QUIET_AFTER).await;
        add(5, &mut before);
    }
    let mean =
        |sum: usize| f64::from(u32::try_from(sum).unwrap_or(u32::MAX)) / f64::from(u32::try_from(IMAGES).unwrap_or(1));
    Ok(sums.map(mean))
}
