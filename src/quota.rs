//! What may be spent: a daily quota of pictures for each caller, and a daily budget for the app.
//!
//! Both are reserved before the provider is asked and shared by all processes. A reservation counts
//! on its UTC day, whenever it ends: settled at what the picture did cost, kept whole where the
//! provider may have drawn, given back whole where it has not. One whose process died is never
//! given back, because nobody knows what the provider has done: it counts as a picture and at the
//! most that it could cost, unless the picture is recovered from the spool, which settles it.
//!
//! A reservation has the id of its picture and is known by it, so each step may be made again when
//! nobody knows whether it was written: it counts once.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;
use time::{Date, OffsetDateTime, Time, UtcOffset};

use crate::azure::{self, Key, Table};
use crate::caller::Caller;
use crate::config::LimitsConfig;
use crate::ledger::Ledger;
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
#[serde(default)]
struct CallerDay {
    used: u32,
    /// Set with the first picture, and never taken back.
    seen: bool,
    /// The last reservations that count.
    reserved: VecDeque<String>,
}

/// What the app has had of a day.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Day {
    /// Reservations under way, oldest first: their ids, and the most they can cost.
    open: VecDeque<(String, u64)>,
    /// Reservations that nobody will end any more, in millionths of a US dollar.
    abandoned: u64,
    /// The last reservations that have ended.
    ended: VecDeque<String>,
    /// Spent, in millionths of a US dollar.
    pub spent: u64,
    /// Different callers.
    pub callers: u64,
    /// By model.
    pub models: BTreeMap<String, ModelDay>,
    /// What the operator was told about the budget.
    told: Told,
}

impl Day {
    /// Reserved and not settled, in millionths of a US dollar.
    pub fn reserved(&self) -> u64 {
        self.open.iter().fold(self.abandoned, |sum, (_, most)| sum.saturating_add(*most))
    }

    /// Closes a reservation; whether it had not ended yet.
    fn close(&mut self, id: &str) -> bool {
        if self.ended.iter().any(|ended| ended == id) {
            return false;
        }
        self.open.retain(|(open, _)| open != id);
        remember(&mut self.ended, id);
        true
    }
}

/// Entities are read and written whole: of what comes after the last so many, the oldest goes.
const REMEMBERED: usize = 100;
/// Jobs that wait have theirs open, too.
const MAX_OPEN: usize = 2_000;

fn remember(ids: &mut VecDeque<String>, id: &str) {
    ids.push_back(id.to_owned());
    if ids.len() > REMEMBERED {
        ids.pop_front();
    }
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
}

impl Standing {
    /// How long it takes until the day ends; `None` where it has ended.
    pub fn resets_in(&self, now: OffsetDateTime) -> Option<Duration> {
        Duration::try_from(self.resets_at - now).ok().filter(|left| !left.is_zero())
    }

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
    Exceeded {
        /// How the caller stands.
        standing: Standing,
        /// Until the day ends.
        retry_after: Duration,
    },
    /// The app has spent the day's money.
    #[error("the daily budget is spent")]
    Spent {
        /// Until the day ends.
        retry_after: Duration,
    },
    /// What is left of the day's money is reserved for pictures that are being drawn.
    #[error("the rest of the daily budget is reserved")]
    Reserved {
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

    /// Reserves the picture with that id for a caller, and the most that any of `orders` can cost.
    ///
    /// # Errors
    /// See [`Error`]; with what is to be given back, where it is not known whether it was reserved.
    pub(crate) async fn reserve(
        &self,
        id: &str,
        caller: &Caller,
        orders: impl Iterator<Item = Order<'_>>,
        now: OffsetDateTime,
    ) -> Result<(Bill, Option<Standing>), (Error, Option<Bill>)> {
        let today = Today::of(now);
        let mut bill = Bill {
            id: id.to_owned(),
            day: name(today.date),
            caller: caller.as_str().to_owned(),
            reserved: orders.map(|order| self.prices.most(order)).max().unwrap_or_default(),
            is_first: false,
        };
        let limit = self.limits.daily_images;
        let mut standing = None;
        if limit > 0 {
            let reserve = {
                let id = bill.id.clone();
                let mut is_first = false;
                move |state: &mut CallerDay| {
                    if state.reserved.contains(&id) {
                        return (true, is_first, state.used);
                    }
                    let free = state.used < limit;
                    is_first = free && !state.seen;
                    if free {
                        state.used += 1;
                        state.seen = true;
                        remember(&mut state.reserved, &id);
                    }
                    (free, is_first, state.used)
                }
            };
            match self.callers.change(&bill.caller_key(), bill.expires(), reserve).await {
                Ok((true, is_first, used)) => {
                    bill.is_first = is_first;
                    standing = Some(today.standing(limit, used));
                }
                Ok((false, _, used)) => {
                    let standing = today.standing(limit, used);
                    return Err((Error::Exceeded { standing, retry_after: today.left }, None));
                }
                Err(error) => return Err((error.into(), Some(bill))),
            }
        }
        let error = match self.reserve_money(&bill, &today).await {
            Ok(()) => return Ok((bill, standing)),
            Err(error @ Error::Unavailable(_)) => return Err((error, Some(bill))),
            Err(error) => error,
        };
        // Who was turned away for want of money has not been counted.
        let is_first = bill.is_first;
        match self.return_picture(&bill, move |state| state.seen &= !is_first).await {
            Ok(_) => Err((error, None)),
            Err(_) => Err((error, Some(bill))),
        }
    }

    /// A picture was stored.
    pub(crate) async fn settle(&self, bill: &Bill, model: &str, cost: &Cost) -> Result<(), azure::Error> {
        let cost = cost.clone();
        self.end(bill, model, move |day, model| {
            day.spent = day.spent.saturating_add(cost.micro_usd);
            model.spent = model.spent.saturating_add(cost.micro_usd);
            model.images += 1;
            model.unpriced += u64::from(!cost.priced);
            let usage = cost.usage.unwrap_or_default();
            model.usage.text_input = model.usage.text_input.saturating_add(usage.text_input);
            model.usage.image_input = model.usage.image_input.saturating_add(usage.image_input);
            model.usage.output = model.usage.output.saturating_add(usage.output);
        })
        .await
    }

    /// No picture came, and one may have been drawn and billed: it counts at the most it can cost.
    pub(crate) async fn keep(&self, bill: &Bill, model: &str) -> Result<(), azure::Error> {
        let reserved = bill.reserved;
        self.end(bill, model, move |day, model| {
            day.spent = day.spent.saturating_add(reserved);
            model.spent = model.spent.saturating_add(reserved);
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
    ) -> Result<Option<Standing>, azure::Error> {
        let money = self.end(bill, model, move |_, model| {
            model.refusals += u64::from(why == Unused::Refusal);
            model.failures += u64::from(why == Unused::Failure);
        });
        let limit = self.limits.daily_images;
        if limit == 0 {
            return money.await.map(|()| None);
        }
        let (used, money) = tokio::join!(self.return_picture(bill, |_| {}), money);
        money?;
        Ok(Some(Standing { limit, used: used?, resets_at: bill.begins() + time::Duration::DAY }))
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

    /// How many the caller has used then.
    async fn return_picture(
        &self,
        bill: &Bill,
        also: impl Fn(&mut CallerDay) + Send + 'static,
    ) -> Result<u32, azure::Error> {
        if self.limits.daily_images == 0 {
            return Ok(0);
        }
        let id = bill.id.clone();
        let give_back = move |state: &mut CallerDay| {
            if let Some(at) = state.reserved.iter().position(|reserved| *reserved == id) {
                state.reserved.remove(at);
                state.used = state.used.saturating_sub(1);
                also(state);
            }
            state.used
        };
        self.callers.change(&bill.caller_key(), bill.expires(), give_back).await
    }

    async fn reserve_money(&self, bill: &Bill, today: &Today) -> Result<(), Error> {
        let (budget, most) = (self.limits.daily_budget, bill.reserved);
        if budget == 0 {
            return Ok(());
        }
        let id = bill.id.clone();
        let reserve = move |day: &mut Day| {
            if day.open.iter().any(|(open, _)| *open == id) {
                return (Room::Enough, None);
            }
            let is_spent = day.spent.saturating_add(most) > budget;
            let room = match day.spent.saturating_add(day.reserved()).saturating_add(most) {
                _ if is_spent => Room::Spent,
                sum if sum > budget => Room::Reserved,
                _ => Room::Enough,
            };
            if room == Room::Enough {
                day.open.push_back((id.clone(), most));
            }
            if day.open.len() > MAX_OPEN {
                let oldest = day.open.pop_front();
                day.abandoned = day.abandoned.saturating_add(oldest.map_or(0, |(_, most)| most));
            }
            let now = match room {
                Room::Spent => Told::Reached,
                Room::Enough | Room::Reserved if day.spent.saturating_add(day.reserved()) >= budget / 5 * 4 => {
                    Told::FourFifths
                }
                Room::Enough | Room::Reserved => Told::Nothing,
            };
            let news = (now > day.told).then_some(now);
            day.told = day.told.max(now);
            (room, news)
        };
        let (room, news) = self.days.change(&day_key(&bill.day), bill.expires_day(), reserve).await?;
        let budget_usd = usd(budget);
        match news {
            Some(Told::Reached) => {
                tracing::error!(budget_usd, "DAILY_BUDGET_USD is reached: nothing more is drawn today");
            }
            Some(Told::FourFifths) => tracing::warn!(budget_usd, "80 % of DAILY_BUDGET_USD are spent or reserved"),
            Some(Told::Nothing) | None => {}
        }
        match room {
            Room::Enough => Ok(()),
            Room::Spent => Err(Error::Spent { retry_after: today.left }),
            Room::Reserved => Err(Error::Reserved { retry_after: today.left.min(RESERVATIONS_END_WITHIN) }),
        }
    }

    /// Ends a reservation on its day, once.
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
        let (id, model) = (bill.id.clone(), model.to_owned());
        let end = move |day: &mut Day| {
            if !day.close(&id) {
                return;
            }
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

/// What is left of a budget for one more picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Room {
    Enough,
    Reserved,
    Spent,
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
        Standing { limit, used, resets_at: self.ends }
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
