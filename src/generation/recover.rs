//! Brings what is in the spool to the gallery and into the records: what a process left behind that
//! has died, and what could not be written when it happened.

use std::time::Duration;

use super::commit::Patience;
use super::generations::Generations;
use super::outcome::Outcome;
use super::record::{Address, Event, Generation, State};
use super::spool::{self, SpooledImage};
use super::steps::Advanced;
use crate::azure;
use crate::image::Image;
use crate::logs::chain;

/// Between tries while something is left; doubled each time.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const WRITTEN_WITHIN: Patience = Patience::For(Duration::from_secs(10));

impl Generations {
    /// Recovers until it is dropped.
    pub(crate) async fn keep_recovering(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            // Another process on the same folder may die at any time, so an empty one is looked at, too.
            let left = self.recover_all().await;
            pause = if left { (pause * 2).min(LONGEST_PAUSE) } else { FIRST_PAUSE };
            let wait = if left { pause } else { LONGEST_PAUSE };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.left_behind.notified() => pause = FIRST_PAUSE,
            }
        }
    }

    /// One try for each entry; whether any is left.
    pub(crate) async fn recover_all(&self) -> bool {
        let (images, ends) = match tokio::join!(self.spool.left_behind(), self.spool.ends_left_behind()) {
            (Ok(images), Ok(ends)) => (images, ends),
            (Err(error), _) | (_, Err(error)) => {
                tracing::error!(cause = chain(&error), "the spool cannot be read");
                return true;
            }
        };
        let mut left = false;
        for id in images {
            left |= self.recover(&id).await;
        }
        for id in ends {
            left |= self.recover_end(&id).await;
        }
        left
    }

    /// One try for one image; whether it is left.
    async fn recover(&self, id: &str) -> bool {
        let (image, entry) = match self.spool.get(id).await {
            Ok(Some(entry)) => entry,
            // Another process was faster.
            Ok(None) => return false,
            Err(error @ spool::Error::Damaged) => {
                tracing::error!(cause = chain(&error), image.id = id, "a file in the spool is left where it is");
                self.spool.pass_over(id);
                return false;
            }
            Err(error) => {
                tracing::error!(cause = chain(&error), image.id = id, "an image in the spool cannot be read");
                return true;
            }
        };
        if self.store_after_all(&image, &entry).await.is_none() {
            return true;
        }
        if let Err(error) = self.spool.remove(id).await {
            tracing::error!(cause = chain(&error), image.id = id, "a stored image cannot be removed from the spool");
            return true;
        }
        false
    }

    /// Stores an image and writes that into its record, if it has one; `None` where that is to be
    /// tried again. Stored again by another process it is still one image: the gallery compares the id.
    async fn store_after_all(&self, image: &Image, entry: &SpooledImage) -> Option<()> {
        let (details, id) = (&entry.details, &entry.details.id);
        let stored = match self.gallery.store(image, details).await {
            Ok(stored) => Box::new(stored),
            Err(error) => {
                tracing::warn!(cause = chain(&error), image.id = id, "an image in the spool cannot be stored yet");
                return None;
            }
        };
        tracing::info!(image.id = id, "an image was stored after all");
        let found = Event::Found(Outcome::Stored { stored, cost: details.cost.clone() });
        match self.records.advance(&entry.address, found, WRITTEN_WITHIN).await {
            Ok(_) => Some(()),
            Err(error) => {
                tracing::warn!(
                    cause = chain(&error),
                    image.id = id,
                    "a recovered image could not be recorded; it is tried again"
                );
                None
            }
        }
    }

    /// One try for one end; whether it is left.
    async fn recover_end(&self, id: &str) -> bool {
        let end = match self.spool.get_end(id).await {
            Ok(Some(end)) => end,
            Ok(None) => return false,
            Err(error) => {
                tracing::error!(cause = chain(&error), image.id = id, "an end in the spool cannot be read");
                let is_damaged = matches!(error, spool::Error::Damaged);
                if is_damaged {
                    self.spool.pass_over(id);
                }
                return !is_damaged;
            }
        };
        let event = Event::End(end.attempt, end.outcome);
        if let Err(error) = self.records.advance(&end.address, event, WRITTEN_WITHIN).await {
            tracing::warn!(cause = chain(&error), image.id = id, "an end in the spool could not be recorded yet");
            return true;
        }
        self.spool.remove_end(id).await.is_err()
    }

    /// A generation as it is once its process is known to live or to have died: then it has ended.
    ///
    /// # Errors
    /// It is not known, or not known what it left.
    pub(super) async fn end_if_process_died(&self, generation: Generation) -> Result<Generation, azure::Error> {
        let State::Drawing(attempt) = &generation.state else { return Ok(generation) };
        let is_dead = if attempt.process == self.records.process() {
            !self.is_drawn_here(&generation.order.address)
        } else {
            self.records.is_dead(&attempt.process, self.now()).await?
        };
        if is_dead { self.end_of_dead_process(&generation).await } else { Ok(generation) }
    }

    /// Ends a generation whose process has died while the provider was asked: by its image, if that is
    /// in the spool here or in the gallery, else as lost.
    async fn end_of_dead_process(&self, generation: &Generation) -> Result<Generation, azure::Error> {
        let State::Drawing(attempt) = &generation.state else { return Ok(generation.clone()) };
        let (id, address) = (&generation.order.image_id, &generation.order.address);
        match self.spool.get(id).await {
            Ok(Some((image, entry))) => {
                self.store_after_all(&image, &entry).await.ok_or(azure::Error::Unreachable)?;
                // Whoever recovers removes it.
                self.left_behind.notify_one();
                return self.reread(generation).await;
            }
            Ok(None) | Err(spool::Error::Damaged) => {}
            Err(_) => return Err(azure::Error::Unreachable),
        }
        let event =
            match self.gallery.find(id, &generation.order.prompt, generation.order.created_at, self.now()).await? {
                Some((stored, cost)) => Event::Found(Outcome::Stored { stored: Box::new(stored), cost }),
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

/// Says once which image is lost.
fn log_loss(image_id: &str) {
    tracing::error!(
        image.id = image_id,
        "an image may have been drawn and billed, and is lost: the provider's log may know of it"
    );
}
