//! The steps of a generation, as pure functions on a view of the rows.

use time::OffsetDateTime;

use super::outcome::{Failure, Outcome};
use super::record::{Address, Event, Generation, State, Via};
use super::rows::KeyRow;
use super::view::View;
use crate::spending::{BudgetAlert, CallerTotals, DayTotals, Limits, QuotaStatus, Refusal};

/// The idempotency key of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// A keyed digest of the Idempotency-Key header and its caller.
    pub(crate) digest: String,
    /// A keyed digest of the request's body.
    pub(crate) fingerprint: String,
}

/// Why a generation was not accepted.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum NotAccepted {
    /// The quota or the budget is used up.
    #[error(transparent)]
    Refused(Refusal),
    /// The idempotency key leads to another generation.
    #[error("the idempotency key leads to another generation")]
    KeyUsed(Box<(KeyRow, Generation)>),
    /// An earlier run of this step refused the generation and wrote a tombstone. Now the limits would
    /// allow it, but the tombstone stays.
    #[error("an earlier try has refused the generation")]
    GivenUp,
}

/// The result of applying an event to a record.
#[derive(Debug, Clone)]
pub(crate) enum Advanced {
    /// The generation as it is now.
    Done(Box<Generation>),
    /// The event is not valid in the current state; the generation as it is now.
    Refused(Box<Generation>),
    /// The record does not exist.
    Unknown,
}

/// A budget alert to log for the operator, if one is due.
pub(super) type Alert = Option<BudgetAlert>;

/// Accepts a generation: checks its idempotency key, quota and budget, and writes its record. Returns
/// the caller's quota status and a budget alert.
pub(super) fn accept(
    view: &mut View<'_>,
    generation: &Generation,
    key: Option<&IdempotencyKey>,
    limits: &Limits,
    now: OffsetDateTime,
) -> (Result<Option<QuotaStatus>, NotAccepted>, Alert) {
    let order = &generation.order;
    let day = order.address.day();
    let found = view.new_generation(&order.address);
    let is_job = order.via == Via::Queue;
    let caller = if limits.check_callers() { view.caller(day, &order.caller) } else { CallerTotals::default() };
    let used = caller.used;
    let totals = if order.in_budget { Some(view.day(day)) } else { None };
    let was_refused = match &found {
        Some(found) if found.outcome() == Some(&Outcome::NotDrawn(Failure::NotAccepted)) => true,
        // An earlier run of this step was written, but its answer was lost.
        Some(_) => return (Ok(limits.quota_status(used, day)), None),
        None => false,
    };
    if let Some(key) = key
        && let Some(found) = find_key(view, &key.digest, now)
    {
        leave_tombstone(view, generation);
        return (Err(NotAccepted::KeyUsed(Box::new(found))), None);
    }
    let quota = limits.check_caller(&caller, order.most_cost, is_job, day);
    let budget = totals.as_ref().map_or(Ok(()), |totals| limits.check_budget(totals, order.most_cost));
    let alert = match (&totals, quota, budget) {
        (Some(totals), Ok(()), Ok(())) => {
            let reserved = totals.reserved.saturating_add(order.most_cost);
            limits.alert(&DayTotals { reserved, ..totals.clone() }, Ok(()))
        }
        (Some(totals), Ok(()), refused) => limits.alert(totals, refused),
        _ => None,
    };
    let accepted = match quota.and(budget) {
        Ok(()) if was_refused => return (Err(NotAccepted::GivenUp), None),
        Ok(()) => {
            if let Some(key) = key {
                let row = KeyRow { address: order.address.clone(), fingerprint: key.fingerprint.clone(), used_at: now };
                view.set_key(&key.digest, row);
            }
            view.record(None, generation);
            Ok(limits.quota_status(used + 1, day))
        }
        Err(refusal) => {
            leave_tombstone(view, generation);
            Err(NotAccepted::Refused(refusal))
        }
    };
    if let Some(alert) = alert {
        let totals = view.day(day);
        view.set_day(day, DayTotals { alerted: alert, ..totals });
    }
    (accepted, alert)
}

/// The generation of an idempotency key; `None` if the key has expired or its generation drew nothing.
fn find_key(view: &mut View<'_>, digest: &str, now: OffsetDateTime) -> Option<(KeyRow, Generation)> {
    let row = view.key(digest).filter(|row| row.is_current(now))?;
    let generation = view.generation(&row.address).filter(|generation| !generation.is_void())?;
    Some((row, generation))
}

/// Applies an event to a record.
pub(super) fn advance(view: &mut View<'_>, address: &Address, event: &Event) -> Advanced {
    let Some(old) = view.generation(address) else { return Advanced::Unknown };
    match old.advance(event) {
        Ok(new) => {
            // `PutBack` always writes, because a late `Begin` of the same attempt must find a new version
            // and fail.
            if old != new || matches!(event, Event::PutBack(_)) {
                view.record(Some(&old), &new);
            }
            Advanced::Done(Box::new(new))
        }
        Err(_) => Advanced::Refused(Box::new(old)),
    }
}

/// Writes a tombstone for a refused generation: a record that has ended as not accepted.
///
/// A job needs it because its message is in the queue already, and the delivery waits for a record. A
/// step that may have been written needs it because a late transaction must fail on it.
fn leave_tombstone(view: &mut View<'_>, refused: &Generation) {
    view.refuses = true;
    if refused.order.via == Via::Queue || view.may_be_written {
        view.record(None, &withdrawn(refused));
    }
}

/// The tombstone of a generation that is not accepted.
pub(super) fn withdrawn(generation: &Generation) -> Generation {
    // The event is always valid for a generation that has not ended.
    generation.advance(&withdrawal(generation)).unwrap_or_else(|_| generation.clone())
}

/// The event that ends a generation as not accepted.
pub(super) fn withdrawal(generation: &Generation) -> Event {
    match &generation.state {
        State::Drawing(attempt) => Event::End(attempt.clone(), Outcome::NotDrawn(Failure::NotAccepted)),
        State::Queued | State::Ended { .. } => Event::GiveUp(Failure::NotAccepted),
    }
}

pub(super) fn is_drawing(generation: &Generation) -> bool {
    matches!(generation.state, State::Drawing(_))
}
