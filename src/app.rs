//! The services that requests work with.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::caller::Callers;
use crate::config::{Config, PromptEnhancement};
use crate::digest::Digests;
use crate::gallery::Gallery;
use crate::generation::{Generations, SpoolError};
use crate::openai::{ModelState, OpenAi};
use crate::prompts::Suggestions;

pub use crate::generation::Clock;

/// The services and settings, shared by all requests.
pub struct App {
    pub(crate) openai: OpenAi,
    pub(crate) gallery: Gallery,
    pub(crate) generations: Arc<Generations>,
    pub(crate) suggestions: Suggestions,
    pub(crate) callers: Callers,
    /// How prompts are enhanced where a request does not say.
    pub(crate) enhancement: PromptEnhancement,
    /// A synchronous request that takes longer is answered with a job.
    pub(crate) sync_limit: Duration,
    /// What is known of the configured models.
    pub(crate) models: Mutex<Vec<KnownModel>>,
    /// When storage and the spool were looked at for the app's health, whether storage answered and
    /// how many images waited; others who ask meanwhile wait for the same look.
    pub(crate) looked: tokio::sync::Mutex<Option<(Instant, bool, Option<usize>)>>,
    pub(crate) started: Instant,
    pub(crate) clock: Clock,
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
    Spool(#[from] SpoolError),
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
        let gallery = Gallery::new(&config.storage, &config.sas, http.clone());
        let digests = Digests::new(&config.storage);
        let generations =
            Generations::new(config, Arc::clone(&clock), openai.clone(), gallery.clone(), digests.clone(), http)?;
        Ok(Self {
            generations: Arc::new(generations),
            suggestions: Suggestions::new(openai.clone(), config.suggestion_timeout),
            callers: Callers::new(config, digests),
            enhancement: config.enhancement,
            sync_limit: config.sync_limit,
            models: Mutex::new(openai.models().map(KnownModel::new).collect()),
            looked: tokio::sync::Mutex::default(),
            started: Instant::now(),
            openai,
            gallery,
            clock,
        })
    }
}
