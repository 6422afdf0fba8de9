//! Prices, the callers' quota, the app's budget and the sums of a day. All of it is pure computation;
//! `generation` reads and writes the rows.

mod day;
mod limits;
mod price;
mod texts;
mod totals;

pub use day::{Clock, Day};
pub use limits::QuotaStatus;
pub(crate) use limits::{Limits, Refusal, usd};
pub use price::{Cost, Usage};
pub(crate) use price::{ImageSpec, MAX_TEXT_TOKENS, Prices};
pub(crate) use texts::TextSpending;
pub(crate) use totals::{BudgetAlert, CallerTotals, Contribution, DayTotals, ModelTotals};
