//! The committer with malformed rows, panicking steps and stale caches.

use std::time::Duration;

use futures_util::future::join_all;
use time::OffsetDateTime;
use time::macros::datetime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::model::{Failures, Latency, Model};
use crate::azure::{self, Columns};
use crate::caller::Caller;
use crate::generation::commit::{Committer, Patience};
use crate::generation::outcome::{Failure, Outcome};
use crate::generation::record::tests::{MOST, queued};
use crate::generation::record::{Event, Generation, State};
use crate::generation::records::{ACCEPTED_WITHIN, Records};
use crate::generation::rows::{RowKey, TextRow, Work, read_day, read_generation};
use crate::generation::steps::NotAccepted;
use crate::spending::{BudgetAlert, Day, Limits, ModelTotals, Refusal};

const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);
const LIMITS: Limits = Limits {
    daily_images: 50,
    daily_refusals: 0,
    daily_jobs: 0,
    daily_caller_cost: 0,
    daily_budget: 1_000 * MOST,
    usual_cost: MOST,
};

fn model() -> Model {
    Model::new(Latency::UpTo(Duration::from_millis(10)), Failures::default(), 7)
}

/// The committer of another process on the same table.
fn committer(model: &Model) -> Committer<Model> {
    Committer::new(model.for_another(), "a process".to_owned(), TaskTracker::new(), CancellationToken::new())
}

fn job(number: usize, caller: &str) -> Generation {
    queued(&format!("{number:064}"), caller, NOW)
}

/// If only the row of the conflict left the cache, a batch would meet one conflict for each stale caller.
#[tokio::test(start_paused = true)]
async fn a_batch_with_many_stale_callers_meets_few_conflicts() {
    const CALLERS: usize = 20;
    let model = model();
    let (mine, other) = (Records::new(committer(&model), LIMITS), Records::new(committer(&model), LIMITS));
    for (round, records) in [&mine, &other, &mine].into_iter().enumerate() {
        let before = model.counts().conflicts;
        let accept = async |number: usize| {
            let job = job(round * CALLERS + number, &format!("caller {number}"));
            let accepted = records.accept(&job, None, NOW, ACCEPTED_WITHIN).await;
            assert!(matches!(accepted, Ok(Ok(_))), "{accepted:?}");
        };
        join_all((0..CALLERS).map(accept)).await;
        let conflicts = model.counts().conflicts - before;
        assert!(conflicts <= 4, "{conflicts} conflicts in round {round}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_malformed_row_fails_only_the_steps_that_need_it() {
    let model = model();
    let records = Records::new(committer(&model), LIMITS);
    let (malformed, day) = (job(1, "anna"), Day::of(NOW));
    let caller = RowKey::Caller(day, Caller::named("anna"));
    model.put(&caller.text(), Columns::from([("Data00".to_owned(), "{".to_owned())]));
    model.put(&RowKey::Generation(malformed.order.address.clone()).text(), Columns::new());
    let (anna, bob, endless) = tokio::join!(
        async { records.accept(&job(2, "anna"), None, NOW, ACCEPTED_WITHIN).await },
        async { records.accept(&job(3, "bob"), None, NOW, ACCEPTED_WITHIN).await },
        records.advance(&malformed.order.address, Event::Cancel, Patience::Endless),
    );
    assert!(matches!(bob, Ok(Ok(_))), "{bob:?}");
    for gave_up in [anna.err(), endless.err()] {
        let gave_up = gave_up.expect("the step needs a malformed row");
        assert!(matches!(gave_up.cause, azure::Error::Malformed) && !gave_up.may_be_written, "{gave_up:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_panics_does_not_stop_the_committer() {
    let committer = committer(&model());
    let panicked = committer.step(Patience::Endless, |_| -> () { panic!("this step panics") }).await;
    assert!(panicked.is_err(), "the step has panicked");
    let next = committer.step(Patience::For(Duration::from_secs(5)), |view| view.day(Day::of(NOW))).await;
    assert!(next.is_ok(), "{next:?}");
}

/// The caller then gets the job as the answer. After an error, the caller would send, and the app would
/// pay, a second request.
#[tokio::test(start_paused = true)]
async fn a_job_that_a_delivery_has_begun_is_not_withdrawn() {
    let model = model();
    let records = Records::new(committer(&model), LIMITS);
    let job = job(1, "anna");
    assert!(matches!(records.accept(&job, None, NOW, ACCEPTED_WITHIN).await, Ok(Ok(_))));
    let attempt = records.new_attempt();
    records.begin(&job.order.address, &attempt, NOW).await.expect("the attempt begins");
    let found = records.withdraw(&job).await.expect("the withdrawal is written");
    assert_eq!(found.state, State::Drawing(attempt));
}

/// The message of the job is in the queue already. Its delivery finds the tombstone and ends.
#[tokio::test(start_paused = true)]
async fn a_refused_job_leaves_a_record_that_was_not_accepted() {
    let model = model();
    let records = Records::new(committer(&model), Limits { daily_budget: 2 * MOST, ..LIMITS });
    for number in 0..2 {
        assert!(matches!(records.accept(&job(number, "anna"), None, NOW, ACCEPTED_WITHIN).await, Ok(Ok(_))));
    }
    let refused = job(2, "anna");
    let answer = records.accept(&refused, None, NOW, ACCEPTED_WITHIN).await;
    assert!(matches!(answer, Ok(Err(NotAccepted::Refused(Refusal::BudgetReserved)))), "{answer:?}");
    let row = RowKey::Generation(refused.order.address.clone()).text();
    let found = read_generation(&model.rows()[&row]).expect("a generation");
    assert_eq!(found.outcome(), Some(&Outcome::NotDrawn(Failure::NotAccepted)));
    // After this refusal, `check` reads the budget and refuses before a message is written.
    let before = model.counts().written;
    let checked = records.check(&refused.order, Day::of(NOW)).await;
    assert!(matches!(checked, Ok(Err(Refusal::BudgetReserved))), "{checked:?}");
    assert_eq!(model.counts().written, before);
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_is_reported_once_although_refusals_were_seen_before() {
    let model = model();
    let records = Records::new(committer(&model), Limits { daily_budget: 2 * MOST, ..LIMITS });
    let mut drawn = Vec::new();
    for number in 0..2 {
        let attempt = records.new_attempt();
        let generation = Generation { state: State::Drawing(attempt.clone()), ..job(number, "anna") };
        assert!(matches!(records.accept(&generation, None, NOW, ACCEPTED_WITHIN).await, Ok(Ok(_))));
        drawn.push((generation, attempt));
    }
    let refused = records.accept(&job(2, "anna"), None, NOW, ACCEPTED_WITHIN).await;
    assert!(matches!(refused, Ok(Err(NotAccepted::Refused(Refusal::BudgetReserved)))), "{refused:?}");

    // The lost images spend the whole budget.
    for (generation, attempt) in &drawn {
        let lost = Outcome::Lost(Failure::AnswerLost);
        records.end(generation, attempt, lost).await.expect("the end is written");
    }
    let (order, day) = (job(9, "anna").order, Day::of(NOW));
    assert!(matches!(records.check(&order, day).await, Ok(Ok(()))), "the alert is not recorded yet");
    let refused = records.accept(&job(3, "anna"), None, NOW, ACCEPTED_WITHIN).await;
    assert!(matches!(refused, Ok(Err(NotAccepted::Refused(Refusal::BudgetSpent)))), "{refused:?}");
    let totals = read_day(&model.rows()[&RowKey::Day(day).text()]).expect("a day");
    assert_eq!(totals.alerted, BudgetAlert::Reached);
    let checked = records.check(&order, day).await;
    assert!(matches!(checked, Ok(Err(Refusal::BudgetSpent))), "{checked:?}");
}

#[tokio::test(start_paused = true)]
async fn texts_of_two_processes_count_once_although_answers_are_lost() {
    let failures = Failures { lost_answers: 30, ..Failures::default() };
    let model = Model::new(Latency::UpTo(Duration::from_millis(10)), failures, 7);
    let day = Day::of(NOW);
    let processes = ["one", "two"].map(|process| {
        let committer =
            Committer::new(model.for_another(), process.to_owned(), TaskTracker::new(), CancellationToken::new());
        Records::new(committer, LIMITS)
    });
    for round in 1..=20 {
        let totals = ModelTotals { texts: round, spent: round * 100, ..ModelTotals::default() };
        let texts = TextRow { model: "text".to_owned(), totals };
        let recorded = join_all(processes.iter().map(|records| records.record_texts(day, texts.clone()))).await;
        assert!(recorded.iter().all(Result::is_ok), "{recorded:?}");
    }
    let (_, columns) =
        model.rows().into_iter().find(|(row, _)| *row == RowKey::Day(day).text()).expect("the day has a row");
    let sums = read_day(&columns).expect("the day's sums");
    assert_eq!((sums.spent, sums.models["text"].texts), (2 * 20 * 100, 2 * 20));
}

#[tokio::test(start_paused = true)]
async fn work_for_the_whole_app_is_done_by_one_process_until_its_lease_ends() {
    let model = model();
    let processes = ["one", "two"].map(|process| {
        let tasks = TaskTracker::new();
        Records::new(Committer::new(model.for_another(), process.to_owned(), tasks, CancellationToken::new()), LIMITS)
    });
    let lease = Duration::from_secs(60);
    let take = |process: usize, at| processes[process].take_lease(Work::Expiry, at, lease);
    assert!(take(0, NOW).await.expect("it is written"));
    assert!(!take(1, NOW + lease / 2).await.expect("it is read"), "another process has the lease");
    assert!(take(0, NOW + lease / 2).await.expect("it is written"), "the holder renews it");
    assert!(take(1, NOW + lease * 2).await.expect("it is written"), "it has ended");
}
