//! What the committer does when something is wrong: with a row, with a step, with a remembered row.

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
use crate::generation::rows::{RowKey, read_generation};
use crate::generation::steps::NotAccepted;
use crate::spending::{Day, Limits, Refusal};

const NOW: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);
const LIMITS: Limits = Limits { daily_images: 50, daily_budget: 1_000 * MOST, usual_cost: MOST };

fn model() -> Model {
    Model::new(Latency::UpTo(Duration::from_millis(10)), Failures::default(), 7)
}

fn committer(model: &Model) -> Committer<Model> {
    Committer::new(model.for_another(), "a process".to_owned(), TaskTracker::new(), CancellationToken::new())
}

fn job(number: usize, caller: &str) -> Generation {
    queued(&format!("{number:064}"), caller, NOW)
}

/// Otherwise each conflict would show one of them, and the batch would be written after the last.
#[tokio::test(start_paused = true)]
async fn callers_whom_another_process_has_served_cost_one_conflict_and_not_one_each() {
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
async fn a_row_that_cannot_be_read_is_an_error_for_those_that_need_it_and_for_nobody_else() {
    let model = model();
    let records = Records::new(committer(&model), LIMITS);
    let (spoilt, day) = (job(1, "anna"), Day::of(NOW));
    let caller = RowKey::Caller(day, Caller::named("anna"));
    model.put(&caller.text(), Columns::from([("Data00".to_owned(), "{".to_owned())]));
    model.put(&RowKey::Generation(spoilt.order.address.clone()).text(), Columns::new());
    let (anna, bob, endless) = tokio::join!(
        async { records.accept(&job(2, "anna"), None, NOW, ACCEPTED_WITHIN).await },
        async { records.accept(&job(3, "bob"), None, NOW, ACCEPTED_WITHIN).await },
        records.advance(&spoilt.order.address, Event::Cancel, Patience::Endless),
    );
    assert!(matches!(bob, Ok(Ok(_))), "{bob:?}");
    for gave_up in [anna.err(), endless.err()] {
        let gave_up = gave_up.expect("it cannot be written");
        assert!(matches!(gave_up.cause, azure::Error::Malformed) && !gave_up.may_be_written, "{gave_up:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_step_that_panics_does_not_end_the_writing() {
    let committer = committer(&model());
    let panicked = committer.step(Patience::Endless, |_| -> () { panic!("this step panics") }).await;
    assert!(panicked.is_err(), "it did not end");
    let next = committer.step(Patience::For(Duration::from_secs(5)), |view| view.day(Day::of(NOW))).await;
    assert!(next.is_ok(), "{next:?}");
}

/// Its caller is told of the job then: who was told of a failure would ask, and pay, again.
#[tokio::test(start_paused = true)]
async fn a_job_that_a_delivery_has_begun_is_not_withdrawn() {
    let model = model();
    let records = Records::new(committer(&model), LIMITS);
    let job = job(1, "anna");
    assert!(matches!(records.accept(&job, None, NOW, ACCEPTED_WITHIN).await, Ok(Ok(_))));
    let attempt = records.new_attempt();
    records.begin(&job.order.address, &attempt, NOW).await.expect("it has begun");
    let found = records.withdraw(&job).await.expect("it is known");
    assert_eq!(found.state, State::Drawing(attempt));
}

/// Its message is in the queue already: the delivery finds that nothing came of it, and is the last.
#[tokio::test(start_paused = true)]
async fn a_job_that_is_refused_leaves_a_record_that_says_so() {
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
    // From now on the budget is looked at before a message is written.
    let before = model.counts().written;
    let looked = records.check(&refused.order.caller, MOST, Day::of(NOW)).await;
    assert!(matches!(looked, Ok(Err(Refusal::BudgetReserved))), "{looked:?}");
    assert_eq!(model.counts().written, before);
}
