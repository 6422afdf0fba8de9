//! What a bad day does: SIGKILLs in the middle of the work, and a rush that nobody can serve.

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

/// So many clients send one prompt after the other.
const CLIENTS: usize = 6;
/// An image that is left behind is stored within a second or two.
const RECOVERED_WITHIN: Duration = Duration::from_secs(60);
/// A process counts as dead after 75 s, and somebody looks each minute.
const ENDED_WITHIN: Duration = Duration::from_secs(4 * 60);

/// What the run did and found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counts {
    /// Prompts that were sent, no two alike.
    pub sent: usize,
    /// Of these, answered with 200.
    pub answered: usize,
    /// Answered with 202: stored later.
    pub stored_later: usize,
    /// Turned away with 503 `busy`.
    pub busy: usize,
    /// Without an answer of the handler's, because it was killed.
    pub broken: usize,
    /// Answered with anything else.
    pub odd: usize,
    /// Requests that reached the provider.
    pub asked: usize,
    /// Images that the provider drew, and bills.
    pub drawn: usize,
    /// Images in the gallery at the end.
    pub listed: usize,
    /// Listed, and not what the provider drew for that prompt.
    pub damaged: usize,
    /// Listed more often than once.
    pub twice: usize,
    /// Not listed, though the answer had reached the process: it was answered, or in the spool when
    /// the process was killed.
    pub lost: usize,
    /// Drawn, and the answer died on the way to a process that was killed.
    pub died_on_the_way: usize,
    /// Reservations that are still held when those of dead processes have ended.
    pub left_open: usize,
    /// Whether money and quota in the table are those of its records.
    pub agrees: bool,
    /// The handler's largest resident memory, in bytes; 0 where it was killed.
    pub peak_bytes: u64,
}

/// A running app that is to have a bad day. The spool of all its handlers is in `spool`.
pub struct Chaos {
    /// The host.
    pub host: FunctionsHost,
    /// The provider; nobody else asks it.
    pub openai: OpenAi,
    /// How many handlers the host runs.
    pub handlers: usize,
    /// The handlers' `SPOOL_DIR`.
    pub spool: PathBuf,
    /// Where the records are.
    pub connection_string: String,
    /// The app's `IMAGE_CONTAINER`.
    pub container: String,
}

impl Chaos {
    /// Sends so many prompts and kills the handler so often, at random instants; each time it is
    /// started again. Ends when nothing is left to be recovered.
    ///
    /// # Errors
    /// If the handler does not come back, or the gallery cannot be read.
    pub async fn kill(&mut self, prompts: usize, kills: usize) -> anyhow::Result<Counts> {
        let url = self.host.url();
        let next = Arc::new(AtomicUsize::new(0));
        // Clients send while they can read-lock it, so that no prompt is sent to a handler that is not there.
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
        let mut safe = BTreeSet::new();
        for kill in 0..kills {
            // The prompts are spread over the kills; within its share a kill comes at any instant.
            let share = prompts * kill / kills;
            progress.wait_for(|sent| *sent >= share.max(1)).await?;
            tokio::time::sleep(Duration::from_micros(fastrand::u64(0..60_000))).await;
            let _down = up.write().await;
            let handler = fastrand::usize(..self.handlers);
            self.host.kill_handler(handler).await;
            safe.extend(prompts_in(&self.spool)?);
            self.host.start_handler(handler).await?;
        }
        let seen = clients.await?;
        self.wait_until_recovered().await?;
        self.count(seen.into_iter().flatten().collect(), &safe).await
    }

    /// Sends so many prompts at once.
    ///
    /// # Errors
    /// If the gallery cannot be read.
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
            let pid = self.host.handler_pid(handler).context("the handler runs")?;
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
        tokio::time::timeout(RECOVERED_WITHIN, recovered).await.context("images are still in the spool")?
    }

    /// Waits until the reservations of dead processes have ended, and reads what is in the table then.
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

    async fn count(&self, seen: Vec<(String, Seen)>, safe: &BTreeSet<String>) -> anyhow::Result<Counts> {
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
        for image in answer["imageUrls"].as_array().context("imageUrls")? {
            let (name, url) = (image["name"].as_str().context("name")?, image["url"].as_str().context("url")?);
            let caption = name.split('_').next().unwrap_or_default().to_owned();
            let bytes = http.get(url).send().await?.error_for_status()?.bytes().await?;
            counts.listed += 1;
            counts.damaged += usize::from(drawn.get(&caption) != Some(&bytes));
            counts.twice += usize::from(!listed.insert(caption));
        }
        for (prompt, seen) in &seen {
            match seen {
                Seen::Answered => counts.answered += 1,
                Seen::StoredLater => counts.stored_later += 1,
                Seen::Busy => counts.busy += 1,
                Seen::Broken => counts.broken += 1,
                Seen::Odd => counts.odd += 1,
            }
            let promised = matches!(seen, Seen::Answered | Seen::StoredLater) || safe.contains(prompt);
            counts.lost += usize::from(promised && !listed.contains(prompt));
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
            "sent {sent}: answered {answered}, stored later {stored_later}, busy {busy}, broken {broken}, odd {odd}"
        )?;
        writeln!(f, "provider asked {asked}, drew {drawn}; in the gallery {listed}")?;
        write!(
            f,
            "damaged {damaged}, twice {twice}, lost {lost}, died on the way to a killed process {died_on_the_way}; \
             reservations left open {left_open}, money and quota as the records say: {}",
            if *agrees { "yes" } else { "no" }
        )?;
        if *peak_bytes > 0 { write!(f, "; peak memory {} MiB", peak_bytes / 1024 / 1024) } else { Ok(()) }
    }
}

/// What a client saw.
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
        // The host's own answer, when the handler is gone.
        (500 | 502 | 503, None) => Seen::Broken,
        _ => Seen::Odd,
    }
}

/// A caption too, so that an image is known by its name.
fn prompt(number: usize) -> String {
    format!("fox {number}")
}

/// The prompts of the whole entries in a spool.
fn prompts_in(spool: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut prompts = BTreeSet::new();
    for file in std::fs::read_dir(spool)? {
        let path = file?.path();
        if path.extension().is_some_and(|ending| ending == "image") {
            // It may be uploaded and removed at this moment.
            let Ok(entry) = std::fs::read(&path) else { continue };
            let header = entry.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let header: Value = serde_json::from_slice(header).context("a whole entry begins with JSON")?;
            prompts.insert(header["prompt"].as_str().context("prompt")?.to_owned());
        }
    }
    Ok(prompts)
}
