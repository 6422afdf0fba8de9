//! `cargo figures`: the README's figures, medians of one run on the release build.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use devkit::azurite::Azurite;
use devkit::leash::{self, Held};
use devkit::memory;
use devkit::openai::{self, Endpoint, Hold, OpenAi, Painting, Reply};
use devkit::port::Port;
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tiny_skia::{ColorU8, Pixmap};

use crate::package::{self, mb};

const STARTS: usize = 41;
const GENERATIONS: usize = 101;
const LISTINGS: usize = 21;
const BLOBS: usize = 5_000;
const CALLERS: usize = 200;
const PREVIEWS: usize = 41;
const STREAMS: usize = 64;
/// Of a picture, in pixels: 1.5 MB.
const SIDE: u32 = 700;

pub(crate) async fn run() -> anyhow::Result<()> {
    let package = package::release()?;
    let azurite = tokio::task::spawn_blocking(Azurite::start).await??;
    let painting = Painting::Fixed(picture()?);
    let provider = OpenAi::start_with(openai::Options { painting, ..openai::Options::default() }).await?;
    // Without limits nothing is reserved: what reservations add is told apart.
    let limits = |images: &'static str, usd: &'static str| [("DAILY_IMAGE_QUOTA", images), ("DAILY_BUDGET_USD", usd)];
    let (unlimited, limited) = (limits("0", "0"), limits("1000000", "1000000"));
    let start = |limits| Handler::start(&package.handler, &azurite, &provider, limits);

    let mut starts = Vec::new();
    let mut resident = Vec::new();
    for _ in 0..STARTS {
        let (handler, took) = start(limited).await?;
        starts.push(took);
        resident.push(memory::resident_bytes(handler.process.id())?);
    }
    let (handler, _) = start(unlimited).await?;
    let (reserving, _) = start(limited).await?;
    let (added, reservation, bare_generation) = generation(&handler, &reserving, &provider).await?;
    let (listing, bare_listing) = listing(&handler).await?;
    drop((handler, reserving));
    let (preview, open_streams) = streams(&start(unlimited).await?.0, &provider).await?;
    let others = Handler::start(&package.handler, &azurite, &provider, limited).await?.0;
    let handlers = [start(limited).await?.0, others];
    let generations = a_second(&handlers, 200).await?;
    let refusal = Reply::error(400, "image_generation_user_error", "moderation_blocked", "");
    provider.script_always(Endpoint::Images, refusal);
    let reservations = a_second(&handlers, 422).await?;

    println!("Measured on {} cores; medians of one run.\n", std::thread::available_parallelism()?);
    println!("| figure | measured | at most |\n| --- | --- | --- |");
    println!("| start to the first answer of `GET /` | {} | 20 ms |", ms(median(&mut starts)));
    println!("| resident memory, idle | {:.1} MB | 15 MB |", mb(median(&mut resident)));
    println!("| release binary | {:.1} MB | 8 MB |", mb(fs::metadata(&package.handler)?.len()));
    println!("| zip | {:.1} MB | 5 MB |", mb(fs::metadata(&package.zip)?.len()));
    println!(
        "| generateImage adds, at 1.5 MB, to the bare provider and storage calls ({}) | {} | 3 ms |",
        ms(bare_generation),
        ms(added)
    );
    println!(
        "| the reservation of a quota and a budget, two writes to the table, adds to that | {} | |",
        ms(reservation)
    );
    println!(
        "| reservations a second in one budget, each given back, {CALLERS} callers at once over 2 processes | \
         {reservations:.0} | |"
    );
    println!("| generations a second, likewise, with their pictures | {generations:.0} | |");
    println!("| the provider's first partial picture, at 1.5 MB, to the client's `preview` | {} | |", ms(preview));
    println!("| resident memory with {STREAMS} open streams, previews shown | {:.1} MB | |", mb(open_streams));
    println!("| getImages over {BLOBS} blobs, beside a bare listing ({}) | {} | |", ms(bare_listing), ms(listing));
    Ok(())
}

/// The shipped handler, without a host in between.
struct Handler {
    process: Child,
    url: String,
    http: reqwest::Client,
    _port: Port,
    _held: Held,
}

impl Handler {
    async fn start(
        program: &Path,
        azurite: &Azurite,
        provider: &OpenAi,
        limits: [(&str, &str); 2],
    ) -> anyhow::Result<(Self, Duration)> {
        let port = Port::reserve()?;
        let http = reqwest::Client::new();
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("AzureWebJobsStorage", azurite.connection_string())
            .envs(limits)
            .env("QUOTA_USER_HEADER", "x-user")
            .env("MAX_CONCURRENT_GENERATIONS", "100")
            .env("OPENAI_API_KEY", "figures")
            .env("OPENAI_BASE_URL", provider.base_url())
            .env("SAS_PERMISSIONS", "rcwl")
            .env("SPOOL_DIR", devkit::target_dir().join("devkit/figures-spool"))
            .env("FUNCTIONS_CUSTOMHANDLER_PORT", port.number().to_string())
            .stdout(Stdio::null());
        let started = Instant::now();
        let process = command.spawn().context("the handler cannot be started")?;
        let held = leash::hold(process.id())?;
        let handler =
            Self { process, url: format!("http://127.0.0.1:{}", port.number()), http, _port: port, _held: held };
        while handler.http.get(&handler.url).send().await.is_err() {
            ensure!(started.elapsed() < Duration::from_secs(10), "the handler does not answer");
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        Ok((handler, started.elapsed()))
    }

    async fn generate(&self, user: &str) -> anyhow::Result<()> {
        self.ask(user, 200).await
    }

    async fn ask(&self, user: &str, status: u16) -> anyhow::Result<()> {
        let request = self.http.post(format!("{}/api/generateImage", self.url)).header("x-user", user);
        let answer = request.json(&json!({"prompt": "a fox"})).send().await?;
        ensure!(answer.status() == status, "generateImage answered {}", answer.status());
        answer.bytes().await?;
        Ok(())
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What generateImage adds, what reservations add to that, and what the same two calls take bare;
/// taken in turns.
async fn generation(
    handler: &Handler,
    reserving: &Handler,
    provider: &OpenAi,
) -> anyhow::Result<(Duration, Duration, Duration)> {
    let token: Value = token(handler).await?;
    let bare = |number: usize| {
        let url = blob_url(&token, &format!("bare_{number}.png"));
        async move {
            let body = json!({"model": "gpt-image-2.5-flare", "prompt": "a fox", "n": 1, "size": "1024x1024"});
            let request = handler.http.post(format!("{}/images/generations", provider.base_url()));
            let answer: Value = request.bearer_auth("figures").json(&body).send().await?.json().await?;
            let text = answer["data"][0]["b64_json"].as_str().context("a picture")?;
            put(&handler.http, &url?, BASE64_STANDARD.decode(text)?.into()).await
        }
    };
    handler.generate("anna").await?;
    reserving.generate("anna").await?;
    bare(GENERATIONS).await?;
    let (mut whole, mut reserved, mut parts) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..GENERATIONS {
        let started = Instant::now();
        handler.generate("anna").await?;
        whole.push(started.elapsed());
        let started = Instant::now();
        reserving.generate("anna").await?;
        reserved.push(started.elapsed());
        let started = Instant::now();
        bare(number).await?;
        parts.push(started.elapsed());
    }
    let (parts, whole) = (median(&mut parts), median(&mut whole));
    Ok((whole.saturating_sub(parts), median(&mut reserved).saturating_sub(whole), parts))
}

/// Requests a second, each with its reservation in the app's one budget, which end with that status.
async fn a_second(handlers: &[Handler; 2], status: u16) -> anyhow::Result<f64> {
    let started = Instant::now();
    let all = (0..CALLERS).map(|number| {
        let handler = &handlers[number % 2];
        async move { handler.ask(&format!("user {number}"), status).await }
    });
    let done = futures_util::future::join_all(all).await;
    done.into_iter().collect::<anyhow::Result<()>>()?;
    Ok(f64::from(u32::try_from(CALLERS)?) / started.elapsed().as_secs_f64())
}

/// From a partial picture to its preview, and the memory while many streams are open.
async fn streams(handler: &Handler, provider: &OpenAi) -> anyhow::Result<(Duration, u64)> {
    let mut took = Vec::new();
    for _ in 0..PREVIEWS {
        let (partials, whole) = (Hold::new(), Hold::new());
        provider.script(Endpoint::Images, Reply::normal().partials_held_by(&partials).held_by(&whole));
        let mut stream = Watched::open(handler).await?;
        partials.reached(1).await;
        let started = Instant::now();
        partials.release();
        stream.until("event: preview").await?;
        took.push(started.elapsed());
        whole.release();
        stream.until("event: image").await?;
    }
    let hold = Hold::new();
    provider.script_always(Endpoint::Images, Reply::normal().held_by(&hold));
    let mut open = Vec::new();
    for _ in 0..STREAMS {
        let mut stream = Watched::open(handler).await?;
        stream.until("event: preview").await?;
        open.push(stream);
    }
    let resident = memory::resident_bytes(handler.process.id())?;
    hold.release();
    for stream in &mut open {
        stream.until("event: image").await?;
    }
    provider.script_always(Endpoint::Images, Reply::normal());
    Ok((median(&mut took), resident))
}

/// An answer in events.
struct Watched {
    answer: reqwest::Response,
    text: String,
}

impl Watched {
    async fn open(handler: &Handler) -> anyhow::Result<Self> {
        let request = handler.http.post(format!("{}/api/generateImage", handler.url));
        let request = request.header("accept", "text/event-stream").json(&json!({"prompt": "a fox"}));
        let answer = request.send().await?;
        ensure!(answer.status() == 200, "generateImage answered {}", answer.status());
        Ok(Self { answer, text: String::new() })
    }

    async fn until(&mut self, wanted: &str) -> anyhow::Result<()> {
        while !self.text.contains(wanted) {
            let chunk = self.answer.chunk().await?.context("the stream ended early")?;
            self.text.push_str(&String::from_utf8_lossy(&chunk));
        }
        Ok(())
    }
}

/// getImages, and the same page of blobs fetched bare; taken in turns.
async fn listing(handler: &Handler) -> anyhow::Result<(Duration, Duration)> {
    let token: Value = token(handler).await?;
    let existing = images(handler).await?;
    let uploads = (existing..BLOBS).map(|number| {
        let url =
            blob_url(&token, &format!("a red fox in the snow, number {number}_{}.png", 1_700_000_000_000 + number));
        async move { put(&handler.http, &url?, Bytes::from_static(b"x")).await }
    });
    let uploads: Vec<_> = uploads.collect();
    let done: Vec<anyhow::Result<()>> = stream::iter(uploads).buffer_unordered(16).collect().await;
    done.into_iter().collect::<anyhow::Result<()>>()?;
    ensure!(images(handler).await? == BLOBS, "all blobs are listed");
    let page = format!("{}&restype=container&comp=list", blob_url(&token, "")?.replacen("/?", "?", 1));
    let (mut listed, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..LISTINGS {
        let started = Instant::now();
        images(handler).await?;
        listed.push(started.elapsed());
        let started = Instant::now();
        handler.http.get(&page).header("x-ms-version", "2022-11-02").send().await?.error_for_status()?.bytes().await?;
        bare.push(started.elapsed());
    }
    Ok((median(&mut listed), median(&mut bare)))
}

async fn images(handler: &Handler) -> anyhow::Result<usize> {
    let answer = handler.http.get(format!("{}/api/getImages", handler.url)).send().await?;
    let answer: Value = serde_json::from_slice(&answer.bytes().await?)?;
    Ok(answer["imageUrls"].as_array().context("imageUrls")?.len())
}

async fn token(handler: &Handler) -> anyhow::Result<Value> {
    let request =
        handler.http.get(format!("{}/api/generateSASToken", handler.url)).header("accept", "application/json");
    Ok(request.send().await?.json().await?)
}

fn blob_url(token: &Value, name: &str) -> anyhow::Result<String> {
    let container = token["containerUrl"].as_str().context("containerUrl")?;
    let name: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>().replace('+', "%20");
    Ok(format!("{container}/{name}?{}", token["sasToken"].as_str().context("sasToken")?))
}

async fn put(http: &reqwest::Client, url: &str, bytes: Bytes) -> anyhow::Result<()> {
    let answer = http.put(url).header("x-ms-blob-type", "BlockBlob").body(bytes).send().await?;
    ensure!(answer.status() == 201, "the upload was answered {}", answer.status());
    Ok(())
}

/// Of noise, which cannot be compressed: as large as a provider's.
fn picture() -> anyhow::Result<Bytes> {
    let mut picture = Pixmap::new(SIDE, SIDE).context("a picture")?;
    let mut random = fastrand::Rng::with_seed(7);
    for pixel in picture.pixels_mut() {
        *pixel = ColorU8::from_rgba(random.u8(..), random.u8(..), random.u8(..), 255).premultiply();
    }
    Ok(picture.encode_png()?.into())
}

fn median<T: Ord + Copy + Default>(values: &mut [T]) -> T {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1_000.0)
}
