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
use super::spool::{EndEntry, Entry};
use crate::config::PromptEnhancement;
use crate::gallery::{Details, Gallery};
use crate::logs::chain;
use crate::openai::{self, Drawing};
use crate::prompts::director::{self, Directed, Direction};
use crate::spending::Standing;

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
    pub(super) drawing: &'a Drawing,
    pub(super) direction: Direction,
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
        let Admitted { plan, place, entry } = admitted;
        let turn = match self.admission.take_turn(LONGEST_WAIT).await {
            Ok(turn) => turn,
            Err(busy) => return reporter.ended(Error::from(busy).into()),
        };
        let Plan { order, drawing, direction, key } = plan;
        let work = Work { order: &order, drawing: &drawing, direction };
        let directed = match self.direct(&work).await {
            Ok(directed) => directed,
            Err(error) => return reporter.ended(error.into()),
        };
        let attempt = self.records.new_attempt();
        let generation = Generation { order: (*order).clone(), state: State::Drawing(attempt.clone()) };
        // Without a limit nothing can refuse it, so the provider does not wait for the table.
        if order.in_quota || order.in_budget || key.is_some() {
            match self.accept(&generation, key.as_ref()).await {
                Ok(standing) => reporter.let_in(standing),
                Err(NotBegun::Before(found)) => {
                    let ended = found.outcome().map(Ended::of_record);
                    return reporter.ended(ended.unwrap_or_else(|| Error::KeyInProgress.into()));
                }
                Err(NotBegun::Error(error)) => return reporter.ended(error.into()),
                Err(NotBegun::Unknown(error)) => {
                    drop((turn, place, entry));
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
                    reporter.let_in(None);
                }
            };
            self.tasks.spawn(accept);
            self.note_added();
        }
        let result = self.draw_safely(&work, directed, reporter).await;
        drop((turn, place, entry));
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
        let mut standing = None;
        let mut is_written = false;
        if !answers_at_once && let Ok(written) = tokio::time::timeout(END_WITHIN, &mut end).await {
            (standing, is_written) = (written, true);
        }
        reporter.ended(Ended::of_result(result, standing));
        if !is_written {
            end.await;
        }
    }

    /// Writes how a generation ended that this process has drawn, however long that takes. What should
    /// outlive the process meanwhile is in the spool.
    pub(super) async fn end(&self, generation: &Generation, attempt: &Attempt, outcome: Outcome) -> Option<Standing> {
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
                    let entry = EndEntry { address: address.clone(), attempt: attempt.clone(), outcome };
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
    pub(super) async fn direct(&self, work: &Work<'_>) -> Result<Directed, Error> {
        self.spool.check_room().await?;
        let limit = work.drawing.prompt_limit();
        Ok(director::direct(&self.openai, &work.order.prompt, work.direction, limit, self.moderation).await)
    }

    /// Draws and stores. A panic must not leave a generation without an end.
    pub(super) async fn draw_safely(
        &self,
        work: &Work<'_>,
        directed: Directed,
        reporter: &Reporter,
    ) -> Result<Outcome, Error> {
        let drawing = AssertUnwindSafe(self.draw_and_store(work, directed, reporter)).catch_unwind().await;
        drawing.unwrap_or_else(|_| {
            // An image that reached the spool is recovered from there.
            self.leave_behind(&work.order.image_id);
            Err(Error::Panicked)
        })
    }

    async fn draw_and_store(
        &self,
        work: &Work<'_>,
        mut directed: Directed,
        reporter: &Reporter,
    ) -> Result<Outcome, Error> {
        let Work { order, drawing, direction } = work;
        reporter.phase(Phase::Drawing);
        let started = Instant::now();
        let show = |index, image| reporter.preview(index, image);
        let mut drawn = self.openai.draw(&drawing.with_prompt(&directed.prompt), &show).await;
        if matches!(drawn, Err(openai::Error::PromptRefused(_))) && directed.enhancement == PromptEnhancement::Rewrite {
            // The user did not write what was refused. A refusal is not billed.
            directed = director::styled(&order.prompt, *direction, drawing.prompt_limit());
            drawn = self.openai.draw(&drawing.with_prompt(&directed.prompt), &show).await;
        }
        let drawn = drawn?;
        reporter.phase(Phase::Saving);
        if let Some(spec) = drawing.specs().next() {
            self.estimates.note(spec.model, spec.size, started.elapsed());
        }
        let cost = self.cost(order, drawing, &drawn.model, drawn.usage);
        let details = Details {
            id: order.image_id.clone(),
            prompt: order.prompt.clone(),
            final_prompt: Some(directed.prompt).filter(|sent| sent != order.prompt.as_str()),
            enhancement: directed.enhancement,
            revised_prompt: drawn.revised_prompt,
            model: drawn.model,
            size: drawn.size,
            quality: drawn.quality,
            // The time of the image and not of the request, so that the newest image is listed first.
            created_at: self.now(),
            caller: order.caller.clone(),
            cost,
        };
        self.store(&drawn.image, Entry { address: order.address.clone(), details }).await
    }

    /// Puts an image into the spool, then into the gallery.
    async fn store(&self, image: &crate::image::Image, entry: Entry) -> Result<Outcome, Error> {
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
