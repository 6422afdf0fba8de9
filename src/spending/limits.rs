//! What may be spent of a day: a quota of images for each caller, and a budget for the app.

use std::time::Duration;

use time::OffsetDateTime;

use super::day::Day;
use super::totals::{BudgetAlert, DayTotals};

/// When another try is worth it where generations under way hold the rest of the budget.
const RETRY_AFTER: Duration = Duration::from_secs(60);

/// What may be spent in a day.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Images for one caller; 0 is without a limit.
    pub(crate) daily_images: u32,
    /// For the app, in millionths of a US dollar; 0 is without a limit.
    pub(crate) daily_budget: u64,
    /// The most that an image without wishes can cost.
    pub(crate) usual_cost: u64,
}

/// How a caller stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuotaStatus {
    /// Images a day.
    pub limit: u32,
    /// Of these, used or held.
    pub used: u32,
    /// The next midnight in UTC.
    pub resets_at: OffsetDateTime,
}

/// Why a generation is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The caller has had the day's images.
    #[error("the caller's daily quota is used up")]
    QuotaExceeded(QuotaStatus),
    /// The app has spent the day's money.
    #[error("the daily budget is spent")]
    BudgetSpent,
    /// The image may cost more than is left of the day's money; another may not.
    #[error("the image may cost more than is left of the daily budget")]
    TooDear,
    /// Generations under way hold what is left of the day's money.
    #[error("the rest of the daily budget is held by generations under way")]
    BudgetReserved,
}

impl Refusal {
    /// When another try is worth it, where it was refused on that day.
    pub(crate) fn retry_after(self, day: Day, now: OffsetDateTime) -> Duration {
        let left = day.left(now);
        match self {
            Self::BudgetReserved => left.min(RETRY_AFTER),
            Self::QuotaExceeded(_) | Self::BudgetSpent | Self::TooDear => left,
        }
    }
}

impl Limits {
    /// How a caller stands who has used so many images; `None` without a quota.
    pub(crate) fn quota_status(&self, used: u32, day: Day) -> Option<QuotaStatus> {
        (self.daily_images > 0).then(|| QuotaStatus { limit: self.daily_images, used, resets_at: day.ends_at() })
    }

    /// Whether a caller who has used so many images may have one more.
    pub(crate) fn check_quota(&self, used: u32, day: Day) -> Result<(), Refusal> {
        match self.quota_status(used, day) {
            Some(quota_status) if quota_status.remaining() == 0 => Err(Refusal::QuotaExceeded(quota_status)),
            _ => Ok(()),
        }
    }

    /// Whether the budget has room for an image that may cost so much.
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

    /// What the operator should be told about a day's budget that was not told before.
    pub(crate) fn alert(&self, day: &DayTotals, answer: Result<(), Refusal>) -> Option<BudgetAlert> {
        let now = match answer {
            Err(Refusal::BudgetSpent) => BudgetAlert::Reached,
            _ if self.daily_budget == 0 => BudgetAlert::Nothing,
            _ if day.spent.saturating_add(day.reserved) >= self.daily_budget / 5 * 4 => BudgetAlert::FourFifths,
            _ => BudgetAlert::Nothing,
        };
        (now > day.alerted).then_some(now)
    }

    /// Tells the operator.
    pub(crate) fn log(&self, alert: BudgetAlert) {
        let budget_usd = usd(self.daily_budget);
        match alert {
            BudgetAlert::Nothing => {}
            BudgetAlert::FourFifths => tracing::warn!(budget_usd, "80 % of DAILY_BUDGET_USD are spent or reserved"),
            BudgetAlert::Reached => {
                tracing::error!(budget_usd, "DAILY_BUDGET_USD is reached: no usual image is drawn any more today");
            }
        }
    }
}

impl QuotaStatus {
    /// How long it takes until the day ends; `None` where it has ended.
    pub fn resets_in(&self, now: OffsetDateTime) -> Option<Duration> {
        Duration::try_from(self.resets_at - now).ok().filter(|left| !left.is_zero())
    }

    /// What is left.
    pub fn remaining(&self) -> u32 {
        self.limit.saturating_sub(self.used)
    }
}

/// Millionths of a US dollar in US dollars.
#[expect(clippy::cast_precision_loss, reason = "a budget is far below 2^53 millionths")]
pub(crate) fn usd(micro: u64) -> f64 {
    micro as f64 / 1_000_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dear_image_does_not_end_the_day_for_the_others() {
        let limits = Limits { daily_images: 0, daily_budget: 1_000, usual_cost: 200 };
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
    fn the_operator_is_told_once_of_four_fifths_and_of_the_end() {
        let limits = Limits { daily_images: 0, daily_budget: 1_000, usual_cost: 200 };
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
