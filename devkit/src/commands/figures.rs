//! `cargo figures`: measures speed, size and memory of the release build; most figures are medians.

mod calls;
mod identity;
mod images;
mod pages;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use devkit::memory;
use devkit::stand_ins::azurite::Azurite;
use devkit::stand_ins::openai::{self, Endpoint, Hold, OpenAi, Painting, Reply};
use futures_util::{StreamExt as _, stream};
use serde_json::{Value, json};
use tiny_skia::{ColorU8, Pixmap};

use self::pages::Pages;
use crate::commands::handler::Handler;
use crate::commands::package::{self, Package, mb};

/// Starts of the handler.
const STARTS: usize = 41;
/// Calls of getImages, over a gallery of `BLOBS` images.
const LISTINGS: usize = 21;
const BLOBS: usize = 5_000;
/// Callers that send one request each at once, `ROUNDS` times.
const CALLERS: usize = 200;
const ROUNDS: usize = 3;
/// Event streams of which the time to the preview is measured.
const PREVIEWS: usize = 41;
/// Event streams that are open at once.
const STREAMS: usize = 64;
/// Width and height of the test image in pixels; its PNG has about 1.5 MB.
const SIDE: u32 = 700;

/// The parts of the table, for `--only`.
const PARTS: [&str; 6] = ["start", "images", "listings", "load", "pages", "requests"];

/// What to measure.
#[derive(Debug, Default)]
pub(crate) struct Options<'a> {
    /// Another handler, which is measured, too, in turns with the release build.
    beside: Option<&'a str>,
    /// Whether to measure what takes minutes.
    full: bool,
    /// The one part to measure.
    only: Option<&'a str>,
}

impl<'a> Options<'a> {
    /// Reads the arguments of `cargo figures`; `None` for unknown ones.
    pub(crate) fn parse(arguments: &[&'a str]) -> Option<Self> {
        let mut options = Self::default();
        let mut rest = arguments;
        loop {
            rest = match rest {
                [] => return Some(options),
                ["--full", rest @ ..] => {
                    options.full = true;
                    rest
                }
                ["--beside", handler, rest @ ..] => {
                    options.beside = Some(handler);
                    rest
                }
                ["--only", part, rest @ ..] if PARTS.contains(part) => {
                    options.only = Some(part);
                    rest
                }
                _ => return None,
            };
        }
    }

    fn wants(&self, part: &str) -> bool {
        self.only.is_none_or(|only| only == part)
    }
}

/// Measures the release build.
pub(crate) async fn run(options: Options<'_>) -> anyhow::Result<()> {
    let package = package::release()?;
    let beside = options.beside.map(PathBuf::from);
    let programs: Vec<PathBuf> = std::iter::once(package.handler.clone()).chain(beside).collect();
    let azurite = tokio::task::spawn_blocking(Azurite::start).await??;
    let painting = Painting::Fixed(noise_image()?);
    let provider = OpenAi::start_with(openai::Options { painting, ..openai::Options::default() }).await?;
    let mut figures = Figures::default();
    let storage = azurite.connection_string();
    if options.wants("start") {
        measure_start(&mut figures, &programs, &package, (&storage, &provider)).await?;
    }
    if options.wants("images") || options.wants("listings") {
        let mut handlers = Vec::new();
        for program in &programs {
            let start = async |limits| start_handler(program, &storage, &provider, limits).await;
            handlers.push((start(UNLIMITED).await?.0, start(LIMITED).await?.0));
        }
        if options.wants("images") {
            images::measure(&mut figures, &handlers, &provider).await?;
        }
        if options.wants("listings") {
            let (listed, bare) = listing(&handlers[0].0).await?;
            let label = format!("time of getImages with {BLOBS} blobs; storage alone takes {}", ms(bare));
            figures.add(&label, "", [ms(listed)]);
        }
    }
    if options.wants("load") {
        measure_load(&mut figures, &programs, (&storage, &provider)).await?;
    }
    if options.wants("pages") {
        let counts = [1_000, 100_000, 1_000_000];
        for count in counts.into_iter().take(if options.full { 3 } else { 2 }) {
            measure_pages(&mut figures, &programs[0], (&storage, &provider), count).await?;
        }
    }
    if options.wants("requests") {
        let mut calls = Vec::new();
        for program in &programs {
            calls.push(calls::count(program, &azurite, &provider).await?);
        }
        for (index, label) in calls::LABELS.iter().enumerate() {
            let values = calls.iter().map(|counts| format!("{:.1}", counts[index]));
            figures.add(&format!("storage requests for one image: {label}"), "", values);
        }
    }
    figures.print(programs.len() > 1);
    Ok(())
}

/// The services that the handlers use: a connection string, and the provider.
type Services<'a> = (&'a str, &'a OpenAi);

async fn measure_start(
    figures: &mut Figures,
    programs: &[PathBuf],
    package: &Package,
    (storage, provider): Services<'_>,
) -> anyhow::Result<()> {
    let mut starts = vec![Vec::new(); programs.len()];
    let mut resident = vec![Vec::new(); programs.len()];
    for _ in 0..STARTS {
        for (index, program) in programs.iter().enumerate() {
            let (handler, took) = start_handler(program, storage, provider, LIMITED).await?;
            starts[index].push(took);
            resident[index].push(memory::resident_bytes(handler.pid())?);
        }
    }
    let starts = starts.iter_mut().map(|took| ms(median(took)));
    figures.add("time from start to the first answer to `GET /`", "20 ms", starts);
    let of_identity = ms(median(&mut identity::starts(&programs[0]).await?));
    figures.add("the same without a key, where a token takes 200 ms", "20 ms", [of_identity]);
    let resident = resident.iter_mut().map(|bytes| format!("{:.1} MB", mb(median(bytes))));
    figures.add("resident memory when idle", "15 MB", resident);
    let binary = programs.iter().map(|program| Ok(format!("{:.1} MB", mb(fs::metadata(program)?.len()))));
    figures.add("size of the release binary", "10 MB", binary.collect::<anyhow::Result<Vec<_>>>()?);
    figures.add("size of the zip", "5 MB", [format!("{:.1} MB", mb(fs::metadata(&package.zip)?.len()))]);
    Ok(())
}

/// Many callers at once, and many open event streams.
async fn measure_load(
    figures: &mut Figures,
    programs: &[PathBuf],
    (storage, provider): Services<'_>,
) -> anyhow::Result<()> {
    let (mut previews, mut memory_of_streams, mut images, mut refusals) = (vec![], vec![], vec![], vec![]);
    let refusal = Reply::error(400, "image_generation_user_error", "moderation_blocked", "");
    for program in programs {
        let start = async |limits| start_handler(program, storage, provider, limits).await;
        let (preview, bytes) = streams(&start(UNLIMITED).await?.0, provider).await?;
        previews.push(ms(preview));
        memory_of_streams.push(format!("{:.1} MB", mb(bytes)));
        let pair = [start(LIMITED).await?.0, start(LIMITED).await?.0];
        let (mut drawn, mut refused) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            provider.script_always(Endpoint::Images, Reply::normal());
            drawn.push(requests_per_second(&pair, 200).await?);
            provider.script_always(Endpoint::Images, refusal.clone());
            refused.push(requests_per_second(&pair, 422).await?);
        }
        provider.script_always(Endpoint::Images, Reply::normal());
        images.push(median(&mut drawn).to_string());
        refusals.push(median(&mut refused).to_string());
    }
    let label = format!("images per second within one budget, {CALLERS} callers at once, 2 processes");
    figures.add(&label, "", images);
    figures.add("refused prompts per second, with the same callers and processes", "", refusals);
    figures.add("time from the provider's first partial image (1.5 MB) to the client's `preview` event", "", previews);
    let label = format!("resident memory with {STREAMS} open event streams that have sent a preview");
    figures.add(&label, "", memory_of_streams);
    Ok(())
}

async fn measure_pages(
    figures: &mut Figures,
    program: &Path,
    (storage, provider): Services<'_>,
    count: u64,
) -> anyhow::Result<()> {
    let container = format!("pages-{count}");
    let limits = [("IMAGE_CONTAINER", container.as_str()), LIMITED[0], LIMITED[1]];
    let (handler, _) = start_handler(program, storage, provider, limits).await?;
    let Pages { first, bare, far, peak, peak_of_pollers } =
        pages::measure(&handler, storage, &container, count).await?;
    let label = format!("time of the first page of 60 of {count} images; the bare query takes {}", ms(bare));
    figures.add(&label, "", [ms(first)]);
    figures.add(&format!("time of a page behind nine tenths of {count} images"), "", [ms(far)]);
    let label = format!("largest memory of the handler meanwhile, with {count} images");
    figures.add(&label, "", [format!("{:.1} MB", mb(peak))]);
    let label = format!("the same while {} clients ask for the first page again and again", pages::POLLERS);
    figures.add(&label, "", [format!("{:.1} MB", mb(peak_of_pollers))]);
    Ok(())
}

/// Settings with a quota and a budget that no run reaches.
const LIMITED: [(&str, &str); 3] =
    [("DAILY_IMAGE_QUOTA", "1000000"), ("DAILY_BUDGET_USD", "1000000"), ("DAILY_REFUSALS", "0")];
/// Settings without quota and budget. The difference to [`LIMITED`] is the cost of both.
const UNLIMITED: [(&str, &str); 3] = [("DAILY_IMAGE_QUOTA", "0"), ("DAILY_BUDGET_USD", "0"), ("DAILY_REFUSALS", "0")];

/// The rows of the printed table: label, limit, and one value for each handler.
#[derive(Default)]
struct Figures(Vec<(String, String, Vec<String>)>);

impl Figures {
    fn add(&mut self, label: &str, at_most: &str, measured: impl IntoIterator<Item = String>) {
        self.0.push((label.to_owned(), at_most.to_owned(), measured.into_iter().collect()));
    }

    fn print(&self, is_compared: bool) {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        println!("Measured on {cores} cores in one run.\n");
        let (names, lines) = if is_compared { ("this build | other build", " --- |") } else { ("measured", "") };
        println!("| figure | {names} | at most |\n| --- | --- |{lines} --- |");
        for (label, at_most, measured) in &self.0 {
            let mut measured = measured.clone();
            measured.resize(1 + usize::from(is_compared), String::new());
            println!("| {label} | {} | {at_most} |", measured.join(" | "));
        }
    }
}

/// A handler for the measurements, and the time until its first answer.
async fn start_handler(
    program: &Path,
    storage: &str,
    provider: &OpenAi,
    limits: [(&str, &str); 3],
) -> anyhow::Result<(Handler, Duration)> {
    let spool = devkit::target_dir().join("devkit/figures-spool").display().to_string();
    let base_url = provider.base_url();
    let settings = [
        ("AzureWebJobsStorage", storage),
        ("QUOTA_USER_HEADER", "x-user"),
        ("MAX_CONCURRENT_GENERATIONS", "100"),
        ("OPENAI_API_KEY", "figures"),
        ("OPENAI_BASE_URL", &base_url),
        ("SAS_PERMISSIONS", "rcwl"),
        ("SPOOL_DIR", &spool),
    ];
    Handler::start(program, &[&settings[..], &limits[..]].concat(), None).await
}

async fn generate(handler: &Handler, user: &str) -> anyhow::Result<()> {
    ask(handler, user, 200).await
}

async fn ask(handler: &Handler, user: &str, status: u16) -> anyhow::Result<()> {
    let request = handler.http.post(format!("{}/api/generateImage", handler.url)).header("x-user", user);
    let answer = request.json(&json!({"prompt": "a fox"})).send().await?;
    ensure!(answer.status() == status, "generateImage answered {}", answer.status());
    answer.bytes().await?;
    Ok(())
}

/// Requests per second on two processes with one budget. Each request must end with `status`.
async fn requests_per_second(handlers: &[Handler; 2], status: u16) -> anyhow::Result<u64> {
    let started = Instant::now();
    let all = (0..CALLERS).map(|number| {
        let handler = &handlers[number % 2];
        async move { ask(handler, &format!("user {number}"), status).await }
    });
    let done = futures_util::future::join_all(all).await;
    done.into_iter().collect::<anyhow::Result<()>>()?;
    let milliseconds = started.elapsed().as_millis().max(1);
    Ok(u64::try_from(CALLERS as u128 * 1_000 / milliseconds)?)
}

/// The time from the provider's partial image to the client's preview, and the resident memory in bytes
/// while `STREAMS` event streams are open.
async fn streams(handler: &Handler, provider: &OpenAi) -> anyhow::Result<(Duration, u64)> {
    let mut took = Vec::new();
    for _ in 0..PREVIEWS {
        let (partials, whole) = (Hold::new(), Hold::new());
        provider.script(Endpoint::Images, Reply::normal().partials_held_by(&partials).held_by(&whole));
        let mut stream = EventStream::open(handler).await?;
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
        let mut stream = EventStream::open(handler).await?;
        stream.until("event: preview").await?;
        open.push(stream);
    }
    let resident = memory::resident_bytes(handler.pid())?;
    hold.release();
    for stream in &mut open {
        stream.until("event: image").await?;
    }
    provider.script_always(Endpoint::Images, Reply::normal());
    Ok((median(&mut took), resident))
}

/// The answer of generateImage as an event stream.
struct EventStream {
    answer: reqwest::Response,
    text: String,
}

impl EventStream {
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

/// The time of getImages, and of the storage request for the same list of blobs without the app. The
/// measurements alternate.
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
    ensure!(images(handler).await? == BLOBS, "getImages does not list all blobs");
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
    Ok(answer["imageUrls"].as_array().context("getImages answered without imageUrls")?.len())
}

async fn token(handler: &Handler) -> anyhow::Result<Value> {
    let request =
        handler.http.get(format!("{}/api/generateSASToken", handler.url)).header("accept", "application/json");
    Ok(request.send().await?.json().await?)
}

fn blob_url(token: &Value, name: &str) -> anyhow::Result<String> {
    let container = token["containerUrl"].as_str().context("generateSASToken answered without containerUrl")?;
    let name: String = url::form_urlencoded::byte_serialize(name.as_bytes()).collect::<String>().replace('+', "%20");
    Ok(format!(
        "{container}/{name}?{}",
        token["sasToken"].as_str().context("generateSASToken answered without sasToken")?
    ))
}

async fn put(http: &reqwest::Client, url: &str, bytes: Bytes) -> anyhow::Result<()> {
    let answer = http.put(url).header("x-ms-blob-type", "BlockBlob").body(bytes).send().await?;
    ensure!(answer.status() == 201, "Blob Storage answered the upload with {}", answer.status());
    Ok(())
}

/// A PNG of noise. Noise does not compress, so the file is as large as a provider's image.
fn noise_image() -> anyhow::Result<Bytes> {
    let mut image = Pixmap::new(SIDE, SIDE).context("the image has no area")?;
    let mut random = fastrand::Rng::with_seed(7);
    for pixel in image.pixels_mut() {
        *pixel = ColorU8::from_rgba(random.u8(..), random.u8(..), random.u8(..), 255).premultiply();
    }
    Ok(image.encode_png()?.into())
}

fn median<T: Ord + Copy + Default>(values: &mut [T]) -> T {
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

fn ms(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1_000.0)
}
