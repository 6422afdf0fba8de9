//! Uploads an image, and its thumbnail beside it.

use tokio::task::JoinHandle;
use tracing::Instrument as _;

use super::generations::Generations;
use crate::azure;
use crate::gallery::{Details, Made, NotMade, Stored, Thumbnail};
use crate::image::Image;
use crate::logs::chain;

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
            Ok(_) => self.store_thumbnail(details.id.clone(), made),
            Err(_) => made.abort(),
        }
        stored
    }

    fn store_thumbnail(&self, id: String, made: JoinHandle<Result<Made, NotMade>>) {
        let gallery = self.gallery.clone();
        let store = async move {
            // Only a panic ends the task without a result.
            let made = made.await.unwrap_or(Err(NotMade::Undecodable));
            let stored = match made {
                Ok(made) => gallery.thumbnails().store(&id, made).await,
                Err(error) => Err(error),
            };
            log_failure(&id, &stored);
        };
        self.tasks.spawn(store.in_current_span());
    }

    /// Makes and stores, in the background, the thumbnail of an image that a dead process has uploaded.
    pub(super) fn make_missing_thumbnail(&self, id: &str, name: &str) {
        let (gallery, id, name, now) = (self.gallery.clone(), id.to_owned(), name.to_owned(), self.now());
        let make = async move { log_failure(&id, &gallery.thumbnail(&id, &name, now).await) };
        self.tasks.spawn(make.in_current_span());
    }
}

fn log_failure(id: &str, stored: &Result<Thumbnail, NotMade>) {
    if let Err(error) = stored {
        tracing::warn!(
            event = "thumbnail_not_stored",
            cause = chain(error),
            image.id = id,
            "an image has no thumbnail; front ends show the image itself"
        );
    }
}
