//! Uploads an image, and queues it for its thumbnail.

use super::generations::Generations;
use crate::azure;
use crate::gallery::{Details, Stored};
use crate::image::Image;

impl Generations {
    /// Stores an image in the gallery. Its thumbnail is made afterwards, in the background: nothing waits for it, and its
    /// failure does not fail the image.
    ///
    /// # Errors
    /// The image is not in the gallery, or it is unknown whether it is.
    pub(super) async fn upload(&self, image: &Image, details: &Details) -> Result<Stored, azure::Error> {
        let stored = self.gallery.store(image, details).await?;
        self.gallery.queue_thumbnail(&stored.name, Some(image.clone())).await;
        Ok(stored)
    }
}
