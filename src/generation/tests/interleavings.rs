//! Random interleavings of all operations on records, on a table in memory.
//!
//! Two machines run a process each, which may be killed at any await. Callers send requests and jobs, with
//! and without idempotency keys, and cancel jobs. The queue, the sweep, recovery and midnight take part.
//! Calls, answers and processes are lost, and transactions are written late. After a phase without faults,
//! the test checks the invariants in the table.
//!
//! `INTERLEAVINGS=100000` runs more seeds; `INTERLEAVING=4711` runs one seed.

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
use crate::generation::rows::{Row, RowKey, Work, read_day, read_generation};
use crate::generation::steps::{Advanced, IdempotencyKey, NotAccepted};
use crate::generation::sweep::SWEEP_LEASE;
use crate::lock::locked;
use crate::spending::{CallerTotals, Contribution, Day, DayTotals, Limits, Refusal};

/// The number of seeds to run.
const SEEDS: u64 = 10_000;
/// Two seconds before midnight.
const BEGINS_AT: OffsetDateTime = datetime!(2026-11-21 23:59:58 UTC);
const CALLERS: [&str; 2] = ["anna", "bob"];
const REQUESTS: usize = 8;
/// The duration of the phase with faults and kills.
const FAULTS_FOR: Duration = Duration::from_secs(40);
/// The duration of the calm phase: long enough for leases to expire, for sweeps and for late writes.
const CALM_FOR: Duration = Duration::from_secs(250);

/// The environment of the processes, which outlives them.
struct World {
    began: Instant,
    limits: Limits,
    state: Mutex<Outside>,
}

struct Outside {
    random: fastrand::Rng,
    /// Whether the phase with faults is on.
    has_faults: bool,
    /// The images in the gallery, by id.
    gallery: BTreeMap<String, Outcome>,
    /// The images in the spool of each machine, by id.
    spools: [BTreeMap<String, Address>; 2],
    /// The messages, each with the time when it becomes visible.
    queue: Vec<(Instant, Address)>,
    /// The number of provider calls of each attempt.
    provider_calls: BTreeMap<String, u32>,
    /// Images that a caller received as an answer.
    promised: BTreeSet<String>,
    /// Image ids of requests that were answered as not accepted.
    withdrawn: BTreeSet<String>,
}

/// A process on a machine.
struct Process {
    world: Arc<World>,
    machine: usize,
    model: Model,
    records: Records<Model>,
    /// The generations that this process draws.
    drawing: Mutex<BTreeSet<Address>>,
    tasks: Mutex<JoinSet<()>>,
}

impl World {
    fn now(&self) -> OffsetDateTime {
        BEGINS_AT + self.began.elapsed()
    }

    fn chance(&self, percent: u32) -> bool {
        locked(&self.state).random.u32(0..100) < percent
    }

    /// A chance of a fault, during the phase with faults.
    fn fault(&self, percent: u32) -> bool {
        locked(&self.state).has_faults && self.chance(percent)
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
            drawing: Mutex::default(),
            tasks: Mutex::default(),
        });
        process.spawn(|process| async move { process.maintain().await });
        process.spawn(|process| async move { process.listen().await });
        process
    }

    fn spawn<F: Future<Output = ()> + Send + 'static>(self: &Arc<Self>, task: impl FnOnce(Arc<Self>) -> F) {
        locked(&self.tasks).spawn(task(Arc::clone(self)));
    }

    /// Kills the process at its current await. A panic of one of its tasks fails the test.
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

    /// Calls the provider, which is only allowed for an attempt that is recorded.
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
            assert!(is_written, "the provider is called by {attempt:?}, but the record says {written:?}");
        }
        *locked(&self.world.state).provider_calls.entry(attempt.id.clone()).or_default() += 1;
        self.world.pause(3_000).await;
        if self.world.fault(10) {
            return Some(Outcome::NotDrawn(Failure::PromptRefused));
        }
        if self.world.fault(10) {
            return Some(Outcome::Lost(Failure::AnswerLost));
        }
        if self.world.fault(15) {
            // A temporary failure.
            return None;
        }
        locked(&self.world.state).spools[self.machine].insert(order.image_id.clone(), order.address.clone());
        self.world.pause(300).await;
        if self.world.fault(20) {
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
        assert!(ended.is_ok(), "an outcome is not given up");
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
        match self.records.check(&order, day).await {
            Ok(Ok(())) => {}
            Ok(Err(Refusal::QuotaExceeded(_))) => {
                self.assert_used_up(before, day, &order.caller);
                return;
            }
            _ => return,
        }
        let attempt = self.records.new_attempt();
        generation.state = State::Drawing(attempt.clone());
        locked(&self.drawing).insert(order.address.clone());
        if order.in_budget || order.in_quota || order.in_caller_budget || key.is_some() {
            if !self.accept(&generation, key.as_ref()).await {
                locked(&self.drawing).remove(&order.address);
                return;
            }
        } else {
            // The draw does not wait for the result.
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
        locked(&self.drawing).remove(&order.address);
    }

    /// The used quota of a caller, and the number of writes of the caller's row.
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

    /// Checks that a refusal was correct. `before` is the result of `used` when the request began. If the
    /// row was written since then, the quota may have been used up in between.
    fn assert_used_up(&self, before: (u32, usize), day: Day, caller: &Caller) {
        let limit = self.world.limits.daily_images;
        let was_written = self.used(day, caller) != before;
        assert!(
            before.0 >= limit || was_written,
            "the request was refused, but the caller had used only {} of {limit}",
            before.0
        );
    }

    /// Accepts a generation. Returns whether it was accepted.
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
                        let found =
                            process.records.withdraw(&generation).await.expect("the withdrawal is not given up");
                        // A delivery may have begun the job.
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

    /// Delivers messages from the queue, like the Functions host.
    async fn listen(self: Arc<Self>) {
        loop {
            self.world.pause(2_000).await;
            let message = {
                let queue = &mut locked(&self.world.state).queue;
                let at = queue.iter().position(|(at, _)| *at <= Instant::now());
                at.map(|at| queue.swap_remove(at).1)
            };
            let Some(address) = message else { continue };
            // The message is invisible during its delivery, and comes back if the delivery does not end.
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

    /// Handles a message. Returns `Some` if the message can be deleted.
    async fn deliver(self: &Arc<Self>, address: &Address) -> Option<()> {
        let Some(found) = self.records.get(address).await.ok()? else {
            // The request was given up, and no record was written.
            let is_old = self.world.began.elapsed() > FAULTS_FOR + Duration::from_secs(60);
            return is_old.then_some(());
        };
        match self.end_if_process_died(found).await?.state {
            State::Ended { .. } => return Some(()),
            State::Drawing(_) => return None,
            State::Queued => {}
        }
        if locked(&self.drawing).contains(address) {
            return None;
        }
        let attempt = self.records.new_attempt();
        locked(&self.drawing).insert(address.clone());
        let delivered = self.draw_queued(address, &attempt).await;
        locked(&self.drawing).remove(address);
        delivered
    }

    async fn draw_queued(self: &Arc<Self>, address: &Address, attempt: &Attempt) -> Option<()> {
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

    /// Ends a drawing generation if its process has died. `None` if a call failed.
    async fn end_if_process_died(&self, generation: Generation) -> Option<Generation> {
        let State::Drawing(attempt) = &generation.state else { return Some(generation) };
        let address = &generation.order.address;
        let is_dead = if attempt.process == self.records.process() {
            !locked(&self.drawing).contains(address)
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

    /// Renews the lease, recovers and sweeps.
    async fn maintain(self: Arc<Self>) {
        for tick in 0_u32.. {
            if !locked(&self.drawing).is_empty() {
                let _ = self.records.renew(self.world.now()).await;
            }
            self.recover().await;
            let lease = self.records.take_lease(Work::Sweep, self.world.now(), SWEEP_LEASE);
            if tick % 2 == 0 && lease.await.is_ok_and(|is_taken| is_taken) {
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
            if locked(&self.drawing).contains(&address) || self.world.fault(30) {
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

/// Runs one interleaving and checks its invariants.
async fn run(seed: u64) {
    fastrand::seed(seed);
    let mut random = fastrand::Rng::with_seed(seed);
    let limits = Limits {
        daily_images: if random.bool() { 3 } else { 0 },
        daily_refusals: if random.bool() { 2 } else { 0 },
        daily_jobs: if random.bool() { 3 } else { 0 },
        daily_caller_cost: if random.bool() { 3 * MOST } else { 0 },
        daily_budget: if random.bool() { 4 * MOST } else { 0 },
        usual_cost: COST,
    };
    // In a quarter of the seeds the rates are so high that requests are given up.
    let severity = if random.u32(0..4) == 0 { 6 } else { 1 };
    let mut rate = |percent: u32| random.u32(0..percent * severity);
    let failures = Failures { lost_requests: rate(7), lost_answers: rate(8), late: rate(6) };
    let model = Model::new(Latency::UpTo(Duration::from_millis(40)), failures, seed);
    let world = Arc::new(World {
        began: Instant::now(),
        limits,
        state: Mutex::new(Outside {
            random,
            has_faults: true,
            gallery: BTreeMap::new(),
            spools: [BTreeMap::new(), BTreeMap::new()],
            queue: Vec::new(),
            provider_calls: BTreeMap::new(),
            promised: BTreeSet::new(),
            withdrawn: BTreeSet::new(),
        }),
    });
    let mut processes = [0, 1].map(|machine| Process::start(&world, machine, model.for_another()));
    let faults_until = Instant::now() + FAULTS_FOR;
    for number in 0..REQUESTS {
        world.pause(2_000).await;
        let caller = CALLERS[world.number(CALLERS.len())];
        let mut generation = queued(&format!("{number:064}"), caller, world.now());
        generation.order.in_budget = limits.daily_budget > 0;
        generation.order.in_quota = limits.daily_images > 0;
        generation.order.in_caller_budget = limits.daily_caller_cost > 0;
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
    tokio::time::sleep_until(faults_until).await;
    locked(&world.state).has_faults = false;
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

/// Checks the invariants after the calm phase.
fn check(world: &World, model: &Model) {
    let rows = model.rows();
    let outside = locked(&world.state);
    let mut days: BTreeMap<Day, DayTotals> = BTreeMap::new();
    let mut used: BTreeMap<(Day, Caller), CallerTotals> = BTreeMap::new();
    for (row, columns) in &rows {
        let Some(address) = row.strip_prefix("generation-") else { continue };
        let generation = read_generation(columns).expect("a generation");
        assert_eq!(generation.order.address.to_string(), address);
        let (order, contribution) = (&generation.order, generation.contribution());
        let outcome = generation.outcome().unwrap_or_else(|| panic!("{row} has not ended: {:?}", generation.state));
        let is_there = outside.gallery.contains_key(&order.image_id);
        if outside.withdrawn.contains(&order.image_id) {
            assert!(generation.is_void(), "{row} is {outcome:?}, but its caller received a failure");
        }
        assert_eq!(matches!(outcome, Outcome::Stored { .. }), is_there, "{row} is {outcome:?}");
        days.entry(order.address.day()).or_default().change(&Contribution::default(), &contribution);
        used.entry((order.address.day(), order.caller.clone()))
            .or_default()
            .change(&Contribution::default(), &contribution);
    }
    let mut counted: BTreeMap<Day, u64> = BTreeMap::new();
    for ((day, caller), used) in &used {
        let key = RowKey::Caller(*day, caller.clone());
        let Some(Row::Caller(found)) = rows.get(&key.text()).map(|columns| key.read(columns).expect("a caller")) else {
            assert_eq!((used.used, used.refusals, used.jobs, used.cost), (0, 0, 0, 0), "{key:?}");
            continue;
        };
        let counts = |totals: &CallerTotals| (totals.used, totals.refusals, totals.jobs, totals.cost);
        assert_eq!(counts(&found), counts(used), "{key:?}: the used quota must be the sum of the records");
        let limit = world.limits.daily_caller_cost;
        assert!(limit == 0 || found.cost <= limit, "{key:?}: {found:?}");
        assert!(world.limits.daily_jobs == 0 || !world.limits.check_callers() || found.jobs <= world.limits.daily_jobs);
        assert!(world.limits.daily_images == 0 || found.used <= world.limits.daily_images, "{key:?}: {found:?}");
        *counted.entry(*day).or_default() += u64::from(found.is_counted);
    }
    for (day, mut wanted) in days {
        let row = RowKey::Day(day).text();
        let found = rows.get(&row).map(|columns| read_day(columns).expect("a day")).unwrap_or_default();
        wanted.callers = counted.get(&day).copied().unwrap_or_default();
        wanted.alerted = found.alerted;
        assert_eq!(found, wanted, "{row}: the totals must be the sums of the records");
        assert_eq!(found.reserved, 0, "{row}");
        assert!(world.limits.daily_budget == 0 || found.spent <= world.limits.daily_budget, "{row}: {found:?}");
    }
    for (row, columns) in rows.iter().filter(|(row, _)| row.starts_with("key-")) {
        let key = RowKey::Key(row.trim_start_matches("key-").to_owned());
        let Row::Key(found) = key.read(columns).expect("a key") else { panic!("{row} is not a key row") };
        let record = RowKey::Generation(found.address).text();
        assert!(rows.contains_key(&record), "{row} leads to {record}, which does not exist");
    }
    let calls = &outside.provider_calls;
    assert!(calls.values().all(|calls| *calls == 1), "an attempt calls the provider once: {calls:?}");
    let lost: Vec<_> = outside.promised.iter().filter(|image| !outside.gallery.contains_key(*image)).collect();
    assert!(lost.is_empty(), "images were promised to callers but are not in the gallery: {lost:?}");
    assert!(outside.queue.is_empty(), "messages are left in the queue: {:?}", outside.queue);
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
#[expect(clippy::disallowed_methods, reason = "a developer chooses the number of seeds, or one seed")]
fn records_sums_and_gallery_agree_after_any_interleaving_of_faults() {
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
            thread.join().expect("a seed failed; its number is in the output above");
        }
    });
}
