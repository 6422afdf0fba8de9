//! Makes thumbnails and notes them in the index: those of the images that this process has stored, and those that are
//! missing, of images that others put into the container or whose process died.

use std::time::Duration;

use time::OffsetDateTime;

use super::id::ImageId;
use super::reconcile::Now;
use super::row::{NAME_COLUMN, Row, THUMBNAIL_STATE, columns_of_thumbnail, columns_without_thumbnail};
use super::thumbnail::Thumbnail;
use super::thumbnail_queue::Waiting;
use super::thumbnails::{self, NotMade};
use super::{Error, Gallery};
use crate::image::Image;
use crate::logs::chain;

/// The pause between two missing thumbnails: 20 a minute.
const PAUSE: Duration = Duration::from_secs(3);

impl Gallery {
    /// Makes the thumbnail of a stored image in the background. The caller has its answer meanwhile.
    pub(crate) async fn queue_thumbnail(&self, name: &str, image: Option<&Image>) {
        let id = ImageId::of(name, None);
        if self.thumbnails.queue.add(id.clone(), name.to_owned(), image).is_err() {
            self.note_thumbnail(&id, Err(NotMade::Busy)).await;
        }
    }

    /// Adds the result of making a thumbnail to the image's row. An image that cannot be decoded is not tried again.
    async fn note_thumbnail(&self, id: &ImageId, stored: Result<Thumbnail, NotMade>) {
        let columns = match stored {
            Ok(thumbnail) => columns_of_thumbnail(&thumbnail),
            Err(error) => {
                tracing::warn!(
                    event = "thumbnail_not_stored",
                    cause = chain(&error),
                    image.id = id.as_str(),
                    "an image has no thumbnail; front ends show the image itself"
                );
                if !matches!(error, NotMade::Undecodable) {
                    return;
                }
                columns_without_thumbnail()
            }
        };
        let noted = match self.index.add(id, columns).await {
            // The image was deleted while its thumbnail was made. A deletion removes the row before it moves the
            // thumbnail, so one of both sees the other.
            Ok(false) => self.thumbnails.container().delete(&thumbnails::blob_name(id.as_str())).await,
            added => added.map(drop),
        };
        if let Err(error) = noted {
            tracing::warn!(
                event = "thumbnail_not_noted",
                cause = chain(&error),
                image.id = id.as_str(),
                "the thumbnail of an image could not be noted in the index; it is noted after the next pass"
            );
        }
    }

    /// Makes thumbnails until the future is dropped.
    pub(crate) async fn keep_making_thumbnails(&self, now: Now<'_>) {
        tokio::join!(self.keep_making_queued_thumbnails(now), self.keep_making_missing_thumbnails(now));
    }

    async fn keep_making_queued_thumbnails(&self, now: Now<'_>) {
        loop {
            let Waiting { id, name, image, .. } = self.thumbnails.queue.next().await;
            match image {
                Some(image) => {
                    let made = self.thumbnails.of_image(id.as_str(), image).await;
                    self.note_thumbnail(&id, made).await;
                }
                None => self.make_thumbnail(&id, &name, now()).await,
            }
        }
    }

    /// Makes and notes the thumbnail of an image in the container.
    async fn make_thumbnail(&self, id: &ImageId, name: &str, now: OffsetDateTime) {
        let made = match self.links(now).await {
            Ok(links) => self.thumbnails.of_link(id.as_str(), &links.to(name)).await,
            Err(error) => Err(error.into()),
        };
        self.note_thumbnail(id, made).await;
    }

    /// Makes missing thumbnails after each pass over the container.
    async fn keep_making_missing_thumbnails(&self, now: Now<'_>) {
        let mut passes = self.index.passes.subscribe();
        loop {
            if passes.changed().await.is_err() {
                return;
            }
            if let Err(error) = self.make_missing_thumbnails(now).await {
                tracing::warn!(
                    event = "backfill_failed",
                    cause = chain(&error),
                    "missing thumbnails could not be made; it is tried again after the next pass"
                );
            }
        }
    }

    /// Reads all rows, newest first, and makes the thumbnails that are missing.
    async fn make_missing_thumbnails(&self, now: Now<'_>) -> Result<(), Error> {
        let mut after = None;
        loop {
            let page = self.index.scan(&THUMBNAIL_STATE, after.as_ref()).await?;
            for (row, columns) in page.rows.iter().filter(|(_, columns)| !Row::has_thumbnail_state(columns)) {
                let (Some(id), Some(name)) = (ImageId::parse(row), columns.get(NAME_COLUMN)) else { continue };
                self.make_thumbnail(&id, name, now()).await;
                tokio::time::sleep(PAUSE).await;
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }
}
