//! Notes thumbnails in the index, and makes those that are missing: of images that others put into the container, and of
//! those whose process died.

use std::time::Duration;

use super::id::ImageId;
use super::reconcile::Now;
use super::row::{NAME_COLUMN, Row, THUMBNAIL_STATE, columns_of_thumbnail, columns_without_thumbnail};
use super::thumbnail::Thumbnail;
use super::thumbnails::NotMade;
use super::{Error, Gallery};
use crate::logs::chain;

/// The pause between two missing thumbnails: 20 a minute.
const PAUSE: Duration = Duration::from_secs(3);

impl Gallery {
    /// Adds the result of making a thumbnail to the image's row. An image that cannot be decoded is not tried again.
    pub(crate) async fn note_thumbnail(&self, id: &ImageId, stored: Result<Thumbnail, NotMade>) {
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
        if let Err(error) = self.index.add(id, columns).await {
            tracing::warn!(
                event = "thumbnail_not_noted",
                cause = chain(&error),
                image.id = id.as_str(),
                "the thumbnail of an image could not be noted in the index; it is noted after the next pass"
            );
        }
    }

    /// Makes and notes the thumbnail of an image in the container.
    pub(crate) async fn make_thumbnail(&self, id: &ImageId, name: &str, now: time::OffsetDateTime) {
        let made = match self.links(now).await {
            Ok(links) => self.thumbnails.of_link(id.as_str(), &links.to(name)).await,
            Err(error) => Err(error.into()),
        };
        self.note_thumbnail(id, made).await;
    }

    /// Makes missing thumbnails after each pass over the container, until the future is dropped.
    pub(crate) async fn keep_making_thumbnails(&self, now: Now<'_>) {
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
