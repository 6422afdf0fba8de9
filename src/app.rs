//! What every request works with.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use time::OffsetDateTime;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::azure::Table;
use crate::caller::Callers;
use crate::config::{Config, PromptEnhancement};
use crate::digest::Digests;
use crate::director;
use crate::estimate::Estimates;
use crate::gallery::Gallery;
use crate::idempotency::Claims;
use crate::jobs::Jobs;
use crate::openai::{Drawing, ModelState, OpenAi, Wishes};
use crate::prompt::Prompt;
use crate::quota::Quota;
use crate::spool::{self, Spool};
use crate::suggest::Suggestions;
use crate::turns::Turns;

/// Tells the time. Only the edge asks it; below, a time is an argument.
pub type Clock = Arc<dyn Fn() -> OffsetDateTime + Send + Sync>;

/// The services and settings, shared by all requests.
pub struct App {
    pub(crate) openai: OpenAi,
    pub(crate) gallery: Gallery,
    pub(crate) callers: Callers,
    pub(crate) claims: Claims,
    pub(crate) jobs: Jobs,
    /// How long pictures take.
    pub(crate) estimates: Estimates,
    pub(crate) quota: Quota,
    /// So long a synchronous request is waited for.
    pub(crate) sync_limit: Duration,
    /// Whether prompts are moderated before anything is paid.
    pub(crate) moderation: bool,
    pub(crate) suggestions: Suggestions,
    /// How prompts are enhanced where a request does not say.
    pub(crate) enhancement: PromptEnhancement,
    /// What is known of the configured models.
    pub(crate) models: Mutex<Vec<KnownModel>>,
    /// When storage and the spool were looked at for the app's health, whether storage answered and
    /// how many pictures waited; who asks meanwhile waits for the same look.
    pub(crate) looked: tokio::sync::Mutex<Option<(Instant, bool, Option<usize>)>>,
    pub(crate) started: Instant,
    pub(crate) clock: Clock,
    pub(crate) table: Table,
    pub(crate) turns: Turns,
    pub(crate) spool: Spool,
    /// Told when a picture was left in the spool.
    pub(crate) left_behind: Notify,
    /// Cancelled when the server stops taking requests.
    pub(crate) stopping: CancellationToken,
    /// Generations, which go on when their caller has left. The server waits for them.
    pub(crate) generations: TaskTracker,
}

/// A model that is configured, and what is known of it.
#[derive(Debug, Clone)]
pub(crate) struct KnownModel {
    /// Where it is configured.
    pub(crate) setting: &'static str,
    /// Its name.
    pub(crate) model: String,
    /// What the provider said last.
    pub(crate) state: ModelState,
}

impl KnownModel {
    fn new((setting, model): (&'static str, String)) -> Self {
        Self { setting, model, state: ModelState::Unknown }
    }
}

/// The app could not be put together.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// TLS is missing something.
    #[error("the HTTP client could not be set up")]
    Http(#[source] reqwest::Error),
    /// The folder is not ours to use.
    #[error("SPOOL_DIR cannot be used: it must be a folder that can be written, or be possible to make")]
    Spool(#[from] spool::Error),
}

impl App {
    /// Connects nothing yet: services are reached when a request needs them.
    ///
    /// # Errors
    /// If the HTTP client's TLS cannot be set up, or the spool's folder cannot be made.
    pub fn new(config: &Config, clock: Clock) -> Result<Self, Error> {
        // One client for all outside calls. The total timeout is the storage services'; calls to the
        // provider state their own. Redirects are never followed: they would carry keys along.
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .timeout(Duration::from_secs(60))
            .pool_idle_timeout(Duration::from_secs(60))
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("visionary/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(Error::Http)?;
        let openai = OpenAi::new(config.openai.clone(), http.clone());
        let digests = Digests::new(&config.storage);
        let table = Table::new(&config.storage, http.clone());
        let usual = Prompt::parse("a picture").ok().and_then(|prompt| openai.plan(&prompt, &Wishes::default()).ok());
        let added = director::added_bytes(config.enhancement);
        Ok(Self {
            callers: Callers::new(config, digests.clone()),
            claims: Claims::new(table.clone(), digests.clone()),
            jobs: Jobs::new(table.clone(), digests, config.queue.as_ref(), http.clone()),
            estimates: Estimates::default(),
            sync_limit: config.sync_limit,
            quota: Quota::new(
                &config.limits,
                table.clone(),
                usual.iter().flat_map(Drawing::orders).map(|order| order.longer_by(added)),
            ),
            moderation: config.moderation,
            table,
            suggestions: Suggestions::new(openai.clone(), config.suggestion_timeout),
            enhancement: config.enhancement,
            models: Mutex::new(openai.models().map(KnownModel::new).collect()),
            looked: tokio::sync::Mutex::default(),
            started: Instant::now(),
            openai,
            gallery: Gallery::new(&config.storage, &config.sas, http),
            clock,
            turns: Turns::new(config.max_concurrent_generations),
            spool: Spool::open(&config.spool_dir)?,
            left_behind: Notify::new(),
            stopping: CancellationToken::new(),
            generations: TaskTracker::new(),
        })
    }
}
