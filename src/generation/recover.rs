//! Recovery: uploads the images in the spool and records the outcomes in it. Such entries come from
//! processes that have died, and from uploads and writes that have failed.

use std::time::Duration;

use super::batch::GaveUp;
use super::commit::Patience;
use super::generations::Generations;
use super::outcome::Outcome;
use super::record::{Address, Event, Generation, State};
use super::spool::{self, SpooledImage};
use super::steps::Advanced;
use crate::azure;
use crate::image::Image;
use crate::logs::chain;

/// The pause between tries while entries are left; it doubles with each try.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const WRITTEN_WITHIN: Patience = Patience::For(Duration::from_secs(10));

impl Generations {
    /// Recovers entries until the future is dropped.
    pub(crate) async fn keep_recovering(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            // An empty folder is checked again, too: another process that uses it may die at any time.
            let left = self.recover_all().await;
            let wait = if left { pause } else { LONGEST_PAUSE };
            pause = if left { (pause * 2).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.left_behind.notified() => pause = FIRST_PAUSE,
            }
        }
    }

    /// Tries once to recover each entry. Returns whether any entry is left.
    pub(crate) async fn recover_all(&self) -> bool {
        let (images, ends) = match tokio::join!(self.spool.left_behind(), self.spool.ends_left_behind()) {
            (Ok(images), Ok(ends)) => (images, ends),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(
                    event = "spool_unreadable",
                    cause = chain(&error),
                    "the spool folder could not be read; recovery tries again"
                );
                return true;
            }
        };
        let mut left = false;
        for id in images {
            left |= self.recover(&id).await;
        }
        for id in ends {
            left |= self.recover_outcome(&id).await;
        }
        left
    }

    /// Tries once to recover an image. Returns whether it is left.
    async fn recover(&self, id: &str) -> bool {
        let (image, entry) = match self.spool.get(id).await {
            Ok(Some(entry)) => entry,
            // Another process has recovered it.
            Ok(None) => return false,
            Err(error @ spool::Error::Damaged) => {
                tracing::error!(
                    event = "spool_file_damaged",
                    cause = chain(&error),
                    image.id = id,
                    "a spool file is damaged; it is left where it is"
                );
                self.spool.pass_over(id);
                return false;
            }
            Err(error) => {
                tracing::error!(
                    event = "spooled_image_unreadable",
                    cause = chain(&error),
                    image.id = id,
                    "an image in the spool could not be read; recovery tries again"
                );
                return true;
            }
        };
        if self.upload_and_record(&image, &entry).await.is_none() {
            return true;
        }
        is_left(id, self.spool.remove(id).await)
    }

    /// Uploads an image and records it, if its record exists; `None` if this must be tried again. Two
    /// processes may upload the same image: the gallery compares the ids and keeps one.
    async fn upload_and_record(&self, image: &Image, entry: &SpooledImage) -> Option<()> {
        let (details, id) = (&entry.details, &entry.details.id);
        let stored = match self.upload_again(image, details).await {
            Ok(stored) => Box::new(stored),
            Err(error) => {
                tracing::warn!(
                    event = "spooled_image_not_uploaded",
                    cause = chain(&error),
                    image.id = id,
                    "an image in the spool could not be uploaded; recovery tries again"
                );
                return None;
            }
        };
        let found = Event::Found(Outcome::Stored { stored, cost: details.cost.clone() });
        match self.records.advance(&entry.address, found, WRITTEN_WITHIN).await {
            Ok(_) => Some(()),
            Err(error) if error.is_rejected => {
                log_rejection(id, &error);
                Some(())
            }
            Err(error) => {
                tracing::warn!(
                    event = "recovered_image_not_recorded",
                    cause = chain(&error),
                    image.id = id,
                    "a recovered image could not be recorded; it is tried again"
                );
                None
            }
        }
    }

    /// Tries once to record an outcome. Returns whether it is left.
    async fn recover_outcome(&self, id: &str) -> bool {
        let end = match self.spool.get_end(id).await {
            Ok(Some(end)) => end,
            Ok(None) => return false,
            Err(error) => {
                tracing::error!(
                    event = "spooled_outcome_unreadable",
                    cause = chain(&error),
                    image.id = id,
                    "an outcome in the spool could not be read; recovery tries again unless the file is damaged"
                );
                let is_damaged = matches!(error, spool::Error::Damaged);
                if is_damaged {
                    self.spool.pass_over(id);
                }
                return !is_damaged;
            }
        };
        let event = Event::End(end.attempt, end.outcome);
        let recorded = self.records.advance(&end.address, event, WRITTEN_WITHIN).await;
        if let Err(error) = &recorded
            && error.is_rejected
        {
            log_rejection(id, error);
        } else if let Err(error) = &recorded {
            tracing::warn!(
                event = "spooled_outcome_not_recorded",
                cause = chain(error),
                image.id = id,
                "an outcome in the spool could not be recorded; recovery tries again"
            );
            return true;
        }
        is_left(id, self.spool.remove_end(id).await)
    }

    /// Ends a drawing generation if its process has died. Returns the generation as it is then.
    ///
    /// # Errors
    /// The table, the spool or the gallery cannot be read or written.
    pub(super) async fn end_if_process_died(&self, generation: Generation) -> Result<Generation, azure::Error> {
        let State::Drawing(attempt) = &generation.state else { return Ok(generation) };
        let is_dead = if attempt.process == self.records.process() {
            !self.is_drawn_here(&generation.order.address)
        } else {
            self.records.is_dead(&attempt.process, self.now()).await?
        };
        if is_dead { self.end_of_dead_process(&generation).await } else { Ok(generation) }
    }

    /// Ends a generation whose process died while it drew: as stored if this spool or the gallery has the
    /// image, otherwise as lost.
    async fn end_of_dead_process(&self, generation: &Generation) -> Result<Generation, azure::Error> {
        let State::Drawing(attempt) = &generation.state else { return Ok(generation.clone()) };
        let (id, address) = (&generation.order.image_id, &generation.order.address);
        match self.spool.get(id).await {
            Ok(Some((image, entry))) => {
                self.upload_and_record(&image, &entry).await.ok_or(azure::Error::Unreachable)?;
                // Recovery removes the file.
                self.left_behind.notify_one();
                return self.reread(generation).await;
            }
            Ok(None) | Err(spool::Error::Damaged) => {}
            Err(_) => return Err(azure::Error::Unreachable),
        }
        let event =
            match self.gallery.find(id, &generation.order.prompt, generation.order.created_at, self.now()).await? {
                Some(stored) => {
                    // The process may have died before it added the image to the index.
                    self.gallery.add_to_index(&stored, &generation.order.prompt).await;
                    self.gallery.queue_thumbnail(&stored.name, None).await;
                    let cost = self.cost_of_found(&generation.order, &stored.model);
                    Event::Found(Outcome::Stored { stored: Box::new(stored), cost })
                }
                None => Event::Died(attempt.clone()),
            };
        let is_lost = matches!(event, Event::Died(_));
        let advanced = self.records.advance(address, event, WRITTEN_WITHIN).await.map_err(|gave_up| gave_up.cause)?;
        match advanced {
            Advanced::Done(now) => {
                if is_lost {
                    log_loss(id);
                }
                Ok(*now)
            }
            Advanced::Refused(now) => Ok(*now),
            Advanced::Unknown => Ok(generation.clone()),
        }
    }

    async fn reread(&self, generation: &Generation) -> Result<Generation, azure::Error> {
        let address: &Address = &generation.order.address;
        Ok(self.records.get(address).await?.unwrap_or_else(|| generation.clone()))
    }
}

/// Whether a recovered entry is still in the spool, because it could not be removed.
fn is_left(id: &str, removed: Result<(), spool::Error>) -> bool {
    if let Err(error) = &removed {
        tracing::error!(
            event = "spool_entry_not_removed",
            cause = chain(error),
            image.id = id,
            "a recovered entry could not be removed from the spool; recovery tries again"
        );
    }
    removed.is_err()
}

/// Logs an outcome that is not tried again, because the table rejects it. The sweep ends the generation later, with
/// the image in the gallery or as lost.
pub(super) fn log_rejection(image_id: &str, rejection: &GaveUp) {
    tracing::error!(
        event = "outcome_rejected",
        cause = chain(rejection),
        image.id = image_id,
        "the state table rejects the outcome of a generation; it is not tried again, and the sweep ends the generation"
    );
}

/// Logs a lost image, once for each image, because only the transition to lost calls this.
pub(super) fn log_loss(image_id: &str) {
    tracing::error!(
        event = "image_lost",
        image.id = image_id,
        "an image may have been drawn and billed and is lost; the provider's request log may know of it"
    );
}
