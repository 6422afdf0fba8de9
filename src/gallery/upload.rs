//! The upload of an image: its name, its blob, and its row in the index.
//!
//! The row comes after the blob, so that the index has no image that is not there, and before everything that says
//! that the image is stored, so that each process lists it from then on.

use super::deleted::{DeletedImage, NotMoved, Place};
use super::id::ImageId;
use super::reconcile::Now;
use super::{Details, Error, Gallery, Stored, metadata, name, row};
use crate::azure::Purpose;
use crate::image::Image;
use crate::prompt::Prompt;

/// The most names that are tried for one image. Each is one millisecond later than the last.
const MAX_NAMES: i64 = 100;

impl Gallery {
    /// Stores an image under a new name and adds it to the index. Creates the container if it is missing. An
    /// index that cannot be written does not fail the image.
    ///
    /// If another image has the name (same prompt, same millisecond, another process), the time in the name is
    /// increased by a millisecond. If this image has the name, an earlier upload succeeded without an answer,
    /// and the call succeeds too.
    ///
    /// # Errors
    /// The image is not in the container, or it is unknown whether it is.
    pub async fn store(&self, image: &Image, details: &Details) -> Result<Stored, Error> {
        let _upload = self.thumbnails.queue.upload();
        for stored in candidates(image, details) {
            if self.put(&stored, image, details).await? {
                self.index_drawn(&stored, details).await;
                return Ok(stored);
            }
        }
        Err(no_name())
    }

    /// Stores an image of the spool, as [`Self::store`] does. An image that was stored and deleted before stays deleted.
    /// Returns also where it is.
    ///
    /// # Errors
    /// As for [`Self::store`], and it is unknown whether the image was deleted. It may be in the gallery even so.
    pub(crate) async fn store_again(
        &self,
        image: &Image,
        details: &Details,
        now: Now<'_>,
    ) -> Result<(Stored, Place), Error> {
        for stored in candidates(image, details) {
            match self.deleted_image(&stored.name, &details.id).await {
                // It may have been stored again before, by a process that died then.
                Ok(DeletedImage::This) => return self.deleted_again(stored, now).await,
                Ok(DeletedImage::Another) => continue,
                // The spool may go with its machine, so the image is stored even if the table does not answer.
                Ok(DeletedImage::None) | Err(_) => {}
            }
            if self.put(&stored, image, details).await? {
                self.index_drawn(&stored, details).await;
                // A deletion may have begun after the look. If that cannot be told, the file in the spool stays.
                return match self.deleted_image(&stored.name, &details.id).await? {
                    DeletedImage::This => self.deleted_again(stored, now).await,
                    DeletedImage::None | DeletedImage::Another => Ok((stored, Place::Gallery)),
                };
            }
        }
        Err(no_name())
    }

    async fn deleted_again(&self, stored: Stored, now: Now<'_>) -> Result<(Stored, Place), Error> {
        match self.delete_again(&ImageId::of(&stored.name, None), now).await {
            Ok(place) => Ok((stored, place)),
            // Another image is in the gallery, this one among the deleted ones.
            Err(NotMoved::NameTaken) => Ok((stored, Place::Deleted)),
            Err(NotMoved::Storage(error)) => Err(error),
        }
    }

    /// Adds an image to the index that is in the container.
    pub(crate) async fn add_to_index(&self, stored: &Stored, prompt: &Prompt) {
        let id = ImageId::of(&stored.name, None);
        self.index.put(id.clone(), row::columns(&stored.written(prompt))).await;
        // A deletion may have ended since the image was found. If that cannot be told, a pass removes the row.
        if self.is_gone(&stored.name).await.unwrap_or(false) {
            let _ = self.index.remove(&id).await;
        }
    }

    async fn index_drawn(&self, stored: &Stored, details: &Details) {
        let columns = row::columns(&row::Written {
            caller: details.caller.as_ref(),
            cost: Some(&details.cost),
            ..stored.written(&details.prompt)
        });
        self.index.put(ImageId::of(&stored.name, None), columns).await;
    }

    /// Uploads an image under the name of `stored`. Returns whether the blob with that name is this image now.
    async fn put(&self, stored: &Stored, image: &Image, details: &Details) -> Result<bool, Error> {
        let (name, content_type) = (&stored.name, image.format().content_type());
        match self.container.put_new(name, content_type, image.bytes(), &metadata(details)).await {
            Ok(()) => Ok(true),
            Err(error) if error.is("BlobAlreadyExists") => {
                let there = self.container.properties(name, Purpose::Generation).await?;
                Ok(there.metadata.get("id") == Some(&details.id))
            }
            Err(error) => Err(error),
        }
    }
}

/// The image under each name that may be tried.
fn candidates(image: &Image, details: &Details) -> impl Iterator<Item = Stored> {
    let drawn_at = name::epoch_ms(details.created_at);
    (drawn_at..drawn_at + MAX_NAMES).map(|created_at_ms| Stored::new(created_at_ms, image, details))
}

fn no_name() -> Error {
    Error::Answered { status: 409, code: "BlobAlreadyExists".to_owned() }
}
