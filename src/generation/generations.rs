//! What every generation works with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::Admission;
use super::commit::Committer;
use super::estimate::Estimates;
use super::record::{Address, Order};
use super::records::Records;
use super::spool::{self, Spool};
use super::steps::IdempotencyKey;
use super::watches::Watches;
use crate::azure::{self, Queue, Table};
use crate::caller::Caller;
use crate::config::Config;
use crate::digest::Digests;
use crate::gallery::Gallery;
use crate::openai::{ImageOptions, ImageRequest, OpenAi};
use crate::prompt::Prompt;
use crate::prompts::enhance;
use crate::spending::{Cost, Day, Limits, Prices, QuotaStatus, Usage};

/// The queue that `processImage/function.json` listens to.
pub(crate) const QUEUE: &str = "visionary-jobs";

/// Tells the time. Only the edge asks it; below, a time is an argument.
pub type Clock = Arc<dyn Fn() -> OffsetDateTime + Send + Sync>;

/// The services that generations use, and their records.
pub(crate) struct Generations {
    pub(crate) openai: OpenAi,
    pub(crate) gallery: Gallery,
    pub(crate) records: Records<Table>,
    pub(crate) spool: Spool,
    /// `None` where there is no queue for jobs.
    pub(crate) queue: Option<Queue>,
    pub(crate) admission: Admission,
    pub(crate) watches: Watches,
    pub(crate) estimates: Estimates,
    pub(crate) prices: Prices,
    /// Whether prompts are moderated before anything is paid.
    pub(crate) moderation: bool,
    pub(crate) digests: Digests,
    pub(crate) clock: Clock,
    /// Told when something was left in the spool.
    pub(crate) left_behind: Notify,
    /// Told when a record was added.
    pub(crate) added: Notify,
    /// Whether a record was added since the last sweep.
    pub(super) has_added: AtomicBool,
    /// What goes on when its caller has left. The server waits for it.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the server stops taking requests.
    pub(crate) stopping: CancellationToken,
}

impl Generations {
    /// Connects nothing yet.
    ///
    /// # Errors
    /// If the spool's folder cannot be made.
    pub(crate) fn new(
        config: &Config,
        clock: Clock,
        openai: OpenAi,
        gallery: Gallery,
        digests: Digests,
        http: reqwest::Client,
    ) -> Result<Self, spool::Error> {
        let (tasks, stopping) = (TaskTracker::new(), CancellationToken::new());
        let prices = Prices::new(&config.limits);
        let added = enhance::added_bytes(config.enhancement);
        let usual =
            Prompt::parse("an image").ok().and_then(|prompt| openai.plan(&prompt, &ImageOptions::default()).ok());
        let limits = Limits {
            daily_images: config.limits.daily_images,
            daily_budget: config.limits.daily_budget,
            usual_cost: usual.map_or(0, |image_request| most_cost(&prices, &image_request, added)),
        };
        let table = Table::new(&config.state, &config.storage.container, http.clone());
        let process = format!("{:032x}", fastrand::u128(..));
        Ok(Self {
            openai,
            gallery,
            records: Records::new(Committer::new(table, process, tasks.clone(), stopping.clone()), limits),
            spool: Spool::open(&config.spool_dir)?,
            queue: config.queue.as_ref().map(|config| Queue::new(config, QUEUE, http)),
            admission: Admission::new(config.max_concurrent_generations),
            watches: Watches::default(),
            estimates: Estimates::default(),
            prices,
            moderation: config.moderation,
            digests,
            clock,
            left_behind: Notify::new(),
            added: Notify::new(),
            has_added: AtomicBool::new(false),
            tasks,
            stopping,
        })
    }

    /// The table of the records.
    pub(crate) fn table(&self) -> &Table {
        self.records.table()
    }

    /// How a caller stands; `None` without a quota.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) async fn quota_status(&self, caller: &Caller, day: Day) -> Result<Option<QuotaStatus>, azure::Error> {
        self.records.quota_status(caller, day).await
    }

    /// The images that a caller may have in a day; `None` without a quota.
    pub(crate) fn daily_images(&self) -> Option<u32> {
        Some(self.records.limits().daily_images).filter(|limit| *limit > 0)
    }

    /// Whether there is a queue for jobs.
    pub(crate) fn can_queue(&self) -> bool {
        self.queue.is_some()
    }

    /// How many images wait in the spool, if that can be read.
    pub(crate) async fn waiting_in_spool(&self) -> Option<usize> {
        self.spool.left_behind().await.ok().map(|ids| ids.len())
    }

    /// The time.
    pub(crate) fn now(&self) -> OffsetDateTime {
        (self.clock)()
    }

    /// Where the record of an image is: nobody without the account's key can tell it.
    pub(crate) fn address(&self, image_id: &str, now: OffsetDateTime) -> Address {
        Address::new(Day::of(now), self.digests.of(&[b"generation", image_id.as_bytes()]))
    }

    /// The most that a drawing can cost whose prompt may become so many bytes longer.
    pub(crate) fn most_cost(&self, image_request: &ImageRequest, added_bytes: usize) -> u64 {
        most_cost(&self.prices, image_request, added_bytes)
    }

    /// What an image did cost that this model drew.
    pub(crate) fn cost(&self, order: &Order, image_request: &ImageRequest, model: &str, usage: Option<Usage>) -> Cost {
        match image_request.spec(model) {
            Some(spec) => self.prices.actual_cost(spec, usage, order.most_cost),
            None => Cost { micro_usd: order.most_cost, priced: false, usage },
        }
    }

    /// Says that a record was added: somebody should look after it, and delete what is past.
    pub(super) fn note_added(&self) {
        self.has_added.store(true, Ordering::Relaxed);
        self.added.notify_one();
    }

    /// How long such images took lately.
    pub(crate) fn estimate(&self, image_request: &ImageRequest) -> Option<Duration> {
        let spec = image_request.specs().next()?;
        self.estimates.of(spec.model, spec.size)
    }

    /// An Idempotency-Key with its caller and the body of its request.
    pub(crate) fn key(&self, key: &str, caller: &Caller, body: &[u8]) -> IdempotencyKey {
        IdempotencyKey {
            digest: self.digests.of(&[b"idempotency key", caller.as_str().as_bytes(), key.as_bytes()]),
            fingerprint: self.digests.of(&[b"body", body]),
        }
    }

    /// Whether the generation of this address is under way in this process.
    pub(crate) fn is_drawn_here(&self, address: &Address) -> bool {
        self.watches.is_drawn_here(address)
    }

    /// Takes no more generations, and lets streams end.
    pub(crate) fn stop(&self) {
        self.admission.close();
        self.stopping.cancel();
    }
}

fn most_cost(prices: &Prices, image_request: &ImageRequest, added_bytes: usize) -> u64 {
    image_request.specs().map(|spec| prices.most(spec.longer_by(added_bytes))).max().unwrap_or_default()
}
