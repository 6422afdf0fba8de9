//! What happens to deleted images in the background: interrupted moves are finished, and images are purged.

use std::time::Duration;

use time::OffsetDateTime;

use super::deleted::{NotMoved, is_copy};
use super::deleted_row::{Claim, ClaimedRow, Stage, stage_and_end};
use super::id::ImageId;
use super::reconcile::Now;
use super::row::NAME_COLUMN;
use super::thumbnails;
use super::{Error, Gallery};
use crate::azure::{Properties, Purpose, Query};
use crate::logs::chain;

/// A purge begins this much after the undo time, so that it never meets a restoration.
const PURGED_AFTER: Duration = Duration::from_secs(60);
/// The longest pause between two looks at the deleted images: another process may have died while it moved one.
const LONGEST_PAUSE: Duration = Duration::from_secs(10 * 60);
const SHORTEST_PAUSE: Duration = Duration::from_secs(30);
/// The most images that one pass deletes for their age. The next pass goes on.
const EXPIRED_AT_ONCE: usize = 1_000;

/// The time until an image is purged; `None` if it is over.
fn until_purge(restorable_until: OffsetDateTime, now: OffsetDateTime) -> Option<Duration> {
    Duration::try_from(restorable_until + PURGED_AFTER - now).ok().filter(|left| !left.is_zero())
}

impl Gallery {
    /// Finishes deletions and restorations, purges images whose undo time is over, and deletes those that are older than
    /// `TTL_DAYS`, until the future is dropped.
    pub(crate) async fn keep_purging(&self, now: Now<'_>) {
        // Before the first pass the index may lack images.
        let _ = self.index.passes.subscribe().wait_for(|passes| *passes > 0).await;
        let mut pause_after_failure = SHORTEST_PAUSE;
        loop {
            let pause = match self.purge(now).await {
                Ok(next) => {
                    pause_after_failure = SHORTEST_PAUSE;
                    next.unwrap_or(LONGEST_PAUSE).clamp(SHORTEST_PAUSE, LONGEST_PAUSE)
                }
                Err(error) => {
                    tracing::warn!(
                        event = "purge_failed",
                        cause = chain(&error),
                        delay_s = pause_after_failure.as_secs(),
                        "deleted images could not be purged; it is tried again after the delay"
                    );
                    pause_after_failure = (pause_after_failure * 2).min(LONGEST_PAUSE);
                    pause_after_failure / 2
                }
            };
            let added = async {
                self.deleted_added.notified().await;
                // Several deletions follow each other.
                tokio::time::sleep(SHORTEST_PAUSE).await;
            };
            tokio::select! { () = tokio::time::sleep(pause) => {}, () = added => {} }
        }
    }

    /// Purges once. Returns when the next image is due; `None` if no deleted image waits.
    ///
    /// # Errors
    /// The last error, after the work on all other images.
    async fn purge(&self, now: Now<'_>) -> Result<Option<Duration>, Error> {
        let table = self.index.deleted();
        let (mut next, mut after, mut purged, mut failed) = (None::<Duration>, None, 0_usize, None);
        loop {
            let page = table.query(&Query::rows("", ":"), after.as_ref()).await?;
            for (row, columns) in &page.rows {
                let Some(id) = ImageId::parse(row) else { continue };
                let looked = match stage_and_end(columns) {
                    Some((Stage::Deleted, until)) if let Some(left) = until_purge(until, now()) => Ok(Some(left)),
                    _ => self.purge_one(&id, now).await,
                };
                match looked {
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
            && self.delete_older_than(now() - ttl, now).await?
        {
            next = Some(SHORTEST_PAUSE);
        }
        failed.map_or(Ok(next), Err)
    }

    /// Purges a deleted image whose undo time is over. Else finishes what was interrupted, and returns the time until then.
    async fn purge_one(&self, id: &ImageId, now: Now<'_>) -> Result<Option<Duration>, Error> {
        let _work = self.deletions.lock().await;
        let claimed = match self.index.claim_deleted(id, now()).await? {
            Claim::Mine(claimed) => claimed,
            Claim::OfAnother => return Ok(Some(SHORTEST_PAUSE)),
            Claim::NoRow => return Ok(None),
        };
        let finished = match claimed.row.stage {
            Stage::Deleting => self.finish_deletion(claimed, now).await.map(|until| until_purge(until, now())),
            Stage::Restoring => self.finish_restoration(claimed, now).await.map(|()| None),
            Stage::Deleted => {
                // Another process may have deleted it since the rows were read.
                let until = claimed.row.restorable_until;
                match until_purge(until, now()) {
                    Some(left) => {
                        self.index.release_deleted(claimed, Stage::Deleted, until).await?;
                        Ok(Some(left))
                    }
                    None => return self.purge_claimed(claimed).await.map(|()| None),
                }
            }
        };
        match finished {
            // The image that was deleted is in the private container.
            Err(NotMoved::NameTaken) => Ok(Some(SHORTEST_PAUSE)),
            Err(NotMoved::Storage(error)) => Err(error),
            Ok(left) => Ok(left),
        }
    }

    /// Deletes what is left of a deleted image.
    async fn purge_claimed(&self, claimed: ClaimedRow) -> Result<(), Error> {
        let (id, name) = (&claimed.row.id, claimed.row.name());
        // A process that died may have stored the image again from its spool. Without a copy, a purge came so far before,
        // and an image in the gallery is another one.
        let copy = self.deleted.find(id.as_str(), Purpose::Caller).await?;
        let public = self.container.find(name, Purpose::Caller).await?;
        let is_again = |public: &Properties| copy.is_some_and(|copy| is_copy(public, &copy));
        match public {
            Some(public) if !is_again(&public) => {}
            Some(public) => {
                self.container.delete_version(name, &public.etag).await?;
                self.index.remove(id).await?;
            }
            None => self.index.remove(id).await?,
        }
        let thumbnail = thumbnails::blob_name(id.as_str());
        for blob in [id.as_str(), &thumbnail] {
            self.deleted.delete(blob).await?;
        }
        // A thumbnail that was made while the image was being deleted. If an image is in the index, it has the name now.
        if self.index.columns(id).await?.is_none() {
            self.thumbnails.container().delete(&thumbnail).await?;
        }
        self.index.remove_deleted_row(claimed).await
    }

    /// Deletes images that are older than a time, as a caller would, so that they can be restored. Returns whether more
    /// are left.
    async fn delete_older_than(&self, oldest: OffsetDateTime, now: Now<'_>) -> Result<bool, Error> {
        let after = ImageId::last_at(oldest);
        let Some(rows) = self.index.read(Some(&after), EXPIRED_AT_ONCE, &[NAME_COLUMN]).await? else {
            return Ok(false);
        };
        let (mut count, mut failed) = (0, None);
        for row in &rows.rows {
            match self.delete_now(&row.id, now).await {
                Ok(_) => count += 1,
                // It is deleted when the image that was deleted before it is purged.
                Err(NotMoved::NameTaken) => {}
                Err(NotMoved::Storage(error)) => failed = Some(error),
            }
        }
        if count > 0 {
            tracing::info!(event = "old_images_deleted", count, "images older than TTL_DAYS were deleted");
        }
        failed.map_or(Ok(rows.has_more), Err)
    }
}
