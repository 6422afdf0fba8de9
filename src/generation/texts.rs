//! Records what the text model costs: it counts in the sums and in the budget of its day.
//!
//! Each process has a row for a day with the sum of its texts. The row and the day's sums change in one
//! transaction, by the difference between the old and the new sum, so that a repeated write counts once. Texts are
//! recorded a moment after they were written; those of the last second before a crash are not counted.

use std::time::Duration;

use super::batch::GaveUp;
use super::commit::Patience;
use super::generations::Generations;
use super::records::Records;
use super::rows::TextRow;
use super::store::Store;
use crate::logs::chain;
use crate::spending::{Day, DayTotals, usd};

/// The texts of this time are recorded together.
const COLLECTED_FOR: Duration = Duration::from_secs(1);
const WRITTEN_WITHIN: Patience = Patience::For(Duration::from_secs(10));
/// The pauses between tries while the table fails; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

impl Generations {
    /// Records texts until the future is dropped.
    pub(crate) async fn keep_recording_texts(&self) {
        loop {
            self.text_model.spending.added.notified().await;
            tokio::time::sleep(COLLECTED_FOR).await;
            let mut pause = FIRST_PAUSE;
            while let Err(error) = self.record_texts().await {
                // What is not recorded cannot be held against the budget.
                if self.records.limits().daily_budget > 0 {
                    self.text_model.spending.pause();
                }
                tracing::warn!(
                    event = "texts_not_recorded",
                    cause = chain(&error),
                    delay_s = pause.as_secs(),
                    "the cost of the text model could not be recorded; it is tried again after the delay"
                );
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            self.text_model.spending.resume();
        }
    }

    /// Records the texts that are not recorded, and stops further ones if the day's budget for texts is spent.
    ///
    /// # Errors
    /// The table cannot be written.
    pub(crate) async fn record_texts(&self) -> Result<(), GaveUp> {
        let spending = &self.text_model.spending;
        for (day, totals) in spending.unrecorded() {
            let texts = TextRow { model: self.text_model.name().to_owned(), totals };
            let sums = self.records.record_texts(day, texts).await?;
            spending.recorded(day, totals, Day::of(self.now()));
            self.note_added();
            if !self.records.limits().allow_texts(&sums) && spending.stop(day) {
                tracing::warn!(
                    event = "texts_stopped",
                    usd = usd(sums.spent_on_texts()),
                    "no text is paid until midnight UTC: texts have spent a tenth of DAILY_BUDGET_USD, or all of it is spent"
                );
            }
        }
        Ok(())
    }
}

impl<S: Store> Records<S> {
    /// Replaces the sum of this process's texts of a day. Returns the sums of the day.
    ///
    /// # Errors
    /// [`GaveUp`].
    pub(crate) async fn record_texts(&self, day: Day, texts: TextRow) -> Result<DayTotals, GaveUp> {
        let process = self.process().to_owned();
        self.committer.step(WRITTEN_WITHIN, move |view| view.set_texts(day, &process, texts.clone())).await
    }
}
