//! Uploads an image, and queues it for its thumbnail.

use tracing::Instrument as _;

use super::generations::Generations;
use crate::azure;
use crate::gallery::{Details, Place, Stored};
use crate::image::Image;

impl Generations {
    /// Stores an image in the gallery. Its thumbnail is made afterwards, in the background: nothing waits for it, and its
    /// failure does not fail the image.
    ///
    /// # Errors
    /// The image is not in the gallery, or it is unknown whether it is.
    pub(super) async fn upload(&self, image: &Image, details: &Details) -> Result<Stored, azure::Error> {
        let stored = self.gallery.store(image, details).await?;
        self.queue_thumbnail(&stored, image);
        Ok(stored)
    }

    /// Queues an image for its thumbnail. The queue copies the image, which the caller need not wait for.
    fn queue_thumbnail(&self, stored: &Stored, image: &Image) {
        let (gallery, name, image) = (self.gallery.clone(), stored.name.clone(), image.clone());
        self.tasks.spawn(async move { gallery.queue_thumbnail(&name, Some(&image)).await }.in_current_span());
    }

    /// Stores an image of the spool, unless it was stored and deleted before.
    ///
    /// # Errors
    /// As for [`Self::upload`].
    pub(super) async fn upload_again(&self, image: &Image, details: &Details) -> Result<Stored, azure::Error> {
        let (stored, place) = self.gallery.store_again(image, details, &*self.clock).await?;
        let id = &details.id;
        match place {
            Place::Gallery => {
                tracing::info!(
                    event = "spooled_image_uploaded",
                    image.id = id,
                    "an image from the spool is in the gallery now"
                );
                self.queue_thumbnail(&stored, image);
            }
            Place::Deleted => tracing::info!(
                event = "spooled_image_deleted",
                image.id = id,
                "an image in the spool was stored and deleted before; it stays deleted"
            ),
        }
        Ok(stored)
    }
}
