//! The time of a page of the gallery, by the number of images in its index.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use devkit::memory;
use devkit::table::Tables;
use futures_util::future::try_join_all;
use serde_json::{Value, json};

use super::super::handler::Handler;
use super::{median, token};

const TABLE: &str = "visionaryimages";
const ROUNDS: usize = 31;
const LIMIT: usize = 60;
/// The first image's time, in milliseconds since 1970. Each further image is a minute newer.
const FIRST_MS: u64 = 1_600_000_000_000;
/// Clients that ask for the first page at the same time, `POLLS` times each.
pub(super) const POLLERS: usize = 500;
const POLLS: usize = 5;
const BUILT_WITHIN: Duration = Duration::from_secs(60);

/// What was measured.
pub(super) struct Pages {
    pub(super) first: Duration,
    /// The first page's rows, read from the table without the app.
    pub(super) bare: Duration,
    /// A page behind nine tenths of the images.
    pub(super) far: Duration,
    /// The largest memory of the handler, in bytes.
    pub(super) peak: u64,
    /// The same after [`POLLERS`] clients have asked for the first page.
    pub(super) peak_of_pollers: u64,
}

/// Measures a handler whose container is empty, after rows for `count` images were added to its index.
pub(super) async fn measure(handler: &Handler, storage: &str, container: &str, count: u64) -> anyhow::Result<Pages> {
    let tables = Tables::of(storage)?;
    // The first comparison with the container makes the index complete. It would remove rows without a blob.
    token(handler).await?;
    let state = format!("PartitionKey eq '{container}_state'");
    let began = Instant::now();
    loop {
        let rows = tables.rows(TABLE, &state).await?;
        let data = rows.first().and_then(|row| row.get("Data00")?.as_str()).unwrap_or("null");
        if serde_json::from_str::<Value>(data)?["complete"].is_object() {
            break;
        }
        ensure!(began.elapsed() < BUILT_WITHIN, "the index of {container} is not complete within {BUILT_WITHIN:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let key = |number: u64| format!("{:013}-{number:032x}", 9_999_999_999_999 - FIRST_MS - 60_000 * number);
    for first in (0..count).step_by(10_000) {
        let row = |number: u64| {
            let day = (FIRST_MS + 60_000 * number) / 86_400_000;
            json!({
                "PartitionKey": format!("{container}_{:06}", 999_999 - day), "RowKey": key(number),
                "Name": format!("a red fox in the snow, number {number}_{}.png", FIRST_MS + 60_000 * number),
                "Prompt": format!("a red fox in the snow, number {number}"), "Width": "1024", "Height": "1024",
            })
        };
        tables.insert(TABLE, &(first..count.min(first + 10_000)).map(row).collect::<Vec<_>>()).await?;
    }
    let newest = format!("/api/getImages?limit={LIMIT}");
    let far = format!("{newest}&cursor={}", key(count / 10));
    let all = format!("PartitionKey gt '{container}_' and PartitionKey lt '{container}_:'");
    let (mut first, mut bare, mut down) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        first.push(page(handler, &newest).await?);
        down.push(page(handler, &far).await?);
        let started = Instant::now();
        ensure!(tables.first(TABLE, &all, LIMIT + 1).await? == LIMIT + 1, "the table has too few rows");
        bare.push(started.elapsed());
    }
    let peak = memory::peak_bytes(handler.pid())?;
    let poll = async || {
        for _ in 0..POLLS {
            page(handler, &newest).await?;
        }
        anyhow::Ok(())
    };
    try_join_all((0..POLLERS).map(|_| poll())).await?;
    Ok(Pages {
        first: median(&mut first),
        bare: median(&mut bare),
        far: median(&mut down),
        peak,
        peak_of_pollers: memory::peak_bytes(handler.pid())?,
    })
}

async fn page(handler: &Handler, path: &str) -> anyhow::Result<Duration> {
    let started = Instant::now();
    let answer = handler.http.get(format!("{}{path}", handler.url)).send().await?.bytes().await?;
    let took = started.elapsed();
    let answer: Value = serde_json::from_slice(&answer)?;
    let images = answer["imageUrls"].as_array().context("a page has no imageUrls")?.len();
    ensure!(images == LIMIT, "a page has {images} images");
    Ok(took)
}
