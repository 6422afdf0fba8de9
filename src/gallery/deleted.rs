//! Deleted images: they wait in a private container until they can no longer be restored.
//!
//! A deletion writes a row for the image in the partition of deleted images, moves the blob into the private container,
//! removes the row of the index, and moves the thumbnail. A restoration goes the other way, and removes the row last. The
//! row says which of both is under way. Each step may be repeated, so what was interrupted is finished from its row. Links
//! and listings end with the move.

use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;
use tokio::sync::MutexGuard;

use super::deleted_row::{Claim, ClaimedRow, DeletedRow, Stage};
use super::id::ImageId;
use super::links::Links;
use super::reconcile::Now;
use super::row::{NAME_COLUMN, forget_thumbnail};
use super::thumbnails;
use super::{Error, Gallery};
use crate::azure::{Container, Properties, Purpose};

/// How long a caller waits for a deletion or a restoration of the same image in another process.
const LONGEST_WAIT: Duration = Duration::from_secs(10);
/// How often a process looks at the claim of another one.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How often a deletion begins again, because a restoration in another process was first.
const TRIES: usize = 3;

/// The result of a deletion.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Deleted {
    /// The image's id.
    id: String,
    /// Until then the image can be restored.
    #[serde(with = "time::serde::rfc3339")]
    restorable_until: OffsetDateTime,
}

/// Why an image is not deleted or restored.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotMoved {
    /// Another image has the name where this one goes to.
    #[error("another image has the name")]
    NameTaken,
    /// The storage account failed.
    #[error(transparent)]
    Storage(#[from] Error),
}

/// Where an image is that was drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// In the gallery.
    Gallery,
    /// In the private container of deleted images.
    Deleted,
}

/// Which image was deleted under a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeletedImage {
    /// None, or it is being restored.
    None,
    /// The image itself.
    This,
    /// Another one with the same name.
    Another,
}

/// Which image was deleted, by the stage of the name's row, and whether the blobs with the name are this image; `None` if
/// there is no blob.
fn deleted_image(stage: Stage, is_public: Option<bool>, is_private: Option<bool>) -> DeletedImage {
    match (stage, is_public, is_private) {
        (_, Some(true), Some(false)) | (Stage::Restoring, _, Some(true) | None) => DeletedImage::None,
        (_, _, Some(false)) | (_, Some(false), None) => DeletedImage::Another,
        (_, _, Some(true)) | (_, Some(true) | None, None) => DeletedImage::This,
    }
}

/// Whether a blob with the name of a copy is one.
pub(super) fn is_copy(original: &Properties, copy: &Properties) -> bool {
    (&original.metadata, original.bytes) == (&copy.metadata, copy.bytes)
}

impl Gallery {
    /// Deletes an image. `None` if no image has this id. An image that is deleted already stays so.
    ///
    /// # Errors
    /// [`NotMoved::NameTaken`] if another image with this name was deleted and can still be restored. When storage failed,
    /// the deletion may have begun, and is finished in the background.
    pub(crate) async fn delete(&self, id: &ImageId, now: Now<'_>) -> Result<Option<Deleted>, NotMoved> {
        // Wakes the background work first, because the answer to the write of the row may be lost.
        self.deleted_added.notify_one();
        self.delete_now(id, now).await
    }

    /// Deletes an image without waking the background work, which finishes what was interrupted when its pause is over.
    pub(super) async fn delete_now(&self, id: &ImageId, now: Now<'_>) -> Result<Option<Deleted>, NotMoved> {
        for _ in 0..TRIES {
            let (_work, claimed) = self.claim(id, now).await?;
            let claimed = match claimed {
                // A restoration ended half-way, or the image or another one was stored under the name since.
                Some(claimed)
                    if claimed.row.stage == Stage::Restoring
                        || claimed.row.stage == Stage::Deleted && !self.is_gone(claimed.row.name()).await? =>
                {
                    let until = claimed.row.restorable_until;
                    self.index.note_stage(claimed, Stage::Deleting, until, now()).await?
                }
                Some(claimed) => claimed,
                None => {
                    let columns = self.index.columns(id).await?.filter(|columns| columns.contains_key(NAME_COLUMN));
                    let Some(columns) = columns else { return Ok(None) };
                    let until = self.restorable_until(now());
                    match self.index.insert_deleted(id, &columns, until, now()).await? {
                        Some(claimed) => claimed,
                        None => continue,
                    }
                }
            };
            let restorable_until = self.finish_deletion(claimed, now).await?;
            return Ok(Some(Deleted { id: id.as_str().to_owned(), restorable_until }));
        }
        Err(Error::Unreachable.into())
    }

    /// The end of the undo time of an image that is deleted now, rounded up to a whole second.
    fn restorable_until(&self, now: OffsetDateTime) -> OffsetDateTime {
        let up = now + self.settings.undo + Duration::from_nanos(999_999_999);
        up - Duration::from_nanos(up.nanosecond().into())
    }

    /// The end of the undo time of a deleted image. One that is still there gets its whole undo time.
    fn end_of_undo(&self, row: &DeletedRow, now: OffsetDateTime) -> OffsetDateTime {
        match row.stage {
            Stage::Deleted => row.restorable_until,
            Stage::Deleting | Stage::Restoring => row.restorable_until.max(self.restorable_until(now)),
        }
    }

    /// Claims the row of a deleted image, and keeps this process from moving another one; `None` if there is no row. While
    /// another process has the claim, this one moves others.
    async fn claim(&self, id: &ImageId, now: Now<'_>) -> Result<(MutexGuard<'_, ()>, Option<ClaimedRow>), Error> {
        let mut waited = Duration::ZERO;
        loop {
            let work = self.deletions.lock().await;
            match self.index.claim_deleted(id, now()).await? {
                Claim::Mine(claimed) => return Ok((work, Some(claimed))),
                Claim::NoRow => return Ok((work, None)),
                Claim::OfAnother if waited >= LONGEST_WAIT => return Err(Error::Unreachable),
                Claim::OfAnother => drop(work),
            }
            tokio::time::sleep(LOOK_EVERY).await;
            waited += LOOK_EVERY;
        }
    }

    /// Moves a deleted image into the private container, notes it, and ends the claim. Returns the end of its undo time.
    pub(super) async fn finish_deletion(&self, claimed: ClaimedRow, now: Now<'_>) -> Result<OffsetDateTime, NotMoved> {
        let claimed = self.move_away(claimed, now()).await?;
        let until = self.end_of_undo(&claimed.row, now());
        self.index.release_deleted(claimed, Stage::Deleted, until).await?;
        Ok(until)
    }

    /// Moves a deleted image into the private container and removes its row from the index. If another image has the name,
    /// the claim ends.
    async fn move_away(&self, claimed: ClaimedRow, now: OffsetDateTime) -> Result<ClaimedRow, NotMoved> {
        let id = &claimed.row.id;
        self.thumbnails.queue.remove(id);
        let thumbnail = thumbnails::blob_name(id.as_str());
        match self.move_blob((&self.container, claimed.row.name()), (&self.deleted, id.as_str()), now).await {
            Err(NotMoved::NameTaken) => return Err(self.keep_deleted(claimed).await),
            result => result?,
        }
        self.index.remove(id).await?;
        // A thumbnail that is stored from here on finds no row, and is removed by the process that has made it. One that
        // differs from the copy was made of the same image in another process.
        match self.move_blob((self.thumbnails.container(), &thumbnail), (&self.deleted, &thumbnail), now).await {
            Err(NotMoved::NameTaken) => self.thumbnails.container().delete(&thumbnail).await?,
            result => result?,
        }
        Ok(claimed)
    }

    /// Ends the claim on an image that is in the private container, because another image has its name. Returns why the
    /// image is not moved.
    async fn keep_deleted(&self, claimed: ClaimedRow) -> NotMoved {
        let until = claimed.row.restorable_until;
        match self.index.release_deleted(claimed, Stage::Deleted, until).await {
            Ok(()) => NotMoved::NameTaken,
            Err(error) => error.into(),
        }
    }

    /// Which image was deleted under a blob's name: the one with this id in its metadata, or another one.
    ///
    /// # Errors
    /// The storage account failed.
    pub(super) async fn deleted_image(&self, name: &str, id: &str) -> Result<DeletedImage, Error> {
        let image_id = ImageId::of(name, None);
        let Some(row) = self.index.deleted_row(&image_id).await? else { return Ok(DeletedImage::None) };
        let is_this = |found: Properties| found.metadata.get("id").is_some_and(|found| found == id);
        let public = self.container.find(name, Purpose::Generation).await?;
        let private = self.deleted.find(image_id.as_str(), Purpose::Generation).await?;
        Ok(deleted_image(row.stage, public.map(is_this), private.map(is_this)))
    }

    /// Finishes the deletion or restoration of an image that was stored again meanwhile. Returns where the image is.
    ///
    /// # Errors
    /// As for [`Self::delete`].
    pub(super) async fn delete_again(&self, id: &ImageId, now: Now<'_>) -> Result<Place, NotMoved> {
        let (_work, claimed) = self.claim(id, now).await?;
        match claimed {
            Some(claimed) if claimed.row.stage != Stage::Restoring => {
                self.finish_deletion(claimed, now).await.map(|_| Place::Deleted)
            }
            Some(claimed) => self.finish_restoration(claimed, now).await.map(|()| Place::Gallery),
            None => Ok(Place::Gallery),
        }
    }

    /// Restores a deleted image with its name, its links and its place in the gallery. `None` if no deleted image has this
    /// id, or its undo time is over.
    ///
    /// # Errors
    /// [`NotMoved::NameTaken`] if another blob has the image's name now. When storage failed, the restoration may have
    /// begun, and is finished in the background.
    pub(crate) async fn restore(&self, id: &ImageId, now: Now<'_>) -> Result<Option<()>, NotMoved> {
        // One that is not in the private container yet, or not any more, can be restored at any time.
        let is_restorable = |row: &DeletedRow| row.stage != Stage::Deleted || now() <= row.restorable_until;
        if !self.index.deleted_row(id).await?.is_some_and(|row| is_restorable(&row)) {
            return Ok(None);
        }
        self.deleted_added.notify_one();
        let (_work, claimed) = self.claim(id, now).await?;
        // Another process may have restored it meanwhile.
        let Some(claimed) = claimed else { return Ok(None) };
        let claimed = match claimed.row.stage {
            Stage::Deleting => self.move_away(claimed, now()).await?,
            Stage::Deleted | Stage::Restoring => claimed,
        };
        let until = self.end_of_undo(&claimed.row, now());
        let claimed = self.index.note_stage(claimed, Stage::Restoring, until, now()).await?;
        self.finish_restoration(claimed, now).await.map(Some)
    }

    /// Moves an image back into the gallery, and removes its row. If that cannot be, it stays deleted.
    pub(super) async fn finish_restoration(&self, claimed: ClaimedRow, now: Now<'_>) -> Result<(), NotMoved> {
        let (id, restorable_until) = (claimed.row.id.clone(), claimed.row.restorable_until);
        let (name, private) = (claimed.row.name(), id.as_str());
        let thumbnail = thumbnails::blob_name(private);
        match self.copy_blob((&self.deleted, private), (&self.container, name), now()).await {
            Err(error) if error.is("BlobAlreadyExists") => {
                // Without a private blob, an earlier restoration came so far.
                if let Some(original) = self.deleted.find(private, Purpose::Caller).await?
                    && !is_copy(&original, &self.container.properties(name, Purpose::Caller).await?)
                {
                    return Err(self.keep_deleted(claimed).await);
                }
            }
            result => result.map(drop)?,
        }
        match self.copy_blob((&self.deleted, &thumbnail), (self.thumbnails.container(), &thumbnail), now()).await {
            Err(error) if error.is("BlobAlreadyExists") => {}
            result => result.map(drop)?,
        }
        let mut columns = claimed.index_columns();
        if self.thumbnails.find(private).await?.is_none() {
            forget_thumbnail(&mut columns);
        }
        self.index.merge(&id, &columns).await?;
        // A process that has lost its claim must not touch what another one has moved since.
        let claimed = self.index.note_stage(claimed, Stage::Restoring, restorable_until, now()).await?;
        for blob in [private, &thumbnail] {
            self.deleted.delete(blob).await?;
        }
        Ok(self.index.remove_deleted_row(claimed).await?)
    }

    /// Moves a blob; a blob that is not there may have been moved before. One that is written meanwhile stays.
    async fn move_blob(
        &self,
        from: (&Container, &str),
        to: (&Container, &str),
        now: OffsetDateTime,
    ) -> Result<(), NotMoved> {
        let Some(original) = from.0.find(from.1, Purpose::Caller).await? else { return Ok(()) };
        match self.copy_blob(from, to, now).await {
            Err(error) if error.is("BlobAlreadyExists") => {
                if !is_copy(&original, &to.0.properties(to.1, Purpose::Caller).await?) {
                    return Err(NotMoved::NameTaken);
                }
            }
            copied => {
                if !copied? {
                    return Ok(());
                }
            }
        }
        Ok(from.0.delete_version(from.1, &original.etag).await?)
    }

    /// Copies a blob to a name that is free. Returns whether there was a blob to copy. Creates the target's container if it
    /// is missing.
    async fn copy_blob(
        &self,
        (source, name): (&Container, &str),
        (target, new_name): (&Container, &str),
        now: OffsetDateTime,
    ) -> Result<bool, Error> {
        let link = Links::to_copy(source, now).await?.to(name);
        match target.copy_new(new_name, &link).await {
            // The same code says that the source's container is missing.
            Err(error) if error.is("ContainerNotFound") => {
                if source.find(name, Purpose::Caller).await?.is_none() {
                    return Ok(false);
                }
                target.create().await?;
                target.copy_new(new_name, &link).await.map(|()| true)
            }
            Err(error) if error.is_not_found() => Ok(false),
            copied => copied.map(|()| true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_deleted_by_the_stage_of_its_row_and_the_blobs_with_its_name() {
        let table = [
            // Not moved yet, moved, moved and stored again, purged but for its row.
            (Stage::Deleting, Some(true), None, DeletedImage::This),
            (Stage::Deleted, None, Some(true), DeletedImage::This),
            (Stage::Deleted, Some(true), Some(true), DeletedImage::This),
            (Stage::Deleted, Some(false), Some(true), DeletedImage::This),
            (Stage::Deleted, None, None, DeletedImage::This),
            // Another image was deleted, and this one may be stored under the name already.
            (Stage::Deleting, Some(false), None, DeletedImage::Another),
            (Stage::Deleted, None, Some(false), DeletedImage::Another),
            (Stage::Restoring, None, Some(false), DeletedImage::Another),
            (Stage::Deleted, Some(true), Some(false), DeletedImage::None),
            // A restoration, from its begin to its end.
            (Stage::Restoring, None, Some(true), DeletedImage::None),
            (Stage::Restoring, Some(true), Some(true), DeletedImage::None),
            (Stage::Restoring, Some(true), None, DeletedImage::None),
        ];
        for (stage, is_public, is_private, image) in table {
            assert_eq!(deleted_image(stage, is_public, is_private), image, "{stage:?} {is_public:?} {is_private:?}");
        }
    }
}
