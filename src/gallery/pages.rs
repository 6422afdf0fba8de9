//! Listings of the gallery: all images as front ends expect it, and pages.

use std::cmp::Reverse;
use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use super::id::{ImageId, time_ms};
use super::index::Rows;
use super::listing::{Entry, MAX_PAGES, Page};
use super::reconcile::id_of;
use super::row::{NAME_COLUMN, PUBLIC_COLUMNS, Row};
use super::{Error, Gallery, Links, thumbnails};
use crate::logs::chain;

/// The longest time that a page waits for the first pass of this process.
const WAIT_FOR_INDEX: Duration = Duration::from_secs(5);
/// While the index is not complete, pages are cut from a listing of the container, up to this number of pages of
/// the listing: 100,000 blobs.
const MAX_PAGES_FOR_A_PAGE: usize = 20;

/// The images that a request wants.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Wanted {
    /// All images, up to `LISTING_LIMIT`.
    All,
    /// A page of at most `limit` images: those after `after`, or the newest ones.
    Page { limit: usize, after: Option<ImageId> },
}

/// Images, newest first.
#[derive(Debug)]
pub(crate) struct Images {
    pub(crate) images: Vec<Listed>,
    /// The id of the last image, if more images follow.
    pub(crate) next: Option<ImageId>,
}

/// An image in a listing. Only a page has more than the link and the name; what is unknown is absent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Listed {
    /// A read-only link, percent-encoded.
    url: String,
    /// The blob's name.
    name: String,
    #[serde(flatten)]
    more: Option<More>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct More {
    id: String,
    /// The time in the name, else the blob's Last-Modified.
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(skip_serializing_if = "Option::is_none")]
    width: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height: Option<u32>,
    /// A read-only link to a JPEG of at most 512 pixels.
    #[serde(skip_serializing_if = "Option::is_none")]
    thumbnail_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thumbnail_width: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    thumbnail_height: Option<u32>,
    /// A `ThumbHash` in base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    placeholder: Option<String>,
    /// The beginning of the prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    prompt: Option<String>,
    /// A read-only link with which a browser saves the image as a file.
    download_url: String,
}

impl Gallery {
    /// Lists images, newest first. The age is the time in the name, else Last-Modified.
    ///
    /// # Errors
    /// The container or the index could not be listed.
    pub(crate) async fn list(&self, wanted: &Wanted, now: OffsetDateTime) -> Result<Images, Error> {
        let _read = self.reads.acquire().await.map_err(|_| Error::Unreachable)?;
        match wanted {
            Wanted::All => self.list_all(now).await,
            Wanted::Page { limit, after } => self.list_page(*limit, after.as_ref(), now).await,
        }
    }

    /// A small container is listed itself: images that others put there appear at once. A container that was
    /// large in the last pass is listed from the index, up to the limit.
    async fn list_all(&self, now: OffsetDateTime) -> Result<Images, Error> {
        let Some(limit) = self.settings.listing_limit else {
            return self.list_container(None, usize::MAX, now).await;
        };
        if self.index.is_large()
            && let Some(images) = self.newest(limit, now).await?
        {
            return Ok(images);
        }
        let first = self.listing(now).await?.page(None).await?;
        if first.next_marker.is_some() {
            // The container has grown since the last pass, perhaps by images without a row.
            self.index.wanted.notify_one();
        } else {
            self.index.note_names(first.entries.iter().map(|entry| entry.name.as_str()));
        }
        self.list_container(Some(first), limit, now).await
    }

    /// The newest images by the index; `None` if it is not complete or cannot be read.
    async fn newest(&self, limit: usize, now: OffsetDateTime) -> Result<Option<Images>, Error> {
        match self.index.read(None, limit, &[NAME_COLUMN]).await {
            Ok(Some(rows)) => {
                let links = self.links(now).await?;
                Ok(Some(images(rows, |row| Listed { url: links.to(&row.name), name: row.name, more: None })))
            }
            Ok(None) => {
                self.index.wanted.notify_one();
                Ok(None)
            }
            Err(error) => {
                tracing::warn!(
                    event = "index_unreadable",
                    cause = chain(&error),
                    "the gallery's index could not be read; the whole container is listed instead"
                );
                Ok(None)
            }
        }
    }

    /// Lists the container from its first page, if that is known.
    async fn list_container(&self, first: Option<Page>, limit: usize, now: OffsetDateTime) -> Result<Images, Error> {
        let mut entries = self.entries(first, MAX_PAGES, now).await?;
        let links = self.links(now).await?;
        let next = if entries.len() > limit {
            // The cursor needs the order of ids, also among images of the same millisecond.
            entries.sort_by_cached_key(id_of);
            entries.truncate(limit);
            entries.last().map(id_of)
        } else {
            // The order of front ends: images of the same millisecond by their names.
            entries.sort_by_cached_key(|entry| Reverse(time_ms(&entry.name, entry.last_modified)));
            None
        };
        let listed = |entry: Entry| Listed { url: links.to(&entry.name), name: entry.name, more: None };
        Ok(Images { images: entries.into_iter().map(listed).collect(), next })
    }

    async fn list_page(&self, limit: usize, after: Option<&ImageId>, now: OffsetDateTime) -> Result<Images, Error> {
        let passes = self.index.passes.subscribe();
        let mut read = self.index.read(after, limit, &PUBLIC_COLUMNS).await;
        if let Ok(None) = read {
            self.index.wanted.notify_one();
            let mut passes = passes;
            let _ = tokio::time::timeout(WAIT_FOR_INDEX, passes.changed()).await;
            read = self.index.read(after, limit, &PUBLIC_COLUMNS).await;
        }
        let rows = match read {
            Ok(Some(rows)) => rows,
            unavailable => {
                let entries = self.entries(None, MAX_PAGES_FOR_A_PAGE, now).await;
                match (entries, unavailable) {
                    (Ok(entries), _) => page_of(entries, limit, after),
                    // The container is too large to be listed for a page.
                    (Err(Error::Malformed), Ok(_)) => return Err(Error::Unreachable),
                    (Err(Error::Malformed), Err(error)) | (Err(error), _) => return Err(error),
                }
            }
        };
        let links = PageLinks::new(self, now).await?;
        Ok(images(rows, |row| links.listed(row)))
    }

    /// The blobs of the container, from its first page, if that is known.
    async fn entries(&self, first: Option<Page>, max_pages: usize, now: OffsetDateTime) -> Result<Vec<Entry>, Error> {
        let listing = self.listing(now).await?;
        let first = match first {
            Some(first) => first,
            None => listing.page(None).await?,
        };
        listing.all_from(first, max_pages).await
    }
}

/// Cuts a page out of all blobs.
fn page_of(entries: Vec<Entry>, limit: usize, after: Option<&ImageId>) -> Rows {
    let mut rows: Vec<Row> = entries.into_iter().map(|entry| Row::of_entry(id_of(&entry), entry.name)).collect();
    rows.retain(|row| after.is_none_or(|after| row.id > *after));
    rows.sort_by(|one, other| one.id.cmp(&other.id));
    let has_more = rows.len() > limit;
    rows.truncate(limit);
    Rows { rows, has_more }
}

fn images(rows: Rows, listed: impl Fn(Row) -> Listed) -> Images {
    let next = rows.rows.last().map(|row| row.id.clone()).filter(|_| rows.has_more);
    Images { images: rows.rows.into_iter().map(listed).collect(), next }
}

/// The links of a page: to images, to their files, and to their thumbnails.
pub(super) struct PageLinks {
    show: Links,
    download: Links,
    thumbnails: Links,
}

impl PageLinks {
    /// # Errors
    /// As [`Gallery::links_to`].
    pub(super) async fn new(gallery: &Gallery, now: OffsetDateTime) -> Result<Self, Error> {
        Ok(Self {
            show: gallery.links(now).await?,
            download: gallery.download_links(now).await?,
            thumbnails: gallery.thumbnails.links(now).await?,
        })
    }

    pub(super) fn listed(&self, row: Row) -> Listed {
        let id = row.id.as_str();
        Listed {
            url: self.show.to(&row.name),
            more: Some(More {
                id: id.to_owned(),
                created_at: row.id.created_at(),
                width: row.size.map(|(width, _)| width),
                height: row.size.map(|(_, height)| height),
                thumbnail_url: row.thumbnail.map(|_| self.thumbnails.to(&thumbnails::blob_name(id))),
                thumbnail_width: row.thumbnail.map(|(width, _)| width),
                thumbnail_height: row.thumbnail.map(|(_, height)| height),
                placeholder: row.placeholder,
                prompt: row.prompt,
                download_url: self.download.to(&row.name),
            }),
            name: row.name,
        }
    }
}
