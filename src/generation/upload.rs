//! Uploads an image, and its thumbnail beside it.

use tokio::task::JoinHandle;
use tracing::Instrument as _;

use super::generations::Generations;
use crate::azure;
use crate::gallery::{Details, ImageId, Made, NotMade, Stored};
use crate::image::Image;

impl Generations {
    /// Stores an image in the gallery. Its thumbnail is made meanwhile, and stored in the background: nothing waits
    /// for it, and its failure does not fail the image.
    ///
    /// # Errors
    /// The image is not in the gallery, or it is unknown whether it is.
    pub(super) async fn upload(&self, image: &Image, details: &Details) -> Result<Stored, azure::Error> {
        let (gallery, copy) = (self.gallery.clone(), image.clone());
        let made = self.tasks.spawn(async move { gallery.thumbnails().make(copy).await });
        let stored = self.gallery.store(image, details).await;
        match &stored {
            Ok(stored) => self.store_thumbnail(ImageId::of(&stored.name, None), made),
            Err(_) => made.abort(),
        }
        stored
    }

    fn store_thumbnail(&self, id: ImageId, made: JoinHandle<Result<Made, NotMade>>) {
        let gallery = self.gallery.clone();
        let store = async move {
            // Only a panic ends the task without a result.
            let made = made.await.unwrap_or(Err(NotMade::Undecodable));
            let stored = match made {
                Ok(made) => gallery.thumbnails().store(id.as_str(), made).await,
                Err(error) => Err(error),
            };
            gallery.note_thumbnail(&id, stored).await;
        };
        self.tasks.spawn(store.in_current_span());
    }

    /// Makes and stores, in the background, the thumbnail of an image that a dead process has uploaded.
    pub(super) fn make_missing_thumbnail(&self, name: &str) {
        let (gallery, name, now) = (self.gallery.clone(), name.to_owned(), self.now());
        let make = async move { gallery.make_thumbnail(&ImageId::of(&name, None), &name, now).await };
        self.tasks.spawn(make.in_current_span());
    }
}
