//! The gallery: the images in the blob container, their names and their links.

mod backfill;
mod bodies;
mod coalesced;
mod container_token;
mod deleted;
mod deleted_row;
mod details;
mod document;
mod fingerprints;
mod id;
mod index;
mod links;
mod listing;
mod name;
mod pages;
mod purge;
mod reconcile;
mod row;
mod state;
mod thumbnail;
mod thumbnail_queue;
mod thumbnails;
mod upload;

use std::collections::BTreeMap;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::{Notify, Semaphore};

use self::index::Index;
use self::listing::Listing;
use crate::azure::{Container, Http, Properties, Purpose};
use crate::caller::Caller;
use crate::config::{Config, GalleryConfig, PromptEnhancement, SasConfig};
use crate::digest::Digests;
use crate::image::Image;
use crate::prompt::Prompt;
use crate::spending::Cost;

pub use crate::azure::Error;
pub(crate) use bodies::{Bodies, NoListing};
pub(crate) use coalesced::Coalesced;
pub(crate) use deleted::{NotMoved, Place};
pub(crate) use document::Document;
pub(crate) use id::ImageId;
use links::{CLOCK_SKEW, Links, WindowTokens, for_one_call};
pub(crate) use pages::{Listed, Wanted};
use thumbnails::Thumbnails;

/// The limits of the long metadata values, percent-encoded. All metadata of a blob may take 8 KiB
/// (<https://learn.microsoft.com/rest/api/storageservices/setting-and-retrieving-properties-and-metadata-for-blob-resources>).
const MAX_PROMPT_BYTES: usize = 4_000;
const MAX_FINAL_PROMPT_BYTES: usize = 2_000;
const MAX_REVISED_PROMPT_BYTES: usize = 1_200;
/// The most images with one caption that [`Gallery::find`] looks at.
const MAX_CANDIDATES: usize = 200;
/// Listings that are read at the same time. Each may hold all names of the container in memory.
const READS_AT_ONCE: usize = 8;
/// The characters that are percent-encoded in a metadata value. Spaces are encoded too: the request signature
/// covers them, and a run of spaces may be collapsed in transit.
const METADATA: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b',');

/// The container of images, and its index.
#[derive(Debug, Clone)]
pub struct Gallery {
    container: Container,
    thumbnails: Thumbnails,
    /// The private container of deleted images.
    deleted: Container,
    /// Notified when an image is deleted; wakes [`Self::keep_purging`].
    deleted_added: Arc<Notify>,
    /// Held while an image is deleted, restored or purged, so that this process does one at a time. A claim on the row of
    /// the deleted image does the same between processes.
    deletions: Arc<tokio::sync::Mutex<()>>,
    digests: Digests,
    sas: SasConfig,
    tokens: Arc<WindowTokens>,
    http: Http,
    index: Arc<Index>,
    settings: GalleryConfig,
    reads: Arc<Semaphore>,
}

/// The data that is stored with an image.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Details {
    /// Identifies the image. Two images may have the same caption and time.
    pub id: String,
    /// The prompt as the user typed it.
    pub prompt: Prompt,
    /// The prompt as it was sent to the provider, if it differs.
    pub final_prompt: Option<String>,
    /// The enhancement that was applied to the prompt.
    pub enhancement: PromptEnhancement,
    /// The prompt as the provider rewrote it.
    pub revised_prompt: Option<String>,
    /// The model that drew the image.
    pub model: String,
    /// The size, as the provider names it.
    pub size: String,
    /// The quality, as the provider names it.
    pub quality: String,
    /// The time at which the image arrived; it becomes part of the blob's name.
    pub created_at: OffsetDateTime,
    /// The cost of the image. It is not in the blob's metadata: everybody with a link can read those.
    pub cost: Cost,
    /// The caller who asked for the image. It is not in the metadata either.
    #[serde(default)]
    pub caller: Option<Caller>,
}

/// An image in the container.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stored {
    /// The blob's name.
    pub name: String,
    /// The prompt as it was sent to the provider.
    pub final_prompt: String,
    /// The enhancement that was applied to the prompt.
    pub enhancement: PromptEnhancement,
    /// The prompt as the provider rewrote it.
    pub revised_prompt: Option<String>,
    /// The model that drew the image.
    pub model: String,
    /// The size, as the provider names it.
    pub size: String,
    /// The quality, as the provider names it.
    pub quality: String,
    /// The media type.
    pub content_type: String,
    /// The size of the blob, in bytes.
    pub bytes: usize,
    /// The time in the blob's name.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
}

impl Gallery {
    pub(crate) fn new(config: &Config, digests: Digests, http: Http) -> Self {
        let Config { storage, state, .. } = config;
        let container = Container::new(storage, &storage.container, http.clone());
        let tokens = Arc::new(WindowTokens::new(state, &storage.container, http.clone()));
        let thumbnails = container.beside(storage, &storage.thumbnail_container());
        Self {
            thumbnails: Thumbnails::new(thumbnails, Arc::clone(&tokens), http.clone()),
            deleted: container.beside(storage, &format!("{}-deleted", storage.container)),
            container,
            deleted_added: Arc::default(),
            deletions: Arc::default(),
            digests,
            sas: config.sas.clone(),
            tokens,
            index: Arc::new(Index::new(&config.state, &config.storage.container, http.clone())),
            settings: config.gallery.clone(),
            reads: Arc::new(Semaphore::new(READS_AT_ONCE)),
            http,
        }
    }

    /// Finds the image with this id that was drawn for `prompt` at or after `since`.
    ///
    /// # Errors
    /// It is unknown whether the image exists.
    pub async fn find(
        &self,
        id: &str,
        prompt: &Prompt,
        since: OffsetDateTime,
        now: OffsetDateTime,
    ) -> Result<Option<Stored>, Error> {
        let earliest = name::epoch_ms(since - CLOCK_SKEW);
        let listing = self.listing(now).await?.with_prefix(&name::caption(prompt));
        let entries = listing.all_from(listing.page(None).await?, listing::MAX_PAGES).await?;
        let is_recent =
            |entry: &listing::Entry| name::timestamp_ms(&entry.name).is_some_and(|drawn_at| drawn_at >= earliest);
        for entry in entries.into_iter().filter(is_recent).take(MAX_CANDIDATES) {
            let properties = self.container.properties(&entry.name, Purpose::Generation).await?;
            if properties.metadata.get("id").is_some_and(|found| found == id) {
                return Ok(Some(found(entry.name, &properties)));
            }
        }
        Ok(None)
    }

    /// The caption of a prompt: the first part of the names of its images.
    pub fn caption(prompt: &Prompt) -> String {
        name::caption(prompt)
    }

    /// The name that [`Self::store`] tries first.
    pub fn name(image: &Image, details: &Details) -> String {
        name::blob_name(&details.prompt, name::epoch_ms(details.created_at), image.format())
    }

    /// A read-only link to an image, and one with which a browser saves it as a file.
    ///
    /// # Errors
    /// The app has no account key, and the key of its identity cannot be fetched.
    pub(crate) async fn links_to(&self, name: &str, now: OffsetDateTime) -> Result<(String, String), Error> {
        Ok((self.links(now).await?.to(name), self.download_links(now).await?.to(name)))
    }

    /// Whether the app may use the container.
    ///
    /// # Errors
    /// It may not, or storage cannot be reached.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        self.container.check().await
    }

    /// Whether the app can sign links. With an account key it always can.
    ///
    /// # Errors
    /// As [`Self::links_to`].
    pub(crate) async fn check_signing(&self) -> Result<(), Error> {
        self.container.signed_by().await.map(drop)
    }

    /// Returns when this process has stored the token of links since the last call.
    pub(crate) async fn link_token_added(&self) {
        self.tokens.added().await;
    }

    /// A listing of the container. Its token is valid for five minutes.
    async fn listing(&self, now: OffsetDateTime) -> Result<Listing, Error> {
        let token = self.container.sign(&for_one_call(now, "l")).await?;
        Ok(Listing::new(&self.http, self.container.url(), &token))
    }

    /// Links that are the same for `SAS_MINUTES`, and valid for at least as long.
    async fn links(&self, now: OffsetDateTime) -> Result<Links, Error> {
        Links::to_show(&self.tokens, &self.container, now, self.sas.lifetime).await
    }

    /// The links of [`Self::links`], for downloads.
    async fn download_links(&self, now: OffsetDateTime) -> Result<Links, Error> {
        Links::to_download(&self.tokens, &self.container, now, self.sas.lifetime).await
    }
}

impl Stored {
    /// An image with this time in its name.
    fn new(created_at_ms: i64, image: &Image, details: &Details) -> Self {
        Self {
            name: name::blob_name(&details.prompt, created_at_ms, image.format()),
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

    /// What the index keeps of the image.
    fn written<'a>(&'a self, prompt: &'a Prompt) -> row::Written<'a> {
        row::Written {
            name: &self.name,
            content_type: &self.content_type,
            prompt: prompt.as_str(),
            model: &self.model,
            size: &self.size,
            quality: &self.quality,
            ..row::Written::default()
        }
    }
}

/// Reads an image from the properties of its blob.
fn found(name: String, properties: &Properties) -> Stored {
    let value = |key: &str| decoded(properties, key);
    let final_prompt = value("final_prompt");
    Stored {
        enhancement: value("enhancement").and_then(|name| PromptEnhancement::named(&name)).unwrap_or_default(),
        final_prompt: final_prompt.or_else(|| value("prompt")).unwrap_or_default(),
        revised_prompt: value("revised_prompt"),
        model: value("model").unwrap_or_default(),
        size: value("size").unwrap_or_default(),
        quality: value("quality").unwrap_or_default(),
        content_type: properties.content_type.clone(),
        bytes: properties.bytes,
        created_at: name::timestamp_ms(&name).and_then(at_ms).unwrap_or(OffsetDateTime::UNIX_EPOCH),
        name,
    }
}

/// A metadata value.
fn decoded(properties: &Properties, key: &str) -> Option<String> {
    let encoded = properties.metadata.get(key)?;
    Some(percent_decode_str(encoded).decode_utf8_lossy().into_owned())
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
        ("enhancement", details.enhancement.name().to_owned()),
    ]);
    if let Some(sent) = &details.final_prompt {
        metadata.insert("final_prompt", bounded(sent, MAX_FINAL_PROMPT_BYTES));
    }
    if let Some(revised) = &details.revised_prompt {
        metadata.insert("revised_prompt", bounded(revised, MAX_REVISED_PROMPT_BYTES));
    }
    metadata
}

/// Percent-encodes a text and cuts it between characters to at most `limit` bytes.
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
