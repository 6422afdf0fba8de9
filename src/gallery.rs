//! The gallery: the images in their container, their names, their links.

mod listing;
mod name;

use std::collections::BTreeMap;
use std::time::Duration;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use reqwest::Url;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::azure::{Container, Grant, Properties};
use crate::caller::Caller;
use crate::config::{PromptEnhancement, SasConfig, StorageConfig};
use crate::image::Image;
use crate::prompt::Prompt;
use crate::spending::{Cost, Usage};

pub use crate::azure::Error;

/// A clock somewhere may be behind ours: a token starts a little earlier.
const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);
/// How often a name that is taken is moved on by a millisecond.
const MAX_NAMES: i64 = 100;
/// All metadata of a blob may take 8 KiB; the rest of it is short.
const MAX_PROMPT_BYTES: usize = 4_000;
const MAX_FINAL_PROMPT_BYTES: usize = 2_000;
const MAX_REVISED_PROMPT_BYTES: usize = 1_200;
const COST: &str = "cost_usd";
const COST_AT_MOST: &str = "cost_usd_at_most";
/// Images of one caption that are looked at to find one of them.
const MAX_CANDIDATES: usize = 200;
/// What a metadata value may hold as it is. Spaces are encoded too: the signature covers them, and
/// runs of them are folded on the way.
const METADATA: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b',');

/// The container of images.
#[derive(Debug, Clone)]
pub struct Gallery {
    container: Container,
    sas: SasConfig,
    http: reqwest::Client,
}

/// What is kept with an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Details {
    /// Names this one image, so that it can be told from another of the same name.
    pub id: String,
    /// As the user typed it.
    pub prompt: Prompt,
    /// As it was sent, where that is something else.
    pub final_prompt: Option<String>,
    /// How it came to that.
    pub enhancement: PromptEnhancement,
    /// As the provider rewrote it.
    pub revised_prompt: Option<String>,
    /// The model that drew it.
    pub model: String,
    /// Its size, in the provider's words.
    pub size: String,
    /// Its quality, in the provider's words.
    pub quality: String,
    /// When it came: the time in its name.
    pub created_at: OffsetDateTime,
    /// Who asked for it.
    pub caller: Caller,
    /// What it did cost.
    pub cost: Cost,
}

/// An image that is in the container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    /// The blob's name.
    pub name: String,
    /// The prompt as it was sent to the provider.
    pub final_prompt: String,
    /// How it was enhanced.
    pub enhancement: PromptEnhancement,
    /// The prompt as the provider rewrote it.
    pub revised_prompt: Option<String>,
    /// The model that drew it.
    pub model: String,
    /// Its size, in the provider's words.
    pub size: String,
    /// Its quality, in the provider's words.
    pub quality: String,
    /// Its media type.
    pub content_type: String,
    /// Its length.
    pub bytes: usize,
    /// When it came; the time in its name.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

/// An image in a listing.
#[derive(Debug, Serialize)]
pub struct Listed {
    /// A read-only link, percent-encoded.
    pub url: String,
    /// The blob's name.
    pub name: String,
}

/// A container token that a caller may have.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ContainerToken {
    /// The query string, without `?`.
    pub sas_token: String,
    /// What it opens.
    pub container_url: String,
    /// What it allows, in Azure's letters.
    pub permissions: String,
    /// Until when.
    #[serde(with = "time::serde::rfc3339")]
    pub expires_on: OffsetDateTime,
}

impl Gallery {
    pub(crate) fn new(storage: &StorageConfig, sas: &SasConfig, http: reqwest::Client) -> Self {
        Self { container: Container::new(storage, http.clone()), sas: sas.clone(), http }
    }

    /// Stores an image under a name of its own, and makes the container if it is missing.
    ///
    /// A name that another image has, drawn for the same prompt in the same millisecond by another
    /// process, is moved on by a millisecond. One that this image has (the answer to an upload was
    /// lost, and the upload repeated) is success.
    ///
    /// # Errors
    /// The image is not in the container, or it is not known whether it is.
    pub async fn store(&self, image: &Image, details: &Details) -> Result<Stored, Error> {
        let metadata = metadata(details);
        let drawn_at = name::epoch_ms(details.created_at);
        for created_at_ms in drawn_at..drawn_at + MAX_NAMES {
            let name = name::blob_name(&details.prompt, created_at_ms, image.format());
            match self.put(&name, image, &metadata).await {
                Ok(()) => return Ok(Stored::new(name, created_at_ms, image, details)),
                Err(error) if error.is("BlobAlreadyExists") => {
                    if self.container.properties(&name).await?.metadata.get("id") == Some(&details.id) {
                        return Ok(Stored::new(name, created_at_ms, image, details));
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(Error::Answered { status: 409, code: "BlobAlreadyExists".to_owned() })
    }

    /// Looks for the image with an id that was drawn for a prompt since a moment, and what it did cost.
    ///
    /// # Errors
    /// It is not known whether it is there.
    pub async fn find(
        &self,
        id: &str,
        prompt: &Prompt,
        since: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<Option<(Stored, Cost)>, Error> {
        let earliest = name::epoch_ms(since - CLOCK_SKEW);
        let grant = Grant { permissions: "l", starts_on: now - CLOCK_SKEW, expires_on: now + CLOCK_SKEW };
        let token = self.container.sign(&grant).await?;
        let prefix = name::caption(prompt);
        let entries = listing::list(&self.http, &self.container.url()?, &token, Some(&prefix)).await?;
        let drawn_since =
            |entry: &listing::Entry| name::timestamp_ms(&entry.name).is_some_and(|drawn_at| drawn_at >= earliest);
        for entry in entries.into_iter().filter(drawn_since).take(MAX_CANDIDATES) {
            let properties = self.container.properties(&entry.name).await?;
            if properties.metadata.get("id").is_some_and(|found| found == id) {
                return Ok(Some(found(entry.name, &properties)));
            }
        }
        Ok(None)
    }

    /// How the names of a prompt's images begin: what the gallery shows of it.
    pub fn caption(prompt: &Prompt) -> String {
        name::caption(prompt)
    }

    /// The name that [`Self::store`] will take, unless another image has it by then.
    pub fn name(image: &Image, details: &Details) -> String {
        name::blob_name(&details.prompt, name::epoch_ms(details.created_at), image.format())
    }

    /// A read-only link to an image.
    ///
    /// # Errors
    /// [`Error::Signing`].
    pub async fn link(&self, name: &str, now: OffsetDateTime) -> Result<String, Error> {
        Ok(self.links(now).await?.to(name))
    }

    /// Every image, newest first: by the time in the name, else by Last-Modified.
    ///
    /// # Errors
    /// The listing is incomplete.
    pub async fn list(&self, now: OffsetDateTime) -> Result<Vec<Listed>, Error> {
        let grant = Grant { permissions: "l", starts_on: now - CLOCK_SKEW, expires_on: now + CLOCK_SKEW };
        let token = self.container.sign(&grant).await?;
        let mut entries = listing::list(&self.http, &self.container.url()?, &token, None).await?;
        let age = |entry: &listing::Entry| {
            std::cmp::Reverse(name::timestamp_ms(&entry.name).or(entry.last_modified.map(name::epoch_ms)))
        };
        entries.sort_by_cached_key(age);
        let links = self.links(now).await?;
        Ok(entries.into_iter().map(|entry| Listed { url: links.to(&entry.name), name: entry.name }).collect())
    }

    /// Whether storage answers.
    pub(crate) async fn is_reachable(&self) -> bool {
        self.container.is_reachable().await
    }

    /// Signs a token with the permissions and for the time of the settings.
    ///
    /// # Errors
    /// [`Error::Signing`].
    pub async fn container_token(&self, now: OffsetDateTime) -> Result<ContainerToken, Error> {
        let permissions = self.sas.permissions.as_str();
        // Tokens have whole seconds; what is said of one is what it has.
        let expires_on = whole_seconds(now + self.sas.lifetime);
        let grant = Grant { permissions, starts_on: now - CLOCK_SKEW, expires_on };
        Ok(ContainerToken {
            sas_token: self.container.sign(&grant).await?,
            container_url: self.container.url()?.into(),
            permissions: permissions.to_owned(),
            expires_on,
        })
    }

    async fn put(&self, name: &str, image: &Image, metadata: &BTreeMap<&'static str, String>) -> Result<(), Error> {
        match self.container.put_new(name, image, metadata).await {
            Err(error) if error.is("ContainerNotFound") => {
                self.container.create_container().await?;
                self.container.put_new(name, image, metadata).await
            }
            result => result,
        }
    }

    /// Links are signed for a window of time that all processes share, so an image's URL stays the
    /// same while the window lasts and browsers keep their caches. A token is good for the window
    /// after its own too, hence for at least `SAS_MINUTES` whenever it is handed out.
    async fn links(&self, now: OffsetDateTime) -> Result<Links, Error> {
        let window = i64::try_from(self.sas.lifetime.as_secs()).unwrap_or(i64::MAX);
        let into_window = time::Duration::seconds(now.unix_timestamp().rem_euclid(window));
        let opens = whole_seconds(now) - into_window;
        let grant = Grant {
            permissions: "r",
            starts_on: opens - CLOCK_SKEW,
            // The second that `now` is in may have begun up to a second ago.
            expires_on: opens + 2 * self.sas.lifetime + Duration::from_secs(1),
        };
        Ok(Links { container: self.container.url()?, token: self.container.sign(&grant).await? })
    }
}

impl Stored {
    fn new(name: String, created_at_ms: i64, image: &Image, details: &Details) -> Self {
        Self {
            name,
            final_prompt: details.final_prompt.clone().unwrap_or_else(|| details.prompt.as_str().to_owned()),
            enhancement: details.enhancement,
            revised_prompt: details.revised_prompt.clone(),
            model: details.model.clone(),
            size: details.size.clone(),
            quality: details.quality.clone(),
            content_type: image.format().content_type().to_owned(),
            bytes: image.bytes().len(),
            created_at: at_ms(created_at_ms).unwrap_or(details.created_at),
        }
    }
}

/// Makes links out of names.
struct Links {
    container: Url,
    token: String,
}

impl Links {
    fn to(&self, name: &str) -> String {
        format!("{}/{}?{}", self.container.as_str().trim_end_matches('/'), name::encode(name), self.token)
    }
}

fn whole_seconds(at: OffsetDateTime) -> OffsetDateTime {
    at - Duration::from_nanos(at.nanosecond().into())
}

/// An image as its blob says.
fn found(name: String, properties: &Properties) -> (Stored, Cost) {
    let value = |key: &str| {
        let encoded = properties.metadata.get(key)?;
        Some(percent_decode_str(encoded).decode_utf8_lossy().into_owned())
    };
    let number = |key: &str| value(key).and_then(|text| text.parse().ok());
    let micro_usd = |key: &str| value(key).and_then(|text| text.replace('.', "").parse().ok());
    let cost = Cost {
        micro_usd: micro_usd(COST).or_else(|| micro_usd(COST_AT_MOST)).unwrap_or_default(),
        priced: value(COST).is_some(),
        usage: number("output_tokens").map(|output| Usage {
            text_input: number("input_tokens").unwrap_or_default(),
            image_input: 0,
            output,
        }),
    };
    let final_prompt = value("final_prompt");
    let stored = Stored {
        enhancement: if final_prompt.is_some() { PromptEnhancement::Style } else { PromptEnhancement::Off },
        final_prompt: final_prompt.or_else(|| value("prompt")).unwrap_or_default(),
        revised_prompt: value("revised_prompt"),
        model: value("model").unwrap_or_default(),
        size: value("size").unwrap_or_default(),
        quality: value("quality").unwrap_or_default(),
        content_type: properties.content_type.clone(),
        bytes: properties.bytes,
        created_at: name::timestamp_ms(&name).and_then(at_ms).unwrap_or(OffsetDateTime::UNIX_EPOCH),
        name,
    };
    (stored, cost)
}

fn at_ms(milliseconds: i64) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(milliseconds) * 1_000_000).ok()
}

fn metadata(details: &Details) -> BTreeMap<&'static str, String> {
    let mut metadata = BTreeMap::from([
        ("id", details.id.clone()),
        ("prompt", bounded(details.prompt.as_str(), MAX_PROMPT_BYTES)),
        ("model", bounded(&details.model, 200)),
        ("size", bounded(&details.size, 50)),
        ("quality", bounded(&details.quality, 50)),
    ]);
    if let Some(sent) = &details.final_prompt {
        metadata.insert("final_prompt", bounded(sent, MAX_FINAL_PROMPT_BYTES));
    }
    metadata.insert("caller", details.caller.as_str().to_owned());
    let cost = &details.cost;
    let name = if cost.priced { COST } else { COST_AT_MOST };
    metadata.insert(name, format!("{}.{:06}", cost.micro_usd / 1_000_000, cost.micro_usd % 1_000_000));
    if let Some(usage) = cost.usage {
        metadata.insert("input_tokens", usage.text_input.saturating_add(usage.image_input).to_string());
        metadata.insert("output_tokens", usage.output.to_string());
    }
    if let Some(revised) = &details.revised_prompt {
        metadata.insert("revised_prompt", bounded(revised, MAX_REVISED_PROMPT_BYTES));
    }
    metadata
}

/// A text percent-encoded, cut between characters where it would take more than `limit` bytes.
fn bounded(text: &str, limit: usize) -> String {
    let mut encoded = String::new();
    for (index, character) in text.char_indices() {
        let piece = utf8_percent_encode(&text[index..index + character.len_utf8()], METADATA);
        if encoded.len() + piece.clone().map(str::len).sum::<usize>() > limit {
            break;
        }
        encoded.extend(piece);
    }
    encoded
}
