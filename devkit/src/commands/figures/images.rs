//! What one image costs: the time that the app adds to the calls of the provider and of storage, and CPU time.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use devkit::memory;
use devkit::stand_ins::openai::{Endpoint, OpenAi, Reply};
use serde_json::{Value, json};

use super::{Figures, blob_url, generate, median, ms, put, token};
use crate::commands::handler::Handler;

/// Generations of each kind.
const GENERATIONS: usize = 101;
/// The drawing time of the provider, which takes seconds. What the app does meanwhile adds nothing to the time of an image.
const DRAWING_TAKES: Duration = Duration::from_millis(50);
/// The wait for the thumbnail and the writes that follow an answer; they end some 100 ms after it.
const QUIET_AFTER: Duration = Duration::from_millis(200);
/// After this wait and the drawing time, the thumbnail of the last image is being made: it begins 50 ms after the answer and
/// takes some 30 ms.
const THUMBNAIL_AFTER: Duration = Duration::from_millis(5);

/// The samples of one handler.
#[derive(Default)]
struct Samples {
    /// Without quota and budget.
    plain: Vec<Duration>,
    /// The same, while the thumbnail of another image is made.
    beside_thumbnail: Vec<Duration>,
    /// With quota and budget.
    limited: Vec<Duration>,
    /// CPU time with quota and budget, with the thumbnails.
    cpu: Duration,
}

/// Measures the handlers, each without and with a quota and a budget. The measurements alternate, so that a slow phase
/// of the machine affects all of them, and each begins when the work of the last one is done.
pub(super) async fn measure(
    figures: &mut Figures,
    handlers: &[(Handler, Handler)],
    provider: &OpenAi,
) -> anyhow::Result<()> {
    let http = &handlers[0].0.http;
    let token: Value = token(&handlers[0].0).await?;
    let bare = |number: usize| {
        let url = blob_url(&token, &format!("bare_{number}.png"));
        async move {
            let body = json!({"model": "gpt-image-2.5-flare", "prompt": "a fox", "n": 1, "size": "1024x1024"});
            let request = http.post(format!("{}/images/generations", provider.base_url()));
            let answer: Value = request.bearer_auth("figures").json(&body).send().await?.json().await?;
            let text = answer["data"][0]["b64_json"].as_str().context("the provider's answer has no image")?;
            put(http, &url?, BASE64_STANDARD.decode(text)?.into()).await
        }
    };
    provider.script_always(Endpoint::Images, Reply::normal().after(DRAWING_TAKES));
    for (unlimited, limited) in handlers {
        generate(unlimited, "anna").await?;
        generate(limited, "anna").await?;
    }
    bare(GENERATIONS).await?;
    let mut samples: Vec<Samples> = handlers.iter().map(|_| Samples::default()).collect();
    let mut without_app = Vec::new();
    for number in 0..GENERATIONS {
        for (samples, (unlimited, limited)) in samples.iter_mut().zip(handlers) {
            tokio::time::sleep(QUIET_AFTER).await;
            samples.plain.push(timed(generate(unlimited, "anna")).await?);
            tokio::time::sleep(THUMBNAIL_AFTER).await;
            samples.beside_thumbnail.push(timed(generate(unlimited, "anna")).await?);
            tokio::time::sleep(QUIET_AFTER).await;
            let used = memory::cpu_time(limited.pid())?;
            samples.limited.push(timed(generate(limited, "anna")).await?);
            tokio::time::sleep(QUIET_AFTER).await;
            // The kernel counts CPU time in steps of 10 ms, so the mean of all is more precise than a median.
            samples.cpu += memory::cpu_time(limited.pid())?.saturating_sub(used);
        }
        tokio::time::sleep(QUIET_AFTER).await;
        without_app.push(timed(bare(number)).await?);
    }
    provider.script_always(Endpoint::Images, Reply::normal());
    let without_app = median(&mut without_app);
    let mut rows: [Vec<String>; 4] = Default::default();
    for samples in &mut samples {
        let plain = median(&mut samples.plain);
        let added = [
            plain.saturating_sub(without_app),
            median(&mut samples.beside_thumbnail).saturating_sub(without_app),
            median(&mut samples.limited).saturating_sub(plain),
            samples.cpu / u32::try_from(GENERATIONS)?,
        ];
        rows.iter_mut().zip(added).for_each(|(row, time)| row.push(ms(time)));
    }
    let added = format!(
        "time that generateImage adds to drawing (in {}) and uploading 1.5 MB without the app ({})",
        ms(DRAWING_TAKES),
        ms(without_app)
    );
    let labels = [
        (added.as_str(), "3 ms"),
        ("the same while the thumbnail of another image takes one of the cores", ""),
        ("time that a quota and a budget add to an image", ""),
        ("CPU time of the handler for one image, with its thumbnail, quota and budget", ""),
    ];
    for ((label, at_most), row) in labels.into_iter().zip(rows) {
        figures.add(label, at_most, row);
    }
    Ok(())
}

async fn timed(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<Duration> {
    let started = Instant::now();
    work.await?;
    Ok(started.elapsed())
}
