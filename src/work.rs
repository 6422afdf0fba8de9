//! What happens to a job: it is accepted, delivered by the queue, cancelled, or given up.
//!
//! Accepting does all that can refuse a request, once: its key is claimed, its prompt moderated, its
//! picture and money reserved. A delivery draws and stores. The queue delivers a message again when a
//! delivery fails or its process dies, five times in all; then the job is given up.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tracing::Instrument as _;

use crate::app::App;
use crate::director::{self, Direction};
use crate::error::Problem;
use crate::generate::{self, Answered, Error, Generation, Outcome, Permission, Request, Running, Settlement};
use crate::idempotency::{Claim, Ending};
use crate::jobs::{Begun, Cancelled, End, Job, Lease, Trouble, Work};
use crate::logs::chain;
use crate::progress::Reporter;
use crate::quota::Unused;
use crate::{azure, openai, recover};

/// While another process works on the same job.
const LOOKED_AFTER: Duration = Duration::from_secs(1);
/// The host ends a delivery, and the whole process with it, after ten minutes.
const LONGEST_WAIT: Duration = Duration::from_secs(8 * 60);
/// Between tries to write how a job ended.
const END_PAUSES_SECONDS: [u64; 5] = [1, 2, 4, 8, 16];

/// Whether a picture that did not come may have been paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Paid {
    No,
    Perhaps,
}

/// Accepts a request as a job: [`Outcome::Job`], or the answer that it had the first time. Goes on
/// when the caller leaves.
pub(crate) async fn accept(app: &Arc<App>, request: Request) -> Answered {
    let accepting = accept_once(Arc::clone(app), request).in_current_span();
    app.generations.spawn(accepting).await.unwrap_or_else(|_| Error::Panicked.into())
}

async fn accept_once(app: Arc<App>, request: Request) -> Answered {
    let app = &*app;
    let (wishes, direction) = (request.wishes.clone(), request.direction);
    let repeatable = request.repeatable.clone();
    let generation = match Generation::of(app, request) {
        Ok(generation) => generation,
        Err(error) => return error.into(),
    };
    let claim = match &repeatable {
        None => None,
        Some(repeatable) => match generate::claim(app, &generation, repeatable).await {
            Ok(Ok(claim)) => Some(claim),
            Ok(Err(outcome)) => {
                if let Outcome::Job { id } = &outcome {
                    deliver_after_all(app, id).await;
                }
                return Answered { result: Ok(outcome), standing: None };
            }
            Err(error) => return error.into(),
        },
    };
    let (bill, standing) = match generate::reserve(app, &generation).await {
        Ok(reserved) => reserved,
        Err((error, settlement)) => {
            let answered = error.into();
            finish(app, settlement, claim).await;
            return answered;
        }
    };
    let mut job = Job::new(&generation.id, generation.prompt.clone(), generation.estimate(app), (app.clock)());
    let model = generation.drawing.model().to_owned();
    job.work = Some(Work {
        wishes,
        enhancement: direction.enhancement,
        style: direction.style.map(|style| style.name.to_owned()),
        caller: generation.caller.clone(),
        claim: generation.claim.clone(),
        bill: bill.clone(),
        model: model.clone(),
    });
    let id = app.jobs.id(&generation.id);
    let queued = async {
        app.jobs.insert(&job).await?;
        // The key leads to the job before anybody works on it: no second job is ever made for it.
        let mut claim = claim;
        if let Some(claim) = &mut claim {
            claim.end(Ending::Job { id: id.clone() }).await?;
        }
        app.jobs.enqueue(&id).await
    };
    let error = match queued.await {
        Ok(()) => return Answered { result: Ok(Outcome::Job { id }), standing },
        Err(error) => error,
    };
    // Its message may be in the queue all the same: it finds a job that is cancelled, or none.
    if let Err(error) = app.jobs.end(&id, &End::Cancelled).await {
        tracing::warn!(cause = chain(&error), "a job that could not be queued could not be cancelled");
    }
    let unused = Settlement::Unused { bill, model, why: Unused::NotAsked };
    unused.settle(app).await;
    if let Some(row) = &generation.claim
        && let Err(error) = app.claims.free(row, &generation.id).await
    {
        tracing::warn!(cause = chain(&error), "the claim of an Idempotency-Key could not be taken back");
    }
    Error::Jobs(error).into()
}

/// Ends what was begun for a request that was refused.
async fn finish(app: &App, settlement: Option<Settlement>, claim: Option<Box<Claim>>) {
    if let Some(claim) = claim
        && let Err(error) = claim.take_back().await
    {
        tracing::warn!(cause = chain(&error), "the claim of an Idempotency-Key could not be taken back");
    }
    if let Some(settlement) = settlement {
        settlement.settle(app).await;
    }
}

/// A message for a job that waits, whose first one may never have been written: two do no harm.
async fn deliver_after_all(app: &App, id: &str) {
    let waits = matches!(app.jobs.get(id).await, Ok(Some(job)) if job.waits((app.clock)()));
    if waits && let Err(error) = app.jobs.enqueue(id).await {
        tracing::warn!(cause = chain(&error), "a job could not be queued again");
    }
}

/// Works on a job that a message has come for. Goes on when the host leaves.
///
/// # Errors
/// Another delivery may do better.
pub(crate) async fn deliver(app: &Arc<App>, id: &str) -> Result<(), Problem> {
    let delivery = take_up(Arc::clone(app), id.to_owned(), Purpose::Draw).in_current_span();
    app.generations.spawn(delivery).await.unwrap_or_else(|_| Err(Problem::internal("a delivery panicked")))
}

/// Ends a job whose deliveries have all failed.
///
/// # Errors
/// Its end could not be written.
pub(crate) async fn give_up(app: &Arc<App>, id: &str) -> Result<(), Problem> {
    let delivery = take_up(Arc::clone(app), id.to_owned(), Purpose::GiveUp).in_current_span();
    app.generations.spawn(delivery).await.unwrap_or_else(|_| Err(Problem::internal("a delivery panicked")))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Draw,
    GiveUp,
}

async fn take_up(app: Arc<App>, id: String, purpose: Purpose) -> Result<(), Problem> {
    let attempt = format!("{:032x}", fastrand::u128(..));
    let began = (app.clock)();
    loop {
        match app.jobs.begin(&id, &attempt, (app.clock)()).await? {
            Begun::Ended => return Ok(()),
            Begun::Unknown => {
                tracing::warn!("a message is about a job that is not known here; it is dropped");
                return Ok(());
            }
            // Delivered twice; or its process has died, which shows when the lease ends.
            Begun::Busy if (app.clock)() - began < LONGEST_WAIT => tokio::time::sleep(LOOKED_AFTER).await,
            Begun::Busy => return Err(Problem::internal("a job is worked on for too long by another process")),
            Begun::Orphan(begun) => return settle_orphan(&app, begun.0, begun.1).await,
            Begun::Ours(begun) if purpose == Purpose::Draw => return draw(&app, begun.0, begun.1).await,
            Begun::Ours(begun) => {
                let (lease, job) = *begun;
                let trouble = job.trouble.clone().unwrap_or_else(|| Trouble::from(&given_up()));
                return fail(&app, &lease, &job, trouble, Paid::No).await;
            }
        }
    }
}

async fn draw(app: &App, mut lease: Lease, job: Job) -> Result<(), Problem> {
    let Some(work) = job.work.clone() else { return Ok(()) };
    let generation = match generation(app, &job, &work) {
        Ok(generation) => generation,
        // Settings have changed since.
        Err(error) => return fail(app, &lease, &job, Trouble::from(&error.into()), Paid::No).await,
    };
    let (reporter, _progress) = Reporter::new();
    let drawn = generate::draw(app, &generation, &work.bill, Permission::Lease(&mut lease), &reporter).await;
    let error = match drawn {
        Ok((outcome, settlement)) => {
            end(&lease, &End::of(outcome)).await?;
            if let Some(settlement) = settlement {
                settlement.settle(app).await;
            }
            return Ok(());
        }
        // Whoever has it now does the rest.
        Err(Error::Withdrawn) => return Ok(()),
        Err(error) => error,
    };
    if error.is_passing() {
        let problem = Problem::from(error);
        lease.release(Trouble::from(&problem)).await?;
        return Err(problem);
    }
    let Some(settlement) = Settlement::of(app, &error, &work.bill, &generation).await else {
        // It is in the spool, and whoever recovers it tells of it.
        lease.let_go().await?;
        return Err(Problem::from(error));
    };
    let paid = if error.loss().is_some() { Paid::Perhaps } else { Paid::No };
    end(&lease, &End::Failed(Trouble::from(&Problem::from(error)))).await?;
    if paid == Paid::No {
        free(app, &job, &work).await;
    }
    settlement.settle(app).await;
    Ok(())
}

/// The provider was asked by a process that has died: what it has drawn is in the spool or lost.
async fn settle_orphan(app: &App, lease: Lease, job: Job) -> Result<(), Problem> {
    if matches!(app.spool.get(&job.picture).await, Ok(Some(_))) {
        let left = recover::one(app, &job.picture).await;
        if left {
            lease.let_go().await?;
            return Err(azure::Error::Unreachable.into());
        }
        return Ok(());
    }
    let lost = Error::Provider(openai::Error::LostAnswer(None));
    fail(app, &lease, &job, Trouble::from(&lost.into()), Paid::Perhaps).await
}

async fn fail(app: &App, lease: &Lease, job: &Job, trouble: Trouble, paid: Paid) -> Result<(), Problem> {
    end(lease, &End::Failed(trouble)).await?;
    let Some(work) = &job.work else { return Ok(()) };
    let (bill, model) = (work.bill.clone(), work.model.clone());
    match paid {
        Paid::Perhaps => Settlement::Lost { bill, model }.settle(app).await,
        Paid::No => {
            free(app, job, work).await;
            Settlement::Unused { bill, model, why: Unused::Failure }.settle(app).await;
        }
    }
    Ok(())
}

/// Frees the Idempotency-Key of a job that nothing was paid for.
async fn free(app: &App, job: &Job, work: &Work) {
    if let Some(row) = &work.claim
        && let Err(error) = app.claims.free(row, &job.picture).await
    {
        tracing::warn!(cause = chain(&error), "the claim of an Idempotency-Key could not be taken back");
    }
}

/// Writes how a job ended; for some time, because the work is done.
async fn end(lease: &Lease, end: &End) -> Result<(), azure::Error> {
    let mut pauses = END_PAUSES_SECONDS.into_iter();
    loop {
        let Err(error) = lease.end(end).await else { return Ok(()) };
        let Some(seconds) = pauses.next() else {
            tracing::error!(cause = chain(&error), "the end of a job could not be written");
            return Err(error);
        };
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}

fn generation(app: &App, job: &Job, work: &Work) -> Result<Generation, Error> {
    let direction = Direction { enhancement: work.enhancement, style: work.style.as_deref().and_then(director::named) };
    let drawing = app.openai.plan(&job.prompt, &work.wishes)?;
    Ok(Generation {
        id: job.picture.clone(),
        prompt: job.prompt.clone(),
        direction,
        drawing,
        caller: work.caller.clone(),
        claim: work.claim.clone(),
    })
}

/// Cancels a job that has not begun, and gives back what was reserved for it.
///
/// # Errors
/// It is not known whether it is.
pub(crate) async fn cancel(app: &App, id: &str) -> Result<Cancelled, azure::Error> {
    let cancelled = app.jobs.cancel(id).await?;
    if let Cancelled::Yes(job) = &cancelled
        && let Some(work) = &job.work
    {
        free(app, job, work).await;
        let (bill, model) = (work.bill.clone(), work.model.clone());
        Settlement::Unused { bill, model, why: Unused::NotAsked }.settle(app).await;
    }
    Ok(cancelled)
}

/// Makes a job of a generation under way, whose caller cannot be kept waiting any longer; its id. The
/// end of the generation becomes the job's.
///
/// # Errors
/// The job could not be written; the generation goes on, and is given back.
pub(crate) async fn adopt(
    app: &Arc<App>,
    running: Running,
    mut job: Job,
) -> Result<String, (azure::Error, Box<Running>)> {
    job.phase = running.progress.borrow().phase;
    let mut lease = match app.jobs.adopt(job, (app.clock)()).await {
        Ok(lease) => lease,
        Err(error) => return Err((error, Box::new(running))),
    };
    let id = lease.id().to_owned();
    let watching = Arc::clone(app);
    let keep = async move {
        let Running { progress, mut answered, .. } = running;
        let answered = tokio::select! {
            answered = &mut answered => answered.unwrap_or_else(|_| Error::Panicked.into()),
            () = lease.renew(&*watching.clock, progress) => return,
        };
        let how = match answered.result {
            Ok(outcome) => End::of(outcome),
            Err(error) => End::Failed(Trouble::from(&Problem::from(error))),
        };
        // It has told why it could not be.
        let _ = end(&lease, &how).await;
    };
    app.generations.spawn(keep.in_current_span());
    Ok(id)
}

/// A job, for whoever asks: one whose process has died says so.
///
/// # Errors
/// It is not known how it stands.
pub(crate) async fn look(app: &App, id: &str, now: OffsetDateTime) -> Result<Option<Job>, azure::Error> {
    let Some(mut job) = app.jobs.get(id).await? else { return Ok(None) };
    if job.is_abandoned(now) {
        let lost = Error::Provider(openai::Error::LostAnswer(None));
        let end = End::Failed(Trouble::from(&lost.into()));
        app.jobs.end(id, &end).await?;
        job.end = Some(end);
    }
    Ok(Some(job))
}

fn given_up() -> Problem {
    Problem::new(
        axum::http::StatusCode::BAD_GATEWAY,
        "job_failed",
        "The picture could not be drawn, after several tries. It does not count. Please try again later.",
    )
}

impl End {
    fn of(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Stored(generated) => Self::Stored(generated.stored),
            Outcome::StoredLater { name } => Self::StoredLater { name },
            // A job is never about a job.
            Outcome::Job { .. } => Self::Cancelled,
        }
    }
}

impl From<&Problem> for Trouble {
    fn from(problem: &Problem) -> Self {
        Self {
            status: problem.status.as_u16(),
            code: problem.code.clone().into_owned(),
            sentence: problem.sentence.clone(),
            categories: problem.categories.clone(),
        }
    }
}
