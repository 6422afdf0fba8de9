//! The operations on records. Each one is a step of a transaction, which changes the generation's state,
//! its idempotency key, the caller's quota and the app's budget together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use time::OffsetDateTime;

use super::batch::GaveUp;
use super::commit::{Committer, Patience};
use super::outcome::{Failure, Outcome};
use super::record::{Address, Attempt, Event, Generation, Order, State, Via};
use super::rows::{KeyRow, LeaseRow, Row, RowKey, Work};
use super::steps::{Advanced, IdempotencyKey, NotAccepted, accept, advance, is_drawing, withdrawal, withdrawn};
use super::store::Store;
use crate::azure::{self, Table};
use crate::caller::Caller;
use crate::lock::locked;
use crate::spending::{CallerTotals, Day, DayTotals, Limits, QuotaStatus, Refusal};

/// How long a caller waits for the table. Four seconds were too short on a busy machine.
pub(crate) const ACCEPTED_WITHIN: Patience = Patience::For(Duration::from_secs(10));
/// The longest time that an answer waits until the outcome is recorded. An outcome that takes longer
/// goes into the spool, too.
pub(crate) const RECORDED_WITHIN: Duration = Duration::from_secs(5);
/// Callers whose remaining quota is remembered.
const MAX_REMEMBERED_CALLERS: usize = 1_000;
/// The duration of a process's lease. After the lease and [`CLOCK_SKEW`], the process counts as dead.
pub(crate) const PROCESS_LEASE: Duration = Duration::from_secs(60);
/// How often a drawing process renews its lease.
pub(crate) const RENEWED_EVERY: Duration = Duration::from_secs(15);
/// The largest clock difference between two processes that is tolerated.
const CLOCK_SKEW: Duration = Duration::from_secs(15);

/// The records of an app, and the writer of this process.
#[derive(Debug)]
pub(crate) struct Records<S = Table> {
    pub(super) committer: Committer<S>,
    limits: Limits,
    /// The end of this process's lease, as last written.
    alive_until: Arc<Mutex<OffsetDateTime>>,
    /// The day whose budget has refused an image. From then on, `check` reads that budget.
    exhausted_day: Mutex<Option<Day>>,
    /// Callers with quota left after their last acceptance, and the day of that. `check` reads the table
    /// for all other callers.
    callers_with_quota: Mutex<HashMap<Caller, Day>>,
}

impl<S: Store> Records<S> {
    pub(crate) fn new(committer: Committer<S>, limits: Limits) -> Self {
        Self {
            committer,
            limits,
            alive_until: Arc::new(Mutex::new(OffsetDateTime::UNIX_EPOCH)),
            exhausted_day: Mutex::default(),
            callers_with_quota: Mutex::default(),
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The id of this process.
    pub(crate) fn process(&self) -> &str {
        self.committer.process()
    }

    /// A new attempt of this process, with a random id.
    pub(crate) fn new_attempt(&self) -> Attempt {
        Attempt { process: self.process().to_owned(), id: format!("{:032x}", fastrand::u128(..)) }
    }

    /// Accepts a generation: inserts its record and reserves its quota and budget. Returns the caller's
    /// quota status, or why the generation is not accepted.
    ///
    /// # Errors
    /// [`GaveUp`]. If the record may be written, [`Self::withdraw`] must end it.
    pub(crate) async fn accept(
        &self,
        generation: &Generation,
        key: Option<&IdempotencyKey>,
        now: OffsetDateTime,
        patience: Patience,
    ) -> Result<Result<Option<QuotaStatus>, NotAccepted>, GaveUp> {
        let (limits, lease) = (self.limits, self.due_lease(now).filter(|_| is_drawing(generation)));
        let (day, caller) = (generation.order.address.day(), generation.order.caller.clone());
        let (generation, key, renewed) = (generation.clone(), key.cloned(), lease.clone());
        let (answer, alert) = self
            .committer
            .step(patience, move |view| {
                let (accepted, alert) = accept(view, &generation, key.as_ref(), &limits, now);
                if let (Ok(_), Some(lease)) = (&accepted, &lease) {
                    view.set_process(lease.clone());
                }
                (accepted, alert)
            })
            .await?;
        match &answer {
            Ok(quota_status) => {
                self.renewed(renewed);
                self.remember(caller, day, *quota_status);
            }
            Err(NotAccepted::Refused(Refusal::QuotaExceeded(quota_status))) => {
                self.remember(caller, day, Some(*quota_status));
            }
            Err(NotAccepted::Refused(
                Refusal::RefusalsExceeded | Refusal::JobsExceeded | Refusal::CallerBudgetReached,
            )) => self.remember(caller, day, None),
            Err(NotAccepted::Refused(_)) => *locked(&self.exhausted_day) = Some(day),
            Err(NotAccepted::KeyUsed(_) | NotAccepted::GivenUp) => {}
        }
        if let Some(alert) = alert {
            self.limits.log(alert);
        }
        Ok(answer)
    }

    /// Checks whether quota and budget allow one more image, which costs at most `most_cost` millionths of
    /// a US dollar. Cached data may allow the image, because [`Self::accept`] checks again. Only a fresh
    /// read refuses it.
    ///
    /// # Errors
    /// The table cannot be read.
    pub(crate) async fn check(&self, order: &Order, day: Day) -> Result<Result<(), Refusal>, azure::Error> {
        let Order { caller, most_cost, via, .. } = order;
        if self.limits.check_callers() && locked(&self.callers_with_quota).get(caller) != Some(&day) {
            let totals = self.caller(caller, day).await?;
            let refused = self.limits.check_caller(&totals, *most_cost, *via == Via::Queue, day);
            if refused.is_err() {
                return Ok(refused);
            }
        }
        if *locked(&self.exhausted_day) != Some(day) {
            return Ok(Ok(()));
        }
        let totals = match self.read(&RowKey::Day(day)).await? {
            Some(Row::Day(totals)) => totals,
            _ => DayTotals::default(),
        };
        let checked = self.limits.check_budget(&totals, *most_cost);
        // A refusal with an alert is left to `accept`, which records and logs the alert once.
        let has_alert = self.limits.alert(&totals, checked).is_some();
        Ok(if has_alert { Ok(()) } else { checked })
    }

    /// Reads the quota status of a caller; `None` if there is no quota.
    ///
    /// # Errors
    /// The table cannot be read.
    pub(crate) async fn quota_status(&self, caller: &Caller, day: Day) -> Result<Option<QuotaStatus>, azure::Error> {
        if self.limits.daily_images == 0 {
            return Ok(None);
        }
        Ok(self.limits.quota_status(self.caller(caller, day).await?.used, day))
    }

    async fn caller(&self, caller: &Caller, day: Day) -> Result<CallerTotals, azure::Error> {
        Ok(match self.read(&RowKey::Caller(day, caller.clone())).await? {
            Some(Row::Caller(totals)) => totals,
            _ => CallerTotals::default(),
        })
    }

    /// Finds the generation of an idempotency key; `None` if the key is free.
    ///
    /// # Errors
    /// The table cannot be read.
    pub(crate) async fn find_key(
        &self,
        key: &IdempotencyKey,
        now: OffsetDateTime,
    ) -> Result<Option<(KeyRow, Generation)>, azure::Error> {
        let Some(Row::Key(row)) = self.read(&RowKey::Key(key.digest.clone())).await? else { return Ok(None) };
        if !row.is_current(now) {
            return Ok(None);
        }
        let found = self.get(&row.address).await?.filter(|generation| !generation.is_void());
        Ok(found.map(|generation| (row, generation)))
    }

    async fn read(&self, key: &RowKey) -> Result<Option<Row>, azure::Error> {
        let found = self.committer.store().get_for_caller(&key.text()).await?;
        found.map(|(columns, _)| key.read(&columns)).transpose()
    }

    /// Reads a record; `None` if it does not exist.
    ///
    /// # Errors
    /// The table cannot be read.
    pub(crate) async fn get(&self, address: &Address) -> Result<Option<Generation>, azure::Error> {
        match self.read(&RowKey::Generation(address.clone())).await? {
            Some(Row::Generation(generation)) => Ok(Some(*generation)),
            _ => Ok(None),
        }
    }

    /// Records that an attempt is about to call the provider.
    ///
    /// # Errors
    /// [`GaveUp`]. If the event may be written, [`Event::PutBack`] must follow.
    pub(crate) async fn begin(
        &self,
        address: &Address,
        attempt: &Attempt,
        now: OffsetDateTime,
    ) -> Result<Advanced, GaveUp> {
        let lease = self.due_lease(now);
        let renewed = lease.clone();
        let (address, event) = (address.clone(), Event::Begin(attempt.clone()));
        let advanced = self
            .committer
            .step(ACCEPTED_WITHIN, move |view| {
                let advanced = advance(view, &address, &event);
                if let (Advanced::Done(_), Some(lease)) = (&advanced, &lease) {
                    view.set_process(lease.clone());
                }
                advanced
            })
            .await?;
        if matches!(advanced, Advanced::Done(_)) {
            self.renewed(renewed);
        }
        Ok(advanced)
    }

    /// Applies an event to a record.
    ///
    /// # Errors
    /// [`GaveUp`]; with endless patience only if the process stops, a row is malformed, the table rejects the
    /// step or the writer panics.
    pub(crate) async fn advance(
        &self,
        address: &Address,
        event: Event,
        patience: Patience,
    ) -> Result<Advanced, GaveUp> {
        let address = address.clone();
        self.committer.step(patience, move |view| advance(view, &address, &event)).await
    }

    /// Ends a generation that this process has drawn, and returns the caller's quota status. A missing
    /// record is inserted in its final state.
    ///
    /// # Errors
    /// As for [`Self::advance`] with endless patience.
    pub(crate) async fn end(
        &self,
        drawing: &Generation,
        attempt: &Attempt,
        outcome: Outcome,
    ) -> Result<Option<QuotaStatus>, GaveUp> {
        self.end_within(drawing, attempt, outcome, Patience::Endless).await
    }

    /// Records a prompt that the moderation flagged. Nothing was paid, so the write is given up in time.
    ///
    /// # Errors
    /// The table does not answer.
    pub(crate) async fn refuse(&self, order: Order) -> Result<(), GaveUp> {
        let attempt = self.new_attempt();
        let flagged = Generation { order, state: State::Drawing(attempt.clone()) };
        let outcome = Outcome::NotDrawn(Failure::PromptRefused);
        self.end_within(&flagged, &attempt, outcome, Patience::For(RECORDED_WITHIN)).await.map(drop)
    }

    async fn end_within(
        &self,
        drawing: &Generation,
        attempt: &Attempt,
        outcome: Outcome,
        patience: Patience,
    ) -> Result<Option<QuotaStatus>, GaveUp> {
        if self.limits.daily_refusals > 0 && outcome == Outcome::NotDrawn(Failure::PromptRefused) {
            // The caller's next request reads how many prompts were refused.
            locked(&self.callers_with_quota).remove(&drawing.order.caller);
        }
        let (drawing, event, limits) = (drawing.clone(), Event::End(attempt.clone(), outcome), self.limits);
        self.committer
            .step(patience, move |view| {
                let order = &drawing.order;
                let (day, caller) = (order.address.day(), &order.caller);
                if let Advanced::Unknown = advance(view, &order.address, &event)
                    && let Ok(ended) = drawing.advance(&event)
                {
                    view.record(None, &ended);
                }
                if limits.daily_images > 0 { limits.quota_status(view.caller(day, caller).used, day) } else { None }
            })
            .await
    }

    /// Ends a generation whose acceptance has an unknown result and whose provider was not called. A
    /// missing record gets a tombstone, on which a late transaction fails. A job that a delivery has
    /// begun goes on. Returns the generation as it is then.
    ///
    /// # Errors
    /// As for [`Self::advance`] with endless patience.
    pub(crate) async fn withdraw(&self, generation: &Generation) -> Result<Generation, GaveUp> {
        let generation = generation.clone();
        self.committer
            .step(Patience::Endless, move |view| {
                match advance(view, &generation.order.address, &withdrawal(&generation)) {
                    Advanced::Done(now) | Advanced::Refused(now) => *now,
                    Advanced::Unknown => {
                        let tombstone = withdrawn(&generation);
                        view.record(None, &tombstone);
                        tombstone
                    }
                }
            })
            .await
    }

    /// Renews the lease of this process.
    ///
    /// # Errors
    /// [`GaveUp`].
    pub(crate) async fn renew(&self, now: OffsetDateTime) -> Result<(), GaveUp> {
        let lease = LeaseRow { process: self.process().to_owned(), until: now + PROCESS_LEASE };
        let renewed = lease.clone();
        self.committer.step(ACCEPTED_WITHIN, move |view| view.set_process(lease.clone())).await?;
        self.renewed(Some(renewed));
        Ok(())
    }

    /// Whether a process has died: it has no lease, or its lease expired more than [`CLOCK_SKEW`] ago.
    ///
    /// # Errors
    /// The table cannot be read.
    pub(crate) async fn is_dead(&self, process: &str, now: OffsetDateTime) -> Result<bool, azure::Error> {
        match self.read(&RowKey::Process(process.to_owned())).await? {
            Some(Row::Process(lease)) => Ok(lease.until + CLOCK_SKEW <= now),
            _ => Ok(true),
        }
    }

    /// Takes the lease of this work unless another process holds it. Returns whether this process has it.
    ///
    /// # Errors
    /// [`GaveUp`].
    pub(crate) async fn take_lease(&self, work: Work, now: OffsetDateTime, time: Duration) -> Result<bool, GaveUp> {
        let mine = LeaseRow { process: self.process().to_owned(), until: now + time };
        self.committer
            .step(ACCEPTED_WITHIN, move |view| {
                let is_free = view.lease(work).is_none_or(|lease| lease.process == mine.process || lease.until <= now);
                if is_free {
                    view.set_lease(work, mine.clone());
                }
                is_free
            })
            .await
    }

    /// Remembers whether a caller has quota left.
    fn remember(&self, caller: Caller, day: Day, quota_status: Option<QuotaStatus>) {
        let mut callers = locked(&self.callers_with_quota);
        if callers.len() >= MAX_REMEMBERED_CALLERS {
            callers.clear();
        }
        if quota_status.is_some_and(|quota_status| quota_status.remaining() > 0) {
            callers.insert(caller, day);
        } else {
            callers.remove(&caller);
        }
    }

    /// The renewed lease of this process, to write along with a record; `None` if it is not due.
    fn due_lease(&self, now: OffsetDateTime) -> Option<LeaseRow> {
        let is_due = *locked(&self.alive_until) < now + PROCESS_LEASE - RENEWED_EVERY;
        is_due.then(|| LeaseRow { process: self.process().to_owned(), until: now + PROCESS_LEASE })
    }

    /// Remembers the end of a lease that was written.
    fn renewed(&self, lease: Option<LeaseRow>) {
        if let Some(lease) = lease {
            *locked(&self.alive_until) = lease.until;
        }
    }
}

impl Records<Table> {
    /// The table, for queries over several rows.
    pub(crate) fn table(&self) -> &Table {
        self.committer.store()
    }
}
