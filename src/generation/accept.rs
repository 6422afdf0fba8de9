//! Acceptance of a request: every check that can refuse it before the provider is called.

use std::sync::Arc;
use std::time::Duration;

use tracing::Instrument as _;

use super::admission::{QueuePermit, RequestPermit};
use super::error::Error;
use super::generations::Generations;
use super::message::Message;
use super::progress::Progress;
use super::record::{Address, Generation, Order, State, Via};
use super::records::ACCEPTED_WITHIN;
use super::rows::KeyRow;
use super::steps::{IdempotencyKey, NotAccepted};
use crate::azure;
use crate::caller::Caller;
use crate::logs::chain;
use crate::openai::{ImageOptions, ImageRequest};
use crate::prompt::Prompt;
use crate::prompts::enhance::{self, EnhanceOptions};
use crate::spending::{Day, QuotaStatus, Refusal};

/// The longest time that an answer waits for a withdrawal.
const WITHDRAWN_WITHIN: Duration = Duration::from_secs(5);

/// A job that waits longer for other jobs of its caller to be accepted is refused.
const LONGEST_WAIT: Duration = Duration::from_secs(20);

/// The request of a caller for one image.
#[derive(Debug)]
pub(crate) struct Request {
    /// The prompt as the caller typed it.
    pub(crate) prompt: String,
    /// Size, quality and the other image options.
    pub(crate) options: ImageOptions,
    /// How to enhance the prompt.
    pub(crate) enhance_options: EnhanceOptions,
    /// The caller.
    pub(crate) caller: Caller,
    /// The idempotency key, if the request has an Idempotency-Key header.
    pub(crate) key: Option<IdempotencyKey>,
}

/// A request whose prompt and image options are valid.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) order: Arc<Order>,
    pub(crate) image_request: ImageRequest,
    pub(crate) enhance_options: EnhanceOptions,
    pub(crate) key: Option<IdempotencyKey>,
}

/// The result of accepting a request.
#[derive(Debug)]
pub(crate) enum Accepted<T> {
    /// The request starts a new generation.
    New(T),
    /// The idempotency key leads to this earlier generation.
    Before(Address),
}

/// A request that this process may draw, with its permits.
#[derive(Debug)]
pub(crate) struct Admitted {
    pub(crate) plan: Plan,
    pub(crate) queue_permit: QueuePermit,
    pub(crate) request_permit: RequestPermit,
}

impl Generations {
    /// Checks a request with an open connection: permits, idempotency key, quota, budget and moderation.
    /// No reservation is made yet.
    ///
    /// # Errors
    /// Why the request is refused.
    pub(crate) async fn admit(&self, request: Request) -> Result<Accepted<Box<Admitted>>, Error> {
        let request_permit = self.admission.acquire_request_permit()?;
        let plan = self.plan(request, Via::Request)?;
        if let Some(address) = self.look(&plan).await? {
            return Ok(Accepted::Before(address));
        }
        let queue_permit = self.admission.acquire_queue_permit()?;
        self.moderate(&plan.order).await?;
        Ok(Accepted::New(Box::new(Admitted { plan, queue_permit, request_permit })))
    }

    /// Accepts a request as a job, or finds the generation of its idempotency key. The work goes on if the
    /// caller disconnects.
    ///
    /// # Errors
    /// Why no job was accepted.
    pub(crate) async fn accept_job(self: &Arc<Self>, request: Request) -> Result<Accepted<Progress>, Error> {
        let accepting = Arc::clone(self);
        let accepting = async move { accepting.accept_job_once(request).await };
        self.tasks.spawn(accepting.in_current_span()).await.unwrap_or(Err(Error::Panicked))
    }

    async fn accept_job_once(self: Arc<Self>, request: Request) -> Result<Accepted<Progress>, Error> {
        let _request_permit = self.admission.acquire_request_permit()?;
        // The permit comes before the look at the limits, so that a later job sees what the earlier ones took.
        let _job_permit = self.admission.acquire_job_permit(&request.caller, LONGEST_WAIT).await?;
        let plan = self.plan(request, Via::Queue)?;
        if let Some(address) = self.look(&plan).await? {
            return Ok(Accepted::Before(address));
        }
        self.moderate(&plan.order).await?;
        let queue = self.queue.as_ref().ok_or(Error::NoQueue)?;
        // The message comes first, so that each record has one. A message without a record is dropped later.
        let message = Message::new(&plan.order.address, self.now());
        queue.put(&message.text(), Duration::ZERO).await.map_err(Error::QueueUnavailable)?;
        let generation = Generation { order: (*plan.order).clone(), state: State::Queued };
        match self.accept(&generation, plan.key.as_ref()).await {
            Ok(quota_status) => Ok(Accepted::New(Progress::queued(plan.order, quota_status))),
            Err(NotBegun::Before(found)) => Ok(Accepted::Before(found.order.address)),
            Err(NotBegun::Error(error)) => Err(error),
            Err(NotBegun::Unknown(error)) => {
                let withdrawing = Arc::clone(&self);
                let withdraw = async move { withdrawing.withdraw(&generation).await };
                let withdrawn = self.tasks.spawn(withdraw.in_current_span());
                match tokio::time::timeout(WITHDRAWN_WITHIN, withdrawn).await {
                    // The job was accepted after all, and a delivery has begun.
                    Ok(Ok(Some(found))) if !found.is_void() => Ok(Accepted::New(Progress::of_record(&found))),
                    _ => Err(error),
                }
            }
        }
    }

    /// Ends a generation whose acceptance has an unknown result, without a time limit. Returns the
    /// generation as it is then; `None` if the withdrawal failed.
    pub(super) async fn withdraw(&self, generation: &Generation) -> Option<Generation> {
        let withdrawn = self.records.withdraw(generation).await;
        if let Err(error) = &withdrawn {
            tracing::error!(
                event = "generation_not_withdrawn",
                cause = chain(error),
                image.id = generation.order.image_id,
                "a generation could not be withdrawn; if it was accepted, a delivery draws it or a sweep ends it"
            );
        }
        withdrawn.ok()
    }

    /// Writes the record of a new generation. Returns the caller's quota status.
    pub(super) async fn accept(
        &self,
        generation: &Generation,
        key: Option<&IdempotencyKey>,
    ) -> Result<Option<QuotaStatus>, NotBegun> {
        let now = self.now();
        match self.records.accept(generation, key, now, ACCEPTED_WITHIN).await {
            Ok(Ok(quota_status)) => {
                self.note_added();
                Ok(quota_status)
            }
            Ok(Err(NotAccepted::Refused(refusal))) => Err(self.refused(refusal, generation.order.address.day()).into()),
            Ok(Err(NotAccepted::KeyUsed(found))) => {
                let (row, found) = *found;
                // Another request with this key was accepted first.
                let fingerprint = key.map(|key| key.fingerprint.as_str()).unwrap_or_default();
                match answer_of_key(fingerprint, &row, &found) {
                    Ok(()) => Err(NotBegun::Before(Box::new(found))),
                    Err(error) => Err(error.into()),
                }
            }
            Ok(Err(NotAccepted::GivenUp)) => Err(Error::RecordsUnavailable(azure::Error::Unreachable).into()),
            Err(gave_up) => {
                let error = Error::RecordsUnavailable(gave_up.cause);
                Err(if gave_up.may_be_written { NotBegun::Unknown(error) } else { error.into() })
            }
        }
    }

    /// Validates a request and builds its order and its provider request. Sends nothing.
    fn plan(&self, request: Request, via: Via) -> Result<Plan, Error> {
        let Request { prompt, options, enhance_options, caller, key } = request;
        let prompt = Prompt::parse(&prompt)?;
        let image_request = self.openai.plan(&prompt, &options)?;
        self.ceiling.check(&self.openai, &prompt, &options, &image_request)?;
        let now = self.now();
        let image_id = format!("{:032x}", fastrand::u128(..));
        let limits = self.records.limits();
        let order = Order {
            address: self.address(&image_id, now),
            image_id,
            caller,
            prompt,
            options,
            enhancement: enhance_options.enhancement,
            style: enhance_options.style.map(|style| style.name.to_owned()),
            model: image_request.model().to_owned(),
            most_cost: self.most_cost(&image_request, enhance::added_bytes(enhance_options.enhancement)),
            in_budget: limits.daily_budget > 0,
            in_caller_budget: limits.daily_caller_cost > 0,
            in_quota: limits.daily_images > 0,
            via,
            created_at: now,
            estimate: self.estimate(&image_request).map(|estimate| estimate.as_secs_f64().ceil() as u64),
        };
        Ok(Plan { order: Arc::new(order), image_request, enhance_options, key })
    }

    /// Finds the generation of the request's idempotency key. Without one, checks the provider's state,
    /// quota and budget.
    async fn look(&self, plan: &Plan) -> Result<Option<Address>, Error> {
        if let Some(key) = &plan.key {
            let found = self.records.find_key(key, self.now()).await;
            let found = found.map_err(Error::KeyUnknown)?;
            if let Some((row, found)) = found {
                let found = self.end_if_process_died(found).await.map_err(Error::KeyUnknown)?;
                if !found.is_void() {
                    answer_of_key(&key.fingerprint, &row, &found)?;
                    return Ok(Some(row.address));
                }
            }
        }
        // A recently refused API key or an empty account fails at once, without another call.
        if plan.order.via == Via::Request {
            self.openai.check()?;
        }
        let order = &plan.order;
        let day = Day::of(order.created_at);
        match self.records.check(order, day).await {
            Ok(Ok(())) => Ok(None),
            Ok(Err(refusal)) => Err(self.refused(refusal, day)),
            Err(error) => Err(Error::RecordsUnavailable(error)),
        }
    }

    /// The error of a refused request. Once the budget is spent, no text is paid, either.
    fn refused(&self, refusal: Refusal, day: Day) -> Error {
        if refusal == Refusal::BudgetSpent {
            self.text_model.spending.stop(day);
        }
        Error::Refused(refusal, refusal.retry_after(day, self.now()))
    }

    /// Asks the provider's moderation about the prompt. Without a verdict the request goes on, because the
    /// provider checks the prompt again when it draws. A flagged prompt is recorded, because it counts
    /// against the caller's limit of refused prompts.
    async fn moderate(&self, order: &Order) -> Result<(), Error> {
        if !self.moderation {
            return Ok(());
        }
        match self.openai.moderate(&order.prompt).await {
            Ok(None) => Ok(()),
            Ok(Some(categories)) => {
                // No job was accepted, so it does not count as one.
                let order = Order { via: Via::Request, ..order.clone() };
                let recorded = self.records.refuse(order).await;
                if let Err(error) = &recorded {
                    tracing::warn!(
                        event = "refusal_not_recorded",
                        cause = chain(error),
                        "a flagged prompt could not be recorded; it does not count against its caller's limit"
                    );
                }
                self.note_added();
                Err(Error::Flagged(categories))
            }
            Err(error) => {
                tracing::warn!(
                    event = "moderation_failed",
                    cause = chain(&error),
                    "the prompt could not be moderated; the request goes on"
                );
                Ok(())
            }
        }
    }
}

/// Why a generation does not begin.
#[derive(Debug)]
pub(super) enum NotBegun {
    /// The idempotency key leads to this earlier generation.
    Before(Box<Generation>),
    /// The request is refused.
    Error(Error),
    /// The record may have been written. The generation must be withdrawn.
    Unknown(Error),
}

impl From<Error> for NotBegun {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Checks whether a request may be answered with the earlier generation of its idempotency key.
fn answer_of_key(fingerprint: &str, row: &KeyRow, found: &Generation) -> Result<(), Error> {
    if row.fingerprint != fingerprint {
        return Err(Error::KeyReused);
    }
    // A job can be watched. A request in progress is answered on its own connection.
    if found.order.via == Via::Request && found.outcome().is_none() {
        return Err(Error::KeyInProgress);
    }
    Ok(())
}
