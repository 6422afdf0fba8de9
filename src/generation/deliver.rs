//! The queue's side of a job: what a delivery of its message does.
//!
//! A job that has not ended has a message, so it never waits for nobody: a delivery that cannot end
//! it puts a new message into the queue before its own is deleted. The host counts deliveries whose
//! process died; after five it gives the message to [`Generations::give_up`].

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

/// A job that has not been drawn by then fails.
pub(crate) const LONGEST_IN_QUEUE: Duration = Duration::from_secs(2 * 60 * 60);
/// The host ends a delivery, and the whole process with it, after ten minutes. The work goes on
/// without its delivery; the next one finds that out.
const LONGEST_DELIVERY: Duration = Duration::from_secs(9 * 60);
/// How long a delivery waits for a turn.
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// A message may come before its record, which is written right after it.
const RECORD_PAUSES_MS: [u64; 5] = [50, 100, 200, 400, 800];
/// A message without a record is one of a request that was refused, or of another app.
const RECORD_WRITTEN_WITHIN: Duration = Duration::from_secs(5 * 60);
/// Between looks at a job that another delivery draws.
const LOOKED_AFTER: Duration = Duration::from_secs(30);

/// A delivery that failed: the host delivers the message again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotDelivered {
    /// There is no record yet.
    #[error("the record of a job is not there yet")]
    Unknown,
    /// The records cannot be reached.
    #[error("the records of generations cannot be reached")]
    Records(#[source] azure::Error),
    /// The queue cannot be reached.
    #[error("the queue cannot be reached")]
    Queue(#[source] azure::Error),
    /// It takes too long, and goes on.
    #[error("a delivery takes too long")]
    TooLong,
    /// It panicked.
    #[error("a delivery panicked")]
    Panicked,
}

impl Generations {
    /// Draws the job that a message has come for. Goes on when the host leaves.
    ///
    /// # Errors
    /// Another delivery may do better.
    pub(crate) async fn deliver(self: &Arc<Self>, message: Message) -> Result<(), NotDelivered> {
        let delivering = Arc::clone(self);
        let delivery = async move { delivering.deliver_once(message).await }.in_current_span();
        match tokio::time::timeout(LONGEST_DELIVERY, self.tasks.spawn(delivery)).await {
            Ok(delivered) => delivered.unwrap_or(Err(NotDelivered::Panicked)),
            Err(_) => Err(NotDelivered::TooLong),
        }
    }

    /// Ends a job whose deliveries have all failed.
    ///
    /// # Errors
    /// Its end could not be written.
    pub(crate) async fn give_up(self: &Arc<Self>, message: Message) -> Result<(), NotDelivered> {
        let Some(found) = self.records.get(&message.job).await.map_err(NotDelivered::Records)? else { return Ok(()) };
        if let State::Drawing(_) = found.state
            && self.end_if_process_died(found).await.map_err(NotDelivered::Records)?.outcome().is_none()
        {
            return self.put_back(message, LOOKED_AFTER).await;
        }
        self.refuse(&message.job, Failure::GivenUp).await
    }

    async fn deliver_once(self: Arc<Self>, message: Message) -> Result<(), NotDelivered> {
        let Some(generation) = self.find(&message).await? else {
            tracing::warn!("a message in the queue is about no job; it is dropped");
            return Ok(());
        };
        match generation.state {
            State::Ended { .. } => Ok(()),
            State::Queued => self.take_up(message, generation).await,
            State::Drawing(_) => {
                let generation = self.end_if_process_died(generation).await.map_err(NotDelivered::Records)?;
                if generation.outcome().is_some() { Ok(()) } else { self.put_back(message, LOOKED_AFTER).await }
            }
        }
    }

    /// The record of a message's job; `None` where there will be none.
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

    /// Draws a job that nobody draws.
    async fn take_up(self: &Arc<Self>, message: Message, generation: Generation) -> Result<(), NotDelivered> {
        let (order, address) = (&generation.order, &generation.order.address);
        if order.created_at + LONGEST_IN_QUEUE <= self.now() {
            return self.refuse(address, Failure::TooOld).await;
        }
        let enhance_options =
            EnhanceOptions { enhancement: order.enhancement, style: order.style.as_deref().and_then(enhance::named) };
        let image_request = match self.openai.plan(&order.prompt, &order.options) {
            Ok(image_request)
                if !order.in_budget
                    || self.most_cost(&image_request, enhance::added_bytes(order.enhancement)) <= order.most_cost =>
            {
                image_request
            }
            // The model, its price or the settings have changed since.
            Ok(_) | Err(_) => return self.refuse(address, Failure::Outdated).await,
        };
        let work = Work { order, image_request: &image_request, enhance_options };
        let begun = async {
            self.openai.check()?;
            let draw_permit = self.admission.acquire_draw_permit(LONGEST_WAIT).await?;
            Ok::<_, Error>((draw_permit, self.enhance(&work).await?))
        };
        let (draw_permit, enhanced) = match begun.await {
            Ok(begun) => begun,
            Err(error) => return self.put_off(message, &error).await,
        };
        let attempt = self.records.new_attempt();
        let (reporter, _here) = self.hold(Progress::queued(Arc::new(order.clone()), None));
        match self.records.begin(address, &attempt, self.now()).await {
            Ok(Advanced::Done(_)) => {}
            // It was cancelled, or another delivery has it.
            Ok(Advanced::Refused(found)) if found.outcome().is_some() => return Ok(()),
            Ok(Advanced::Refused(..)) => return self.put_back(message, LOOKED_AFTER).await,
            Ok(Advanced::Unknown) => return Ok(()),
            Err(gave_up) => {
                if gave_up.may_be_written {
                    self.put_back_later(address.clone(), Event::PutBack(attempt));
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
            // The message first: a job without one would wait for nobody. Where that fails, the host
            // delivers this one again.
            let put_off = self.put_off(message, error).await;
            reporter.phase(Phase::Queued);
            self.advance(address, Event::PutBack(attempt)).await;
            return put_off;
        }
        if let Err(error) = &result {
            tracing::warn!(cause = chain(error), "a job ended without an image");
        }
        self.conclude(&generation, &attempt, result, true, &reporter).await;
        Ok(())
    }

    /// Puts a job off that something is in the way of, for longer each time.
    async fn put_off(&self, message: Message, error: &Error) -> Result<(), NotDelivered> {
        let wanted = match error {
            Error::Provider(error) => error.retry_after().unwrap_or_default(),
            _ => Duration::ZERO,
        };
        let delay = message.delay().max(wanted).min(LONGEST_IN_QUEUE);
        tracing::warn!(cause = chain(error), delay_s = delay.as_secs(), "a job is put off");
        self.put_back(Message { tries: message.tries + 1, ..message }, delay).await
    }

    async fn put_back(&self, message: Message, delay: Duration) -> Result<(), NotDelivered> {
        let queue = self.queue.as_ref().ok_or(NotDelivered::Queue(azure::Error::Unreachable))?;
        queue.put(&message.text(), delay).await.map_err(NotDelivered::Queue)
    }

    /// Ends a job that nobody has asked the provider for.
    async fn refuse(&self, address: &Address, failure: Failure) -> Result<(), NotDelivered> {
        let refused = self.records.advance(address, Event::GiveUp(failure), Patience::Endless).await;
        refused.map(drop).map_err(|gave_up| NotDelivered::Records(gave_up.cause))
    }

    /// Writes an event, however long that takes.
    pub(super) async fn advance(&self, address: &Address, event: Event) {
        if let Err(error) = self.records.advance(address, event, Patience::Endless).await {
            tracing::error!(cause = chain(&error), "the state of a generation could not be recorded");
        }
    }

    fn put_back_later(self: &Arc<Self>, address: Address, event: Event) {
        let writing = Arc::clone(self);
        self.tasks.spawn(async move { writing.advance(&address, event).await }.in_current_span());
    }

    /// Cancels a job that has not begun.
    ///
    /// # Errors
    /// It is not known whether it is.
    pub(crate) async fn cancel(&self, address: &Address) -> Result<Advanced, azure::Error> {
        let cancelled = self.records.advance(address, Event::Cancel, Patience::For(Duration::from_secs(10))).await;
        cancelled.map_err(|gave_up| gave_up.cause)
    }
}
