//! Deleted images: they wait in a private container until they can no longer be restored.
//!
//! A deletion writes a row for the image in the partition of deleted images, moves the blob into the private container,
//! removes the row of the index, and moves the thumbnail. Each step may be repeated, so a deletion whose process died is
//! finished from its row. Links and listings end with the move.

use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use super::deleted_row::{Claim, ClaimedRow, DeletedRow};
use super::id::ImageId;
use super::links::Links;
use super::reconcile::Now;
use super::row::NAME_COLUMN;
use super::thumbnails;
use super::upload::Place;
use super::{Error, Gallery};
use crate::azure::{Container, Purpose, Query};
use crate::logs::chain;

/// A purge begins this much after the undo time, so that it never meets a restoration.
const PURGED_AFTER: Duration = Duration::from_secs(60);
/// The longest pause between two purges while deleted images wait.
const LONGEST_PAUSE: Duration = Duration::from_secs(6 * 60 * 60);
const SHORTEST_PAUSE: Duration = Duration::from_secs(30);
/// How long a caller waits for a deletion or a restoration of the same image in another process.
const LONGEST_CLAIM: Duration = Duration::from_secs(10);
/// How often a deletion begins again, because a restoration in another process was first.
const TRIES: usize = 3;
/// The most images that one pass deletes for their age. The next pass goes on.
const EXPIRED_AT_ONCE: usize = 1_000;

/// The result of a deletion or a restoration that found its image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Deleted {
    /// The image's id.
    id: String,
    /// Until then the image can be restored.
    #[serde(with = "time::serde::rfc3339")]
    restorable_until: OffsetDateTime,
}

/// Why an image is not restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotRestored {
    /// No deleted image has this id, or its undo time is over.
    #[error("no deleted image has this id")]
    Unknown,
    /// Another blob has the image's name now.
    #[error("another blob has the image's name")]
    NameTaken,
    /// The storage account failed.
    #[error(transparent)]
    Storage(#[from] Error),
}

impl Deleted {
    fn new(id: &ImageId, restorable_until: OffsetDateTime) -> Self {
        Self { id: id.as_str().to_owned(), restorable_until }
    }
}

/// A point in time, rounded up to a whole second.
fn rounded_up(at: OffsetDateTime) -> OffsetDateTime {
    let up = at + Duration::from_nanos(999_999_999);
    up - Duration::from_nanos(up.nanosecond().into())
}

impl Gallery {
    /// Deletes an image. `None` if no image has this id. An image that is deleted already stays so.
    ///
    /// # Errors
    /// The storage account failed. The deletion may have begun, and is finished in the background.
    pub(crate) async fn delete(&self, id: &ImageId, now: OffsetDateTime) -> Result<Option<Deleted>, Error> {
        let _work = self.deletions.lock().await;
        for _ in 0..TRIES {
            let (claimed, restorable_until) = match self.index.deleted_row(id).await? {
                // A restoration that failed half-way may have made the image public again.
                Some(row) if !row.is_moved() || self.index.columns(id).await?.is_some() => {
                    let claimed = match self.index.claim_deleted(id, now, LONGEST_CLAIM).await? {
                        Claim::Mine(claimed) => Some(claimed),
                        Claim::OfAnother => return Err(Error::Unreachable),
                        Claim::NoRow => None,
                    };
                    (claimed, row.restorable_until)
                }
                Some(row) => return Ok(Some(Deleted::new(id, row.restorable_until))),
                None => {
                    let columns = self.index.columns(id).await?.filter(|columns| columns.contains_key(NAME_COLUMN));
                    let Some(columns) = columns else { return Ok(None) };
                    let restorable_until = rounded_up(now + self.settings.undo);
                    (self.index.insert_deleted(id, &columns, restorable_until, now).await?, restorable_until)
                }
            };
            if let Some(claimed) = claimed {
                self.deleted_added.notify_one();
                self.move_away(&claimed, now).await?;
                self.index.release_moved(claimed).await?;
                return Ok(Some(Deleted::new(id, restorable_until)));
            }
        }
        Err(Error::Unreachable)
    }

    /// Moves a deleted image into the private container and removes its row from the index.
    async fn move_away(&self, claimed: &ClaimedRow, now: OffsetDateTime) -> Result<(), Error> {
        let row = &claimed.row;
        self.thumbnails.queue.remove(&row.id);
        let thumbnail = thumbnails::blob_name(row.id.as_str());
        self.move_blob((&self.container, row.name()), (&self.deleted, row.id.as_str()), now).await?;
        self.index.remove(&row.id).await?;
        // A thumbnail that is stored from here on finds no row, and is removed by the process that has made it.
        self.move_blob((self.thumbnails.container(), &thumbnail), (&self.deleted, &thumbnail), now).await
    }

    /// Whether an image with this blob's name and this id in its metadata was deleted.
    ///
    /// # Errors
    /// The storage account failed.
    pub(super) async fn is_deleted(&self, name: &str, id: &str) -> Result<bool, Error> {
        let image_id = ImageId::of(name, None);
        if self.index.deleted_row(&image_id).await?.is_none() {
            return Ok(false);
        }
        match self.deleted.properties(image_id.as_str(), Purpose::Generation).await {
            Ok(properties) => Ok(properties.metadata.get("id").is_some_and(|found| found == id)),
            // It is not moved yet, so it is in the gallery.
            Err(error) if error.is_not_found() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes an image again that was made public while its deletion was under way. Returns where the image is.
    ///
    /// # Errors
    /// The storage account failed. The deletion is finished in the background.
    pub(super) async fn delete_again(&self, id: &ImageId, now: OffsetDateTime) -> Result<Place, Error> {
        if self.index.deleted_row(id).await?.is_none() {
            return Ok(Place::Gallery);
        }
        let _work = self.deletions.lock().await;
        match self.index.claim_deleted(id, now, LONGEST_CLAIM).await? {
            Claim::Mine(claimed) => {
                self.move_away(&claimed, now).await?;
                self.index.release_moved(claimed).await?;
                Ok(Place::Deleted)
            }
            Claim::OfAnother => Err(Error::Unreachable),
            Claim::NoRow => Ok(Place::Gallery),
        }
    }

    /// Restores a deleted image with its name, its links and its place in the gallery.
    ///
    /// # Errors
    /// See [`NotRestored`].
    pub(crate) async fn restore(&self, id: &ImageId, now: OffsetDateTime) -> Result<(), NotRestored> {
        let _work = self.deletions.lock().await;
        let row = self.index.deleted_row(id).await?.filter(|row| now <= row.restorable_until);
        row.ok_or(NotRestored::Unknown)?;
        let mut claimed = match self.index.claim_deleted(id, now, LONGEST_CLAIM).await? {
            Claim::Mine(claimed) => claimed,
            Claim::OfAnother => return Err(Error::Unreachable.into()),
            // Another process has restored it meanwhile.
            Claim::NoRow => return Err(NotRestored::Unknown),
        };
        if !claimed.row.is_moved() {
            self.move_away(&claimed, now).await?;
            claimed = self.index.note_moved(claimed).await?;
        }
        // From here on a process that dies leaves an image that can be restored again.
        let (name, private) = (claimed.row.name(), id.as_str());
        let thumbnail = thumbnails::blob_name(private);
        match self.copy_blob((&self.deleted, private), (&self.container, name), now).await {
            Err(error) if error.is("BlobAlreadyExists") => {
                let there = self.container.properties(name, Purpose::Caller).await?;
                match self.deleted.properties(private, Purpose::Caller).await {
                    Ok(mine) if (&there.metadata, there.bytes) == (&mine.metadata, mine.bytes) => {}
                    Ok(_) => {
                        self.index.release_moved(claimed).await?;
                        return Err(NotRestored::NameTaken);
                    }
                    // An earlier restoration came so far.
                    Err(error) if error.is_not_found() => {}
                    Err(error) => return Err(error.into()),
                }
            }
            result => result.map(drop)?,
        }
        match self.copy_blob((&self.deleted, &thumbnail), (self.thumbnails.container(), &thumbnail), now).await {
            Err(error) if error.is("BlobAlreadyExists") => {}
            result => result.map(drop)?,
        }
        self.index.merge(id, &claimed.index_columns()).await?;
        // The row goes last: a process that dies before leaves a row whose purge removes what is left.
        for blob in [private, &thumbnail] {
            self.deleted.delete(blob).await?;
        }
        self.index.remove_deleted_row(claimed).await?;
        Ok(())
    }

    /// Finishes deletions, purges images whose undo time is over, and deletes those that are older than `TTL_DAYS`,
    /// until the future is dropped. An app without deleted images and without `TTL_DAYS` sends one query at the start.
    pub(crate) async fn keep_purging(&self, now: Now<'_>) {
        // Before the first pass the index may lack images.
        let _ = self.index.passes.subscribe().wait_for(|passes| *passes > 0).await;
        let mut pause_after_failure = SHORTEST_PAUSE;
        loop {
            let next = match self.purge(now()).await {
                Ok(next) => {
                    pause_after_failure = SHORTEST_PAUSE;
                    next.or(self.settings.ttl.map(|_| LONGEST_PAUSE))
                }
                Err(error) => {
                    tracing::warn!(
                        event = "purge_failed",
                        cause = chain(&error),
                        delay_s = pause_after_failure.as_secs(),
                        "deleted images could not be purged; it is tried again after the delay"
                    );
                    pause_after_failure = (pause_after_failure * 2).min(LONGEST_PAUSE);
                    Some(pause_after_failure / 2)
                }
            };
            let pause = async {
                match next {
                    Some(next) => tokio::time::sleep(next.clamp(SHORTEST_PAUSE, LONGEST_PAUSE)).await,
                    None => std::future::pending().await,
                }
            };
            let added = async {
                self.deleted_added.notified().await;
                // Several deletions follow each other.
                tokio::time::sleep(SHORTEST_PAUSE).await;
            };
            tokio::select! { () = pause => {}, () = added => {} }
        }
    }

    /// Purges once. Returns when the next image is due; `None` if no deleted image waits.
    ///
    /// # Errors
    /// The last error, after the work on all other images.
    async fn purge(&self, now: OffsetDateTime) -> Result<Option<Duration>, Error> {
        let table = self.index.deleted();
        let (mut next, mut after, mut purged, mut failed) = (None::<Duration>, None, 0_usize, None);
        loop {
            let page = table.query(&Query::rows("", ":"), after.as_ref()).await?;
            for id in page.rows.iter().filter_map(|(row, _)| ImageId::parse(row)) {
                match self.purge_one(&id, now).await {
                    Ok(None) => purged += 1,
                    Ok(Some(left)) => next = Some(next.map_or(left, |next| next.min(left))),
                    Err(error) => failed = Some(error),
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        if purged > 0 {
            tracing::info!(event = "images_purged", count = purged, "deleted images were purged");
        }
        if let Some(ttl) = self.settings.ttl
            && self.delete_older_than(now - ttl, now).await?
        {
            next = Some(SHORTEST_PAUSE);
        }
        failed.map_or(Ok(next), Err)
    }

    /// Purges a deleted image whose undo time is over. Else finishes its deletion and returns the time until then.
    async fn purge_one(&self, id: &ImageId, now: OffsetDateTime) -> Result<Option<Duration>, Error> {
        let _work = self.deletions.lock().await;
        let left = |row: &DeletedRow| {
            Duration::try_from(row.restorable_until + PURGED_AFTER - now).ok().filter(|left| !left.is_zero())
        };
        // It may have been restored since the rows were read.
        let Some(row) = self.index.deleted_row(id).await? else { return Ok(None) };
        if row.is_moved()
            && let Some(left) = left(&row)
        {
            return Ok(Some(left));
        }
        let claimed = match self.index.claim_deleted(id, now, Duration::ZERO).await? {
            Claim::Mine(claimed) => claimed,
            Claim::OfAnother => return Ok(Some(SHORTEST_PAUSE)),
            Claim::NoRow => return Ok(None),
        };
        if !claimed.row.is_moved() {
            self.move_away(&claimed, now).await?;
        }
        if let Some(left) = left(&claimed.row) {
            self.index.release_moved(claimed).await?;
            return Ok(Some(left));
        }
        let thumbnail = thumbnails::blob_name(id.as_str());
        for blob in [id.as_str(), &thumbnail] {
            self.deleted.delete(blob).await?;
        }
        // A thumbnail that was made while the image was being deleted. An image that is in the index was restored by a
        // process that died before it removed this row.
        if self.index.columns(id).await?.is_none() {
            self.thumbnails.container().delete(&thumbnail).await?;
        }
        self.index.remove_deleted_row(claimed).await?;
        Ok(None)
    }

    /// Deletes images that are older than a time, as a caller would, so that they can be restored. Returns whether more
    /// are left.
    async fn delete_older_than(&self, oldest: OffsetDateTime, now: OffsetDateTime) -> Result<bool, Error> {
        let after = ImageId::last_at(oldest);
        let Some(rows) = self.index.read(Some(&after), EXPIRED_AT_ONCE, &[NAME_COLUMN]).await? else {
            return Ok(false);
        };
        for row in &rows.rows {
            self.delete(&row.id, now).await?;
        }
        let count = rows.rows.len();
        if count > 0 {
            tracing::info!(event = "old_images_deleted", count, "images older than TTL_DAYS were deleted");
        }
        Ok(rows.has_more)
    }

    /// Moves a blob; a blob that is not there may have been moved before.
    async fn move_blob(
        &self,
        from: (&Container, &str),
        to: (&Container, &str),
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        match self.copy_blob(from, to, now).await {
            Err(error) if error.is("BlobAlreadyExists") => {}
            result => result.map(drop)?,
        }
        from.0.delete(from.1).await
    }

    /// Copies a blob to a name that is free. A blob that is not there needs no copy. Creates the target's container if it
    /// is missing.
    async fn copy_blob(
        &self,
        (source, name): (&Container, &str),
        (target, new_name): (&Container, &str),
        now: OffsetDateTime,
    ) -> Result<(), Error> {
        let link = Links::to_copy(source, now).await?.to(name);
        match target.copy_new(new_name, &link).await {
            // The same code says that the source's container is missing.
            Err(error) if error.is("ContainerNotFound") && source.properties(name, Purpose::Caller).await.is_ok() => {
                target.create().await?;
                target.copy_new(new_name, &link).await
            }
            Err(error) if error.is_not_found() => Ok(()),
            result => result,
        }
    }
}
