//! The text model, with a limit on its calls and an account of what they cost.

use std::time::Duration;

use tokio::sync::SemaphorePermit;

use super::text_limit::TextLimit;
use crate::caller::Caller;
use crate::config::LimitsConfig;
use crate::openai::{Error, OpenAi};
use crate::spending::{Clock, Cost, Day, ModelTotals, Prices, TextSpending};

/// The text model of this process.
pub(crate) struct TextModel {
    pub(super) openai: OpenAi,
    /// What the calls of this process cost.
    pub(crate) spending: TextSpending,
    limit: TextLimit,
    prices: Prices,
    clock: Clock,
}

impl TextModel {
    pub(crate) fn new(openai: OpenAi, limits: &LimitsConfig, clock: Clock) -> Self {
        let prices = Prices::new(limits);
        Self { openai, spending: TextSpending::default(), limit: TextLimit::new(), prices, clock }
    }

    /// The model's name.
    pub(crate) fn name(&self) -> &str {
        self.openai.text_model()
    }

    /// Allows a caller one call, which lasts until the permit is dropped; `None` if a limit is reached or the
    /// day's budget is spent.
    pub(crate) fn acquire(&self, caller: &Caller) -> Option<SemaphorePermit<'_>> {
        if self.spending.is_stopped(self.today()) {
            return None;
        }
        self.limit.acquire(caller)
    }

    /// Writes a short text from an instruction and an input, and counts its cost. A call whose answer is lost,
    /// or that is dropped before its answer, counts at the most that it can cost: the provider may bill it.
    ///
    /// # Errors
    /// See [`Error`]. An unfinished, refused or empty text is [`Error::BadAnswer`].
    pub(super) async fn write(&self, instruction: &str, input: &str, timeout: Duration) -> Result<String, Error> {
        let bytes = instruction.len() + input.len();
        let cost = |usage| self.prices.text_cost(self.name(), bytes, usage);
        let mut bill = Bill { text_model: self, cost: Some(cost(None)) };
        let written = self.openai.write(instruction, input, timeout).await;
        match &written {
            Ok(written) => bill.cost = Some(cost(written.usage)),
            Err(error) if may_be_billed(error) => {}
            Err(_) => bill.cost = None,
        }
        drop(bill);
        written?.text.ok_or(Error::BadAnswer("it contains no finished text"))
    }

    fn today(&self) -> Day {
        Day::of((self.clock)())
    }
}

/// Counts the cost of a call when it ends.
struct Bill<'a> {
    text_model: &'a TextModel,
    /// `None` if nothing is billed.
    cost: Option<Cost>,
}

impl Drop for Bill<'_> {
    fn drop(&mut self) {
        let Some(cost) = self.cost.take() else { return };
        let text = ModelTotals {
            texts: 1,
            unpriced: u64::from(!cost.priced),
            usage: cost.usage.unwrap_or_default(),
            spent: cost.micro_usd,
            ..ModelTotals::default()
        };
        self.text_model.spending.add(self.text_model.today(), text);
    }
}

/// Whether the provider may bill a call that failed like this.
fn may_be_billed(error: &Error) -> bool {
    match error {
        Error::Timeout
        | Error::LostAnswer(_)
        | Error::GatewayTimeout(_)
        | Error::FailedLate(_)
        | Error::BadAnswer(_) => true,
        Error::Unreachable(_)
        | Error::PromptRefused(_)
        | Error::OptionRefused(..)
        | Error::ReasoningRefused(_)
        | Error::StreamRefused(_)
        | Error::BadRequest(_)
        | Error::Denied(_)
        | Error::Blocked(_)
        | Error::ModelGone(_)
        | Error::OutOfCredit(_)
        | Error::RateLimited(_)
        | Error::Failed(_) => false,
    }
}
