//! The UTC day, to which quota, budget and sums apply.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Date, OffsetDateTime, Time, UtcOffset};

const FORMAT: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");

/// Returns the current time. Only entry points call it; pure functions take the time as an argument.
pub type Clock = Arc<dyn Fn() -> OffsetDateTime + Send + Sync>;

/// A day in UTC, written like `2026-11-21`. The texts sort in the order of the days.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Day(Date);

impl Day {
    /// The day of a point in time.
    pub fn of(now: OffsetDateTime) -> Self {
        Self(now.to_offset(UtcOffset::UTC).date())
    }

    /// Parses a text like `2026-11-21`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        // `FORMAT` also accepts signs and years with more than four digits.
        let is_plain = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        Date::parse(text, FORMAT).ok().filter(|_| is_plain).map(Self)
    }

    /// The day that is `days` days earlier.
    pub(crate) fn before(self, days: u16) -> Self {
        Self(self.0.checked_sub(time::Duration::days(days.into())).unwrap_or(Date::MIN))
    }

    /// The end of the day: midnight in UTC.
    pub(crate) fn ends_at(self) -> OffsetDateTime {
        self.0.next_day().unwrap_or(Date::MAX).with_time(Time::MIDNIGHT).assume_utc()
    }

    /// The time from `now` to the end of the day; zero if the day has ended.
    pub(crate) fn left(self, now: OffsetDateTime) -> Duration {
        Duration::try_from(self.ends_at() - now).unwrap_or_default()
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.format(FORMAT).unwrap_or_default())
    }
}

impl From<Day> for String {
    fn from(day: Day) -> Self {
        day.to_string()
    }
}

impl TryFrom<String> for Day {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("expected a day like 2026-11-21")
    }
}
