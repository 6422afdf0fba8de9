//! The steps themselves: pure functions on a view of the rows.

use time::OffsetDateTime;

use super::outcome::{Failure, Outcome};
use super::record::{Address, Event, Generation, State, Via};
use super::rows::KeyRow;
use super::view::View;
use crate::spending::{BudgetAlert, DayTotals, Limits, QuotaStatus, Refusal};

/// An Idempotency-Key with its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// Of the key and its caller.
    pub(crate) digest: String,
    /// Of the body.
    pub(crate) fingerprint: String,
}

/// Why a generation was not accepted.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum NotAccepted {
    /// A limit is reached.
    #[error(transparent)]
    Refused(Refusal),
    /// Its key stands for another generation.
    #[error("the Idempotency-Key stands for another generation")]
    KeyUsed(Box<(KeyRow, Generation)>),
    /// It was refused a moment ago, and would not be now.
    #[error("the generation was refused")]
    GivenUp,
}

/// What came of an event.
#[derive(Debug, Clone)]
pub(crate) enum Advanced {
    /// The generation as it is now.
    Done(Box<Generation>),
    /// The event does not fit the generation as it is.
    Refused(Box<Generation>),
    /// There is no record.
    Unknown,
}

/// What the operator should be told.
pub(super) type Alert = Option<BudgetAlert>;

/// Accepts a generation, with what the operator should be told.
pub(super) fn accept(
    view: &mut View<'_>,
    generation: &Generation,
    key: Option<&IdempotencyKey>,
    limits: &Limits,
    now: OffsetDateTime,
) -> Result<(Option<QuotaStatus>, Alert), (NotAccepted, Alert)> {
    let order = &generation.order;
    let day = order.address.day();
    let found = view.new_generation(&order.address);
    let used = if order.in_quota { view.caller(day, &order.caller).used } else { 0 };
    let totals = if order.in_budget { Some(view.day(day)) } else { None };
    let was_refused = match &found {
        Some(found) if found.outcome() == Some(&Outcome::NotDrawn(Failure::NotAccepted)) => true,
        // Written already, and the answer was lost.
        Some(_) => return Ok((limits.quota_status(used, day), None)),
        None => false,
    };
    if let Some(key) = key
        && let Some(found) = find_key(view, &key.digest, now)
    {
        leave_tombstone(view, generation);
        return Err((NotAccepted::KeyUsed(Box::new(found)), None));
    }
    let quota = if order.in_quota { limits.check_quota(used, day) } else { Ok(()) };
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
        Ok(()) if was_refused => return Err((NotAccepted::GivenUp, None)),
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
    match accepted {
        Ok(quota_status) => Ok((quota_status, alert)),
        Err(error) => Err((error, alert)),
    }
}

/// The generation that a key stands for: not one whose time is over, and not one that came to nothing.
fn find_key(view: &mut View<'_>, digest: &str, now: OffsetDateTime) -> Option<(KeyRow, Generation)> {
    let row = view.key(digest).filter(|row| row.is_current(now))?;
    let generation = view.generation(&row.address).filter(|generation| !generation.is_void())?;
    Some((row, generation))
}

pub(super) fn advance(view: &mut View<'_>, address: &Address, event: &Event) -> Advanced {
    let Some(old) = view.generation(address) else { return Advanced::Unknown };
    match old.advance(event) {
        Ok(new) => {
            // A put-back is written in any case: a beginning that lands late must find another version.
            if old != new || matches!(event, Event::PutBack(_)) {
                view.record(Some(&old), &new);
            }
            Advanced::Done(Box::new(new))
        }
        Err(_) => Advanced::Refused(Box::new(old)),
    }
}

/// Where something of a refused generation is under way, its record says that it was refused: the
/// message of a job, whose delivery would wait for a record that never comes; a transaction that may
/// land late, and must fail then.
fn leave_tombstone(view: &mut View<'_>, refused: &Generation) {
    view.refuses = true;
    if refused.order.via == Via::Queue || view.may_be_written {
        view.record(None, &withdrawn(refused));
    }
}

/// What is left of a generation that is not accepted.
pub(super) fn withdrawn(generation: &Generation) -> Generation {
    // Nothing is refused of a generation that has not ended.
    generation.advance(&withdrawal(generation)).unwrap_or_else(|_| generation.clone())
}

pub(super) fn withdrawal(generation: &Generation) -> Event {
    match &generation.state {
        State::Drawing(attempt) => Event::End(attempt.clone(), Outcome::NotDrawn(Failure::NotAccepted)),
        State::Queued | State::Ended { .. } => Event::GiveUp(Failure::NotAccepted),
    }
}

pub(super) fn is_drawing(generation: &Generation) -> bool {
    matches!(generation.state, State::Drawing(_))
}
