//! What the text model costs in this process, until the sums are recorded.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::day::Day;
use super::totals::ModelTotals;
use crate::lock::locked;

/// The sums of this process's texts.
#[derive(Debug, Default)]
pub(crate) struct TextSpending {
    days: Mutex<BTreeMap<Day, DayTexts>>,
    /// The day whose budget for texts is spent.
    stopped: Mutex<Option<Day>>,
    /// Whether the last sums could not be recorded.
    paused: AtomicBool,
    /// Notified when a sum grows.
    pub(crate) added: Notify,
}

/// The texts of a day since the start of the process.
#[derive(Debug, Clone, Copy, Default)]
struct DayTexts {
    totals: ModelTotals,
    /// The part that is recorded.
    recorded: ModelTotals,
}

impl TextSpending {
    /// Adds a text.
    pub(crate) fn add(&self, day: Day, text: ModelTotals) {
        locked(&self.days).entry(day).or_default().totals.add(text);
        self.added.notify_one();
    }

    /// The sums that are not completely recorded: all texts of the day since the start of the process.
    pub(crate) fn unrecorded(&self) -> Vec<(Day, ModelTotals)> {
        let days = locked(&self.days);
        let unrecorded = days.iter().filter(|(_, texts)| texts.totals != texts.recorded);
        unrecorded.map(|(day, texts)| (*day, texts.totals)).collect()
    }

    /// Notes that a sum of a day is recorded. A day before `today` whose texts are all recorded is forgotten.
    pub(crate) fn recorded(&self, day: Day, totals: ModelTotals, today: Day) {
        let mut days = locked(&self.days);
        if let Some(texts) = days.get_mut(&day) {
            texts.recorded = totals;
        }
        days.retain(|day, texts| *day >= today || texts.totals != texts.recorded);
    }

    /// Notes that the budget for texts of a day is spent: no further text is paid on it. Returns whether this is
    /// new.
    pub(crate) fn stop(&self, day: Day) -> bool {
        let mut stopped = locked(&self.stopped);
        let is_new = *stopped < Some(day);
        *stopped = (*stopped).max(Some(day));
        is_new
    }

    /// Notes that the sums cannot be recorded: no further text is paid until [`Self::resume`].
    pub(crate) fn pause(&self) {
        self.paused.store(true, Ordering::Relaxed);
    }

    /// Notes that the sums could be recorded.
    pub(crate) fn resume(&self) {
        self.paused.store(false, Ordering::Relaxed);
    }

    /// Whether no text may be paid on a day: its budget for texts is spent, or the sums cannot be recorded.
    pub(crate) fn is_stopped(&self, day: Day) -> bool {
        self.paused.load(Ordering::Relaxed) || *locked(&self.stopped) == Some(day)
    }
}
