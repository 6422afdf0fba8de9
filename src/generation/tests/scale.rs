//! Simulates processes that share one budget: the real committer on a table in memory with calls of
//! 10 ms, in simulated time. `docs/design.md` contains the printed table.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use time::macros::datetime;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::model::{Counts, Failures, Latency, Model};
use crate::generation::commit::Committer;
use crate::generation::record::tests::{COST, MOST, queued, stored};
use crate::generation::record::{Generation, State};
use crate::generation::records::{ACCEPTED_WITHIN, Records};
use crate::generation::rows::{RowKey, read_day};
use crate::spending::Limits;

const CALL: Duration = Duration::from_millis(10);
const ROW: Duration = Duration::from_micros(500);
/// Requests of each process in a second.
const REQUESTS_PER_SECOND: u64 = 5;
const RUN_TIME: Duration = Duration::from_secs(20);
const DRAWN_IN: Duration = Duration::from_secs(1);
const LIMITS: Limits = Limits {
    daily_images: 0,
    daily_refusals: 0,
    daily_jobs: 0,
    daily_caller_cost: 0,
    daily_budget: u64::MAX / 2,
    usual_cost: COST,
};

fn records(model: &Model, process: usize) -> Arc<Records<Model>> {
    let committer =
        Committer::new(model.for_another(), format!("{process:032}"), TaskTracker::new(), CancellationToken::new());
    Arc::new(Records::new(committer, LIMITS))
}

/// The results of a run.
struct Results {
    /// Generations that ended within the run time.
    ended: u64,
    refused: u64,
    /// The smallest number of ended generations of a process.
    slowest: u64,
    /// The longest wait for acceptance.
    longest: Duration,
    counts: Counts,
}

async fn run(processes: usize) -> Results {
    let model = Model::new(Latency::Network { call: CALL, row: ROW }, Failures::default(), 7);
    let (longest, refused) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let began = Instant::now();
    let running = (0..processes).map(|process| {
        let (records, longest, refused) = (records(&model, process), Arc::clone(&longest), Arc::clone(&refused));
        tokio::spawn(async move {
            let mut wanted = Vec::new();
            for number in 0..REQUESTS_PER_SECOND * RUN_TIME.as_secs() {
                // Spreads the requests in time.
                let offset = Duration::from_millis(fastrand::u64(0..1_000 / REQUESTS_PER_SECOND));
                let at = began + Duration::from_millis(number * 1_000 / REQUESTS_PER_SECOND) + offset;
                let (records, longest, refused) = (Arc::clone(&records), Arc::clone(&longest), Arc::clone(&refused));
                wanted.push(tokio::spawn(async move {
                    tokio::time::sleep_until(at).await;
                    let attempt = records.new_attempt();
                    let image_id = format!("{process:032}{number:032}");
                    let now = datetime!(2026-11-21 12:00 UTC);
                    let order = queued(&image_id, &format!("caller {process}"), now).order;
                    let generation = Generation { order, state: State::Drawing(attempt.clone()) };
                    let accepted = records.accept(&generation, None, now, ACCEPTED_WITHIN).await;
                    let took = u64::try_from(at.elapsed().as_millis()).unwrap_or(u64::MAX);
                    longest.fetch_max(took, Ordering::Relaxed);
                    if !matches!(accepted, Ok(Ok(_))) {
                        refused.fetch_add(1, Ordering::Relaxed);
                        return 0;
                    }
                    tokio::time::sleep(DRAWN_IN).await;
                    assert!(records.end(&generation, &attempt, stored(&image_id)).await.is_ok());
                    // Only generations that end within the run time count.
                    u64::from(began.elapsed() <= RUN_TIME + DRAWN_IN)
                }));
            }
            let ended = join_all(wanted).await;
            ended.into_iter().map(|ended| ended.expect("no panic")).sum::<u64>()
        })
    });
    let ended: Vec<u64> = join_all(running).await.into_iter().map(|ended| ended.expect("no panic")).collect();
    let counts = model.counts();
    let accepted = (processes as u64) * REQUESTS_PER_SECOND * RUN_TIME.as_secs() - refused.load(Ordering::Relaxed);
    let rows = model.rows();
    let day = read_day(&rows[&RowKey::Day(crate::spending::Day::of(datetime!(2026-11-21 12:00 UTC))).text()]);
    let day = day.expect("a day");
    assert_eq!((day.reserved, day.spent), (0, accepted * COST), "each accepted generation counts once");
    Results {
        ended: ended.iter().sum(),
        refused: refused.load(Ordering::Relaxed),
        slowest: ended.iter().copied().min().unwrap_or_default(),
        longest: Duration::from_millis(longest.load(Ordering::Relaxed)),
        counts,
    }
}

#[test]
fn processes_that_share_one_budget_all_make_progress() {
    println!(
        "| processes | wanted a second | generations a second | transactions a second | conflicts per transaction | longest wait to be accepted | refused | slowest to mean |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- |");
    for processes in [1, 10, 50, 200] {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        fastrand::seed(7);
        let Results { ended, refused, slowest, longest, counts } = runtime.expect("a runtime").block_on(run(processes));
        let seconds = RUN_TIME.as_secs_f64();
        let float = |count: u64| f64::from(u32::try_from(count).expect("a small count"));
        let share = float(slowest) * processes as f64 / float(ended).max(1.0);
        println!(
            "| {processes} | {} | {:.0} | {:.0} | {:.1} | {:.1} s | {refused} | {share:.2} |",
            processes as u64 * REQUESTS_PER_SECOND,
            float(ended) / seconds,
            float(counts.written) / seconds,
            float(counts.conflicts) / float(counts.written),
            longest.as_secs_f64(),
        );
        assert!(share >= 0.2, "the slowest of {processes} processes gets {share:.2} of the mean");
    }
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_queued_jobs_are_accounted_exactly() {
    const JOBS: u64 = 10_000;
    let model = Model::new(Latency::Network { call: CALL, row: ROW }, Failures::default(), 7);
    let records = [records(&model, 0), records(&model, 1)];
    let now = datetime!(2026-11-21 12:00 UTC);
    let accept = async |number: u64| {
        let job = queued(&format!("{number:064}"), "anna", now);
        let accepted = records[(number % 2) as usize].accept(&job, None, now, ACCEPTED_WITHIN).await;
        assert!(matches!(accepted, Ok(Ok(_))), "{accepted:?}");
    };
    for first in (0..JOBS).step_by(100) {
        join_all((first..first + 100).map(accept)).await;
    }
    let rows = model.rows();
    let day = read_day(&rows[&RowKey::Day(crate::spending::Day::of(now)).text()]).expect("a day");
    assert_eq!(day.reserved, JOBS * MOST);
    assert_eq!(rows.keys().filter(|row| row.starts_with("generation-")).count(), 10_000);
}

/// The transaction is written once, and the caller learns that it was.
#[tokio::test(start_paused = true)]
async fn a_request_is_accepted_once_if_the_answer_of_its_transaction_is_lost() {
    let failures = Failures { lost_answers: 50, ..Failures::default() };
    let model = Model::new(Latency::Network { call: CALL, row: ROW }, failures, 7);
    let records = records(&model, 0);
    let now = datetime!(2026-11-21 12:00 UTC);
    for number in 0..100 {
        let attempt = records.new_attempt();
        let order = queued(&format!("{number:064}"), "anna", now).order;
        let generation = Generation { order, state: State::Drawing(attempt) };
        let accepted = records.accept(&generation, None, now, ACCEPTED_WITHIN).await;
        assert!(matches!(accepted, Ok(Ok(_))), "{number}: {accepted:?}");
    }
    let day = read_day(&model.rows()[&RowKey::Day(crate::spending::Day::of(now)).text()]).expect("a day");
    assert_eq!(day.reserved, 100 * MOST);
}
