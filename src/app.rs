//! The services and settings that requests share.

mod digest_key;
mod identity;

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio_util::task::TaskTracker;

use self::digest_key::DigestKey;
use crate::azure::{self, Credential};
use crate::caller::{Callers, Slots};
use crate::config::{Config, OpenAiAuth, PromptEnhancement, WebConfig};
use crate::digest::Digests;
use crate::gallery::{Bodies, Coalesced, Document, Gallery, NoListing, Wanted};
use crate::generation::{Generations, Services, SpoolError};
use crate::openai::{ModelState, OpenAi};
use crate::prompts::{Suggestions, TextModel};

pub use crate::spending::Clock;

/// The connections to one service that are kept for later calls.
const MAX_IDLE_CONNECTIONS: usize = 32;
/// The event streams of one process. Each holds a connection for minutes.
const MAX_STREAMS: usize = 500;
/// The event streams of one caller. Behind a proxy all its users may be one caller.
const MAX_STREAMS_OF_CALLER: usize = 100;
/// The slow or long bodies that one process reads at a time. Each holds a connection, and up to 400 KiB.
const MAX_SLOW_BODIES: usize = 200;
/// The slow or long bodies of one caller.
const MAX_SLOW_BODIES_OF_CALLER: usize = 20;

/// What keeps the app's identity from working, until the first check has ended.
const UNCHECKED: &str = "The app has not yet opened its services with its identity.";

/// The services and settings that all requests share.
pub struct App {
    pub(crate) openai: OpenAi,
    pub(crate) gallery: Gallery,
    pub(crate) generations: Arc<Generations>,
    pub(crate) suggestions: Suggestions,
    /// The answers of getImages, which requests at the same time share.
    pub(crate) listings: Coalesced<Wanted, Result<Arc<Document>, NoListing>>,
    /// Whether this process has logged that an answer of getImages was cut.
    pub(crate) is_cut_logged: AtomicBool,
    /// The listings that are being sent.
    pub(crate) bodies: Bodies,
    /// The event streams that are open.
    pub(crate) streams: Arc<Slots>,
    /// The bodies that arrive slowly, or that are long.
    pub(crate) slow_bodies: Arc<Slots>,
    pub(crate) callers: Callers,
    /// Whether App Service authentication is on.
    pub(crate) authentication: bool,
    /// The page, and pages on other sites.
    pub(crate) web: WebConfig,
    /// The enhancement for requests without `enhance`.
    pub(crate) enhancement: PromptEnhancement,
    /// A synchronous request that takes longer is handed over: it becomes a job.
    pub(crate) sync_limit: Duration,
    /// The configured models and their last known states.
    pub(crate) models: Mutex<Vec<KnownModel>>,
    /// The last health check: its time, whether storage answered, and the number of images in the
    /// spool (`None` if the spool cannot be read). The lock is held during a check, so that requests
    /// at the same time share it.
    pub(crate) looked: tokio::sync::Mutex<Option<(Instant, bool, Option<usize>)>>,
    /// The key of digests, for an app without an account key.
    digest_key: DigestKey,
    /// What keeps the app's identity from working; `None` also for an app with keys.
    identity_problem: Mutex<Option<String>>,
    /// The start of the process.
    pub(crate) started: Instant,
    pub(crate) clock: Clock,
}

/// A configured model and its last known state.
#[derive(Debug, Clone)]
pub(crate) struct KnownModel {
    /// The name of the setting.
    pub(crate) setting: &'static str,
    /// The model's name.
    pub(crate) model: String,
    /// The provider's last answer about the model.
    pub(crate) state: ModelState,
}

impl KnownModel {
    fn new((setting, model): (&'static str, String)) -> Self {
        Self { setting, model, state: ModelState::Unknown }
    }
}

/// Why [`App::new`] failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The HTTP client could not be built, for example because TLS could not be set up.
    #[error("the HTTP client could not be set up")]
    Http(#[source] reqwest::Error),
    /// The spool's folder cannot be created or used.
    #[error("SPOOL_DIR cannot be used: it must be a writable folder, or a folder that can be created")]
    Spool(#[from] SpoolError),
}

impl App {
    /// Builds the services. No connection is made before a request needs it.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn new(config: &Config, clock: Clock) -> Result<Self, Error> {
        // All services share one client, except the identity endpoint. Its total timeout is for storage; calls to the
        // provider set their own. Redirects are not followed, because they could send keys to another server.
        let client = || {
            reqwest::Client::builder()
                .connect_timeout(Duration::from_secs(5))
                .timeout(Duration::from_secs(60))
                .pool_idle_timeout(Duration::from_secs(60))
                .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS)
                .redirect(reqwest::redirect::Policy::none())
                .user_agent(concat!("visionary/", env!("CARGO_PKG_VERSION")))
        };
        let http = client().build().map_err(Error::Http)?;
        // The identity endpoint is on this machine. A proxy cannot reach it, and would learn its header.
        let without_proxy = client().no_proxy().build().map_err(Error::Http)?;
        let credential = |resource: &str| {
            let identity = config.identity.clone()?;
            Some(Credential::new(without_proxy.clone(), identity, resource, Arc::clone(&clock)))
        };
        let of_provider = match &config.openai.auth {
            OpenAiAuth::Identity { resource } => credential(resource),
            OpenAiAuth::Bearer(_) | OpenAiAuth::ApiKey(_) => None,
        };
        let openai = OpenAi::new(config.openai.clone(), of_provider, http.clone());
        let http = azure::Http::new(http.clone()).with_credential(credential(azure::STORAGE));
        let digests = Digests::new(&config.storage);
        let digest_key = DigestKey::new(config, digests.clone(), http.clone());
        let gallery = Gallery::new(config, digests.clone(), http.clone());
        let tasks = TaskTracker::new();
        let text_model = TextModel::new(openai.clone(), &config.limits, Arc::clone(&clock), tasks.clone());
        let text_model = Arc::new(text_model);
        let services = Services {
            openai: openai.clone(),
            gallery: gallery.clone(),
            digests: digests.clone(),
            text_model: Arc::clone(&text_model),
            http,
            tasks,
        };
        let generations = Generations::new(config, Arc::clone(&clock), services)?;
        Ok(Self {
            generations: Arc::new(generations),
            suggestions: Suggestions::new(text_model, config.suggestion_timeout),
            listings: Coalesced::default(),
            is_cut_logged: AtomicBool::new(false),
            bodies: Bodies::default(),
            streams: Slots::new(MAX_STREAMS, MAX_STREAMS_OF_CALLER),
            slow_bodies: Slots::new(MAX_SLOW_BODIES, MAX_SLOW_BODIES_OF_CALLER),
            callers: Callers::new(config, digests),
            authentication: config.authentication,
            web: config.web.clone(),
            enhancement: config.enhancement,
            sync_limit: config.sync_limit,
            models: Mutex::new(openai.models().map(KnownModel::new).collect()),
            looked: tokio::sync::Mutex::default(),
            digest_key,
            identity_problem: Mutex::new(config.identity.as_ref().map(|_| UNCHECKED.to_owned())),
            started: Instant::now(),
            openai,
            gallery,
            clock,
        })
    }
}
