//! What may be spent: a daily quota of pictures for each caller, and a daily budget for the app.
//!
//! Both are reserved before the provider is asked and shared by all processes. A reservation counts
//! on its UTC day, whenever it ends: settled at what the picture did cost, kept whole where the
//! provider may have drawn, given back whole where it has not. One whose process died is never
//! given back, because nobody knows what the provider has done: it counts as a picture and at the
//! most that it could cost, unless the picture is recovered from the spool, which settles it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Date, OffsetDateTime, Time, UtcOffset};

use crate::azure::{self, Key, Table};
use crate::caller::Caller;
use crate::config::LimitsConfig;
use crate::ledger::Ledger;
use crate::logs::chain;
use crate::price::{Bill, Cost, Order, Prices, Usage};

const DATE: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day]");
/// So long a day's sums can be asked for.
pub(crate) const MAX_DAYS: u16 = 92;
/// A day's counts of callers are of no use after it; reservations may end a little later.
const CALLERS_KEPT: Duration = Duration::from_secs(2 * 24 * 60 * 60);
const DAYS_KEPT: Duration = Duration::from_secs((MAX_DAYS as u64 + 2) * 24 * 60 * 60);
/// When reservations under way fill the budget, not what was spent.
const RESERVATIONS_END_WITHIN: Duration = Duration::from_secs(60);

/// Reserves, settles and gives back.
#[derive(Debug)]
pub(crate) struct Quota {
    callers: Ledger<CallerDay>,
    days: Ledger<Day>,
    limits: LimitsConfig,
    prices: Prices,
}

/// What a caller has had of a day.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct CallerDay {
    used: u32,
    /// Set with the first picture, and never taken back.
    #[serde(default)]
    seen: bool,
}

/// What the app has had of a day.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Day {
    /// Reserved and not settled, in millionths of a US dollar.
    pub reserved: u64,
    /// Spent, likewise.
    pub spent: u64,
    /// Different callers.
    pub callers: u64,
    /// By model.
    pub models: BTreeMap<String, ModelDay>,
    /// What the operator was told about the budget.
    told: Told,
}

/// What a model has done in a day.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ModelDay {
    /// Pictures stored.
    pub images: u64,
    /// Of these, without a price of the model's own.
    pub unpriced: u64,
    /// Prompts that the provider refused.
    pub refusals: u64,
    /// Other failures.
    pub failures: u64,
    /// In tokens.
    pub usage: Usage,
    /// In millionths of a US dollar.
    pub spent: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Told {
    #[default]
    Nothing,
    FourFifths,
    Reached,
}

/// How a caller stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Standing {
    /// Pictures a day.
    pub limit: u32,
    /// Of these, used or reserved.
    pub used: u32,
    /// The next midnight in UTC.
    pub resets_at: OffsetDateTime,
    /// Until then.
    pub resets_in: Duration,
}

impl Standing {
    /// What is left.
    pub fn remaining(&self) -> u32 {
        self.limit.saturating_sub(self.used)
    }
}

/// Nothing was reserved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The caller has had the day's pictures.
    #[error("the caller's daily quota is used up")]
    Exceeded(Standing),
    /// The app has spent, or reserved, the day's money.
    #[error("the daily budget is spent or reserved")]
    Budget {
        /// When another try is worth it.
        retry_after: Duration,
    },
    /// The counters cannot be read or written.
    #[error("the counters of quota and budget cannot be reached")]
    Unavailable(#[from] azure::Error),
}

/// Why no picture came of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unused {
    /// The provider refused the prompt.
    Refusal,
    /// The provider failed.
    Failure,
    /// The provider was not asked.
    NotAsked,
}

impl Quota {
    pub(crate) fn new(limits: &LimitsConfig, table: Table) -> Self {
        Self {
            callers: Ledger::new(table.clone()),
            days: Ledger::new(table),
            limits: limits.clone(),
            prices: Prices::new(limits),
        }
    }

    /// Reserves a picture for a caller, and the most that any of `orders` can cost.
    pub(crate) async fn reserve(
        &self,
        caller: &Caller,
        orders: impl Iterator<Item = Order<'_>>,
        now: OffsetDateTime,
    ) -> Result<(Bill, Option<Standing>), Error> {
        let day = Today::of(now);
        let reserved = orders.map(|order| self.prices.most(order)).max().unwrap_or_default();
        let mut bill = Bill { day: name(day.date), caller: caller.as_str().to_owned(), reserved, is_first: false };
        let limit = self.limits.daily_images;
        let mut standing = None;
        if limit > 0 {
            let reserve = move |state: &mut CallerDay| {
                let free = state.used < limit;
                let is_first = free && !state.seen;
                state.used += u32::from(free);
                state.seen |= free;
                (free, is_first, state.used)
            };
            let (free, is_first, used) = self.callers.change(&bill.caller_key(), bill.expires(), reserve).await?;
            bill.is_first = is_first;
            if !free {
                return Err(Error::Exceeded(day.standing(limit, used)));
            }
            standing = Some(day.standing(limit, used));
        }
        if self.limits.daily_budget > 0
            && let Err(error) = self.reserve_money(&bill, &day).await
        {
            let is_first = bill.is_first;
            let undo = move |state: &mut CallerDay| {
                state.used = state.used.saturating_sub(1);
                state.seen &= !is_first;
            };
            if limit > 0
                && let Err(error) = self.callers.change(&bill.caller_key(), bill.expires(), undo).await
            {
                tracing::error!(cause = chain(&error), "a picture could not be given back to its caller");
            }
            return Err(error);
        }
        Ok((bill, standing))
    }

    /// A picture was stored.
    pub(crate) async fn settle(&self, bill: &Bill, model: &str, cost: &Cost) -> Result<(), azure::Error> {
        let cost = cost.clone();
        self.end(bill, model, move |day, model| {
            day.spent += cost.micro_usd;
            model.spent += cost.micro_usd;
            model.images += 1;
            model.unpriced += u64::from(!cost.priced);
            let usage = cost.usage.unwrap_or_default();
            model.usage.text_input += usage.text_input;
            model.usage.image_input += usage.image_input;
            model.usage.output += usage.output;
        })
        .await
    }

    /// No picture came, and one may have been drawn and billed: it counts at the most it can cost.
    pub(crate) async fn keep(&self, bill: &Bill, model: &str) -> Result<(), azure::Error> {
        let reserved = bill.reserved;
        self.end(bill, model, move |day, model| {
            day.spent += reserved;
            model.spent += reserved;
            model.failures += 1;
        })
        .await
    }

    /// No picture was drawn; how the caller stands then.
    pub(crate) async fn give_back(
        &self,
        bill: &Bill,
        model: &str,
        why: Unused,
        now: OffsetDateTime,
    ) -> Result<Option<Standing>, azure::Error> {
        let money = self.end(bill, model, move |_, model| {
            model.refusals += u64::from(why == Unused::Refusal);
            model.failures += u64::from(why == Unused::Failure);
        });
        if self.limits.daily_images == 0 {
            return money.await.map(|()| None);
        }
        let (used, money) = tokio::join!(self.return_picture(bill), money);
        money?;
        Ok(Some(Today::of(now).standing(self.limits.daily_images, used?)))
    }

    /// What a picture did cost.
    pub(crate) fn cost(&self, order: Order<'_>, usage: Option<Usage>, bill: &Bill) -> Cost {
        self.prices.settle(order, usage, bill.reserved)
    }

    /// How a caller stands; `None` without a quota.
    pub(crate) async fn standing(
        &self,
        caller: &Caller,
        now: OffsetDateTime,
    ) -> Result<Option<Standing>, azure::Error> {
        if self.limits.daily_images == 0 {
            return Ok(None);
        }
        let day = Today::of(now);
        let used = self.callers.read(&caller_key(&name(day.date), caller.as_str())).await?.used;
        Ok(Some(day.standing(self.limits.daily_images, used)))
    }

    /// The pictures that a caller may have in a day; `None` without a quota.
    pub(crate) fn daily_images(&self) -> Option<u32> {
        Some(self.limits.daily_images).filter(|limit| *limit > 0)
    }

    /// The sums of the last days, today's first. A day without a picture is not among them.
    pub(crate) async fn usage(&self, days: u16, now: OffsetDateTime) -> Result<Vec<(String, Day)>, azure::Error> {
        let today = Today::of(now);
        let first = today.date.checked_sub(time::Duration::days(i64::from(days) - 1)).unwrap_or(today.date);
        let (first, last) = (name(first), name(today.date));
        let mut found = self.days.list("days").await?;
        found.retain(|(day, _)| (&first..=&last).contains(&day));
        found.sort_by(|(one, _), (other, _)| other.cmp(one));
        Ok(found)
    }

    async fn reserve_money(&self, bill: &Bill, today: &Today) -> Result<(), Error> {
        let (budget, reserved) = (self.limits.daily_budget, bill.reserved);
        let reserve = move |day: &mut Day| {
            let fits = day.spent + day.reserved + reserved <= budget;
            day.reserved += if fits { reserved } else { 0 };
            let now = match day.spent + day.reserved {
                _ if !fits => Told::Reached,
                sum if sum >= budget / 5 * 4 => Told::FourFifths,
                _ => Told::Nothing,
            };
            let news = (now > day.told).then_some(now);
            day.told = day.told.max(now);
            (fits, news, day.spent + reserved > budget)
        };
        let (fits, news, is_spent) = self.days.change(&day_key(&bill.day), bill.expires_day(), reserve).await?;
        let usd = usd(budget);
        match news {
            Some(Told::Reached) => {
                tracing::error!(budget_usd = usd, "DAILY_BUDGET_USD is reached: nothing more is drawn today")
            }
            Some(Told::FourFifths) => {
                tracing::warn!(budget_usd = usd, "80 % of DAILY_BUDGET_USD are spent or reserved")
            }
            Some(Told::Nothing) | None => {}
        }
        let retry_after = if is_spent { today.left } else { today.left.min(RESERVATIONS_END_WITHIN) };
        if fits { Ok(()) } else { Err(Error::Budget { retry_after }) }
    }

    /// How many pictures the caller has used then.
    async fn return_picture(&self, bill: &Bill) -> Result<u32, azure::Error> {
        let give_back = |state: &mut CallerDay| {
            state.used = state.used.saturating_sub(1);
            state.used
        };
        self.callers.change(&bill.caller_key(), bill.expires(), give_back).await
    }

    /// Ends a reservation on its day.
    async fn end(
        &self,
        bill: &Bill,
        model: &str,
        change: impl Fn(&mut Day, &mut ModelDay) + Send + 'static,
    ) -> Result<(), azure::Error> {
        // Without a quota nobody has counted the caller yet.
        let is_first = if self.limits.daily_images > 0 {
            bill.is_first
        } else {
            let see = |state: &mut CallerDay| !std::mem::replace(&mut state.seen, true);
            self.callers.change(&bill.caller_key(), bill.expires(), see).await?
        };
        let reserved = if self.limits.daily_budget > 0 { bill.reserved } else { 0 };
        let model = model.to_owned();
        let end = move |day: &mut Day| {
            day.reserved = day.reserved.saturating_sub(reserved);
            day.callers += u64::from(is_first);
            let mut of_model = day.models.remove(&model).unwrap_or_default();
            change(day, &mut of_model);
            if of_model != ModelDay::default() {
                day.models.insert(model.clone(), of_model);
            }
        };
        self.days.change(&day_key(&bill.day), bill.expires_day(), end).await
    }
}

impl Bill {
    fn caller_key(&self) -> Key {
        caller_key(&self.day, &self.caller)
    }

    fn begins(&self) -> OffsetDateTime {
        let day = Date::parse(&self.day, DATE).unwrap_or(Date::MIN);
        day.with_time(Time::MIDNIGHT).assume_utc()
    }

    fn expires(&self) -> OffsetDateTime {
        self.begins() + CALLERS_KEPT
    }

    fn expires_day(&self) -> OffsetDateTime {
        self.begins() + DAYS_KEPT
    }
}

/// The UTC day of a moment, and what is left of it.
struct Today {
    date: Date,
    ends: OffsetDateTime,
    left: Duration,
}

impl Today {
    fn of(now: OffsetDateTime) -> Self {
        let date = now.to_offset(UtcOffset::UTC).date();
        let ends = date.next_day().unwrap_or(Date::MAX).with_time(Time::MIDNIGHT).assume_utc();
        Self { date, ends, left: (ends - now).try_into().unwrap_or_default() }
    }

    fn standing(&self, limit: u32, used: u32) -> Standing {
        Standing { limit, used, resets_at: self.ends, resets_in: self.left }
    }
}

fn name(date: Date) -> String {
    date.format(DATE).unwrap_or_default()
}

fn caller_key(day: &str, caller: &str) -> Key {
    Key { partition: format!("callers-{day}"), row: caller.to_owned() }
}

fn day_key(day: &str) -> Key {
    Key { partition: "days".to_owned(), row: day.to_owned() }
}

#[expect(clippy::cast_precision_loss, reason = "a budget is far below 2^53 millionths")]
pub(crate) fn usd(micro: u64) -> f64 {
    micro as f64 / 1_000_000.0
}
