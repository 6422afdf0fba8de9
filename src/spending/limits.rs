//! The limits of a day: a quota of images for each caller, and a budget for the app.

use std::time::Duration;

use time::OffsetDateTime;

use super::day::Day;
use super::totals::{BudgetAlert, CallerTotals, DayTotals};

/// The wait for the client while generations under way reserve the rest of the budget.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// The part of the budget that texts may spend: the app is there for images.
const TEXTS_DIVISOR: u64 = 10;

/// The limits of a day.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Limits {
    /// The quota: images for each caller; 0 means no quota.
    pub(crate) daily_images: u32,
    /// Refused prompts for each caller; 0 means no limit.
    pub(crate) daily_refusals: u32,
    /// Jobs for each caller, with those that were cancelled; 0 means no limit.
    pub(crate) daily_jobs: u32,
    /// Each caller's own budget in millionths of a US dollar; 0 means none.
    pub(crate) daily_caller_cost: u64,
    /// The app's budget in millionths of a US dollar; 0 means no budget.
    pub(crate) daily_budget: u64,
    /// The most that an image with default options can cost, in millionths of a US dollar.
    pub(crate) usual_cost: u64,
}

/// A caller's quota status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaStatus {
    /// The quota: images for each day.
    pub limit: u32,
    /// Images that are drawn or reserved.
    pub used: u32,
    /// The end of the day: midnight in UTC.
    pub resets_at: OffsetDateTime,
}

/// Why the quota or the budget refuses a generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The caller's quota is used up.
    #[error("the caller's daily quota is used up")]
    QuotaExceeded(QuotaStatus),
    /// The provider or its moderation has refused as many of the caller's prompts as the limit allows.
    #[error("the caller's refused prompts have reached the daily limit")]
    RefusalsExceeded,
    /// The caller has made as many jobs as the limit allows.
    #[error("the caller's jobs have reached the daily limit")]
    JobsExceeded,
    /// The image may cost more than the rest of the caller's own budget.
    #[error("the image may cost more than the rest of the caller's daily budget")]
    CallerBudgetReached,
    /// The rest of the budget is not enough for an image with default options.
    #[error("the daily budget is spent")]
    BudgetSpent,
    /// The image may cost more than the rest of the budget; a cheaper image may be accepted.
    #[error("the image may cost more than the rest of the daily budget")]
    TooDear,
    /// Generations under way reserve the rest of the budget. Some of it may become free.
    #[error("generations under way reserve the rest of the daily budget")]
    BudgetReserved,
}

impl Refusal {
    /// The wait after which a retry can succeed, for a refusal on `day`.
    pub(crate) fn retry_after(self, day: Day, now: OffsetDateTime) -> Duration {
        let left = day.left(now);
        match self {
            Self::BudgetReserved | Self::CallerBudgetReached => left.min(RETRY_AFTER),
            Self::QuotaExceeded(_)
            | Self::RefusalsExceeded
            | Self::JobsExceeded
            | Self::BudgetSpent
            | Self::TooDear => left,
        }
    }
}

impl Limits {
    /// The quota status of a caller with `used` images; `None` if there is no quota.
    pub(crate) fn quota_status(&self, used: u32, day: Day) -> Option<QuotaStatus> {
        (self.daily_images > 0).then(|| QuotaStatus { limit: self.daily_images, used, resets_at: day.ends_at() })
    }

    /// Whether a request is checked against its caller's sums. Without a quota and without a budget the app
    /// works without a state table, so that nothing can be checked.
    pub(crate) fn check_callers(&self) -> bool {
        self.daily_images > 0 || self.daily_budget > 0 || self.daily_caller_cost > 0
    }

    /// Checks that a caller with these sums may have one more image, which costs at most `most` millionths of
    /// a US dollar, or one more job.
    ///
    /// # Errors
    /// [`Refusal::QuotaExceeded`], [`Refusal::RefusalsExceeded`], [`Refusal::JobsExceeded`] or
    /// [`Refusal::CallerBudgetReached`].
    pub(crate) fn check_caller(&self, caller: &CallerTotals, most: u64, is_job: bool, day: Day) -> Result<(), Refusal> {
        let is_reached = |limit: u32, count: u32| limit > 0 && count >= limit;
        match self.quota_status(caller.used, day) {
            Some(quota_status) if quota_status.remaining() == 0 => Err(Refusal::QuotaExceeded(quota_status)),
            _ if is_reached(self.daily_refusals, caller.refusals) => Err(Refusal::RefusalsExceeded),
            _ if is_job && is_reached(self.daily_jobs, caller.jobs) => Err(Refusal::JobsExceeded),
            _ if self.daily_caller_cost > 0 && caller.cost.saturating_add(most) > self.daily_caller_cost => {
                Err(Refusal::CallerBudgetReached)
            }
            _ => Ok(()),
        }
    }

    /// Checks that the budget allows an image that costs at most `most` millionths of a US dollar.
    ///
    /// # Errors
    /// [`Refusal::BudgetSpent`], [`Refusal::TooDear`] or [`Refusal::BudgetReserved`].
    pub(crate) fn check_budget(&self, day: &DayTotals, most: u64) -> Result<(), Refusal> {
        let fits = |used: u64, more: u64| used.saturating_add(more) <= self.daily_budget;
        if self.daily_budget == 0 || fits(day.spent.saturating_add(day.reserved), most) {
            Ok(())
        } else if !fits(day.spent, self.usual_cost.min(most)) {
            Err(Refusal::BudgetSpent)
        } else if !fits(day.spent, most) {
            Err(Refusal::TooDear)
        } else {
            Err(Refusal::BudgetReserved)
        }
    }

    /// Whether another text may be paid: texts have spent less than a tenth of the budget, and an image with default
    /// options can still be paid.
    pub(crate) fn allow_texts(&self, day: &DayTotals) -> bool {
        self.daily_budget == 0
            || day.spent_on_texts() < self.daily_budget / TEXTS_DIVISOR
                && self.check_budget(day, self.usual_cost) != Err(Refusal::BudgetSpent)
    }

    /// The alert about a day's budget that is due and was not logged before.
    pub(crate) fn alert(&self, day: &DayTotals, answer: Result<(), Refusal>) -> Option<BudgetAlert> {
        let now = match answer {
            Err(Refusal::BudgetSpent) => BudgetAlert::Reached,
            _ if self.daily_budget == 0 => BudgetAlert::Nothing,
            _ if day.spent.saturating_add(day.reserved) >= self.daily_budget / 5 * 4 => BudgetAlert::FourFifths,
            _ => BudgetAlert::Nothing,
        };
        (now > day.alerted).then_some(now)
    }

    /// Logs an alert.
    pub(crate) fn log(&self, alert: BudgetAlert) {
        let budget_usd = usd(self.daily_budget);
        match alert {
            BudgetAlert::Nothing => {}
            BudgetAlert::FourFifths => {
                tracing::warn!(
                    event = "budget_nearly_spent",
                    budget_usd,
                    "80 % of DAILY_BUDGET_USD are spent or reserved"
                );
            }
            BudgetAlert::Reached => {
                tracing::error!(
                    event = "budget_spent",
                    budget_usd,
                    "DAILY_BUDGET_USD is reached: images with default options are refused until midnight UTC"
                );
            }
        }
    }
}

impl QuotaStatus {
    /// The time from `now` to the end of the day; `None` if the day has ended.
    pub fn resets_in(&self, now: OffsetDateTime) -> Option<Duration> {
        Duration::try_from(self.resets_at - now).ok().filter(|left| !left.is_zero())
    }

    /// The images that the caller may still have drawn.
    pub fn remaining(&self) -> u32 {
        self.limit.saturating_sub(self.used)
    }
}

/// Converts millionths of a US dollar to US dollars.
#[expect(clippy::cast_precision_loss, reason = "a budget is far below 2^53 millionths")]
pub(crate) fn usd(micro: u64) -> f64 {
    micro as f64 / 1_000_000.0
}

#[cfg(test)]
mod tests {
    use super::super::totals::ModelTotals;
    use super::*;

    #[test]
    fn a_refused_expensive_image_does_not_stop_cheaper_ones() {
        let limits = Limits { daily_budget: 1_000, usual_cost: 200, ..Limits::default() };
        let answer =
            |spent, reserved, most| limits.check_budget(&DayTotals { spent, reserved, ..DayTotals::default() }, most);
        for (spent, reserved, most, wanted) in [
            (0, 0, 6_000, Err(Refusal::TooDear)),
            (0, 0, 200, Ok(())),
            (700, 0, 400, Err(Refusal::TooDear)),
            (700, 0, 200, Ok(())),
            (700, 200, 200, Err(Refusal::BudgetReserved)),
            (850, 0, 200, Err(Refusal::BudgetSpent)),
            (850, 0, 100, Ok(())),
        ] {
            assert_eq!(answer(spent, reserved, most), wanted, "{spent} {reserved} {most}");
        }
    }

    #[test]
    fn texts_are_paid_until_they_have_spent_a_tenth_of_the_budget_or_all_of_it_is_spent() {
        let limits = Limits { daily_budget: 1_000, usual_cost: 200, ..Limits::default() };
        let day = |of_texts: u64, of_images: u64| {
            let texts = ModelTotals { texts: 1, spent: of_texts, ..ModelTotals::default() };
            let images = ModelTotals { images: 1, spent: of_images, ..ModelTotals::default() };
            let models = [("text", texts), ("image", images)].map(|(model, totals)| (model.to_owned(), totals));
            DayTotals { spent: of_texts + of_images, models: models.into(), ..DayTotals::default() }
        };
        assert!(limits.allow_texts(&day(99, 700)));
        assert!(!limits.allow_texts(&day(100, 0)));
        assert!(!limits.allow_texts(&day(1, 800)));
        assert!(Limits::default().allow_texts(&day(1_000, 1_000)), "there is no budget");
    }

    #[test]
    fn four_fifths_and_the_end_of_the_budget_are_each_logged_once() {
        let limits = Limits { daily_budget: 1_000, usual_cost: 200, ..Limits::default() };
        let mut day = DayTotals { spent: 799, ..DayTotals::default() };
        assert_eq!(limits.alert(&day, Ok(())), None);
        day.reserved = 1;
        assert_eq!(limits.alert(&day, Ok(())), Some(BudgetAlert::FourFifths));
        day.alerted = BudgetAlert::FourFifths;
        assert_eq!(limits.alert(&day, Err(Refusal::BudgetReserved)), None);
        assert_eq!(limits.alert(&day, Err(Refusal::BudgetSpent)), Some(BudgetAlert::Reached));
        day.alerted = BudgetAlert::Reached;
        assert_eq!(limits.alert(&day, Err(Refusal::BudgetSpent)), None);
    }
}
