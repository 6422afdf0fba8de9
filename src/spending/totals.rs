//! The sums of a day, and how one generation changes them: by the difference of what it counts for
//! now and what it counted for before, and in no other way.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::price::Usage;

/// What one generation counts for, in the state in which it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Contribution {
    /// Money that is held of the budget, in millionths of a US dollar.
    pub(crate) reserved: u64,
    /// Images of the caller's quota.
    pub(crate) used: u32,
    /// Whether the caller is one of the day's callers.
    pub(crate) counts_caller: bool,
    /// The model that the sums are under.
    pub(crate) model: String,
    /// The sums.
    pub(crate) totals: ModelTotals,
}

/// What a model has done in a day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ModelTotals {
    /// Images stored.
    pub(crate) images: u64,
    /// Of these, without a price of the model's own.
    pub(crate) unpriced: u64,
    /// Prompts that the provider refused.
    pub(crate) refusals: u64,
    /// Other failures.
    pub(crate) failures: u64,
    /// Of the failures, those whose image may have been drawn and billed.
    pub(crate) lost: u64,
    /// In tokens.
    pub(crate) usage: Usage,
    /// In millionths of a US dollar.
    pub(crate) spent: u64,
}

/// What the app has had of a day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DayTotals {
    /// Money held by generations that have not ended, in millionths of a US dollar.
    pub(crate) reserved: u64,
    /// Spent, in millionths of a US dollar.
    pub(crate) spent: u64,
    /// Different callers.
    pub(crate) callers: u64,
    /// By model.
    pub(crate) models: BTreeMap<String, ModelTotals>,
    /// What the operator was told about the budget.
    pub(crate) alerted: BudgetAlert,
}

/// What the operator was told about the budget of a day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum BudgetAlert {
    /// Nothing yet.
    #[default]
    Nothing,
    /// Four fifths are spent or held.
    FourFifths,
    /// No usual image can be paid any more.
    Reached,
}

/// What a caller has had of a day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct CallerTotals {
    /// Images used or held.
    pub(crate) used: u32,
    /// Whether the caller is one of the day's callers.
    pub(crate) is_counted: bool,
}

impl DayTotals {
    /// Counts a generation for what it is now instead of what it was.
    pub(crate) fn change(&mut self, old: &Contribution, new: &Contribution) {
        self.reserved = self.reserved.saturating_sub(old.reserved).saturating_add(new.reserved);
        self.spent = self.spent.saturating_sub(old.totals.spent).saturating_add(new.totals.spent);
        self.change_model(old, |sum, part| sum.saturating_sub(part));
        self.change_model(new, |sum, part| sum.saturating_add(part));
    }

    fn change_model(&mut self, part: &Contribution, change: fn(u64, u64) -> u64) {
        if part.totals == ModelTotals::default() {
            return;
        }
        let mut sum = self.models.remove(&part.model).unwrap_or_default();
        let part_totals = part.totals;
        for (sum, part) in sum.numbers().into_iter().zip({ part_totals }.numbers()) {
            *sum = change(*sum, *part);
        }
        if sum != ModelTotals::default() {
            self.models.insert(part.model.clone(), sum);
        }
    }
}

impl CallerTotals {
    /// Counts a generation for what it is now instead of what it was; whether its caller has become
    /// one of the day's callers.
    pub(crate) fn change(&mut self, old: &Contribution, new: &Contribution) -> bool {
        self.used = self.used.saturating_sub(old.used).saturating_add(new.used);
        let is_new = new.counts_caller && !self.is_counted;
        self.is_counted |= new.counts_caller;
        is_new
    }
}

impl ModelTotals {
    fn numbers(&mut self) -> [&mut u64; 9] {
        let Self { images, unpriced, refusals, failures, lost, usage, spent } = self;
        let Usage { text_input, image_input, output } = usage;
        [images, unpriced, refusals, failures, lost, text_input, image_input, output, spent]
    }
}
