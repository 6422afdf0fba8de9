//! The text model, with a limit on its calls and an account of what they cost.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio_util::task::TaskTracker;
use tracing::Instrument as _;

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
    /// The calls under way. The server waits for them before it exits.
    tasks: TaskTracker,
}

impl TextModel {
    pub(crate) fn new(openai: OpenAi, limits: &LimitsConfig, clock: Clock, tasks: TaskTracker) -> Self {
        let prices = Prices::new(limits);
        Self { openai, spending: TextSpending::default(), limit: TextLimit::new(), prices, clock, tasks }
    }

    /// The model's name.
    pub(crate) fn name(&self) -> &str {
        self.openai.text_model()
    }

    /// Allows a caller one call, which lasts until the permit is dropped; `None` if a limit is reached or the
    /// day's budget is spent.
    pub(super) fn acquire(&self, caller: &Caller) -> Option<OwnedSemaphorePermit> {
        if self.spending.is_stopped(self.today()) {
            return None;
        }
        self.limit.acquire(caller)
    }

    /// Writes a short text from an instruction and an input, and counts its cost. The provider bills a call from
    /// its beginning on, so the call keeps its permit and goes on if the caller disconnects: its true cost counts.
    /// A call whose answer is lost counts at the most that it can cost.
    ///
    /// # Errors
    /// See [`Error`]. An unfinished, refused or empty text is [`Error::BadAnswer`].
    pub(super) async fn write(
        self: &Arc<Self>,
        permit: OwnedSemaphorePermit,
        instruction: &'static str,
        input: String,
        timeout: Duration,
    ) -> Result<String, Error> {
        let writing = Arc::clone(self);
        let write = async move {
            let _permit = permit;
            writing.write_and_count(instruction, &input, timeout).await
        };
        self.tasks.spawn(write.in_current_span()).await.unwrap_or(Err(Error::BadAnswer("its reader panicked")))
    }

    async fn write_and_count(&self, instruction: &str, input: &str, timeout: Duration) -> Result<String, Error> {
        let written = self.openai.write(instruction, input, timeout).await;
        let usage = written.as_ref().ok().and_then(|written| written.usage);
        if written.as_ref().err().is_none_or(may_be_billed) {
            self.count(self.prices.text_cost(self.name(), instruction.len() + input.len(), usage));
        }
        written?.text.ok_or(Error::BadAnswer("it contains no finished text"))
    }

    fn count(&self, cost: Cost) {
        let text = ModelTotals {
            texts: 1,
            unpriced: u64::from(!cost.priced),
            usage: cost.usage.unwrap_or_default(),
            spent: cost.micro_usd,
            ..ModelTotals::default()
        };
        self.spending.add(self.today(), text);
    }

    fn today(&self) -> Day {
        Day::of((self.clock)())
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
        Error::NoToken(_)
        | Error::Unreachable(_)
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
