//! What may be spent and what was: prices, a caller's quota, the app's budget, the sums of a day. All
//! of it is arithmetic; `generation` writes it.

mod day;
mod limits;
mod price;
mod totals;

pub use day::Day;
pub use limits::QuotaStatus;
pub(crate) use limits::{Limits, Refusal, usd};
pub use price::{Cost, Usage};
pub(crate) use price::{ImageSpec, Prices};
pub(crate) use totals::{BudgetAlert, CallerTotals, Contribution, DayTotals, ModelTotals};
