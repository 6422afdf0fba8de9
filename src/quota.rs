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
const RETRY_AFTER: Duration = Duration::from_secs(60);
/// A reservation that is still open then is not waited for any more: its process has died, or it is a
/// job's, behind many others.
const RESERVATIONS_END_WITHIN: time::Duration = time::Duration::minutes(15);

/// Reserves, settles and gives back.
#[derive(Debug)]
pub(crate) struct Quota {
    callers: Ledger<CallerDay>,
    days: Ledger<Day>,
    limits: LimitsConfig,
    prices: Prices,
    budget: Budget,
}

/// What a caller has had of a day.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
struct CallerDay {
    used: u32,
    /// The reservation with which the caller became one of the day's.
    counted_by: Option<String>,
    /// The last reservations that count.
    reserved: VecDeque<String>,
}

/// What the app has had of a day.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Day {
    /// Reservations under way, oldest first.
    open: VecDeque<Reservation>,
    /// Older ones that there was no room for, in millionths of a US dollar: they count as they were made.
    abandoned: u64,
    /// Without a budget nothing is open: the last reservations that have ended.
    ended: VecDeque<String>,
    /// Spent, in millionths of a US dollar.
    pub spent: u64,
    /// Different callers.
    pub callers: u64,
    /// By model.
    pub models: BTreeMap<String, ModelDay>,
    /// What the operator was told about the budget, and with which reservation.
    told: Told,
    told_with: String,
}

/// A reservation under way.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Reservation {
    id: String,
    /// The most it can cost, in millionths of a US dollar.
    most: u64,
    /// When it was made, in seconds since 1970. Earlier versions did not say.
    #[serde(default)]
    at: i64,
}

/// Entities are read and written whole: of more than so many reservations, the oldest goes. Jobs that
/// wait have theirs open, too.
const MAX_RESERVATIONS: usize = 2_000;
/// More do not end between a write and its repetition.
const MAX_ENDED: usize = 500;

impl Day {
    /// Reserved and not settled, in millionths of a US dollar.
    pub fn reserved(&self) -> u64 {
        self.reserved_before(i64::MAX)
    }

    /// Of these, made before that second.
    fn reserved_before(&self, second: i64) -> u64 {
        let open = self.open.iter().filter(|open| open.at < second);
        open.fold(self.abandoned, |sum, open| sum.saturating_add(open.most))
    }

    /// Opens a reservation, unless that was done already; what there is room for.
    fn open(&mut self, reservation: Reservation, budget: &Budget) -> Room {
        if self.open.iter().any(|open| open.id == reservation.id) {
            return Room::Enough;
        }
        // What is still open after that time is as good as spent.
        let ended_by = reservation.at.saturating_sub(RESERVATIONS_END_WITHIN.whole_seconds());
        let gone = self.spent.saturating_add(self.reserved_before(ended_by));
        let fits = |used: u64, more: u64| used.saturating_add(more) <= budget.limit;
        let room = if fits(self.spent.saturating_add(self.reserved()), reservation.most) {
            Room::Enough
        } else if !fits(gone, budget.usual.min(reservation.most)) {
            Room::Spent
        } else if !fits(gone, reservation.most) {
            Room::TooDear
        } else {
            Room::Reserved
        };
        let id = reservation.id.clone();
        if room == Room::Enough {
            self.open.push_back(reservation);
        }
        if self.open.len() > MAX_RESERVATIONS {
            let oldest = self.open.pop_front();
            self.abandoned = self.abandoned.saturating_add(oldest.map_or(0, |oldest| oldest.most));
        }
        let now = match room {
            Room::Spent => Told::Reached,
            _ if self.spent.saturating_add(self.reserved()) >= budget.limit / 5 * 4 => Told::FourFifths,
            _ => Told::Nothing,
        };
        if now > self.told {
            self.told = now;
            self.told_with = id;
        }
        room
    }

    /// Closes a reservation; whether it was open.
    fn close(&mut self, id: &str) -> bool {
        let at = self.open.iter().position(|open| open.id == id);
        at.and_then(|at| self.open.remove(at)).is_some()
    }

    /// Ends a reservation that was not opened; whether it had not ended yet.
    fn end(&mut self, id: &str) -> bool {
        let is_new = !self.ended.iter().any(|ended| ended == id);
        if is_new {
            remember(&mut self.ended, id, MAX_ENDED);
        }
        is_new
    }
}

/// Of more than so many, the oldest goes.
fn remember(ids: &mut VecDeque<String>, id: &str, most: usize) {
    ids.push_back(id.to_owned());
    if ids.len() > most {
        ids.pop_front();
    }
}

/// What may be spent in a day, in millionths of a US dollar.
#[derive(Debug, Clone, Copy)]
struct Budget {
    limit: u64,
    /// The most that a picture without wishes can cost.
    usual: u64,
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
    /// The picture may cost more than is left of the day's money; another may not.
    #[error("the picture may cost more than is left of the daily budget")]
    TooDear {
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
    /// With the orders of a picture without wishes.
    pub(crate) fn new<'a>(limits: &LimitsConfig, table: Table, usual: impl Iterator<Item = Order<'a>>) -> Self {
        let prices = Prices::new(limits);
        let usual = usual.map(|order| prices.most(order)).max().unwrap_or_default();
        Self {
            callers: Ledger::new(table.clone()),
            days: Ledger::new(table),
            limits: limits.clone(),
            budget: Budget { limit: limits.daily_budget, usual },
            prices,
        }
    }

    /// The most that any of these can cost, in millionths of a US dollar.
    pub(crate) fn most<'a>(&self, orders: impl Iterator<Item = Order<'a>>) -> u64 {
        orders.map(|order| self.prices.most(order)).max().unwrap_or_default()
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
            reserved: self.most(orders),
            in_budget: self.budget.limit > 0,
            is_first: true,
        };
        let limit = self.limits.daily_images;
        let mut standing = None;
        if limit > 0 {
            let reserve = {
                let id = bill.id.clone();
                move |state: &mut CallerDay| {
                    let is_there = state.reserved.contains(&id);
                    let is_free = is_there || state.used < limit;
                    if is_free && !is_there {
                        state.used += 1;
                        remember(&mut state.reserved, &id, MAX_RESERVATIONS);
                    }
                    (is_free, state.counted_by.is_none(), state.used)
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
        match self.return_picture(&bill).await {
            Ok(_) => Err((error, None)),
            Err(_) => Err((error, Some(bill))),
        }
    }

    /// A picture was stored.
    pub(crate) async fn settle(&self, bill: &Bill, model: &str, cost: &Cost) -> Result<(), azure::Error> {
        let cost = cost.clone();
        self.end(bill, model, true, move |day, model| {
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
        self.end(bill, model, true, move |day, model| {
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
        let money = self.end(bill, model, why != Unused::NotAsked, move |_, model| {
            model.refusals += u64::from(why == Unused::Refusal);
            model.failures += u64::from(why == Unused::Failure);
        });
        let limit = self.limits.daily_images;
        if limit == 0 {
            return money.await.map(|()| None);
        }
        let (used, money) = tokio::join!(self.return_picture(bill), money);
        money?;
        Ok(Some(Standing { limit, used: used?, resets_at: bill.begins() + time::Duration::DAY }))
    }

    /// What a picture did cost.
    pub(crate) fn cost(&self, order: Option<Order<'_>>, usage: Option<Usage>, bill: &Bill) -> Cost {
        let unknown = Cost { micro_usd: bill.reserved, priced: false, usage };
        order.map_or(unknown, |order| self.prices.settle(order, usage, bill.reserved))
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
    async fn return_picture(&self, bill: &Bill) -> Result<u32, azure::Error> {
        if self.limits.daily_images == 0 {
            return Ok(0);
        }
        let id = bill.id.clone();
        let give_back = move |state: &mut CallerDay| {
            if let Some(at) = state.reserved.iter().position(|reserved| *reserved == id) {
                state.reserved.remove(at);
                state.used = state.used.saturating_sub(1);
            }
            state.used
        };
        self.callers.change(&bill.caller_key(), bill.expires(), give_back).await
    }

    async fn reserve_money(&self, bill: &Bill, today: &Today) -> Result<(), Error> {
        if !bill.in_budget {
            return Ok(());
        }
        let budget = self.budget;
        let reservation = Reservation { id: bill.id.clone(), most: bill.reserved, at: today.now };
        let reserve = move |day: &mut Day| {
            let room = day.open(reservation.clone(), &budget);
            (room, (day.told_with == reservation.id).then_some(day.told))
        };
        let (room, news) = self.days.change(&day_key(&bill.day), bill.expires_day(), reserve).await?;
        let budget_usd = usd(budget.limit);
        match news {
            Some(Told::Reached) => {
                tracing::error!(budget_usd, "DAILY_BUDGET_USD is reached: no usual picture is drawn any more today");
            }
            Some(Told::FourFifths) => tracing::warn!(budget_usd, "80 % of DAILY_BUDGET_USD are spent or reserved"),
            Some(Told::Nothing) | None => {}
        }
        match room {
            Room::Enough => Ok(()),
            Room::Spent => Err(Error::Spent { retry_after: today.left }),
            Room::TooDear => Err(Error::TooDear { retry_after: today.left }),
            Room::Reserved => Err(Error::Reserved { retry_after: today.left.min(RETRY_AFTER) }),
        }
    }

    /// Ends a reservation on its day, once. If it `counts`, so does its caller among the day's.
    async fn end(
        &self,
        bill: &Bill,
        model: &str,
        counts: bool,
        change: impl Fn(&mut Day, &mut ModelDay) + Send + 'static,
    ) -> Result<(), azure::Error> {
        if !counts && !bill.in_budget {
            return Ok(());
        }
        let is_first = counts && bill.is_first && {
            let id = bill.id.clone();
            let count = move |state: &mut CallerDay| *state.counted_by.get_or_insert_with(|| id.clone()) == id;
            self.callers.change(&bill.caller_key(), bill.expires(), count).await?
        };
        let (id, model, in_budget) = (bill.id.clone(), model.to_owned(), bill.in_budget);
        let end = move |day: &mut Day| {
            let ends = if in_budget { day.close(&id) } else { day.end(&id) };
            if !ends {
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
    /// Perhaps, when those under way have ended.
    Reserved,
    /// Not for this one.
    TooDear,
    /// Not for any but the cheapest.
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
    /// In seconds since 1970.
    now: i64,
    date: Date,
    ends: OffsetDateTime,
    left: Duration,
}

impl Today {
    fn of(now: OffsetDateTime) -> Self {
        let date = now.to_offset(UtcOffset::UTC).date();
        let ends = date.next_day().unwrap_or(Date::MAX).with_time(Time::MIDNIGHT).assume_utc();
        Self { now: now.unix_timestamp(), date, ends, left: (ends - now).try_into().unwrap_or_default() }
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

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 60 * 60;

    /// Opens one more, and says what was told with it.
    fn open(day: &mut Day, id: &str, most: u64, at: i64) -> (Room, Option<Told>) {
        let room = day.open(Reservation { id: id.to_owned(), most, at }, &Budget { limit: 1_000, usual: 200 });
        (room, (day.told_with == id).then_some(day.told))
    }

    #[test]
    fn a_dear_picture_does_not_end_the_day_for_the_others() {
        let mut day = Day::default();
        assert_eq!(open(&mut day, "dear", 6_000, 0), (Room::TooDear, None));
        assert_eq!(open(&mut day, "a", 200, 0), (Room::Enough, None));
        assert!(day.close("a"));
        day.spent = 700;
        assert_eq!(open(&mut day, "dear", 400, 0), (Room::TooDear, None));
        assert_eq!(open(&mut day, "b", 200, 0), (Room::Enough, Some(Told::FourFifths)));
        assert_eq!(open(&mut day, "c", 200, 0), (Room::Reserved, None), "b may cost less");
        assert!(day.close("b"));
        day.spent = 850;
        assert_eq!(open(&mut day, "d", 200, 0), (Room::Spent, Some(Told::Reached)));
        assert_eq!(open(&mut day, "e", 200, 0), (Room::Spent, None), "it is told once");
        assert_eq!(open(&mut day, "cheap", 100, 0), (Room::Enough, None));
    }

    #[test]
    fn a_day_of_an_earlier_version_goes_on() {
        let mut day: Day = serde_json::from_str(r#"{"open": [["a", 900]], "spent": 1}"#).expect("it can be read");
        assert_eq!(open(&mut day, "b", 200, HOUR).0, Room::Spent, "nobody ends it any more");
        assert!(day.close("a"));
        let bill = r#"{"id": "a", "day": "2026-11-21", "caller": "c", "reserved": 900, "is_first": true}"#;
        assert!(serde_json::from_str::<Bill>(bill).expect("it can be read").in_budget);
    }

    #[test]
    fn what_dead_processes_reserved_ends_the_day_too() {
        let mut day = Day::default();
        for id in ["a", "b", "c", "d", "e"] {
            assert_eq!(open(&mut day, id, 200, 0).0, Room::Enough);
        }
        assert_eq!(open(&mut day, "f", 200, HOUR / 10).0, Room::Reserved);
        assert_eq!(open(&mut day, "g", 200, HOUR), (Room::Spent, Some(Told::Reached)));
        assert_eq!(open(&mut day, "g", 200, HOUR), (Room::Spent, Some(Told::Reached)), "told again, if need be");
        assert!(day.close("a") && !day.close("a") && !day.close("g"), "what was not open is not closed");
        assert_eq!(open(&mut day, "b", 200, HOUR).0, Room::Enough, "it is open");
        assert_eq!(day.reserved(), 800);
    }

    #[test]
    fn reservations_that_there_is_no_room_for_count_as_they_were_made() {
        let mut day = Day::default();
        let budget = Budget { limit: 10_000, usual: 200 };
        for number in 0..=MAX_RESERVATIONS {
            let reservation = Reservation { id: number.to_string(), most: 1, at: 0 };
            assert_eq!(day.open(reservation, &budget), Room::Enough);
        }
        assert_eq!(day.reserved(), 2_001);
        assert!(!day.close("0") && day.close("1"));
        assert_eq!((day.reserved(), day.told), (2_000, Told::Nothing));
    }

    #[test]
    fn without_a_budget_a_reservation_ends_once_all_the_same() {
        let mut day = Day::default();
        assert!(day.end("a") && !day.end("a"));
        assert!((0..MAX_ENDED).all(|number| day.end(&number.to_string())));
        assert_eq!(day.ended.len(), MAX_ENDED);
    }
}
