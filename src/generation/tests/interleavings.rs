//! Random interleavings of everybody who touches a record, over a table in memory: two machines whose
//! process may be killed at any await, clients with and without keys, jobs, the queue, cancelling,
//! the sweeper, recovery, midnight; calls that are lost, answers that are lost, transactions that land
//! late. At the end all is calm, and what must be true is looked for in the table.
//!
//! `INTERLEAVINGS=100000` tries more, `INTERLEAVING=4711` one seed alone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use time::OffsetDateTime;
use time::macros::datetime;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::model::{Failures, Latency, Model};
use crate::caller::Caller;
use crate::generation::commit::{Committer, Patience};
use crate::generation::outcome::{Failure, Outcome};
use crate::generation::record::tests::{COST, MOST, queued, stored, stored_later};
use crate::generation::record::{Address, Attempt, Event, Generation, State, Via};
use crate::generation::records::{ACCEPTED_WITHIN, Records};
use crate::generation::rows::{Row, RowKey, read_day, read_generation};
use crate::generation::steps::{Advanced, IdempotencyKey, NotAccepted};
use crate::lock::locked;
use crate::spending::{Contribution, Day, DayTotals, Limits, Refusal};

/// Seeds that are tried.
const SEEDS: u64 = 10_000;
/// Two seconds before a midnight.
const BEGINS_AT: OffsetDateTime = datetime!(2026-11-21 23:59:58 UTC);
const CALLERS: [&str; 2] = ["anna", "bob"];
const REQUESTS: usize = 8;
/// After that nothing fails and nobody is killed any more.
const WILD_FOR: Duration = Duration::from_secs(40);
/// Long enough for the leases of the dead, for sweeps, and for transactions that land late.
const CALM_FOR: Duration = Duration::from_secs(250);

/// What is outside the processes, and lives longer than they do.
struct World {
    began: Instant,
    limits: Limits,
    state: Mutex<Outside>,
}

struct Outside {
    random: fastrand::Rng,
    /// Whether things fail and die.
    wild: bool,
    /// Images by id, as the gallery has them.
    gallery: BTreeMap<String, Outcome>,
    /// By machine: what is in the spool, by the image's id.
    spools: [BTreeMap<String, Address>; 2],
    /// What is visible when.
    queue: Vec<(Instant, Address)>,
    /// How often each attempt has asked the provider.
    asked: BTreeMap<String, u32>,
    /// Images that a caller was told of.
    promised: BTreeSet<String>,
    /// Requests whose caller was told that they were not accepted.
    withdrawn: BTreeSet<String>,
}

/// A process on a machine.
struct Process {
    world: Arc<World>,
    machine: usize,
    model: Model,
    records: Records<Model>,
    here: Mutex<BTreeSet<Address>>,
    tasks: Mutex<JoinSet<()>>,
}

impl World {
    fn now(&self) -> OffsetDateTime {
        BEGINS_AT + self.began.elapsed()
    }

    fn chance(&self, percent: u32) -> bool {
        locked(&self.state).random.u32(0..100) < percent
    }

    /// A chance of something bad.
    fn trouble(&self, percent: u32) -> bool {
        locked(&self.state).wild && self.chance(percent)
    }

    fn number(&self, below: usize) -> usize {
        locked(&self.state).random.usize(0..below)
    }

    async fn pause(&self, longest_ms: u64) {
        let pause = locked(&self.state).random.u64(0..longest_ms);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    fn enqueue(&self, address: &Address, delay: Duration) {
        locked(&self.state).queue.push((Instant::now() + delay, address.clone()));
    }
}

impl Process {
    fn start(world: &Arc<World>, machine: usize, model: Model) -> Arc<Self> {
        let id = format!("{:x}", locked(&world.state).random.u64(..));
        let records =
            Records::new(Committer::new(model.clone(), id, TaskTracker::new(), CancellationToken::new()), world.limits);
        let process = Arc::new(Self {
            world: Arc::clone(world),
            machine,
            model,
            records,
            here: Mutex::default(),
            tasks: Mutex::default(),
        });
        process.spawn(|process| async move { process.look_after().await });
        process.spawn(|process| async move { process.listen().await });
        process
    }

    fn spawn<F: Future<Output = ()> + Send + 'static>(self: &Arc<Self>, task: impl FnOnce(Arc<Self>) -> F) {
        locked(&self.tasks).spawn(task(Arc::clone(self)));
    }

    /// Ends it at whatever it is doing; what one of its tasks found wrong is this test's failure.
    fn kill(&self) {
        self.model.kill();
        let mut tasks = locked(&self.tasks);
        while let Some(ended) = tasks.try_join_next() {
            if let Err(error) = ended {
                std::panic::resume_unwind(error.into_panic());
            }
        }
        tasks.abort_all();
    }

    /// Asks the provider, which must only happen for an attempt that was written.
    async fn draw(&self, generation: &Generation, attempt: &Attempt) -> Option<Outcome> {
        let order = &generation.order;
        if order.in_budget || order.in_quota {
            let rows = self.model.rows();
            let row = rows.get(&RowKey::Generation(order.address.clone()).text());
            let written = row.and_then(|columns| read_generation(columns).ok()).map(|found| found.state);
            let is_written = match &written {
                Some(State::Drawing(found) | State::Ended { attempt: Some(found), .. }) => found == attempt,
                _ => false,
            };
            assert!(is_written, "the provider is asked by {attempt:?}, and written is {written:?}");
        }
        *locked(&self.world.state).asked.entry(attempt.id.clone()).or_default() += 1;
        self.world.pause(3_000).await;
        if self.world.trouble(10) {
            return Some(Outcome::NotDrawn(Failure::PromptRefused));
        }
        if self.world.trouble(10) {
            return Some(Outcome::Lost(Failure::AnswerLost));
        }
        if self.world.trouble(15) {
            // A failure that passes.
            return None;
        }
        locked(&self.world.state).spools[self.machine].insert(order.image_id.clone(), order.address.clone());
        self.world.pause(300).await;
        if self.world.trouble(20) {
            return Some(stored_later());
        }
        let outcome = stored(&order.image_id);
        locked(&self.world.state).gallery.insert(order.image_id.clone(), outcome.clone());
        self.world.pause(30).await;
        Some(outcome)
    }

    async fn end(&self, generation: &Generation, attempt: &Attempt, outcome: Outcome) {
        let is_stored = matches!(outcome, Outcome::Stored { .. });
        let ended = self.records.end(generation, attempt, outcome).await;
        assert!(ended.is_ok(), "an end is not given up");
        if is_stored {
            locked(&self.world.state).spools[self.machine].remove(&generation.order.image_id);
        }
    }

    /// A request with an open connection.
    async fn request(self: Arc<Self>, mut generation: Generation, key: Option<IdempotencyKey>) {
        generation.order.via = Via::Request;
        let order = generation.order.clone();
        let now = self.world.now();
        if let Some(key) = &key
            && !matches!(self.records.find_key(key, now).await, Ok(None))
        {
            return;
        }
        let day = order.address.day();
        let before = self.used(day, &order.caller);
        match self.records.check(&order.caller, MOST, day).await {
            Ok(Ok(())) => {}
            Ok(Err(Refusal::QuotaExceeded(_))) => {
                self.assert_used_up(before, day, &order.caller);
                return;
            }
            _ => return,
        }
        let attempt = self.records.new_attempt();
        generation.state = State::Drawing(attempt.clone());
        locked(&self.here).insert(order.address.clone());
        if order.in_budget || order.in_quota || key.is_some() {
            if !self.accept(&generation, key.as_ref()).await {
                locked(&self.here).remove(&order.address);
                return;
            }
        } else {
            // Nobody waits for it.
            let _ = self.records.accept(&generation, None, now, ACCEPTED_WITHIN).await;
        }
        let outcome = match self.draw(&generation, &attempt).await {
            Some(outcome) => outcome,
            None => Outcome::NotDrawn(Failure::RateLimited),
        };
        if matches!(outcome, Outcome::Stored { .. } | Outcome::StoredLater { .. }) {
            locked(&self.world.state).promised.insert(order.image_id.clone());
        }
        self.end(&generation, &attempt, outcome).await;
        locked(&self.here).remove(&order.address);
    }

    /// What a caller has used, and how often his row was written so far.
    fn used(&self, day: Day, caller: &Caller) -> (u32, usize) {
        let key = RowKey::Caller(day, caller.clone());
        let history = self.model.history(&key.text());
        let used = match history.last().map(|columns| key.read(columns)) {
            None => 0,
            Some(Ok(Row::Caller(found))) => found.used,
            Some(other) => panic!("{key:?} is {other:?}"),
        };
        (used, history.len())
    }

    /// A caller was refused who stood like this when the request began. Where his row was written since
    /// then, he may have used all in between: in the middle of a transaction, even.
    fn assert_used_up(&self, before: (u32, usize), day: Day, caller: &Caller) {
        let limit = self.world.limits.daily_images;
        let was_written = self.used(day, caller) != before;
        assert!(
            before.0 >= limit || was_written,
            "refused, and the caller has used {} of {limit} all the time",
            before.0
        );
    }

    /// Whether it was accepted.
    async fn accept(self: &Arc<Self>, generation: &Generation, key: Option<&IdempotencyKey>) -> bool {
        let (day, caller) = (generation.order.address.day(), &generation.order.caller);
        let before = self.used(day, caller);
        match self.records.accept(generation, key, self.world.now(), ACCEPTED_WITHIN).await {
            Ok(Ok(_)) => true,
            Ok(Err(refused)) => {
                if let NotAccepted::Refused(Refusal::QuotaExceeded(_)) = refused {
                    self.assert_used_up(before, day, caller);
                }
                locked(&self.world.state).withdrawn.insert(generation.order.image_id.clone());
                false
            }
            Err(gave_up) => {
                let withdraws = gave_up.may_be_written;
                let generation = generation.clone();
                self.spawn(|process| async move {
                    if withdraws {
                        let found = process.records.withdraw(&generation).await.expect("it is not given up");
                        // Of a job that was written after all a delivery may have begun.
                        if generation.order.via == Via::Queue && !found.is_void() {
                            return;
                        }
                    }
                    locked(&process.world.state).withdrawn.insert(generation.order.image_id);
                });
                false
            }
        }
    }

    async fn request_job(self: Arc<Self>, generation: Generation, key: Option<IdempotencyKey>) {
        let address = generation.order.address.clone();
        self.world.enqueue(&address, Duration::ZERO);
        self.world.pause(100).await;
        let accepted = self.accept(&generation, key.as_ref()).await;
        if accepted && self.world.chance(30) {
            self.world.pause(2_000).await;
            let _ = self.records.advance(&address, Event::Cancel, Patience::For(Duration::from_secs(5))).await;
        }
    }

    /// Takes messages out of the queue, as the host does.
    async fn listen(self: Arc<Self>) {
        loop {
            self.world.pause(2_000).await;
            let message = {
                let queue = &mut locked(&self.world.state).queue;
                let at = queue.iter().position(|(at, _)| *at <= Instant::now());
                at.map(|at| queue.swap_remove(at).1)
            };
            let Some(address) = message else { continue };
            // While it is worked on it is invisible, and comes again where that does not end.
            self.world.enqueue(&address, Duration::from_secs(25));
            self.spawn(|process| async move {
                if process.deliver(&address).await.is_some() {
                    let queue = &mut locked(&process.world.state).queue;
                    if let Some(at) = queue.iter().position(|(_, found)| *found == address) {
                        queue.swap_remove(at);
                    }
                }
            });
        }
    }

    /// Whether the message is done with.
    async fn deliver(self: &Arc<Self>, address: &Address) -> Option<()> {
        let Some(found) = self.records.get(address).await.ok()? else {
            // Its request was given up, and nothing of it was written.
            let is_old = self.world.began.elapsed() > WILD_FOR + Duration::from_secs(60);
            return is_old.then_some(());
        };
        match self.end_if_process_died(found).await?.state {
            State::Ended { .. } => return Some(()),
            State::Drawing(_) => return None,
            State::Queued => {}
        }
        if locked(&self.here).contains(address) {
            return None;
        }
        let attempt = self.records.new_attempt();
        locked(&self.here).insert(address.clone());
        let delivered = self.take_up(address, &attempt).await;
        locked(&self.here).remove(address);
        delivered
    }

    async fn take_up(self: &Arc<Self>, address: &Address, attempt: &Attempt) -> Option<()> {
        let generation = match self.records.begin(address, attempt, self.world.now()).await {
            Ok(Advanced::Done(generation)) => *generation,
            Ok(Advanced::Refused(_) | Advanced::Unknown) => return None,
            Err(gave_up) => {
                if gave_up.may_be_written {
                    let (address, event) = (address.clone(), Event::PutBack(attempt.clone()));
                    self.spawn(|process| async move {
                        let _ = process.records.advance(&address, event, Patience::Endless).await;
                    });
                }
                return None;
            }
        };
        match self.draw(&generation, attempt).await {
            Some(outcome) => self.end(&generation, attempt, outcome).await,
            None => {
                self.world.enqueue(address, Duration::from_secs(10));
                let event = Event::PutBack(attempt.clone());
                let _ = self.records.advance(address, event, Patience::Endless).await;
            }
        }
        Some(())
    }

    /// The generation as it is once its process is known to live or to have died; `None` where that is
    /// not known.
    async fn end_if_process_died(&self, generation: Generation) -> Option<Generation> {
        let State::Drawing(attempt) = &generation.state else { return Some(generation) };
        let address = &generation.order.address;
        let is_dead = if attempt.process == self.records.process() {
            !locked(&self.here).contains(address)
        } else {
            self.records.is_dead(&attempt.process, self.world.now()).await.ok()?
        };
        if !is_dead {
            return Some(generation);
        }
        let image_id = &generation.order.image_id;
        let event = {
            let state = &mut *locked(&self.world.state);
            if state.spools[self.machine].contains_key(image_id) {
                state.gallery.insert(image_id.clone(), stored(image_id));
            }
            match state.gallery.get(image_id) {
                Some(outcome) => Event::Found(outcome.clone()),
                None => Event::Died(attempt.clone()),
            }
        };
        match self.records.advance(address, event, Patience::For(Duration::from_secs(5))).await.ok()? {
            Advanced::Done(now) | Advanced::Refused(now) => Some(*now),
            Advanced::Unknown => None,
        }
    }

    /// Renews, recovers and sweeps.
    async fn look_after(self: Arc<Self>) {
        for tick in 0_u32.. {
            if !locked(&self.here).is_empty() {
                let _ = self.records.renew(self.world.now()).await;
            }
            self.recover().await;
            if tick % 2 == 0 && self.records.become_sweeper(self.world.now()).await.is_ok_and(|is_sweeper| is_sweeper) {
                for (_, columns) in self.model.rows().into_iter().filter(|(row, _)| row.starts_with("generation-")) {
                    let generation = read_generation(&columns).expect("a generation");
                    let _ = self.end_if_process_died(generation).await;
                }
            }
            tokio::time::sleep(Duration::from_secs(15)).await;
        }
    }

    async fn recover(&self) {
        let spool = locked(&self.world.state).spools[self.machine].clone();
        for (image_id, address) in spool {
            if locked(&self.here).contains(&address) || self.world.trouble(30) {
                continue;
            }
            locked(&self.world.state).gallery.insert(image_id.clone(), stored(&image_id));
            let event = Event::Found(stored(&image_id));
            if self.records.advance(&address, event, Patience::For(Duration::from_secs(5))).await.is_ok() {
                locked(&self.world.state).spools[self.machine].remove(&image_id);
            }
        }
    }
}

/// One interleaving, from its beginning to what must be true at its end.
async fn run(seed: u64) {
    fastrand::seed(seed);
    let mut random = fastrand::Rng::with_seed(seed);
    let limits = Limits {
        daily_images: if random.bool() { 3 } else { 0 },
        daily_budget: if random.bool() { 4 * MOST } else { 0 },
        usual_cost: COST,
    };
    // Of some, requests are given up for it.
    let bad = if random.u32(0..4) == 0 { 6 } else { 1 };
    let mut rate = |percent: u32| random.u32(0..percent * bad);
    let failures = Failures { lost_requests: rate(7), lost_answers: rate(8), late: rate(6) };
    let model = Model::new(Latency::UpTo(Duration::from_millis(40)), failures, seed);
    let world = Arc::new(World {
        began: Instant::now(),
        limits,
        state: Mutex::new(Outside {
            random,
            wild: true,
            gallery: BTreeMap::new(),
            spools: [BTreeMap::new(), BTreeMap::new()],
            queue: Vec::new(),
            asked: BTreeMap::new(),
            promised: BTreeSet::new(),
            withdrawn: BTreeSet::new(),
        }),
    });
    let mut processes = [0, 1].map(|machine| Process::start(&world, machine, model.for_another()));
    let wild_until = Instant::now() + WILD_FOR;
    for number in 0..REQUESTS {
        world.pause(2_000).await;
        let caller = CALLERS[world.number(CALLERS.len())];
        let mut generation = queued(&format!("{number:064}"), caller, world.now());
        generation.order.in_budget = limits.daily_budget > 0;
        generation.order.in_quota = limits.daily_images > 0;
        let key = world.chance(50).then(|| {
            let key = world.number(2);
            IdempotencyKey { digest: format!("key {key}"), fingerprint: "body".to_owned() }
        });
        let process = &processes[world.number(2)];
        if world.chance(50) {
            process.spawn(|process| process.request(generation, key));
        } else {
            process.spawn(|process| process.request_job(generation, key));
        }
        if world.chance(25) {
            let machine = world.number(2);
            world.pause(1_000).await;
            processes[machine].kill();
            processes[machine] = Process::start(&world, machine, model.for_another());
        }
    }
    tokio::time::sleep_until(wild_until).await;
    locked(&world.state).wild = false;
    for (machine, process) in processes.iter_mut().enumerate() {
        process.kill();
        let mut calm = model.for_another();
        calm.failures = Failures::default();
        *process = Process::start(&world, machine, calm);
    }
    tokio::time::sleep(CALM_FOR).await;
    processes.iter().for_each(|process| process.kill());
    check(&world, &model);
}

/// What must be true when all is calm.
fn check(world: &World, model: &Model) {
    let rows = model.rows();
    let outside = locked(&world.state);
    let mut days: BTreeMap<Day, DayTotals> = BTreeMap::new();
    let mut used: BTreeMap<(Day, Caller), u32> = BTreeMap::new();
    for (row, columns) in &rows {
        let Some(address) = row.strip_prefix("generation-") else { continue };
        let generation = read_generation(columns).expect("a generation");
        assert_eq!(generation.order.address.to_string(), address);
        let (order, contribution) = (&generation.order, generation.contribution());
        let outcome = generation.outcome().unwrap_or_else(|| panic!("{row} has not ended: {:?}", generation.state));
        let is_there = outside.gallery.contains_key(&order.image_id);
        if outside.withdrawn.contains(&order.image_id) {
            assert!(generation.is_void(), "{row} is {outcome:?}, and its caller was told that it failed");
        }
        assert_eq!(matches!(outcome, Outcome::Stored { .. }), is_there, "{row} is {outcome:?}");
        days.entry(order.address.day()).or_default().change(&Contribution::default(), &contribution);
        *used.entry((order.address.day(), order.caller.clone())).or_default() += contribution.used;
    }
    let mut counted: BTreeMap<Day, u64> = BTreeMap::new();
    for ((day, caller), used) in &used {
        let key = RowKey::Caller(*day, caller.clone());
        let Some(Row::Caller(found)) = rows.get(&key.text()).map(|columns| key.read(columns).expect("a caller")) else {
            assert_eq!(*used, 0, "{key:?}");
            continue;
        };
        assert_eq!(found.used, *used, "{key:?}: what the caller has used is what the records say");
        assert!(world.limits.daily_images == 0 || found.used <= world.limits.daily_images, "{key:?}: {found:?}");
        *counted.entry(*day).or_default() += u64::from(found.is_counted);
    }
    for (day, mut wanted) in days {
        let row = RowKey::Day(day).text();
        let found = rows.get(&row).map(|columns| read_day(columns).expect("a day")).unwrap_or_default();
        wanted.callers = counted.get(&day).copied().unwrap_or_default();
        wanted.alerted = found.alerted;
        assert_eq!(found, wanted, "{row}: the sums are those of the records");
        assert_eq!(found.reserved, 0, "{row}");
        assert!(world.limits.daily_budget == 0 || found.spent <= world.limits.daily_budget, "{row}: {found:?}");
    }
    for (row, columns) in rows.iter().filter(|(row, _)| row.starts_with("key-")) {
        let key = RowKey::Key(row.trim_start_matches("key-").to_owned());
        let Row::Key(found) = key.read(columns).expect("a key") else { panic!("{row} is no key") };
        let record = RowKey::Generation(found.address).text();
        assert!(rows.contains_key(&record), "{row} leads to {record}, which is not there");
    }
    assert!(outside.asked.values().all(|asked| *asked == 1), "an attempt asks once: {:?}", outside.asked);
    let lost: Vec<_> = outside.promised.iter().filter(|image| !outside.gallery.contains_key(*image)).collect();
    assert!(lost.is_empty(), "promised and not there: {lost:?}");
    assert!(outside.queue.is_empty(), "all messages are done with: {:?}", outside.queue);
}

fn run_seeds(seeds: impl Iterator<Item = u64>) {
    for seed in seeds {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            runtime.expect("a runtime").block_on(run(seed));
        }));
        assert!(failed.is_ok(), "seed {seed} fails; INTERLEAVING={seed} runs it alone");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "who looks for a rare fault sets how many are tried, and which")]
fn whatever_happens_in_whatever_order_the_records_the_sums_and_the_gallery_agree() {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = number("INTERLEAVING") {
        return run_seeds(seed..=seed);
    }
    let seeds = number("INTERLEAVINGS").unwrap_or(SEEDS);
    let threads = 2;
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| scope.spawn(move || run_seeds((0..seeds).filter(move |seed| seed % threads == thread))))
            .collect();
        for thread in running {
            thread.join().expect("no seed fails; the one that does is named above");
        }
    });
}
