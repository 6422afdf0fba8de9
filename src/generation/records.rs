//! The steps that records take: each is one transaction, which moves a generation's state, its key,
//! the caller's quota and the app's money together.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use time::OffsetDateTime;

use super::batch::GaveUp;
use super::commit::{Committer, Patience, Store};
use super::outcome::Outcome;
use super::record::{Address, Attempt, Event, Generation};
use super::rows::{KeyRow, LeaseRow, Row, RowKey};
use super::steps::{Advanced, IdempotencyKey, NotAccepted, accept, advance, is_drawing, withdrawal, withdrawn};
use crate::azure::{self, Table};
use crate::caller::Caller;
use crate::lock::locked;
use crate::spending::{Day, DayTotals, Limits, QuotaStatus, Refusal};

/// How long a caller is kept waiting for the table. (Four seconds were too few on a busy machine.)
pub(crate) const ACCEPTED_WITHIN: Patience = Patience::For(Duration::from_secs(10));
/// Callers that are remembered.
const MAX_REMEMBERED: usize = 1_000;
/// How long a process counts as alive that does not say so again, and how often it does.
pub(crate) const PROCESS_LEASE: Duration = Duration::from_secs(60);
pub(crate) const RENEWED_EVERY: Duration = Duration::from_secs(15);
/// The clocks of two processes differ by less.
const CLOCK_SKEW: Duration = Duration::from_secs(15);

/// The records of an app, as one process writes them.
#[derive(Debug)]
pub(crate) struct Records<S = Table> {
    committer: Committer<S>,
    limits: Limits,
    /// Until when this process has said that it is alive.
    alive_until: Arc<Mutex<OffsetDateTime>>,
    /// The day whose budget has refused an image: it is looked at first from then on.
    tight: Mutex<Option<Day>>,
    /// Callers who had images left when they were last accepted, and on which day.
    free: Mutex<HashMap<Caller, Day>>,
}

impl<S: Store> Records<S> {
    pub(crate) fn new(committer: Committer<S>, limits: Limits) -> Self {
        Self {
            committer,
            limits,
            alive_until: Arc::new(Mutex::new(OffsetDateTime::UNIX_EPOCH)),
            tight: Mutex::default(),
            free: Mutex::default(),
        }
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// This process's id.
    pub(crate) fn process(&self) -> &str {
        self.committer.process()
    }

    /// A new attempt of this process.
    pub(crate) fn new_attempt(&self) -> Attempt {
        Attempt { process: self.process().to_owned(), id: format!("{:032x}", fastrand::u128(..)) }
    }

    /// Accepts a generation: inserts its record, and holds what it may use of quota and budget. How
    /// its caller stands then.
    ///
    /// # Errors
    /// [`GaveUp`] where nobody knows; then [`Self::withdraw`] ends what may have been written.
    pub(crate) async fn accept(
        &self,
        generation: &Generation,
        key: Option<&IdempotencyKey>,
        now: OffsetDateTime,
        patience: Patience,
    ) -> Result<Result<Option<QuotaStatus>, NotAccepted>, GaveUp> {
        let (limits, lease) = (self.limits, self.lease(now).filter(|_| is_drawing(generation)));
        let (day, caller) = (generation.order.address.day(), generation.order.caller.clone());
        let (generation, key, renewed) = (generation.clone(), key.cloned(), lease.clone());
        let answer = self
            .committer
            .step(patience, move |view| {
                let accepted = accept(view, &generation, key.as_ref(), &limits, now);
                if let (Ok(_), Some(lease)) = (&accepted, &lease) {
                    view.set_process(lease.clone());
                }
                accepted
            })
            .await?;
        match &answer {
            Ok((quota_status, _)) => {
                self.renewed(renewed);
                self.remember(caller, day, *quota_status);
            }
            Err((NotAccepted::Refused(Refusal::QuotaExceeded(quota_status)), _)) => {
                self.remember(caller, day, Some(*quota_status));
            }
            Err((NotAccepted::Refused(_), _)) => *locked(&self.tight) = Some(day),
            Err((NotAccepted::KeyUsed(_) | NotAccepted::GivenUp, _)) => {}
        }
        let (answer, alert) = match answer {
            Ok((quota_status, alert)) => (Ok(quota_status), alert),
            Err((error, alert)) => (Err(error), alert),
        };
        if let Some(alert) = alert {
            self.limits.log(alert);
        }
        Ok(answer)
    }

    /// Whether a caller may have one more image. What is remembered may say yes, because accepting
    /// looks again; only what is there now may say no.
    pub(crate) async fn check(
        &self,
        caller: &Caller,
        most_cost: u64,
        day: Day,
    ) -> Result<Result<(), Refusal>, azure::Error> {
        if self.limits.daily_images > 0 && locked(&self.free).get(caller) != Some(&day) {
            let refused = self.limits.check_quota(self.used(caller, day).await?, day);
            if refused.is_err() {
                return Ok(refused);
            }
        }
        if *locked(&self.tight) != Some(day) {
            return Ok(Ok(()));
        }
        let totals = match self.read(&RowKey::Day(day)).await? {
            Some(Row::Day(totals)) => totals,
            _ => DayTotals::default(),
        };
        Ok(self.limits.check_budget(&totals, most_cost))
    }

    /// How a caller stands; `None` without a quota.
    pub(crate) async fn quota_status(&self, caller: &Caller, day: Day) -> Result<Option<QuotaStatus>, azure::Error> {
        if self.limits.daily_images == 0 {
            return Ok(None);
        }
        Ok(self.limits.quota_status(self.used(caller, day).await?, day))
    }

    async fn used(&self, caller: &Caller, day: Day) -> Result<u32, azure::Error> {
        Ok(match self.read(&RowKey::Caller(day, caller.clone())).await? {
            Some(Row::Caller(totals)) => totals.used,
            _ => 0,
        })
    }

    /// The generation that a key stands for, unless the key is free.
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
        let found = self.committer.store().get(&key.text()).await?;
        found.map(|(columns, _)| key.read(&columns)).transpose()
    }

    /// Reads a record; `None` where there is none.
    ///
    /// # Errors
    /// It is not known.
    pub(crate) async fn get(&self, address: &Address) -> Result<Option<Generation>, azure::Error> {
        match self.read(&RowKey::Generation(address.clone())).await? {
            Some(Row::Generation(generation)) => Ok(Some(*generation)),
            _ => Ok(None),
        }
    }

    /// Says that an attempt is about to ask the provider.
    pub(crate) async fn begin(
        &self,
        address: &Address,
        attempt: &Attempt,
        now: OffsetDateTime,
    ) -> Result<Advanced, GaveUp> {
        let lease = self.lease(now);
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

    /// Advances a record.
    ///
    /// # Errors
    /// Not with endless patience.
    pub(crate) async fn advance(
        &self,
        address: &Address,
        event: Event,
        patience: Patience,
    ) -> Result<Advanced, GaveUp> {
        let address = address.clone();
        self.committer.step(patience, move |view| advance(view, &address, &event)).await
    }

    /// Ends a generation that this process has drawn; how its caller stands then. One that was never
    /// accepted is inserted as it ended.
    pub(crate) async fn end(
        &self,
        drawing: &Generation,
        attempt: &Attempt,
        outcome: Outcome,
    ) -> Result<Option<QuotaStatus>, GaveUp> {
        let (drawing, event, limits) = (drawing.clone(), Event::End(attempt.clone(), outcome), self.limits);
        self.committer
            .step(Patience::Endless, move |view| {
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

    /// Ends a generation that was given up before anybody was asked, whether its record was written,
    /// is not there yet, or never will be: a transaction that lands late fails on what this leaves.
    /// The generation as it is then: a job that a delivery has begun goes on.
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

    /// Says that this process is alive.
    pub(crate) async fn renew(&self, now: OffsetDateTime) -> Result<(), GaveUp> {
        let lease = LeaseRow { process: self.process().to_owned(), until: now + PROCESS_LEASE };
        let renewed = lease.clone();
        self.committer.step(ACCEPTED_WITHIN, move |view| view.set_process(lease.clone())).await?;
        self.renewed(Some(renewed));
        Ok(())
    }

    /// Whether a process has died: nothing was heard of it for so long that no clock explains it.
    pub(crate) async fn is_dead(&self, process: &str, now: OffsetDateTime) -> Result<bool, azure::Error> {
        match self.read(&RowKey::Process(process.to_owned())).await? {
            Some(Row::Process(lease)) => Ok(lease.until + CLOCK_SKEW <= now),
            _ => Ok(true),
        }
    }

    /// Makes this process the one that looks after what others left, unless another one is; whether
    /// it is.
    pub(crate) async fn become_sweeper(&self, now: OffsetDateTime) -> Result<bool, GaveUp> {
        let mine = LeaseRow { process: self.process().to_owned(), until: now + 2 * PROCESS_LEASE };
        self.committer
            .step(ACCEPTED_WITHIN, move |view| {
                let is_free = view.sweeper().is_none_or(|lease| lease.process == mine.process || lease.until <= now);
                if is_free {
                    view.set_sweeper(mine.clone());
                }
                is_free
            })
            .await
    }

    fn remember(&self, caller: Caller, day: Day, quota_status: Option<QuotaStatus>) {
        let mut free = locked(&self.free);
        if free.len() >= MAX_REMEMBERED {
            free.clear();
        }
        if quota_status.is_some_and(|quota_status| quota_status.remaining() > 0) {
            free.insert(caller, day);
        } else {
            free.remove(&caller);
        }
    }

    /// What is written of this process's life along with its records, where it is time for that.
    fn lease(&self, now: OffsetDateTime) -> Option<LeaseRow> {
        let is_due = *locked(&self.alive_until) < now + PROCESS_LEASE - RENEWED_EVERY;
        is_due.then(|| LeaseRow { process: self.process().to_owned(), until: now + PROCESS_LEASE })
    }

    fn renewed(&self, lease: Option<LeaseRow>) {
        if let Some(lease) = lease {
            *locked(&self.alive_until) = lease.until;
        }
    }
}

impl Records<Table> {
    /// The table, for queries.
    pub(crate) fn table(&self) -> &Table {
        self.committer.store()
    }
}
