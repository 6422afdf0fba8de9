//! Draws and stores the image of an accepted request.
//!
//! The app pays from the call to the provider on. So the work goes on if the caller disconnects.

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
use super::records::RECORDED_WITHIN;
use super::recover::{log_loss, log_rejection};
use super::report;
use super::spool::{SpooledEnd, SpooledImage};
use crate::config::PromptEnhancement;
use crate::gallery::{Details, Gallery};
use crate::logs::chain;
use crate::openai::{self, ImageRequest};
use crate::prompts::enhance::{self, EnhanceOptions, EnhancedPrompt};
use crate::spending::QuotaStatus;

/// A request that waits longer for its draw permit is refused.
const LONGEST_WAIT: Duration = Duration::from_secs(20);
/// Pauses between the tries to save an image that is neither in the spool nor in the gallery.
const UNSAVED_PAUSES_SECONDS: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];

/// The input for one call to the provider.
pub(super) struct Work<'a> {
    pub(super) order: &'a Order,
    pub(super) image_request: &'a ImageRequest,
    pub(super) enhance_options: EnhanceOptions,
}

impl Generations {
    /// Starts to draw an admitted request in the background. The task goes on without watchers.
    pub(crate) fn start(self: &Arc<Self>, admitted: Admitted) -> watch::Receiver<Progress> {
        let (reporter, held) = self.hold(Progress::new(Arc::clone(&admitted.plan.order)));
        let progress = reporter.watch();
        let running = Arc::clone(self);
        let run = async move {
            let _held = held;
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
        // Without quota, budget and key, nothing can refuse the request. The draw starts without the table.
        if order.in_quota || order.in_budget || order.in_caller_budget || key.is_some() {
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
            // If this fails, `end` inserts the record.
            let accept = async move {
                if accepting.records.accept(&generation, None, accepting.now(), Patience::Endless).await.is_ok() {
                    reporter.accepted(None);
                }
            };
            self.tasks.spawn(accept.in_current_span());
            self.note_added();
        }
        let result = self.draw_safely(&work, enhanced, reporter).await;
        drop((draw_permit, queue_permit, request_permit));
        self.conclude(&generation, &attempt, result, key.is_some(), reporter).await;
    }

    /// Records the outcome of a generation and reports it to the watchers. A stored image without an
    /// idempotency key is reported first; with a key, the next request must find the record.
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
        if !answers_at_once && let Ok(written) = tokio::time::timeout(RECORDED_WITHIN, &mut end).await {
            (quota_status, is_written) = (written, true);
        }
        reporter.ended(Ended::of_result(result, quota_status));
        if !is_written {
            // The woken request runs on this thread next. It answers before the record is written.
            tokio::task::yield_now().await;
            end.await;
        }
    }

    /// Records the outcome of a generation that this process has drawn, without a time limit. After
    /// [`RECORDED_WITHIN`] the spool keeps the outcome, in case the process dies first. Returns the
    /// caller's quota status.
    pub(super) async fn end(
        &self,
        generation: &Generation,
        attempt: &Attempt,
        outcome: Outcome,
    ) -> Option<QuotaStatus> {
        let (id, address) = (&generation.order.image_id, &generation.order.address);
        let (is_stored, is_later) =
            (matches!(outcome, Outcome::Stored { .. }), matches!(outcome, Outcome::StoredLater { .. }));
        if matches!(outcome, Outcome::Lost(_)) {
            log_loss(id);
        }
        let mut end = Box::pin(self.records.end(generation, attempt, outcome.clone()));
        let mut is_spooled = false;
        let ended = match tokio::time::timeout(RECORDED_WITHIN, &mut end).await {
            Ok(ended) => ended,
            Err(_) => {
                // `StoredLater` needs no file of its own: its image is in the spool.
                if !is_later {
                    let entry = SpooledEnd { address: address.clone(), attempt: attempt.clone(), outcome };
                    let put = self.spool.put_end(id, &entry).await;
                    if let Err(error) = &put {
                        tracing::error!(
                            event = "outcome_not_spooled",
                            cause = chain(error),
                            image.id = id,
                            "an outcome could not be put into the spool; only this process has it until it is recorded"
                        );
                    }
                    is_spooled = put.is_ok();
                }
                end.await
            }
        };
        if let Err(error) = &ended
            && error.is_rejected
        {
            log_rejection(id, error);
        } else if let Err(error) = &ended {
            tracing::error!(
                event = "outcome_not_recorded",
                cause = chain(error),
                image.id = id,
                "the outcome of a generation could not be recorded; recovery or a sweep records it later"
            );
            self.leave_behind(id);
            return None;
        }
        let removed = if is_spooled {
            self.spool.remove_end(id).await
        } else if is_stored {
            self.spool.remove(id).await
        } else {
            Ok(())
        };
        if let Err(error) = removed {
            tracing::error!(
                event = "spool_entry_not_removed",
                cause = chain(&error),
                image.id = id,
                "a spool entry could not be removed; the next process that uses this folder removes it"
            );
        }
        ended.ok().flatten()
    }

    /// Checks that the spool has room, then enhances the prompt.
    pub(super) async fn enhance(&self, work: &Work<'_>) -> Result<EnhancedPrompt, Error> {
        self.spool.check_room().await?;
        let limit = work.image_request.prompt_limit();
        let Order { caller, prompt, .. } = work.order;
        Ok(enhance::enhance(&self.text_model, caller, prompt, work.enhance_options, limit, self.moderation).await)
    }

    /// Draws and stores an image, and turns a panic into [`Error::Panicked`], so that each generation ends.
    pub(super) async fn draw_safely(
        &self,
        work: &Work<'_>,
        enhanced: EnhancedPrompt,
        reporter: &Reporter,
    ) -> Result<Outcome, Error> {
        let started = Instant::now();
        let drawn = AssertUnwindSafe(self.draw_and_store(work, enhanced, reporter)).catch_unwind().await;
        let result = drawn.unwrap_or_else(|_| {
            // The image may be in the spool; recovery uploads it from there.
            self.leave_behind(&work.order.image_id);
            Err(Error::Panicked)
        });
        let cause = result.as_ref().err().map(|error| chain(error));
        report::log(work.order, outcome_of(&result).as_ref(), cause, started.elapsed());
        result
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
            // The provider may have refused the rewritten prompt only. A refusal costs nothing, so the draw
            // is repeated with the caller's prompt and the style's keywords.
            enhanced = enhance::styled(&order.prompt, *enhance_options, image_request.prompt_limit());
            drawn = self.openai.draw(&image_request.with_prompt(&enhanced.prompt), &show).await;
        }
        let drawn = drawn?;
        reporter.phase(Phase::Saving);
        if let Some(spec) = image_request.spec(&drawn.model) {
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
            // The time of the image, not of the request: the gallery lists the newest image first.
            created_at: self.now(),
            cost,
            caller: Some(order.caller.clone()),
        };
        self.store(&drawn.image, SpooledImage { address: order.address.clone(), details }).await
    }

    /// Puts an image into the spool and uploads it to the gallery, both at the same time: the disk is much faster, and
    /// the upload need not wait for it.
    async fn store(&self, image: &crate::image::Image, entry: SpooledImage) -> Result<Outcome, Error> {
        let details = &entry.details;
        let (mut stored, mut spooled) = tokio::join!(self.upload(image, details), self.spool.put(image, &entry));
        if let Err(error) = &spooled {
            tracing::error!(
                event = "image_not_spooled",
                cause = chain(error),
                image.id = details.id,
                "a drawn image could not be put into the spool; it is uploaded directly"
            );
        }
        for seconds in UNSAVED_PAUSES_SECONDS {
            if spooled.is_ok() || stored.is_ok() {
                break;
            }
            // Only this process has the image, so a wait is better than a loss.
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            spooled = self.spool.put(image, &entry).await;
            stored = self.upload(image, details).await;
        }
        match stored {
            Ok(stored) => {
                self.spool.stored(&details.id);
                Ok(Outcome::Stored { stored: Box::new(stored), cost: details.cost.clone() })
            }
            Err(error) if spooled.is_ok() => {
                tracing::error!(
                    event = "image_not_uploaded",
                    cause = chain(&error),
                    image.id = details.id,
                    "a drawn image could not be uploaded; recovery retries the upload from the spool"
                );
                self.leave_behind(&details.id);
                let cost = details.cost.clone();
                Ok(Outcome::StoredLater { name: Gallery::name(image, details), model: details.model.clone(), cost })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Releases an image in the spool to recovery, and wakes recovery.
    pub(super) fn leave_behind(&self, id: &str) {
        self.spool.leave(id);
        self.left_behind.notify_one();
    }
}

/// The outcome to record for a result; `None` for an error before the generation began.
fn outcome_of(result: &Result<Outcome, Error>) -> Option<Outcome> {
    match result {
        Ok(outcome) => Some(outcome.clone()),
        Err(error) => error.failure().map(super::outcome::Failure::into_outcome),
    }
}
