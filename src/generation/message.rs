//! The queue message of a job. `docs/compatibility.md` lists the format that later versions must still
//! read.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::record::Address;

/// The delay of a job after a temporary failure; it doubles with each try.
const FIRST_DELAY: Duration = Duration::from_secs(10);
const LONGEST_DELAY: Duration = Duration::from_secs(5 * 60);

/// A queue message: one more try of a job.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(super) job: Address,
    /// When the job was accepted.
    #[serde(with = "time::serde::rfc3339")]
    pub(super) accepted_at: OffsetDateTime,
    /// The number of tries that ended with a temporary failure.
    #[serde(default)]
    pub(super) tries: u32,
}

impl Message {
    pub(crate) fn new(job: &Address, accepted_at: OffsetDateTime) -> Self {
        Self { job: job.clone(), accepted_at, tries: 0 }
    }

    /// The message as JSON.
    pub(crate) fn text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The delay until the next try.
    pub(super) fn delay(&self) -> Duration {
        FIRST_DELAY.saturating_mul(2_u32.saturating_pow(self.tries)).min(LONGEST_DELAY)
    }
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;
    use crate::spending::Day;

    #[test]
    fn the_delay_of_a_job_doubles_up_to_five_minutes() {
        let now = datetime!(2026-11-21 12:00 UTC);
        let mut message = Message::new(&Address::new(Day::of(now), "a".repeat(64)), now);
        let mut delays = Vec::new();
        for tries in 0..7 {
            message.tries = tries;
            delays.push(message.delay().as_secs());
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(serde_json::from_str::<Message>(&message.text()).expect("a message"), message);
    }
}
