//! Fault runs against a whole app: SIGKILLs while the handlers work, and more requests at once than the
//! app can serve.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::sync::{RwLock, watch};

use crate::memory;
use crate::stand_ins::host::FunctionsHost;
use crate::stand_ins::openai::{Endpoint, OpenAi};
use crate::table::{self, Audit};

/// Concurrent clients of [`Chaos::kill`]; each sends one prompt after the other.
const CLIENTS: usize = 6;
/// Time limit for the upload of the images in the spool. The upload usually takes a second or two.
const RECOVERED_WITHIN: Duration = Duration::from_secs(60);
/// Time limit for the sweep. A process counts as dead after 75 s, and the sweep runs each minute.
const ENDED_WITHIN: Duration = Duration::from_secs(4 * 60);

/// The result of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests sent, each with a different prompt.
    pub sent: usize,
    /// Requests that were answered with 200.
    pub answered: usize,
    /// Requests that were answered with 202: the image is stored later.
    pub stored_later: usize,
    /// Requests that were answered with 503 `busy`.
    pub busy: usize,
    /// Requests that the handler did not answer, because it was killed.
    pub broken: usize,
    /// Requests with any other answer.
    pub odd: usize,
    /// Requests that reached the provider.
    pub asked: usize,
    /// Images that the provider drew and charges for.
    pub drawn: usize,
    /// Images in the gallery at the end.
    pub listed: usize,
    /// Listed images that differ from the image that the provider drew for their prompt.
    pub damaged: usize,
    /// Repeated entries in the gallery for a prompt.
    pub twice: usize,
    /// Images that are not in the gallery although the process had them: the request was answered with
    /// 200 or 202, or the image was in the spool after a kill.
    pub lost: usize,
    /// Images that are not in the gallery because the process was killed before it had spooled them.
    pub died_on_the_way: usize,
    /// Generations that are still open after the sweep.
    pub left_open: usize,
    /// Whether budget and quota in the state table match its records ([`Audit::agrees`]).
    pub agrees: bool,
    /// The largest resident memory of a handler, in bytes; 0 after [`Chaos::kill`].
    pub peak_bytes: u64,
}

/// A running app and its services, for one run. All handlers share one spool.
pub struct Chaos {
    /// The stand-in for the Functions host.
    pub host: FunctionsHost,
    /// The stand-in for the provider. No other app may use it, because its requests are counted.
    pub openai: OpenAi,
    /// The number of handlers that the host runs.
    pub handlers: usize,
    /// The handlers' `SPOOL_DIR`.
    pub spool: PathBuf,
    /// The connection string of the storage account with the state table.
    pub connection_string: String,
    /// The app's `IMAGE_CONTAINER`.
    pub container: String,
}

impl Chaos {
    /// Sends `prompts` prompts and kills a random handler `kills` times at random instants. Each killed
    /// handler is started again. The counts are taken when the spool is empty and the sweep has run.
    ///
    /// # Errors
    /// Fails if a handler does not start again, the spool does not empty, or the gallery or the state
    /// table cannot be read.
    pub async fn kill(&mut self, prompts: usize, kills: usize) -> anyhow::Result<Counts> {
        let url = self.host.url();
        let next = Arc::new(AtomicUsize::new(0));
        // The write lock is held while a handler is down. A client takes the read lock before it sends, so
        // no request starts without a handler.
        let up = Arc::new(RwLock::new(()));
        let (sent, mut progress) = watch::channel(0);
        let clients = join_all((0..CLIENTS).map(|_| {
            let (url, next, up, sent) = (url.clone(), Arc::clone(&next), Arc::clone(&up), sent.clone());
            async move {
                let http = reqwest::Client::new();
                let mut seen = Vec::new();
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= prompts {
                        return seen;
                    }
                    drop(up.read().await);
                    sent.send_modify(|sent| *sent += 1);
                    let prompt = prompt(number);
                    seen.push((prompt.clone(), ask(&http, &url, &prompt).await));
                }
            }
        }));
        let clients = tokio::spawn(clients);
        let mut spooled = BTreeSet::new();
        for kill in 0..kills {
            // The kills are spread evenly over the prompts, each with a random delay.
            let share = prompts * kill / kills;
            progress.wait_for(|sent| *sent >= share.max(1)).await?;
            tokio::time::sleep(Duration::from_micros(fastrand::u64(0..60_000))).await;
            let _down = up.write().await;
            let handler = fastrand::usize(..self.handlers);
            self.host.kill_handler(handler).await;
            spooled.extend(prompts_in(&self.spool)?);
            self.host.start_handler(handler).await?;
        }
        let seen = clients.await?;
        self.wait_until_recovered().await?;
        self.count(seen.into_iter().flatten().collect(), &spooled).await
    }

    /// Sends `prompts` prompts at once.
    ///
    /// # Errors
    /// Fails if the spool does not empty, or the gallery or the state table cannot be read.
    pub async fn rush(&mut self, prompts: usize) -> anyhow::Result<Counts> {
        let (http, url) = (reqwest::Client::new(), self.host.url());
        let asked = (0..prompts).map(|number| {
            let (http, url, prompt) = (http.clone(), url.clone(), prompt(number));
            async move {
                let seen = ask(&http, &url, &prompt).await;
                (prompt, seen)
            }
        });
        let seen = join_all(asked).await;
        self.wait_until_recovered().await?;
        let mut counts = self.count(seen, &BTreeSet::new()).await?;
        for handler in 0..self.handlers {
            let pid = self.host.handler_pid(handler).context("a handler has ended")?;
            counts.peak_bytes = counts.peak_bytes.max(memory::peak_bytes(pid)?);
        }
        Ok(counts)
    }

    async fn wait_until_recovered(&self) -> anyhow::Result<()> {
        let recovered = async {
            while !prompts_in(&self.spool)?.is_empty() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(RECOVERED_WITHIN, recovered).await.context("the spool still contains images")?
    }

    /// Audits the state table as soon as no generation is open, at the latest after [`ENDED_WITHIN`].
    async fn audit(&self) -> anyhow::Result<Audit> {
        let until = Instant::now() + ENDED_WITHIN;
        loop {
            let audit = table::audit(&self.connection_string, &self.container).await?;
            if audit.open == 0 || Instant::now() >= until {
                return Ok(audit);
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    async fn count(&self, seen: Vec<(String, Seen)>, spooled: &BTreeSet<String>) -> anyhow::Result<Counts> {
        let audit = self.audit().await?;
        let http = reqwest::Client::new();
        let drawn: BTreeMap<String, bytes::Bytes> =
            self.openai.images_drawn().into_iter().map(|drawn| (drawn.prompt, drawn.bytes)).collect();
        let mut counts = Counts {
            sent: seen.len(),
            asked: self.openai.requests(Endpoint::Images).len(),
            drawn: self.openai.images_drawn().len(),
            left_open: audit.open,
            agrees: audit.agrees,
            ..Counts::default()
        };
        let mut listed = BTreeSet::new();
        let answer: Value = http.get(format!("{}/api/getImages", self.host.url())).send().await?.json().await?;
        for image in answer["imageUrls"].as_array().context("getImages answered without imageUrls")? {
            let (name, url) = (
                image["name"].as_str().context("an image has no name")?,
                image["url"].as_str().context("an image has no url")?,
            );
            let prompt = name.split('_').next().unwrap_or_default().to_owned();
            let bytes = http.get(url).send().await?.error_for_status()?.bytes().await?;
            counts.listed += 1;
            counts.damaged += usize::from(drawn.get(&prompt) != Some(&bytes));
            counts.twice += usize::from(!listed.insert(prompt));
        }
        for (prompt, seen) in &seen {
            match seen {
                Seen::Answered => counts.answered += 1,
                Seen::StoredLater => counts.stored_later += 1,
                Seen::Busy => counts.busy += 1,
                Seen::Broken => counts.broken += 1,
                Seen::Odd => counts.odd += 1,
            }
            let had_image = matches!(seen, Seen::Answered | Seen::StoredLater) || spooled.contains(prompt);
            counts.lost += usize::from(had_image && !listed.contains(prompt));
        }
        counts.died_on_the_way = drawn.keys().filter(|prompt| !listed.contains(*prompt)).count() - counts.lost;
        Ok(counts)
    }
}

impl std::fmt::Display for Counts {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { sent, answered, stored_later, busy, broken, odd, asked, drawn, listed, .. } = self;
        let Self { damaged, twice, lost, died_on_the_way, left_open, agrees, peak_bytes, .. } = self;
        writeln!(
            f,
            "requests: {sent} sent, {answered} answered 200, {stored_later} answered 202, {busy} answered 503 busy, \
             {broken} without an answer because the handler was killed, {odd} with another answer"
        )?;
        writeln!(f, "images: {asked} provider requests, {drawn} drawn, {listed} in the gallery")?;
        writeln!(
            f,
            "errors: {damaged} images damaged, {twice} listed twice, {lost} lost by the app, {died_on_the_way} lost \
             between the provider and a killed process"
        )?;
        write!(
            f,
            "accounting: {left_open} generations still open, budget and quota match the records: {}",
            if *agrees { "yes" } else { "no" }
        )?;
        if *peak_bytes > 0 {
            write!(f, "\nmemory: at most {} MiB in a handler", peak_bytes / 1024 / 1024)
        } else {
            Ok(())
        }
    }
}

/// The result of one request, as its client sees it.
enum Seen {
    Answered,
    StoredLater,
    Busy,
    Broken,
    Odd,
}

async fn ask(http: &reqwest::Client, url: &str, prompt: &str) -> Seen {
    let request = http.post(format!("{url}/api/generateImage")).json(&json!({"prompt": prompt}));
    let Ok(answer) = request.send().await else { return Seen::Broken };
    let code = answer.headers().get("x-error-code").and_then(|code| code.to_str().ok()).map(str::to_owned);
    match (answer.status().as_u16(), code.as_deref()) {
        (200, _) => Seen::Answered,
        (202, _) => Seen::StoredLater,
        (503, Some("busy")) => Seen::Busy,
        // Without an error code the answer comes from the host: the handler has ended.
        (500 | 502 | 503, None) => Seen::Broken,
        _ => Seen::Odd,
    }
}

/// The prompt has only characters that an image's name keeps, so the name identifies the prompt.
fn prompt(number: usize) -> String {
    format!("fox {number}")
}

/// The prompts of the complete entries in a spool.
fn prompts_in(spool: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut prompts = BTreeSet::new();
    for file in std::fs::read_dir(spool)? {
        let path = file?.path();
        if path.extension().is_some_and(|ending| ending == "image") {
            // A handler may remove the entry after its upload, between the listing and this read.
            let Ok(entry) = std::fs::read(&path) else { continue };
            let header = entry.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let header: Value =
                serde_json::from_slice(header).context("a complete spool entry does not begin with a JSON line")?;
            prompts.insert(header["prompt"].as_str().context("a spool entry has no prompt")?.to_owned());
        }
    }
    Ok(prompts)
}
