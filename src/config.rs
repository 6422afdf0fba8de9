//! The settings: all environment variables that the app reads, parsed once at the start.
//!
//! [`Config::from_vars`] is the only reader of the environment. A blank variable counts as unset,
//! because an app setting can be emptied in the Azure portal without being deleted.

mod gallery;
mod identity;
mod limits;
mod openai;
mod sas;
mod storage;
mod telemetry;
mod web;

use std::path::PathBuf;
use std::time::Duration;

use axum::http::HeaderName;
use reqwest::Url;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

pub use gallery::GalleryConfig;
pub use identity::IdentityConfig;
pub use limits::{ImagePrice, LimitsConfig, Price, TokenPrice};
pub use openai::{ImageWire, OpenAiAuth, OpenAiConfig, TextApi};
pub use sas::{SasConfig, SasPermissions};
pub use storage::{Access, ServiceConfig, StorageConfig};
pub use telemetry::TelemetryConfig;
pub use web::WebConfig;

pub(crate) use identity::IdentityVars;
pub(crate) use limits::micro_usd;
pub(crate) use storage::HostStorage;

/// All settings.
#[derive(Debug, Clone)]
pub struct Config {
    /// `FUNCTIONS_CUSTOMHANDLER_PORT` (3000): the port on 127.0.0.1, set by the Functions host.
    pub port: u16,
    /// `RUST_LOG` (`info`): the log filter, in the syntax of `tracing_subscriber::filter::Targets`.
    pub log_filter: String,
    /// `MAX_CONCURRENT_GENERATIONS` (16): images that one process draws at the same time.
    pub max_concurrent_generations: usize,
    /// `SPOOL_DIR` (a folder for each container, below the system's temporary folder): the folder for
    /// paid images until they are uploaded.
    pub spool_dir: PathBuf,
    /// `WEBSITE_AUTH_ENABLED` (false): set by the platform while App Service authentication is on. Only
    /// then is the platform's user header trustworthy.
    pub authentication: bool,
    /// `WEBSITE_SITE_NAME` (none): set by the platform; whether the app runs on Azure.
    pub on_azure: bool,
    /// `QUOTA_USER_HEADER` (none): the header in which a front end's own server names its user. Every
    /// client that can reach the app can forge it.
    pub user_header: Option<HeaderName>,
    /// `PROMPT_ENHANCEMENT` (`off`): the enhancement for requests without `enhance`.
    pub enhancement: PromptEnhancement,
    /// `SUGGESTION_TIMEOUT_MS` (4000): how long a suggestion waits for the text model, in
    /// milliseconds.
    pub suggestion_timeout: Duration,
    /// `MODERATION` (`off`): whether the provider's moderation endpoint checks each prompt before it is
    /// drawn.
    pub moderation: bool,
    /// The quota, the budget and the prices.
    pub limits: LimitsConfig,
    /// The provider of images and suggestions.
    pub openai: OpenAiConfig,
    /// The storage account and container of the images.
    pub storage: StorageConfig,
    /// The Table service for the records of generations.
    pub state: ServiceConfig,
    /// The Queue service for jobs; `None` if neither `AzureWebJobsStorage` nor `AzureWebJobsStorage__…` leads to one.
    pub queue: Option<ServiceConfig>,
    /// `SYNC_LIMIT_SECONDS` (215): a synchronous request that takes longer becomes a job. Azure's front
    /// end closes requests without an answer after 230 s.
    pub sync_limit: Duration,
    /// The SAS tokens for clients.
    pub sas: SasConfig,
    /// The gallery's index and listings.
    pub gallery: GalleryConfig,
    /// The page, and pages on other sites.
    pub web: WebConfig,
    /// The app's managed identity; `None` if neither storage nor the provider is opened with it.
    pub identity: Option<IdentityConfig>,
    /// `DIGEST_KEY` (none): the key with which an app without an account key makes its digests, in base64; the app
    /// stores it at the first start. It is the account key of an app that has had one.
    pub digest_key: Option<SecretString>,
    /// Traces and metrics.
    pub telemetry: TelemetryConfig,
    /// Settings that have no effect.
    pub ignored: Vec<Ignored>,
}

/// A setting that has no effect.
#[derive(Debug, Clone)]
pub struct Ignored {
    /// The setting's name.
    pub name: &'static str,
    /// Why it has no effect.
    pub because: &'static str,
}

/// How prompts are enhanced before they are drawn.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PromptEnhancement {
    /// The prompt is sent as the user typed it.
    #[default]
    Off,
    /// The keywords of a style preset are appended.
    Style,
    /// A text model rewrites the prompt.
    Rewrite,
}

impl PromptEnhancement {
    /// The enhancement with this name in settings and requests.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "off" => Some(Self::Off),
            "style" => Some(Self::Style),
            "rewrite" => Some(Self::Rewrite),
            _ => None,
        }
    }

    /// The name in settings and requests.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Style => "style",
            Self::Rewrite => "rewrite",
        }
    }
}

/// A wrong setting, which prevents the start. The text names the setting and never contains its value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A required setting is unset or blank.
    #[error("{name} is missing: {hint}")]
    Missing {
        /// The setting's name.
        name: &'static str,
        /// The value that it needs.
        hint: &'static str,
    },
    /// A setting's value is invalid.
    #[error("{name} is malformed: expected {expected}")]
    Malformed {
        /// The setting's name.
        name: &'static str,
        /// A description of valid values.
        expected: &'static str,
    },
    /// The two names of a setting have different values.
    #[error("{first} and {second} contradict each other: set one of them, or both to the same value")]
    Contradictory {
        /// The current name.
        first: &'static str,
        /// The name in VisionaryAI.
        second: &'static str,
    },
    /// The platform could not resolve a Key Vault reference and passed on the reference itself.
    #[error(
        "{name} is an unresolved Key Vault reference: check that the secret exists and that the app's identity may read it"
    )]
    UnresolvedReference {
        /// The setting's name.
        name: &'static str,
    },
}

impl Config {
    /// Reads every setting through `lookup`, which is `std::env::var` in production.
    ///
    /// # Errors
    /// The first wrong setting, see [`Error`].
    pub fn from_vars(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let vars = Vars(&lookup);
        let identity = IdentityVars::read(&vars)?;
        let host = HostStorage::from_vars(&vars)?;
        let storage = StorageConfig::from_vars(&vars, host.as_ref(), identity.is_set())?;
        let state = ServiceConfig::table(&vars, host.as_ref(), &storage)?;
        let queue = ServiceConfig::queue(&vars, host.as_ref())?;
        let openai = OpenAiConfig::from_vars(&vars)?;
        let digest_key = StorageConfig::digest_key(&vars)?;
        let services = [Some(&storage.access), Some(&state.access), queue.as_ref().map(|queue| &queue.access)];
        let uses_identity = services.into_iter().flatten().any(|access| matches!(access, Access::Identity))
            || matches!(openai.auth, OpenAiAuth::Identity { .. });
        let identity = if uses_identity { Some(identity.parse()?) } else { None };
        let has_key = matches!(storage.access, Access::Key(_));
        let (telemetry, ignored_telemetry) = TelemetryConfig::from_vars(&vars)?;
        let ignored = [
            ServiceConfig::ignored(&vars, host.as_ref())?
                .map(|name| Ignored { name, because: "AzureWebJobsStorage has an account key, which comes first" }),
            openai.ignored(&vars)?,
            digest_key.as_ref().filter(|_| has_key).map(|_| Ignored {
                name: "DIGEST_KEY",
                because: "the storage account's key makes the digests as long as it is set",
            }),
            ignored_telemetry,
        ];
        // Two apps on one machine must not share a spool: each would upload the other's images.
        let spool = format!("visionary-spool/{}-{}", storage.account, storage.container);
        Ok(Self {
            spool_dir: vars.get("SPOOL_DIR")?.map_or_else(|| std::env::temp_dir().join(spool), PathBuf::from),
            port: vars.number("FUNCTIONS_CUSTOMHANDLER_PORT", "a port, 0 to 65535", 0..=65_535)?.unwrap_or(3000),
            log_filter: vars.get("RUST_LOG")?.unwrap_or_else(|| "info".to_owned()),
            max_concurrent_generations: vars
                .number("MAX_CONCURRENT_GENERATIONS", "a whole number, 1 to 1000", 1..=1000)?
                .unwrap_or(16),
            authentication: vars.get("WEBSITE_AUTH_ENABLED")?.is_some_and(|value| value.eq_ignore_ascii_case("true")),
            on_azure: vars.get("WEBSITE_SITE_NAME")?.is_some(),
            user_header: vars
                .get("QUOTA_USER_HEADER")?
                .map(|name| {
                    name.parse()
                        .map_err(|_| Error::Malformed { name: "QUOTA_USER_HEADER", expected: "an HTTP header's name" })
                })
                .transpose()?,
            enhancement: match vars.get("PROMPT_ENHANCEMENT")? {
                None => PromptEnhancement::Off,
                Some(name) => PromptEnhancement::named(&name)
                    .ok_or(Error::Malformed { name: "PROMPT_ENHANCEMENT", expected: "off, style or rewrite" })?,
            },
            suggestion_timeout: Duration::from_millis(
                vars.number("SUGGESTION_TIMEOUT_MS", "a whole number of milliseconds, 1 to 10000", 1..=10_000)?
                    .unwrap_or(4_000),
            ),
            moderation: match vars.get("MODERATION")?.as_deref() {
                None | Some("off") => false,
                Some("on") => true,
                Some(_) => return Err(Error::Malformed { name: "MODERATION", expected: "off or on" }),
            },
            limits: LimitsConfig::from_vars(&vars)?,
            state,
            queue,
            sync_limit: Duration::from_secs(
                vars.number("SYNC_LIMIT_SECONDS", "a whole number of seconds, 1 to 215", 1..=215)?.unwrap_or(215),
            ),
            openai,
            web: WebConfig::from_vars(&vars, &storage.blob_endpoint)?,
            sas: SasConfig::from_vars(&vars, &storage.access)?,
            storage,
            gallery: GalleryConfig::from_vars(&vars)?,
            identity,
            digest_key,
            telemetry,
            ignored: ignored.into_iter().flatten().collect(),
        })
    }
}

/// The environment, with the parsing rules for all settings.
struct Vars<'a>(&'a dyn Fn(&str) -> Option<String>);

impl Vars<'_> {
    fn get(&self, name: &'static str) -> Result<Option<String>, Error> {
        let Some(value) = (self.0)(name) else { return Ok(None) };
        let value = value.trim();
        if value.starts_with("@Microsoft.KeyVault(") {
            return Err(Error::UnresolvedReference { name });
        }
        Ok((!value.is_empty()).then(|| value.to_owned()))
    }

    /// A setting with two names: the current one and the one in VisionaryAI.
    fn either(&self, first: &'static str, second: &'static str) -> Result<Option<String>, Error> {
        match (self.get(first)?, self.get(second)?) {
            (Some(current), Some(original)) if current != original => Err(Error::Contradictory { first, second }),
            (current, original) => Ok(current.or(original)),
        }
    }

    /// A list of values, separated by commas.
    fn list(&self, name: &'static str) -> Result<Vec<String>, Error> {
        let text = self.get(name)?.unwrap_or_default();
        Ok(text.split(',').map(str::trim).filter(|value| !value.is_empty()).map(str::to_owned).collect())
    }

    fn number<T>(
        &self,
        name: &'static str,
        expected: &'static str,
        allowed: std::ops::RangeInclusive<T>,
    ) -> Result<Option<T>, Error>
    where
        T: std::str::FromStr + PartialOrd,
    {
        let Some(text) = self.get(name)? else { return Ok(None) };
        match text.parse() {
            Ok(number) if allowed.contains(&number) => Ok(Some(number)),
            _ => Err(Error::Malformed { name, expected }),
        }
    }
}

/// Parses a service's URL. The scheme must be https, because requests contain keys and prompts; http
/// is allowed only for this machine.
fn service_url(name: &'static str, text: &str) -> Result<Url, Error> {
    let expected = "a URL with https (http only for 127.0.0.1, [::1] or localhost), without user or fragment";
    let malformed = Error::Malformed { name, expected };
    let Ok(url) = Url::parse(text) else { return Err(malformed) };
    let is_http_on_loopback = url.scheme() == "http" && is_loopback(&url);
    let is_plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    if is_plain && url.has_host() && (url.scheme() == "https" || is_http_on_loopback) {
        Ok(url)
    } else {
        Err(malformed)
    }
}

/// Whether a URL's host is this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn header_value(name: &'static str, value: String) -> Result<String, Error> {
    if value.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(value)
    } else {
        Err(Error::Malformed { name, expected: "printable ASCII without spaces" })
    }
}
