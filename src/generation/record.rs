//! The record of a generation: what is known of it, its states, and what it counts for.
//!
//! [`Generation::advance`] is the only way from one state to another, and
//! [`Generation::contribution`] the only source of the day's and the caller's sums. Both are pure: no
//! clock, no I/O. The table of the transitions is in this file's tests.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::outcome::{Failure, Outcome};
use crate::caller::Caller;
use crate::config::PromptEnhancement;
use crate::openai::ImageOptions;
use crate::prompt::Prompt;
use crate::spending::{Contribution, Day, ModelTotals};

/// Where a record is: the UTC day that its generation counts on, and a digest of the image's id, which
/// is readable in blobs.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address {
    day: Day,
    digest: String,
}

/// One generation: what was asked for, and how far it has come.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Generation {
    pub(crate) order: Order,
    pub(crate) state: State,
}

/// What was asked for. It never changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    /// The id of the image that is to come.
    pub(crate) image_id: String,
    pub(crate) address: Address,
    pub(crate) caller: Caller,
    pub(crate) prompt: Prompt,
    pub(crate) options: ImageOptions,
    pub(crate) enhancement: PromptEnhancement,
    /// The name of a preset.
    pub(crate) style: Option<String>,
    /// The model that is asked first.
    pub(crate) model: String,
    /// The most that the image can cost, in millionths of a US dollar.
    pub(crate) most_cost: u64,
    /// Whether that is held of a budget.
    pub(crate) in_budget: bool,
    /// Whether it counts against a quota.
    pub(crate) in_quota: bool,
    pub(crate) via: Via,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
    /// How long it may take, in seconds.
    pub(crate) estimate: Option<u64>,
}

/// How the caller waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Via {
    /// With an open request, which is drawn by the process that has it.
    Request,
    /// As a job, which the queue delivers to any process.
    Queue,
}

/// How far a generation has come.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// It waits for a delivery.
    Queued,
    /// The provider is, or was, asked by this attempt.
    Drawing(Attempt),
    /// It has ended.
    Ended {
        outcome: Outcome,
        /// The attempt that asked the provider, if there was one.
        attempt: Option<Attempt>,
        /// Whether the end is a presumption, because the attempt's process has died.
        presumed: bool,
    },
}

/// One try of one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attempt {
    /// The process.
    pub(crate) process: String,
    /// Names the try.
    pub(crate) id: String,
}

/// What may happen to a generation.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// An attempt is about to ask the provider.
    Begin(Attempt),
    /// Nothing was drawn by the attempt, for a reason that passes: another delivery tries again.
    PutBack(Attempt),
    /// The attempt's own word on how it ended.
    End(Attempt, Outcome),
    /// The image is in the gallery, whoever brought it there.
    Found(Outcome),
    /// The attempt's process has died, and neither a spool nor the gallery knows of an image.
    Died(Attempt),
    /// The caller does not want it any more.
    Cancel,
    /// Nobody will ask the provider.
    GiveUp(Failure),
}

/// An event that does not fit the state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// Another attempt asks the provider.
    #[error("another attempt is under way")]
    UnderWay,
    /// It has ended in another way.
    #[error("the generation has ended")]
    Ended,
    /// No attempt has begun.
    #[error("the generation has not begun")]
    NotBegun,
}

impl Generation {
    /// The generation after an event. After one that is there already it is as it was, so an event
    /// whose write nobody knows of may come again.
    pub(crate) fn advance(&self, event: &Event) -> Result<Self, Refused> {
        let ended = |outcome: &Outcome, attempt: Option<&Attempt>, presumed| {
            Ok(self.with(State::Ended { outcome: outcome.clone(), attempt: attempt.cloned(), presumed }))
        };
        match (&self.state, event) {
            // The image is there: that beats every other end.
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

            // The attempt's own word replaces what was presumed of it.
            (State::Ended { attempt: Some(mine), presumed: true, .. }, Event::End(attempt, outcome))
                if mine == attempt =>
            {
                ended(outcome, Some(attempt), false)
            }
            (State::Ended { attempt: Some(mine), presumed: true, .. }, Event::PutBack(attempt)) if mine == attempt => {
                Ok(self.with(State::Queued))
            }
            (State::Ended { outcome, attempt: mine, .. }, event) => {
                let is_there = match event {
                    Event::End(attempt, wanted) => mine.as_ref() == Some(attempt) && outcome == wanted,
                    Event::Died(attempt) => mine.as_ref() == Some(attempt),
                    Event::Cancel => *outcome == Outcome::Cancelled,
                    Event::GiveUp(failure) => *outcome == Outcome::NotDrawn(failure.clone()),
                    Event::Begin(_) | Event::PutBack(_) | Event::Found(_) => false,
                };
                if is_there { Ok(self.clone()) } else { Err(Refused::Ended) }
            }
        }
    }

    /// What the generation counts for.
    pub(crate) fn contribution(&self) -> Contribution {
        let Order { in_budget, in_quota, most_cost, model, .. } = &self.order;
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
        contribution.counts_caller = contribution.totals != ModelTotals::default();
        contribution
    }

    /// How it ended, if it has.
    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        match &self.state {
            State::Ended { outcome, .. } => Some(outcome),
            State::Queued | State::Drawing(_) => None,
        }
    }

    /// Whether the key and the caller are free for another generation: nothing was drawn.
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

    /// The UTC day that its generation counts on.
    pub(crate) fn day(&self) -> Day {
        self.day
    }

    /// The address that a text is, if it is one: a day, a hyphen, 64 hexadecimal digits.
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
        Self::parse(&text).ok_or("not the address of a generation")
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

    /// A generation that was accepted as a job, with a quota and a budget.
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

    /// In one word; `?` behind it where it is a presumption.
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

    /// Every state and every event: the state after it, `=` where that is the same, `-` where the
    /// event is refused.
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
                // An event that comes again changes nothing.
                if let Ok(after) = before.advance(event) {
                    assert_eq!(after.advance(event).as_ref(), Ok(&after), "{name}, {event:?}, again");
                }
            }
        }
    }

    #[test]
    fn each_state_counts_for_what_it_holds_or_has_spent() {
        let generation = queued("a", "anna", datetime!(2026-11-21 12:00 UTC));
        let counts: Vec<_> = states()
            .into_iter()
            .map(|state| {
                let Contribution { reserved, used, counts_caller, model, totals } =
                    generation.with(state).contribution();
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
