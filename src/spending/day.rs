//! A UTC day: what quotas, budgets and sums go by.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Date, OffsetDateTime, Time, UtcOffset};

const FORMAT: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");

/// A day in UTC, written as in `2026-11-21`; such texts sort as the days do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Day(Date);

impl Day {
    /// The day of a moment.
    pub fn of(now: OffsetDateTime) -> Self {
        Self(now.to_offset(UtcOffset::UTC).date())
    }

    /// The day that a text names, if it does.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        // The format alone takes signs and more than four digits.
        let is_plain = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        Date::parse(text, FORMAT).ok().filter(|_| is_plain).map(Self)
    }

    /// The day so many days before.
    pub(crate) fn before(self, days: u16) -> Self {
        Self(self.0.checked_sub(time::Duration::days(days.into())).unwrap_or(Date::MIN))
    }

    /// The midnight with which the next day begins.
    pub(crate) fn ends_at(self) -> OffsetDateTime {
        self.0.next_day().unwrap_or(Date::MAX).with_time(Time::MIDNIGHT).assume_utc()
    }

    /// What is left of the day.
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
        Self::parse(&text).ok_or("not a day as in 2026-11-21")
    }
}
