//! The settings: every environment variable this program reads, parsed once at the start.
//!
//! [`Config::from_vars`] is the only reader of the environment. A blank variable counts as unset,
//! as an app setting that somebody emptied in the portal does.

mod limits;
mod sas;
mod storage;

use std::path::PathBuf;
use std::time::Duration;

use axum::http::HeaderName;
use reqwest::Url;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

pub use limits::{ImagePrice, LimitsConfig, Price, TokenPrice};
pub use sas::{SasConfig, SasPermissions};
pub use storage::{ServiceConfig, StorageConfig};

pub(crate) use limits::micro_usd;

/// Everything that can be set.
#[derive(Debug, Clone)]
pub struct Config {
    /// `FUNCTIONS_CUSTOMHANDLER_PORT` (3000): the port on 127.0.0.1, given by the Functions host.
    pub port: u16,
    /// `RUST_LOG` (`info`): what is logged, in the syntax of `tracing_subscriber::filter::Targets`.
    pub log_filter: String,
    /// `MAX_CONCURRENT_GENERATIONS` (16): how many images one process has drawn at a time.
    pub max_concurrent_generations: usize,
    /// `SPOOL_DIR` (below the system's temporary folder, one for each container): where paid images
    /// are safe until they are uploaded.
    pub spool_dir: PathBuf,
    /// `WEBSITE_AUTH_ENABLED` (false): set by the platform while App Service authentication is on, so
    /// that the user it names can be believed.
    pub authentication: bool,
    /// `QUOTA_USER_HEADER` (none): the header in which a front end that calls from its own server
    /// names its user. Anybody who can call the app can send it.
    pub user_header: Option<HeaderName>,
    /// `PROMPT_ENHANCEMENT` (`off`): how prompts are enhanced where a request does not say.
    pub enhancement: PromptEnhancement,
    /// `SUGGESTION_TIMEOUT_MS` (4000): so long a suggestion waits for the text model.
    pub suggestion_timeout: Duration,
    /// `MODERATION` (`off`): whether the provider's moderation endpoint is asked before anything is paid.
    pub moderation: bool,
    /// What may be spent.
    pub limits: LimitsConfig,
    /// The provider of images and suggestions.
    pub openai: OpenAiConfig,
    /// The storage account.
    pub storage: StorageConfig,
    /// Where the records of generations are kept.
    pub state: ServiceConfig,
    /// Where jobs are queued; `None` without a connection string in `AzureWebJobsStorage`.
    pub queue: Option<ServiceConfig>,
    /// `SYNC_LIMIT_SECONDS` (215): a synchronous request that takes longer is answered with a job.
    /// Azure's front end ends those that have no answer after 230 s.
    pub sync_limit: Duration,
    /// The tokens that are handed out.
    pub sas: SasConfig,
}

/// Where images and suggestions come from.
#[derive(Debug, Clone)]
pub struct OpenAiConfig {
    /// `OPENAI_API_KEY`, or the original's `OPEN_AI_KEY`. Required.
    pub api_key: SecretString,
    /// `OPENAI_AUTH` (`bearer`): the header that the key is sent in.
    pub auth: OpenAiAuth,
    /// `OPENAI_ORG_ID`, or the original's `OPEN_AI_ORGANIZATION`: billed organisation.
    pub organization: Option<String>,
    /// `OPENAI_PROJECT_ID`: billed project.
    pub project: Option<String>,
    /// `OPENAI_BASE_URL` (`https://api.openai.com/v1`); a query string in it is kept.
    pub base_url: Url,
    /// `OPENAI_IMAGE_MODEL` (`gpt-image-2.5-flare`), or a deployment's name.
    pub image_model: String,
    /// `OPENAI_IMAGE_FALLBACKS` (none): models to try, in order, when the one before is gone.
    pub image_fallbacks: Vec<String>,
    /// `OPENAI_TEXT_MODEL` (`gpt-6-luna`), or a deployment's name.
    pub text_model: String,
    /// `OPENAI_IMAGE_WIRE` (`auto`): the dialect of the image endpoint.
    pub image_wire: ImageWire,
    /// `OPENAI_TEXT_API` (`auto`): the endpoint that suggestions come from.
    pub text_api: TextApi,
    /// `OPENAI_TIMEOUT_SECONDS` (200): how long the drawing of one image may take in all.
    pub timeout: Duration,
}

/// How prompts are enhanced before they are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PromptEnhancement {
    /// Sent as they were typed.
    Off,
    /// A style's keywords are put behind them.
    Style,
    /// A text model expands them.
    Rewrite,
}

impl PromptEnhancement {
    /// By the word that settings and requests use.
    pub(crate) fn named(name: &str) -> Option<Self> {
        match name {
            "off" => Some(Self::Off),
            "style" => Some(Self::Style),
            "rewrite" => Some(Self::Rewrite),
            _ => None,
        }
    }
}

/// How the provider is told the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenAiAuth {
    /// `Authorization: Bearer …`
    Bearer,
    /// `api-key: …`, as Azure OpenAI takes it.
    ApiKey,
}

/// The dialect that an image model speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageWire {
    /// By the model's name: `dall-e…` speaks `dall-e`, everything else `gpt-image`.
    Auto,
    /// `quality: low|medium|high`, always base64.
    GptImage,
    /// `quality: standard|hd`, `response_format`, `style`.
    DallE,
}

/// The endpoint that a text model is asked on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextApi {
    /// By the model's name: `…-instruct` takes `completions`, everything else `responses`.
    Auto,
    /// `POST /responses`.
    Responses,
    /// `POST /chat/completions`.
    Chat,
    /// `POST /completions`.
    Completions,
}

/// A setting that stops the start. Its text names the setting and never repeats its value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// A required setting is unset or blank.
    #[error("{name} is missing: {hint}")]
    Missing {
        /// The setting's name.
        name: &'static str,
        /// What to put there.
        hint: &'static str,
    },
    /// A setting has a value that cannot be used.
    #[error("{name} is malformed: expected {expected}")]
    Malformed {
        /// The setting's name.
        name: &'static str,
        /// What would be right.
        expected: &'static str,
    },
    /// Two names of one setting have different values.
    #[error("{first} and {second} contradict each other: set one of them, or both to the same value")]
    Contradictory {
        /// The name used today.
        first: &'static str,
        /// The original's name.
        second: &'static str,
    },
    /// The platform could not resolve a Key Vault reference and passed it on as it is.
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
    /// The first setting that is missing, malformed, contradictory or unresolved.
    pub fn from_vars(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        let vars = Vars(&lookup);
        let storage = StorageConfig::from_vars(&vars)?;
        // Two apps on one machine must not bring each other's images to their galleries.
        let spool = format!("visionary-spool/{}-{}", storage.account, storage.container);
        Ok(Self {
            spool_dir: vars.get("SPOOL_DIR")?.map_or_else(|| std::env::temp_dir().join(spool), PathBuf::from),
            port: vars.number("FUNCTIONS_CUSTOMHANDLER_PORT", "a port, 0 to 65535", 0..=65_535)?.unwrap_or(3000),
            log_filter: vars.get("RUST_LOG")?.unwrap_or_else(|| "info".to_owned()),
            max_concurrent_generations: vars
                .number("MAX_CONCURRENT_GENERATIONS", "a whole number, 1 to 1000", 1..=1000)?
                .unwrap_or(16),
            authentication: vars.get("WEBSITE_AUTH_ENABLED")?.is_some_and(|value| value.eq_ignore_ascii_case("true")),
            user_header: vars
                .get("QUOTA_USER_HEADER")?
                .map(|name| {
                    name.parse()
                        .map_err(|_| Error::Malformed { name: "QUOTA_USER_HEADER", expected: "a header's name" })
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
            state: ServiceConfig::table(&vars, &storage)?,
            queue: ServiceConfig::queue(&vars)?,
            sync_limit: Duration::from_secs(
                vars.number("SYNC_LIMIT_SECONDS", "a whole number of seconds, 1 to 215", 1..=215)?.unwrap_or(215),
            ),
            openai: OpenAiConfig::from_vars(&vars)?,
            storage,
            sas: SasConfig::from_vars(&vars)?,
        })
    }
}

impl OpenAiConfig {
    fn from_vars(vars: &Vars) -> Result<Self, Error> {
        let api_key = vars.either("OPENAI_API_KEY", "OPEN_AI_KEY")?.ok_or(Error::Missing {
            name: "OPENAI_API_KEY",
            hint: "set it (or OPEN_AI_KEY) to the provider's API key",
        })?;
        Ok(Self {
            api_key: header_value("OPENAI_API_KEY", api_key)?.into(),
            auth: match vars.get("OPENAI_AUTH")?.as_deref() {
                None | Some("bearer") => OpenAiAuth::Bearer,
                Some("api-key") => OpenAiAuth::ApiKey,
                Some(_) => return Err(Error::Malformed { name: "OPENAI_AUTH", expected: "bearer or api-key" }),
            },
            organization: vars
                .either("OPENAI_ORG_ID", "OPEN_AI_ORGANIZATION")?
                .map(|id| header_value("OPENAI_ORG_ID", id))
                .transpose()?,
            project: vars.get("OPENAI_PROJECT_ID")?.map(|id| header_value("OPENAI_PROJECT_ID", id)).transpose()?,
            base_url: service_url(
                "OPENAI_BASE_URL",
                &vars.get("OPENAI_BASE_URL")?.unwrap_or_else(|| "https://api.openai.com/v1".to_owned()),
            )?,
            image_model: vars.get("OPENAI_IMAGE_MODEL")?.unwrap_or_else(|| "gpt-image-2.5-flare".to_owned()),
            image_fallbacks: vars.list("OPENAI_IMAGE_FALLBACKS")?,
            text_model: vars.get("OPENAI_TEXT_MODEL")?.unwrap_or_else(|| "gpt-6-luna".to_owned()),
            image_wire: match vars.get("OPENAI_IMAGE_WIRE")?.as_deref() {
                None | Some("auto") => ImageWire::Auto,
                Some("gpt-image") => ImageWire::GptImage,
                Some("dall-e") => ImageWire::DallE,
                Some(_) => {
                    return Err(Error::Malformed { name: "OPENAI_IMAGE_WIRE", expected: "auto, gpt-image or dall-e" });
                }
            },
            text_api: match vars.get("OPENAI_TEXT_API")?.as_deref() {
                None | Some("auto") => TextApi::Auto,
                Some("responses") => TextApi::Responses,
                Some("chat") => TextApi::Chat,
                Some("completions") => TextApi::Completions,
                Some(_) => {
                    return Err(Error::Malformed {
                        name: "OPENAI_TEXT_API",
                        expected: "auto, responses, chat or completions",
                    });
                }
            },
            timeout: Duration::from_secs(
                vars.number("OPENAI_TIMEOUT_SECONDS", "a whole number of seconds, 1 to 600", 1..=600)?.unwrap_or(200),
            ),
        })
    }
}

/// The environment, with the rules that hold for every setting.
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

    /// One setting with a name of today and a name of the original.
    fn either(&self, first: &'static str, second: &'static str) -> Result<Option<String>, Error> {
        match (self.get(first)?, self.get(second)?) {
            (Some(today), Some(original)) if today != original => Err(Error::Contradictory { first, second }),
            (today, original) => Ok(today.or(original)),
        }
    }

    /// Values with commas between them.
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

/// A service's address: https, or http where nothing leaves this machine, because keys and prompts
/// go there.
fn service_url(name: &'static str, text: &str) -> Result<Url, Error> {
    let expected = "a URL with https (http only for 127.0.0.1, [::1] or localhost), without user or fragment";
    let malformed = Error::Malformed { name, expected };
    let Ok(url) = Url::parse(text) else { return Err(malformed) };
    let plain_on_loopback = url.scheme() == "http" && is_loopback(&url);
    let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    if bare && url.has_host() && (url.scheme() == "https" || plain_on_loopback) { Ok(url) } else { Err(malformed) }
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
