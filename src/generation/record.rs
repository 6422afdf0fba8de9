//! The record of a generation: its order, its state machine, and its share of quota and budget.
//!
//! [`Generation::advance`] makes every state transition. [`Generation::contribution`] is the only source
//! of the sums of a day and of a caller. Both are pure functions: no clock, no I/O. The tests in this
//! file contain the transition table.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::outcome::{Failure, Outcome};
use crate::caller::Caller;
use crate::config::PromptEnhancement;
use crate::openai::ImageOptions;
use crate::prompt::Prompt;
use crate::spending::{Contribution, Day, ModelTotals};

/// The address of a record: the UTC day that the generation counts on, and a keyed digest of the image's
/// id. The digest hides the id, which blob metadata shows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    day: Day,
    digest: String,
}

/// One generation: its order and its state.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Generation {
    pub(crate) order: Order,
    pub(crate) state: State,
}

/// The request for one image, as accepted. An order never changes, but for its prompt: the end of a
/// generation that drew nothing removes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The id of the image to draw.
    pub(crate) image_id: String,
    pub(crate) address: Address,
    pub(crate) caller: Caller,
    pub(crate) prompt: Prompt,
    pub(crate) options: ImageOptions,
    pub(crate) enhancement: PromptEnhancement,
    /// The name of a style preset.
    pub(crate) style: Option<String>,
    /// The first model to ask; fallbacks may draw instead.
    pub(crate) model: String,
    /// The highest cost that the image may have, in millionths of a US dollar.
    pub(crate) most_cost: u64,
    /// Whether `most_cost` is reserved in the budget.
    pub(crate) in_budget: bool,
    /// Whether the cost counts against the caller's own budget.
    pub(crate) in_caller_budget: bool,
    /// Whether the image counts against the caller's quota.
    pub(crate) in_quota: bool,
    pub(crate) via: Via,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
    /// The expected drawing time, in seconds.
    pub(crate) estimate: Option<u64>,
}

/// How the caller waits for the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Via {
    /// With an open HTTP request. The process that has the request draws.
    Request,
    /// As a job. The queue delivers it to any process.
    Queue,
}

/// The state of a generation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// The job waits for a delivery.
    Queued,
    /// This attempt may call the provider.
    Drawing(Attempt),
    /// The generation has ended.
    Ended {
        outcome: Outcome,
        /// The attempt that called the provider, if any.
        attempt: Option<Attempt>,
        /// Whether another process wrote the end because the attempt's process has died. A later event of
        /// the attempt replaces a presumed end.
        presumed: bool,
    },
}

/// One attempt of one process to draw.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    /// The id of the process.
    pub(crate) process: String,
    /// A random id of the attempt.
    pub(crate) id: String,
}

/// An event that may change the state of a generation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// An attempt is about to call the provider.
    Begin(Attempt),
    /// The attempt drew nothing because of a temporary failure; another delivery tries again.
    PutBack(Attempt),
    /// The attempt reports its own outcome.
    End(Attempt, Outcome),
    /// The image was found in the gallery or was recovered into it.
    Found(Outcome),
    /// The attempt's process has died, and neither the spool nor the gallery has the image.
    Died(Attempt),
    /// The caller cancels the job.
    Cancel,
    /// The generation ends before any call to the provider.
    GiveUp(Failure),
}

/// An event is not valid in the current state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// Another attempt is drawing.
    #[error("another attempt is drawing")]
    UnderWay,
    /// The generation has ended with another outcome.
    #[error("the generation has ended with another outcome")]
    Ended,
    /// No attempt has begun.
    #[error("no attempt has begun")]
    NotBegun,
}

impl Generation {
    /// The generation after an event. The same event applied twice changes nothing, so a write with an
    /// unknown result can be repeated.
    ///
    /// # Errors
    /// [`Refused`] if the event is not valid in the current state.
    pub(crate) fn advance(&self, event: &Event) -> Result<Self, Refused> {
        let ended = |outcome: &Outcome, attempt: Option<&Attempt>, presumed| {
            let mut ended = self.with(State::Ended { outcome: outcome.clone(), attempt: attempt.cloned(), presumed });
            // Nobody reads the prompt of an image that will never exist, and the row is kept for two days.
            if ended.is_void() {
                ended.order.prompt = Prompt::removed();
            }
            Ok(ended)
        };
        match (&self.state, event) {
            // An image in the gallery replaces every other outcome.
            (State::Ended { outcome: Outcome::Stored { .. }, .. }, Event::Found(_)) => Ok(self.clone()),
            (_, Event::Found(outcome)) => ended(outcome, self.attempt(), false),

            (State::Queued, Event::Begin(attempt)) => Ok(self.with(State::Drawing(attempt.clone()))),
            (State::Queued, Event::PutBack(_)) => Ok(self.clone()),
            (State::Queued, Event::Cancel) => ended(&Outcome::Cancelled, None, false),
            (State::Queued, Event::GiveUp(failure)) => ended(&Outcome::NotDrawn(failure.clone()), None, false),
            (State::Queued, Event::End(..) | Event::Died(_)) => Err(Refused::NotBegun),

            (State::Drawing(mine), Event::Begin(attempt)) if mine == attempt => Ok(self.clone()),
            (State::Drawing(mine), Event::PutBack(attempt)) if mine == attempt => Ok(self.with(State::Queued)),
            (State::Drawing(mine), Event::End(attempt, outcome)) if mine == attempt => {
                ended(outcome, Some(attempt), false)
            }
            (State::Drawing(mine), Event::Died(attempt)) if mine == attempt => {
                ended(&Outcome::Lost(Failure::AnswerLost), Some(attempt), true)
            }
            (State::Drawing(_), _) => Err(Refused::UnderWay),

            // The attempt's own report replaces a presumed end.
            (State::Ended { attempt: Some(mine), presumed: true, .. }, Event::End(attempt, outcome))
                if mine == attempt =>
            {
                ended(outcome, Some(attempt), false)
            }
            (State::Ended { attempt: Some(mine), presumed: true, .. }, Event::PutBack(attempt)) if mine == attempt => {
                Ok(self.with(State::Queued))
            }
            (State::Ended { outcome, attempt: mine, .. }, event) => {
                let is_repeated = match event {
                    Event::End(attempt, wanted) => mine.as_ref() == Some(attempt) && outcome == wanted,
                    Event::Died(attempt) => mine.as_ref() == Some(attempt),
                    Event::Cancel => *outcome == Outcome::Cancelled,
                    Event::GiveUp(failure) => *outcome == Outcome::NotDrawn(failure.clone()),
                    Event::Begin(_) | Event::PutBack(_) | Event::Found(_) => false,
                };
                if is_repeated { Ok(self.clone()) } else { Err(Refused::Ended) }
            }
        }
    }

    /// The share of this generation in the sums of its day and its caller: reserved and spent budget, and
    /// used quota.
    pub(crate) fn contribution(&self) -> Contribution {
        let Order { in_budget, in_caller_budget, in_quota, most_cost, model, .. } = &self.order;
        let mut contribution = Contribution { model: model.clone(), ..Contribution::default() };
        let totals = &mut contribution.totals;
        let mut is_used = true;
        match &self.state {
            State::Queued | State::Drawing(_) => contribution.reserved = if *in_budget { *most_cost } else { 0 },
            State::Ended { outcome, .. } => match outcome {
                Outcome::Stored { cost, .. } | Outcome::StoredLater { cost, .. } => {
                    *totals = ModelTotals {
                        images: 1,
                        unpriced: u64::from(!cost.priced),
                        usage: cost.usage.unwrap_or_default(),
                        spent: cost.micro_usd,
                        ..ModelTotals::default()
                    };
                }
                Outcome::Lost(_) => *totals = ModelTotals { failures: 1, lost: 1, spent: *most_cost, ..*totals },
                Outcome::NotDrawn(failure) => {
                    is_used = false;
                    totals.refusals = u64::from(*failure == Failure::PromptRefused);
                    totals.failures = u64::from(failure.is_of_provider());
                }
                Outcome::Cancelled => is_used = false,
            },
        }
        match self.outcome() {
            Some(Outcome::Stored { stored, .. }) => contribution.model.clone_from(&stored.model),
            Some(Outcome::StoredLater { model, .. }) => contribution.model.clone_from(model),
            _ => {}
        }
        contribution.used = u32::from(is_used && *in_quota);
        if *in_caller_budget {
            let is_open = self.outcome().is_none();
            contribution.caller_cost = if is_open { *most_cost } else { contribution.totals.spent };
        }
        contribution.refusals = u32::from(contribution.totals.refusals > 0);
        let was_accepted = self.outcome() != Some(&Outcome::NotDrawn(Failure::NotAccepted));
        contribution.jobs = u32::from(self.order.via == Via::Queue && was_accepted);
        contribution.counts_caller = contribution.totals != ModelTotals::default();
        contribution
    }

    /// The outcome; `None` while the generation has not ended.
    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        match &self.state {
            State::Ended { outcome, .. } => Some(outcome),
            State::Queued | State::Drawing(_) => None,
        }
    }

    /// Whether the generation ended without drawing, so that its idempotency key and quota are free again.
    pub(crate) fn is_void(&self) -> bool {
        matches!(self.outcome(), Some(Outcome::NotDrawn(_) | Outcome::Cancelled))
    }

    fn attempt(&self) -> Option<&Attempt> {
        match &self.state {
            State::Queued => None,
            State::Drawing(attempt) => Some(attempt),
            State::Ended { attempt, .. } => attempt.as_ref(),
        }
    }

    fn with(&self, state: State) -> Self {
        Self { order: self.order.clone(), state }
    }
}

impl Address {
    pub(crate) fn new(day: Day, digest: String) -> Self {
        Self { day, digest }
    }

    /// The UTC day that the generation counts on.
    pub(crate) fn day(&self) -> Day {
        self.day
    }

    /// Parses an address: a day, a hyphen, and 64 lowercase hexadecimal digits.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (day, digest) = (text.get(..10)?, text.get(10..)?.strip_prefix('-')?);
        let is_digest =
            digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        is_digest.then(|| Some(Self::new(Day::parse(day)?, digest.to_owned())))?
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.day, self.digest)
    }
}

impl From<Address> for String {
    fn from(address: Address) -> Self {
        address.to_string()
    }
}

impl TryFrom<String> for Address {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("an address is a day, a hyphen and 64 lowercase hexadecimal digits")
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::gallery::Stored;
    use crate::spending::Cost;

    pub(crate) const MOST: u64 = 200;
    pub(crate) const COST: u64 = 50;

    /// A job in state `Queued`, with a quota and a budget.
    pub(crate) fn queued(image_id: &str, caller: &str, now: OffsetDateTime) -> Generation {
        let order = Order {
            image_id: image_id.to_owned(),
            address: Address::new(Day::of(now), image_id.to_owned()),
            caller: Caller::named(caller),
            prompt: Prompt::parse("a fox").expect("a prompt"),
            options: ImageOptions::default(),
            enhancement: PromptEnhancement::Off,
            style: None,
            model: "planned".to_owned(),
            most_cost: MOST,
            in_budget: true,
            in_caller_budget: true,
            in_quota: true,
            via: Via::Queue,
            created_at: now,
            estimate: None,
        };
        Generation { order, state: State::Queued }
    }

    pub(crate) fn stored(name: &str) -> Outcome {
        let stored = Stored {
            name: name.to_owned(),
            final_prompt: "a fox".to_owned(),
            enhancement: PromptEnhancement::Off,
            revised_prompt: None,
            model: "drew".to_owned(),
            size: "1024x1024".to_owned(),
            quality: "auto".to_owned(),
            content_type: "image/png".to_owned(),
            bytes: 1,
            created_at: datetime!(2026-11-21 12:00 UTC),
        };
        Outcome::Stored { stored: Box::new(stored), cost: cost() }
    }

    pub(crate) fn stored_later() -> Outcome {
        Outcome::StoredLater { name: "a fox_1.png".to_owned(), model: "drew".to_owned(), cost: cost() }
    }

    fn cost() -> Cost {
        Cost { micro_usd: COST, priced: true, usage: None }
    }

    fn attempt(id: &str) -> Attempt {
        Attempt { process: "process".to_owned(), id: id.to_owned() }
    }

    /// A short name of a state; a presumed end has a `?` at its end.
    fn word(state: &State) -> String {
        match state {
            State::Queued => "queued".to_owned(),
            State::Drawing(attempt) => format!("drawing {}", attempt.id),
            State::Ended { outcome, presumed, .. } => {
                let word = match outcome {
                    Outcome::Stored { .. } => "stored",
                    Outcome::StoredLater { .. } => "later",
                    Outcome::NotDrawn(_) => "not drawn",
                    Outcome::Lost(_) => "lost",
                    Outcome::Cancelled => "cancelled",
                };
                format!("{word}{}", if *presumed { "?" } else { "" })
            }
        }
    }

    fn states() -> Vec<State> {
        let ended = |outcome, attempt, presumed| State::Ended { outcome, attempt, presumed };
        let mine = Some(attempt("mine"));
        vec![
            State::Queued,
            State::Drawing(attempt("mine")),
            State::Drawing(attempt("other")),
            ended(stored("a"), mine.clone(), false),
            ended(stored_later(), mine.clone(), false),
            ended(Outcome::NotDrawn(Failure::PromptRefused), mine.clone(), false),
            ended(Outcome::Lost(Failure::AnswerLost), mine.clone(), false),
            ended(Outcome::Lost(Failure::AnswerLost), mine, true),
            ended(Outcome::Lost(Failure::AnswerLost), Some(attempt("other")), true),
            ended(Outcome::Cancelled, None, false),
            ended(Outcome::NotDrawn(Failure::TooOld), None, false),
        ]
    }

    /// Every state with every event: the next state, `=` if the state is unchanged, `-` if the event is
    /// refused.
    #[test]
    fn each_event_leads_where_the_table_says() {
        let mine = || attempt("mine");
        let events = [
            Event::Begin(mine()),
            Event::PutBack(mine()),
            Event::End(mine(), stored("b")),
            Event::End(mine(), stored_later()),
            Event::End(mine(), Outcome::NotDrawn(Failure::PromptRefused)),
            Event::End(mine(), Outcome::Lost(Failure::AnswerLost)),
            Event::Found(stored("c")),
            Event::Died(mine()),
            Event::Cancel,
            Event::GiveUp(Failure::TooOld),
        ];
        #[rustfmt::skip]
        let table = [
            //                 begin           put back  stored    later    refused      lost    found     died     cancel       give up
            ("queued",        ["drawing mine", "=",      "-",      "-",     "-",         "-",    "stored", "-",     "cancelled", "not drawn"]),
            ("drawing mine",  ["=",            "queued", "stored", "later", "not drawn", "lost", "stored", "lost?", "-",         "-"]),
            ("drawing other", ["-",            "-",      "-",      "-",     "-",         "-",    "stored", "-",     "-",         "-"]),
            ("stored",        ["-",            "-",      "-",      "-",     "-",         "-",    "=",      "=",     "-",         "-"]),
            ("later",         ["-",            "-",      "-",      "=",     "-",         "-",    "stored", "=",     "-",         "-"]),
            ("not drawn",     ["-",            "-",      "-",      "-",     "=",         "-",    "stored", "=",     "-",         "-"]),
            ("lost",          ["-",            "-",      "-",      "-",     "-",         "=",    "stored", "=",     "-",         "-"]),
            ("lost?",         ["-",            "queued", "stored", "later", "not drawn", "lost", "stored", "=",     "-",         "-"]),
            ("lost?",         ["-",            "-",      "-",      "-",     "-",         "-",    "stored", "-",     "-",         "-"]),
            ("cancelled",     ["-",            "-",      "-",      "-",     "-",         "-",    "stored", "-",     "=",         "-"]),
            ("not drawn",     ["-",            "-",      "-",      "-",     "-",         "-",    "stored", "-",     "-",         "="]),
        ];
        assert_eq!(table.len(), states().len());
        let generation = queued("a", "anna", datetime!(2026-11-21 12:00 UTC));
        for ((name, wanted), state) in table.into_iter().zip(states()) {
            let before = generation.with(state);
            assert_eq!(word(&before.state), name);
            for (event, wanted) in events.iter().zip(wanted) {
                let after = match before.advance(event) {
                    Ok(after) if after == before => "=".to_owned(),
                    Ok(after) => word(&after.state),
                    Err(_) => "-".to_owned(),
                };
                assert_eq!(after, wanted, "{name}, {event:?}");
                // A repeated event changes nothing.
                if let Ok(after) = before.advance(event) {
                    assert_eq!(after.advance(event).as_ref(), Ok(&after), "{name}, {event:?}, again");
                }
            }
        }
    }

    #[test]
    fn a_generation_that_drew_nothing_keeps_no_prompt() {
        let queued = queued("a", "anna", datetime!(2026-11-21 12:00 UTC));
        let drawing = queued.advance(&Event::Begin(attempt("mine"))).expect("it begins");
        let ends = [
            (queued.advance(&Event::Cancel), false),
            (queued.advance(&Event::GiveUp(Failure::TooOld)), false),
            (drawing.advance(&Event::End(attempt("mine"), Outcome::NotDrawn(Failure::PromptRefused))), false),
            // The prompt finds the image in the gallery.
            (drawing.advance(&Event::Died(attempt("mine"))), true),
            (drawing.advance(&Event::PutBack(attempt("mine"))), true),
            (drawing.advance(&Event::End(attempt("mine"), stored("a_1.png"))), true),
        ];
        for (ended, keeps) in ends {
            let ended = ended.expect("the event is valid");
            assert_eq!(ended.order.prompt == queued.order.prompt, keeps, "{:?}", ended.state);
        }
    }

    #[test]
    fn each_state_contributes_what_it_reserves_or_has_spent() {
        let generation = queued("a", "anna", datetime!(2026-11-21 12:00 UTC));
        let counts: Vec<_> = states()
            .into_iter()
            .map(|state| {
                let Contribution {
                    reserved,
                    used,
                    refusals: caller_refusals,
                    jobs,
                    caller_cost,
                    counts_caller,
                    model,
                    totals,
                } = generation.with(state).contribution();
                assert_eq!(caller_cost, reserved + totals.spent);
                assert_eq!((u64::from(caller_refusals), jobs), (totals.refusals, 1));
                let ModelTotals { images, refusals, failures, lost, spent, .. } = totals;
                (reserved, used, counts_caller, model, [images, refusals, failures, lost, spent])
            })
            .collect();
        let row = |reserved, used, counts, model: &str, totals| (reserved, used, counts, model.to_owned(), totals);
        let open = row(MOST, 1, false, "planned", [0; 5]);
        let lost = row(0, 1, true, "planned", [0, 0, 1, 1, MOST]);
        let nothing = row(0, 0, false, "planned", [0; 5]);
        let drew = row(0, 1, true, "drew", [1, 0, 0, 0, COST]);
        let refused = row(0, 0, true, "planned", [0, 1, 0, 0, 0]);
        let (open2, open3, drew2, lost2, lost3) =
            (open.clone(), open.clone(), drew.clone(), lost.clone(), lost.clone());
        let wanted = vec![open, open2, open3, drew, drew2, refused, lost, lost2, lost3, nothing.clone(), nothing];
        assert_eq!(counts, wanted);
        let mut unlimited = generation;
        (unlimited.order.in_budget, unlimited.order.in_quota) = (false, false);
        assert_eq!((unlimited.contribution().reserved, unlimited.contribution().used), (0, 0));
    }
}
