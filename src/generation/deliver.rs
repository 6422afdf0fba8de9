//! Delivery of jobs: handles the queue messages that the Functions host delivers.
//!
//! Each job that has not ended has a message in the queue. A delivery that cannot end its job puts a new
//! message into the queue before the host deletes the delivered one. The host counts failed deliveries;
//! after five it moves the message to the poison queue, and [`Generations::give_up`] ends the job.

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument as _;

use super::commit::Patience;
use super::draw::Work;
use super::error::Error;
use super::generations::Generations;
use super::message::Message;
use super::outcome::Failure;
use super::progress::{Phase, Progress};
use super::record::{Address, Event, Generation, State};
use super::steps::Advanced;
use crate::azure;
use crate::logs::chain;
use crate::prompts::enhance::{self, EnhanceOptions};

/// A job that waits longer than this fails.
pub(crate) const LONGEST_IN_QUEUE: Duration = Duration::from_secs(2 * 60 * 60);
/// A delivery answers the host before the host's limit of ten minutes, which would end the whole process
/// (`functionTimeout` in `host.json`). The draw goes on, and the next delivery finds it in progress.
const LONGEST_DELIVERY: Duration = Duration::from_secs(9 * 60);
/// How long a delivery waits for a draw permit.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// Pauses between reads of a missing record: the record is written right after the message.
const RECORD_PAUSES_MS: [u64; 5] = [50, 100, 200, 400, 800];
/// After this time a message without a record is dropped: its request was refused, or another app sent
/// the message.
const RECORD_WRITTEN_WITHIN: Duration = Duration::from_secs(5 * 60);
/// The delay until the next delivery of a job that another delivery draws.
const RECHECK_DELAY: Duration = Duration::from_secs(30);

/// A delivery that failed: the host delivers the message again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotDelivered {
    /// The record of the job does not exist yet.
    #[error("the record of a job does not exist yet")]
    Unknown,
    /// The table of the records cannot be read or written.
    #[error("the table of generation records cannot be read or written")]
    Records(#[source] azure::Error),
    /// A message could not be put into the queue.
    #[error("a message could not be put into the queue")]
    Queue(#[source] azure::Error),
    /// The delivery takes longer than the host allows; its work goes on.
    #[error("a delivery takes longer than the host allows; its work goes on")]
    TooLong,
    /// The delivery panicked.
    #[error("a delivery panicked")]
    Panicked,
}

impl Generations {
    /// Draws the job of a message. The work goes on if the host disconnects.
    ///
    /// # Errors
    /// [`NotDelivered`]; the host should deliver the message again.
    pub(crate) async fn deliver(self: &Arc<Self>, message: Message) -> Result<(), NotDelivered> {
        let delivering = Arc::clone(self);
        let delivery = async move { delivering.deliver_once(message).await }.in_current_span();
        match tokio::time::timeout(LONGEST_DELIVERY, self.tasks.spawn(delivery)).await {
            Ok(delivered) => delivered.unwrap_or(Err(NotDelivered::Panicked)),
            Err(_) => Err(NotDelivered::TooLong),
        }
    }

    /// Ends a job whose message is in the poison queue, because all of its deliveries have failed.
    ///
    /// # Errors
    /// The end could not be recorded.
    pub(crate) async fn give_up(self: &Arc<Self>, message: Message) -> Result<(), NotDelivered> {
        let Some(found) = self.records.get(&message.job).await.map_err(NotDelivered::Records)? else { return Ok(()) };
        tracing::error!(
            event = "job_given_up",
            image.id = found.order.image_id,
            "all deliveries of a job have failed; unless its image is found, the job ends without one"
        );
        if let State::Drawing(_) = found.state
            && self.end_if_process_died(found).await.map_err(NotDelivered::Records)?.outcome().is_none()
        {
            return self.requeue(message, RECHECK_DELAY).await;
        }
        self.end_undrawn(&message.job, Failure::GivenUp).await
    }

    async fn deliver_once(self: Arc<Self>, message: Message) -> Result<(), NotDelivered> {
        let Some(generation) = self.find(&message).await? else {
            tracing::warn!(event = "orphan_message_dropped", "a queue message belongs to no job; it is dropped");
            return Ok(());
        };
        match generation.state {
            State::Ended { .. } => Ok(()),
            State::Queued => self.draw_queued(message, generation).await,
            State::Drawing(_) => {
                let generation = self.end_if_process_died(generation).await.map_err(NotDelivered::Records)?;
                if generation.outcome().is_some() { Ok(()) } else { self.requeue(message, RECHECK_DELAY).await }
            }
        }
    }

    /// Reads the record of a message's job; `None` if the record will never exist.
    async fn find(&self, message: &Message) -> Result<Option<Generation>, NotDelivered> {
        let mut pauses = RECORD_PAUSES_MS.into_iter();
        loop {
            let found = self.records.get(&message.job).await.map_err(NotDelivered::Records)?;
            if found.is_some() {
                return Ok(found);
            }
            if message.accepted_at + RECORD_WRITTEN_WITHIN <= self.now() {
                return Ok(None);
            }
            let pause = pauses.next().ok_or(NotDelivered::Unknown)?;
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
    }

    /// Draws a job in state `Queued`.
    async fn draw_queued(self: &Arc<Self>, message: Message, generation: Generation) -> Result<(), NotDelivered> {
        let (order, address) = (&generation.order, &generation.order.address);
        if order.created_at + LONGEST_IN_QUEUE <= self.now() {
            return self.end_undrawn(address, Failure::TooOld).await;
        }
        let enhance_options =
            EnhanceOptions { enhancement: order.enhancement, style: order.style.as_deref().and_then(enhance::named) };
        let image_request = match self.openai.plan(&order.prompt, &order.options) {
            Ok(image_request)
                if !(order.in_budget || order.in_caller_budget)
                    || self.most_cost(&image_request, enhance::added_bytes(order.enhancement)) <= order.most_cost =>
            {
                image_request
            }
            // The settings have changed since the job was accepted.
            Ok(_) | Err(_) => return self.end_undrawn(address, Failure::Outdated).await,
        };
        let work = Work { order, image_request: &image_request, enhance_options };
        let begun = async {
            self.openai.check()?;
            let draw_permit = self.admission.acquire_draw_permit(LONGEST_WAIT).await?;
            Ok::<_, Error>((draw_permit, self.enhance(&work).await?))
        };
        let (draw_permit, enhanced) = match begun.await {
            Ok(begun) => begun,
            Err(error) => return self.retry_later(message, &error).await,
        };
        let attempt = self.records.new_attempt();
        let (reporter, _here) = self.hold(Progress::queued(Arc::new(order.clone()), None));
        match self.records.begin(address, &attempt, self.now()).await {
            Ok(Advanced::Done(_)) => {}
            // The job was cancelled or has ended.
            Ok(Advanced::Refused(found)) if found.outcome().is_some() => return Ok(()),
            // Another delivery draws it.
            Ok(Advanced::Refused(..)) => return self.requeue(message, RECHECK_DELAY).await,
            Ok(Advanced::Unknown) => return Ok(()),
            Err(gave_up) => {
                if gave_up.may_be_written {
                    self.spawn_advance(address.clone(), Event::PutBack(attempt));
                }
                return Err(NotDelivered::Records(gave_up.cause));
            }
        }
        let generation = Generation { state: State::Drawing(attempt.clone()), ..generation.clone() };
        let result = self.draw_safely(&work, enhanced, &reporter).await;
        drop(draw_permit);
        if let Err(error) = &result
            && error.is_passing()
        {
            // The new message comes first, so that the job always has one. If this fails, the host delivers
            // the old message again.
            let requeued = self.retry_later(message, error).await;
            reporter.phase(Phase::Queued);
            self.advance(address, Event::PutBack(attempt)).await;
            return requeued;
        }
        if let Err(error) = &result {
            tracing::warn!(
                event = "job_ended_without_image",
                cause = chain(error),
                image.id = order.image_id,
                "a job ended without an image"
            );
        }
        self.conclude(&generation, &attempt, result, true, &reporter).await;
        Ok(())
    }

    /// Requeues a job after a temporary failure, with a delay that doubles with each try.
    async fn retry_later(&self, message: Message, error: &Error) -> Result<(), NotDelivered> {
        let wanted = match error {
            Error::Provider(error) => error.retry_after().unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let delay = message.delay().max(wanted).min(LONGEST_IN_QUEUE);
        tracing::warn!(
            event = "job_delayed",
            cause = chain(error),
            delay_s = delay.as_secs(),
            "a job could not be drawn now; it is tried again after the delay"
        );
        self.requeue(Message { tries: message.tries + 1, ..message }, delay).await
    }

    async fn requeue(&self, message: Message, delay: Duration) -> Result<(), NotDelivered> {
        let queue = self.queue.as_ref().ok_or(NotDelivered::Queue(azure::Error::Unreachable))?;
        queue.put(&message.text(), delay).await.map_err(NotDelivered::Queue)
    }

    /// Ends a job before any call to the provider.
    async fn end_undrawn(&self, address: &Address, failure: Failure) -> Result<(), NotDelivered> {
        let ended = self.records.advance(address, Event::GiveUp(failure), Patience::Endless).await;
        ended.map(drop).map_err(|gave_up| NotDelivered::Records(gave_up.cause))
    }

    /// Records an event, without a time limit.
    pub(super) async fn advance(&self, address: &Address, event: Event) {
        if let Err(error) = self.records.advance(address, event, Patience::Endless).await {
            tracing::error!(
                event = "job_state_not_recorded",
                cause = chain(&error),
                "a job could not be put back; the next delivery or a sweep may end it as lost"
            );
        }
    }

    /// Records an event in the background.
    fn spawn_advance(self: &Arc<Self>, address: Address, event: Event) {
        let writing = Arc::clone(self);
        self.tasks.spawn(async move { writing.advance(&address, event).await }.in_current_span());
    }

    /// Cancels a job in state `Queued`.
    ///
    /// # Errors
    /// The table cannot be read or written; the job may be cancelled or not.
    pub(crate) async fn cancel(&self, address: &Address) -> Result<Advanced, azure::Error> {
        let cancelled = self.records.advance(address, Event::Cancel, Patience::For(Duration::from_secs(10))).await;
        cancelled.map_err(|gave_up| gave_up.cause)
    }
}
