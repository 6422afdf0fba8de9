//! The services, limits and background tasks that all generations of a process share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::admission::Admission;
use super::ceiling::Ceiling;
use super::commit::Committer;
use super::estimate::Estimates;
use super::record::{Address, Order};
use super::records::Records;
use super::rows::Work;
use super::spool::{self, Spool};
use super::steps::IdempotencyKey;
use super::watches::Watches;
use crate::azure::{self, Queue, STATE_TABLE, Table};
use crate::caller::Caller;
use crate::config::Config;
use crate::digest::Digests;
use crate::gallery::Gallery;
use crate::openai::{ImageOptions, ImageRequest, OpenAi};
use crate::prompt::Prompt;
use crate::prompts::{TextModel, enhance};
use crate::spending::{Clock, Cost, Day, Limits, Prices, QuotaStatus, Usage};

/// The queue whose messages trigger `processImage/function.json`.
pub(crate) const QUEUE: &str = "visionary-jobs";

/// All generations of this process: the services that they use, and their records.
pub(crate) struct Generations {
    pub(crate) openai: OpenAi,
    pub(crate) gallery: Gallery,
    pub(crate) records: Records<Table>,
    pub(crate) spool: Spool,
    /// `None` if no queue for jobs is configured.
    pub(crate) queue: Option<Queue>,
    pub(crate) admission: Admission,
    pub(crate) watches: Watches,
    pub(crate) estimates: Estimates,
    pub(crate) prices: Prices,
    pub(crate) ceiling: Ceiling,
    pub(crate) text_model: Arc<TextModel>,
    /// Whether the provider's moderation checks each prompt before the generation is accepted.
    pub(crate) moderation: bool,
    pub(crate) digests: Digests,
    pub(crate) clock: Clock,
    /// Notified when an image is left in the spool; wakes [`Self::keep_recovering`].
    pub(crate) left_behind: Notify,
    /// Notified when a record is added; wakes the deletion of expired rows.
    pub(crate) added: Notify,
    /// Whether this process has added a record since its last sweep.
    pub(super) has_added: AtomicBool,
    /// Tasks that go on after the caller has disconnected. The server waits for them before it exits.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when the server stops accepting requests.
    pub(crate) stopping: CancellationToken,
}

/// What generations share with the rest of the app.
pub(crate) struct Services {
    pub(crate) openai: OpenAi,
    pub(crate) gallery: Gallery,
    pub(crate) digests: Digests,
    pub(crate) text_model: Arc<TextModel>,
    pub(crate) http: azure::Http,
    /// Tasks that go on after the caller has disconnected.
    pub(crate) tasks: TaskTracker,
}

impl Generations {
    /// Creates the clients and the spool folder. No connection is opened yet.
    ///
    /// # Errors
    /// [`spool::Error::Io`] if the spool folder cannot be created.
    pub(crate) fn new(config: &Config, clock: Clock, services: Services) -> Result<Self, spool::Error> {
        let Services { openai, gallery, digests, text_model, http, tasks } = services;
        let stopping = CancellationToken::new();
        let prices = Prices::new(&config.limits);
        let added = enhance::added_bytes(config.enhancement);
        let default_request =
            Prompt::parse("an image").ok().and_then(|prompt| openai.plan(&prompt, &ImageOptions::default()).ok());
        let limits = Limits {
            daily_images: config.limits.daily_images,
            daily_refusals: config.limits.daily_refusals,
            daily_jobs: config.limits.daily_jobs,
            daily_budget: config.limits.daily_budget,
            daily_caller_cost: config.limits.daily_caller_cost,
            usual_cost: default_request.map_or(0, |image_request| most_cost(&prices, &image_request, added)),
        };
        let ceiling = Ceiling::new(config.limits.max_image_cost, prices.clone(), &openai);
        let table = Table::new(&config.state, STATE_TABLE, &config.storage.container, http.clone());
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
            ceiling,
            text_model,
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

    /// The table that holds the records.
    pub(crate) fn table(&self) -> &Table {
        self.records.table()
    }

    /// Takes the lease of this work for `time`, unless another process holds it.
    ///
    /// # Errors
    /// The table cannot be written.
    pub(crate) async fn take_lease(&self, work: Work, time: Duration) -> Result<bool, azure::Error> {
        self.records.take_lease(work, self.now(), time).await.map_err(|gave_up| gave_up.cause)
    }

    /// Reads the quota status of a caller; `None` if there is no quota.
    ///
    /// # Errors
    /// The table cannot be read.
    pub(crate) async fn quota_status(&self, caller: &Caller, day: Day) -> Result<Option<QuotaStatus>, azure::Error> {
        self.records.quota_status(caller, day).await
    }

    /// The number of images that a caller may draw in a UTC day; `None` if there is no quota.
    pub(crate) fn daily_images(&self) -> Option<u32> {
        Some(self.records.limits().daily_images).filter(|limit| *limit > 0)
    }

    /// Whether a queue for jobs is configured.
    pub(crate) fn can_queue(&self) -> bool {
        self.queue.is_some()
    }

    /// Whether the app may use the queue for jobs, if one is configured.
    ///
    /// # Errors
    /// It may not, or storage cannot be reached.
    pub(crate) async fn check_queue(&self) -> Result<(), azure::Error> {
        match &self.queue {
            Some(queue) => queue.check().await,
            None => Ok(()),
        }
    }

    /// The number of images in the spool that wait for recovery; `None` if the folder cannot be read.
    pub(crate) async fn waiting_in_spool(&self) -> Option<usize> {
        self.spool.left_behind().await.ok().map(|ids| ids.len())
    }

    /// The current time.
    pub(crate) fn now(&self) -> OffsetDateTime {
        (self.clock)()
    }

    /// The address of an image's record. Only a holder of the digests' key can compute it.
    pub(crate) fn address(&self, image_id: &str, now: OffsetDateTime) -> Address {
        Address::new(Day::of(now), self.digests.of(&[b"generation", image_id.as_bytes()]))
    }

    /// The highest cost that drawing may have, in millionths of a US dollar, if enhancement adds up to
    /// `added_bytes` to the prompt.
    pub(crate) fn most_cost(&self, image_request: &ImageRequest, added_bytes: usize) -> u64 {
        most_cost(&self.prices, image_request, added_bytes)
    }

    /// The cost of an image that `model` drew. If the request does not name that model, the cost is the
    /// reserved amount.
    pub(crate) fn cost(&self, order: &Order, image_request: &ImageRequest, model: &str, usage: Option<Usage>) -> Cost {
        match image_request.spec(model) {
            Some(spec) => self.prices.actual_cost(spec, usage, order.most_cost),
            None => Cost { micro_usd: order.most_cost, priced: false, usage },
        }
    }

    /// The cost of an image of which only the blob is left, by this model. The tokens died with its process:
    /// without a price for each image it is the reserved amount.
    pub(super) fn cost_of_found(&self, order: &Order, model: &str) -> Cost {
        match self.openai.plan(&order.prompt, &order.options) {
            Ok(image_request) => self.cost(order, &image_request, model, None),
            Err(_) => Cost { micro_usd: order.most_cost, priced: false, usage: None },
        }
    }

    /// Reports a new record, so that the next sweep runs and expired rows are deleted.
    pub(super) fn note_added(&self) {
        self.has_added.store(true, Ordering::Relaxed);
        self.added.notify_one();
    }

    /// The expected drawing time: the median of recent images of the same model and size.
    pub(crate) fn estimate(&self, image_request: &ImageRequest) -> Option<Duration> {
        let spec = image_request.specs().next()?;
        self.estimates.of(spec.model, spec.size)
    }

    /// Builds the idempotency key of a request from its Idempotency-Key header, caller and body.
    pub(crate) fn key(&self, key: &str, caller: &Caller, body: &[u8]) -> IdempotencyKey {
        IdempotencyKey {
            digest: self.digests.of(&[b"idempotency key", caller.as_str().as_bytes(), key.as_bytes()]),
            fingerprint: self.digests.of(&[b"body", body]),
        }
    }

    /// Whether this process draws the generation of this address.
    pub(crate) fn is_drawn_here(&self, address: &Address) -> bool {
        self.watches.is_drawn_here(address)
    }

    /// Refuses new generations, and signals pollers and event streams to end.
    pub(crate) fn stop(&self) {
        self.admission.close();
        self.stopping.cancel();
    }
}

fn most_cost(prices: &Prices, image_request: &ImageRequest, added_bytes: usize) -> u64 {
    image_request.specs().map(|spec| prices.most(spec.longer_by(added_bytes))).max().unwrap_or_default()
}
