//! Has an image drawn and stored. It is paid from the moment the provider is asked, so from there on
//! everything goes on when the caller has left.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tracing::Instrument as _;

use super::accept::{Admitted, NotBegun, Plan};
use super::commit::Patience;
use super::error::{Ended, Error};
use super::generations::Generations;
use super::outcome::Outcome;
use super::progress::{Phase, Progress, Reporter};
use super::record::{Attempt, Generation, Order, State};
use super::spool::{SpooledEnd, SpooledImage};
use crate::config::PromptEnhancement;
use crate::gallery::{Details, Gallery};
use crate::logs::chain;
use crate::openai::{self, ImageRequest};
use crate::prompts::enhance::{self, EnhanceOptions, EnhancedPrompt};
use crate::spending::QuotaStatus;

/// A request that waits longer for its turn is refused.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// Between tries to save an image that could not be put into the spool.
const UNSAFE_PAUSES_SECONDS: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];
/// An answer that is better with its end written waits so long for that; an end that takes longer is
/// kept in the spool, too.
const END_WITHIN: Duration = Duration::from_secs(5);

/// What the provider is asked for.
pub(super) struct Work<'a> {
    pub(super) order: &'a Order,
    pub(super) image_request: &'a ImageRequest,
    pub(super) enhance_options: EnhanceOptions,
}

impl Generations {
    /// Has an admitted request drawn. Goes on to its end when nobody watches.
    pub(crate) fn start(self: &Arc<Self>, admitted: Admitted) -> watch::Receiver<Progress> {
        let (reporter, here) = self.hold(Progress::new(Arc::clone(&admitted.plan.order)));
        let progress = reporter.watch();
        let running = Arc::clone(self);
        let run = async move {
            let _here = here;
            running.run(admitted, &reporter).await;
        };
        self.tasks.spawn(run.in_current_span());
        progress
    }

    async fn run(self: &Arc<Self>, admitted: Admitted, reporter: &Reporter) {
        let Admitted { plan, queue_permit, request_permit } = admitted;
        let draw_permit = match self.admission.acquire_draw_permit(LONGEST_WAIT).await {
            Ok(draw_permit) => draw_permit,
            Err(busy) => return reporter.ended(Error::from(busy).into()),
        };
        let Plan { order, image_request, enhance_options, key } = plan;
        let work = Work { order: &order, image_request: &image_request, enhance_options };
        let enhanced = match self.enhance(&work).await {
            Ok(enhanced) => enhanced,
            Err(error) => return reporter.ended(error.into()),
        };
        let attempt = self.records.new_attempt();
        let generation = Generation { order: (*order).clone(), state: State::Drawing(attempt.clone()) };
        // Without a limit nothing can refuse it, so the provider does not wait for the table.
        if order.in_quota || order.in_budget || key.is_some() {
            match self.accept(&generation, key.as_ref()).await {
                Ok(quota_status) => reporter.accepted(quota_status),
                Err(NotBegun::Before(found)) => {
                    let ended = found.outcome().map(Ended::of_record);
                    return reporter.ended(ended.unwrap_or_else(|| Error::KeyInProgress.into()));
                }
                Err(NotBegun::Error(error)) => return reporter.ended(error.into()),
                Err(NotBegun::Unknown(error)) => {
                    drop((draw_permit, queue_permit, request_permit));
                    reporter.ended(error.into());
                    self.withdraw(&generation).await;
                    return;
                }
            }
        } else {
            let (accepting, generation, reporter) = (Arc::clone(self), generation.clone(), reporter.clone());
            // Its end inserts the record where this does not.
            let accept = async move {
                if accepting.records.accept(&generation, None, accepting.now(), Patience::Endless).await.is_ok() {
                    reporter.accepted(None);
                }
            };
            self.tasks.spawn(accept);
            self.note_added();
        }
        let result = self.draw_safely(&work, enhanced, reporter).await;
        drop((draw_permit, queue_permit, request_permit));
        self.conclude(&generation, &attempt, result, key.is_some(), reporter).await;
    }

    /// Writes how a generation ended, and says it: at once where an image is stored, unless the next
    /// request with the same key should find it.
    pub(super) async fn conclude(
        self: &Arc<Self>,
        generation: &Generation,
        attempt: &Attempt,
        result: Result<Outcome, Error>,
        has_key: bool,
        reporter: &Reporter,
    ) {
        let Some(outcome) = outcome_of(&result) else { return reporter.ended(Ended::of_result(result, None)) };
        let answers_at_once = !has_key && matches!(outcome, Outcome::Stored { .. });
        let mut end = Box::pin(self.end(generation, attempt, outcome));
        let mut quota_status = None;
        let mut is_written = false;
        if !answers_at_once && let Ok(written) = tokio::time::timeout(END_WITHIN, &mut end).await {
            (quota_status, is_written) = (written, true);
        }
        reporter.ended(Ended::of_result(result, quota_status));
        if !is_written {
            end.await;
        }
    }

    /// Writes how a generation ended that this process has drawn, however long that takes. What should
    /// outlive the process meanwhile is in the spool.
    pub(super) async fn end(
        &self,
        generation: &Generation,
        attempt: &Attempt,
        outcome: Outcome,
    ) -> Option<QuotaStatus> {
        let (id, address) = (&generation.order.image_id, &generation.order.address);
        let (is_stored, is_later) =
            (matches!(outcome, Outcome::Stored { .. }), matches!(outcome, Outcome::StoredLater { .. }));
        let mut end = Box::pin(self.records.end(generation, attempt, outcome.clone()));
        let mut is_kept = false;
        let ended = match tokio::time::timeout(END_WITHIN, &mut end).await {
            Ok(ended) => ended,
            Err(_) => {
                // An image that is to be stored is in the spool, with its end.
                if !is_later {
                    let entry = SpooledEnd { address: address.clone(), attempt: attempt.clone(), outcome };
                    is_kept = self.spool.put_end(id, &entry).await.is_ok();
                }
                end.await
            }
        };
        if let Err(error) = &ended {
            tracing::error!(cause = chain(error), image.id = id, "the end of a generation could not be recorded");
            return None;
        }
        let removed = if is_kept {
            self.spool.remove_end(id).await
        } else if is_stored {
            self.spool.remove(id).await
        } else {
            Ok(())
        };
        if let Err(error) = removed {
            tracing::error!(cause = chain(&error), image.id = id, "an entry of the spool cannot be removed");
        }
        ended.ok().flatten()
    }

    /// The prompt to be sent, if there is room for what comes back.
    pub(super) async fn enhance(&self, work: &Work<'_>) -> Result<EnhancedPrompt, Error> {
        self.spool.check_room().await?;
        let limit = work.image_request.prompt_limit();
        Ok(enhance::enhance(&self.openai, &work.order.prompt, work.enhance_options, limit, self.moderation).await)
    }

    /// Draws and stores. A panic must not leave a generation without an end.
    pub(super) async fn draw_safely(
        &self,
        work: &Work<'_>,
        enhanced: EnhancedPrompt,
        reporter: &Reporter,
    ) -> Result<Outcome, Error> {
        let image_request = AssertUnwindSafe(self.draw_and_store(work, enhanced, reporter)).catch_unwind().await;
        image_request.unwrap_or_else(|_| {
            // An image that reached the spool is recovered from there.
            self.leave_behind(&work.order.image_id);
            Err(Error::Panicked)
        })
    }

    async fn draw_and_store(
        &self,
        work: &Work<'_>,
        mut enhanced: EnhancedPrompt,
        reporter: &Reporter,
    ) -> Result<Outcome, Error> {
        let Work { order, image_request, enhance_options } = work;
        reporter.phase(Phase::Drawing);
        let started = Instant::now();
        let show = |index, image| reporter.preview(index, image);
        let mut drawn = self.openai.draw(&image_request.with_prompt(&enhanced.prompt), &show).await;
        if matches!(drawn, Err(openai::Error::PromptRefused(_))) && enhanced.enhancement == PromptEnhancement::Rewrite {
            // The user did not write what was refused. A refusal is not billed.
            enhanced = enhance::styled(&order.prompt, *enhance_options, image_request.prompt_limit());
            drawn = self.openai.draw(&image_request.with_prompt(&enhanced.prompt), &show).await;
        }
        let drawn = drawn?;
        reporter.phase(Phase::Saving);
        if let Some(spec) = image_request.specs().next() {
            self.estimates.note(spec.model, spec.size, started.elapsed());
        }
        let cost = self.cost(order, image_request, &drawn.model, drawn.usage);
        let details = Details {
            id: order.image_id.clone(),
            prompt: order.prompt.clone(),
            final_prompt: Some(enhanced.prompt).filter(|sent| sent != order.prompt.as_str()),
            enhancement: enhanced.enhancement,
            revised_prompt: drawn.revised_prompt,
            model: drawn.model,
            size: drawn.size,
            quality: drawn.quality,
            // The time of the image and not of the request, so that the newest image is listed first.
            created_at: self.now(),
            caller: order.caller.clone(),
            cost,
        };
        self.store(&drawn.image, SpooledImage { address: order.address.clone(), details }).await
    }

    /// Puts an image into the spool, then into the gallery.
    async fn store(&self, image: &crate::image::Image, entry: SpooledImage) -> Result<Outcome, Error> {
        let details = &entry.details;
        let mut safe = self.spool.put(image, &entry).await;
        if let Err(error) = &safe {
            tracing::error!(cause = chain(error), "an image could not be put into the spool; it is uploaded without");
        }
        let mut stored = self.gallery.store(image, details).await;
        for seconds in UNSAFE_PAUSES_SECONDS {
            if safe.is_ok() || stored.is_ok() {
                break;
            }
            // It is nowhere but in this process, so waiting is worth it.
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            safe = self.spool.put(image, &entry).await;
            stored = self.gallery.store(image, details).await;
        }
        match stored {
            Ok(stored) => {
                self.spool.stored(&details.id);
                Ok(Outcome::Stored { stored: Box::new(stored), cost: details.cost.clone() })
            }
            Err(error) if safe.is_ok() => {
                tracing::error!(
                    cause = chain(&error),
                    image.id = details.id,
                    "an image could not be stored; it is tried again"
                );
                self.leave_behind(&details.id);
                let cost = details.cost.clone();
                Ok(Outcome::StoredLater { name: Gallery::name(image, details), model: details.model.clone(), cost })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Lets go of an image in the spool, which is recovered then.
    pub(super) fn leave_behind(&self, id: &str) {
        self.spool.leave(id);
        self.left_behind.notify_one();
    }
}

/// What a record says of that end; `None` where no generation was begun.
fn outcome_of(result: &Result<Outcome, Error>) -> Option<Outcome> {
    match result {
        Ok(outcome) => Some(outcome.clone()),
        Err(error) => error.failure().map(super::outcome::Failure::into_outcome),
    }
}
