//! The sums of a day. A generation changes them only by the difference between its new contribution
//! and its old one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::price::Usage;

/// The contribution of a generation to the sums, which depends on its state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Contribution {
    /// The reserved part of the budget, in millionths of a US dollar.
    pub(crate) reserved: u64,
    /// The images that count against the caller's quota.
    pub(crate) used: u32,
    /// The refused prompts that count against the caller's limit.
    pub(crate) refusals: u32,
    /// The jobs that count against the caller's limit: each job that was accepted, however it ends.
    pub(crate) jobs: u32,
    /// The reserved or spent part of the caller's own budget, in millionths of a US dollar.
    pub(crate) caller_cost: u64,
    /// Whether the caller counts as one of the day's callers.
    pub(crate) counts_caller: bool,
    /// The model to whose sums `totals` is added.
    pub(crate) model: String,
    /// The contribution to the model's sums.
    pub(crate) totals: ModelTotals,
}

/// The sums of a model and day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ModelTotals {
    /// Images stored.
    pub(crate) images: u64,
    /// Texts of the text model.
    pub(crate) texts: u64,
    /// Stored images and texts of a model that has no price in the price table.
    pub(crate) unpriced: u64,
    /// Prompts that the provider refused.
    pub(crate) refusals: u64,
    /// Other failures.
    pub(crate) failures: u64,
    /// Of the failures, those whose image may have been drawn and billed.
    pub(crate) lost: u64,
    /// Tokens.
    pub(crate) usage: Usage,
    /// The cost, in millionths of a US dollar.
    pub(crate) spent: u64,
}

/// The app's sums of a day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DayTotals {
    /// The budget that generations under way reserve, in millionths of a US dollar.
    pub(crate) reserved: u64,
    /// The cost of generations that have ended, in millionths of a US dollar.
    pub(crate) spent: u64,
    /// The number of distinct callers.
    pub(crate) callers: u64,
    /// The sums by model.
    pub(crate) models: BTreeMap<String, ModelTotals>,
    /// The last alert about the budget.
    pub(crate) alerted: BudgetAlert,
}

/// An alert to the operator about the budget of a day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum BudgetAlert {
    /// No alert.
    #[default]
    Nothing,
    /// Four fifths of the budget are spent or reserved.
    FourFifths,
    /// The rest of the budget is not enough for an image with default options.
    Reached,
}

/// A caller's sums of a day.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct CallerTotals {
    /// Images that are drawn or reserved.
    pub(crate) used: u32,
    /// Prompts that the provider or its moderation refused.
    pub(crate) refusals: u32,
    /// Jobs that were accepted, with those that were cancelled.
    pub(crate) jobs: u32,
    /// The reserved and the spent part of the caller's own budget, in millionths of a US dollar.
    pub(crate) cost: u64,
    /// Whether the caller already counts as one of the day's callers.
    pub(crate) is_counted: bool,
}

impl DayTotals {
    /// Replaces a generation's old contribution by its new one.
    pub(crate) fn change(&mut self, old: &Contribution, new: &Contribution) {
        self.reserved = self.reserved.saturating_sub(old.reserved).saturating_add(new.reserved);
        self.spent = self.spent.saturating_sub(old.totals.spent).saturating_add(new.totals.spent);
        self.change_model(old, |sum, part| sum.saturating_sub(part));
        self.change_model(new, |sum, part| sum.saturating_add(part));
    }

    /// The cost of the day's texts, in millionths of a US dollar: the sums of all models that wrote one.
    pub(crate) fn spent_on_texts(&self) -> u64 {
        let texts = self.models.values().filter(|model| model.texts > 0);
        texts.fold(0, |sum, model| sum.saturating_add(model.spent))
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

impl Contribution {
    /// The contribution of texts of the text model.
    pub(crate) fn of_texts(model: &str, totals: ModelTotals) -> Self {
        Self { model: model.to_owned(), totals, ..Self::default() }
    }

    /// Whether this and another contribution count differently against the caller's limits.
    pub(crate) fn differs_for_caller(&self, other: &Self) -> bool {
        let counts = |part: &Self| (part.used, part.refusals, part.jobs, part.caller_cost);
        counts(self) != counts(other)
    }
}

impl CallerTotals {
    /// Replaces a generation's old contribution by its new one. Returns whether its caller has just
    /// become one of the day's callers.
    pub(crate) fn change(&mut self, old: &Contribution, new: &Contribution) -> bool {
        self.used = self.used.saturating_sub(old.used).saturating_add(new.used);
        self.refusals = self.refusals.saturating_sub(old.refusals).saturating_add(new.refusals);
        self.jobs = self.jobs.saturating_sub(old.jobs).saturating_add(new.jobs);
        self.cost = self.cost.saturating_sub(old.caller_cost).saturating_add(new.caller_cost);
        let is_new = new.counts_caller && !self.is_counted;
        self.is_counted |= new.counts_caller;
        is_new
    }
}

impl ModelTotals {
    /// Adds other sums of the same model.
    pub(crate) fn add(&mut self, mut other: Self) {
        for (sum, part) in self.numbers().into_iter().zip(other.numbers()) {
            *sum = sum.saturating_add(*part);
        }
    }

    fn numbers(&mut self) -> [&mut u64; 10] {
        let Self { images, texts, unpriced, refusals, failures, lost, usage, spent } = self;
        let Usage { text_input, image_input, output } = usage;
        [images, texts, unpriced, refusals, failures, lost, text_input, image_input, output, spent]
    }
}
