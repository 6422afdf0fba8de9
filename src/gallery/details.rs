//! The details of one image, and the token with which its creator deletes it.

use serde::Serialize;
use time::OffsetDateTime;

use super::id::ImageId;
use super::pages::{Listed, PageLinks};
use super::row::Row;
use super::{Error, Gallery, found};
use crate::azure::Purpose;

/// All that is public of an image. What is unknown is absent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ImageDetails {
    #[serde(flatten)]
    listed: Listed,
    #[serde(skip_serializing_if = "String::is_empty")]
    final_prompt: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    revised_prompt: Option<String>,
    enhancement: &'static str,
    #[serde(skip_serializing_if = "String::is_empty")]
    model: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    size: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    quality: String,
    content_type: String,
    bytes: usize,
}

impl Gallery {
    /// The details of an image; `None` if there is no image with this id.
    ///
    /// # Errors
    /// The index or the container cannot be read.
    pub(crate) async fn details(&self, id: &ImageId, now: OffsetDateTime) -> Result<Option<ImageDetails>, Error> {
        let columns = self.index.columns(id).await?;
        let Some(mut row) = columns.and_then(|columns| Row::read(id.as_str(), &columns)) else { return Ok(None) };
        let Some(properties) = self.container.find(&row.name, Purpose::Caller).await? else { return Ok(None) };
        // The index has the beginning of the prompt only.
        if let Some(prompt) = super::decoded(&properties, "prompt") {
            row.prompt = Some(prompt);
        }
        let stored = found(row.name.clone(), &properties);
        Ok(Some(ImageDetails {
            listed: PageLinks::new(self, now).await?.listed(row),
            final_prompt: stored.final_prompt,
            revised_prompt: stored.revised_prompt,
            enhancement: stored.enhancement.name(),
            model: stored.model,
            size: stored.size,
            quality: stored.quality,
            content_type: stored.content_type,
            bytes: stored.bytes,
        }))
    }

    /// The token with which the creator of an image deletes it. It is derived from the id and a secret, so that it needs no
    /// storage and outlives a rebuilt index.
    pub(crate) fn delete_token(&self, id: &ImageId) -> String {
        self.digests.of(&[b"delete", id.as_str().as_bytes()])
    }

    /// Whether this is the token that deletes the image. The comparison of digests takes the same time for every wrong
    /// token.
    pub(crate) fn is_delete_token(&self, id: &ImageId, given: &[u8]) -> bool {
        self.digests.of(&[given]) == self.digests.of(&[self.delete_token(id).as_bytes()])
    }
}
