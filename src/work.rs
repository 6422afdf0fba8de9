//! What happens to a job: it is accepted, delivered by the queue, cancelled, or given up.
//!
//! Accepting does all that can refuse a request, once: its key is claimed, its prompt moderated, its
//! picture and money reserved. A delivery draws and stores. The queue delivers a message again when a
//! delivery fails or its process dies; a job is taken up five times in all, then it is given up.

use std::sync::Arc;
use std::time::Duration;

use time::OffsetDateTime;
use tracing::Instrument as _;

use crate::app::App;
use crate::director::{self, Direction};
use crate::error::Problem;
use crate::generate::{self, Answered, Error, Generation, Outcome, Permission, Request, Running, Settlement};
use crate::idempotency::{self, Claim, Ending};
use crate::jobs::{Begun, Cancelled, End, Job, Lease, Trouble, Work};
use crate::logs::chain;
use crate::progress::Reporter;
use crate::quota::Unused;
use crate::{azure, openai, recover, spool};

/// After the end of a lease.
const LOOKED_AFTER: Duration = Duration::from_secs(1);
/// The host ends a delivery, and the whole process with it, after ten minutes: the work goes on
/// without it, and its next delivery finds that out.
const LONGEST_DELIVERY: Duration = Duration::from_secs(9 * 60);
/// Between tries to write how a job ended.
const END_PAUSES_SECONDS: [u64; 5] = [1, 2, 4, 8, 16];

/// Accepts a request as a job: [`Outcome::Job`], or the answer that it had the first time. Goes on
/// when the caller leaves.
pub(crate) async fn accept(app: &Arc<App>, request: Request) -> Answered {
    let accepting = accept_once(Arc::clone(app), request).in_current_span();
    app.generations.spawn(accepting).await.unwrap_or_else(|_| Error::Panicked.into())
}

async fn accept_once(app: Arc<App>, request: Request) -> Answered {
    let _entry = match app.turns.enter() {
        Ok(entry) => entry,
        Err(busy) => return Error::from(busy).into(),
    };
    let (wishes, direction) = (request.wishes.clone(), request.direction);
    let repeatable = request.repeatable.clone();
    let generation = match Generation::of(&app, request) {
        Ok(generation) => generation,
        Err(error) => return error.into(),
    };
    let claim = match &repeatable {
        None => None,
        Some(repeatable) => match generate::claim(&app, &generation, repeatable).await {
            Ok(Ok(claim)) => Some(claim),
            Ok(Err(outcome)) => return Answered { result: Ok(outcome), standing: None },
            Err(error) => return error.into(),
        },
    };
    let (bill, standing) = match generate::reserve(&app, &generation).await {
        Ok(reserved) => reserved,
        Err((error, settlement)) => {
            if let Some(settlement) = settlement {
                let settling = Arc::clone(&app);
                later(&app, async move {
                    settlement.settle(&settling).await;
                });
            }
            if let Some(claim) = claim
                && claim.take_back().await.is_err()
                && let Some(row) = generation.claim
            {
                let freeing = Arc::clone(&app);
                later(&app, async move {
                    generate::free(&freeing, &row, &generation.id).await;
                });
            }
            return error.into();
        }
    };
    let mut job = Job::new(&generation.id, generation.prompt.clone(), generation.estimate(&app), (app.clock)());
    job.work = Some(Work {
        wishes,
        enhancement: direction.enhancement,
        style: direction.style.map(|style| style.name.to_owned()),
        caller: generation.caller.clone(),
        claim: generation.claim.clone(),
        bill,
        model: generation.drawing.model().to_owned(),
    });
    let id = app.jobs.id(&generation.id);
    let Err((error, may_be_delivered)) = queue(&app, &id, &job, claim).await else {
        return Answered { result: Ok(Outcome::Job { id }), standing };
    };
    // It may be written all the same, and its message, too; then it may have begun.
    match withdraw(&app, &id, &job).await {
        Ok(false) => {}
        // It has begun.
        Ok(true) => return Answered { result: Ok(Outcome::Job { id }), standing },
        // It may begin: whoever asks for it will find out.
        Err(_) if may_be_delivered => return Answered { result: Ok(Outcome::Job { id }), standing },
        Err(_) => {
            let withdrawing = Arc::clone(&app);
            later(&app, async move {
                let _ = patiently(async || withdraw(&withdrawing, &id, &job).await.map(|_| ())).await;
            });
        }
    }
    error.into()
}

/// Cancels a job that could not be queued; whether it has begun all the same.
async fn withdraw(app: &Arc<App>, id: &str, job: &Job) -> Result<bool, azure::Error> {
    match app.jobs.cancel(id).await? {
        Cancelled::Yes(job) => settle_later(app, id, &job),
        // It was never written.
        Cancelled::Unknown => {
            let mut job = job.clone();
            job.end = Some(End::Cancelled);
            settle_later(app, id, &job);
        }
        Cancelled::TooLate => return Ok(true),
    }
    Ok(false)
}

/// Writes a job, and puts its message into the queue; on an error, whether that may be there.
async fn queue(app: &App, id: &str, job: &Job, claim: Option<Box<Claim>>) -> Result<(), (Error, bool)> {
    app.jobs.insert(job).await.map_err(|error| (Error::Jobs(error), false))?;
    // The key leads to the job before anybody works on it: no second job is ever made for it.
    if let Some(mut claim) = claim
        && !claim.end(Ending::Job { id: id.to_owned() }).await.map_err(|error| (Error::Jobs(error), false))?
    {
        return Err((idempotency::Error::InProgress.into(), false));
    }
    app.jobs.enqueue(id, Duration::ZERO).await.map_err(|error| (Error::Jobs(error), true))
}

/// Works on a job that a message has come for. Goes on when the host leaves.
///
/// # Errors
/// Another delivery may do better.
pub(crate) async fn deliver(app: &Arc<App>, id: &str) -> Result<(), Problem> {
    run(app, id, Purpose::Draw).await
}

/// Ends a job whose deliveries have all failed.
///
/// # Errors
/// Its end could not be written.
pub(crate) async fn give_up(app: &Arc<App>, id: &str) -> Result<(), Problem> {
    run(app, id, Purpose::GiveUp).await
}

async fn run(app: &Arc<App>, id: &str, purpose: Purpose) -> Result<(), Problem> {
    let delivery = take_up(Arc::clone(app), id.to_owned(), purpose).in_current_span();
    match tokio::time::timeout(LONGEST_DELIVERY, app.generations.spawn(delivery)).await {
        Ok(delivered) => delivered.unwrap_or_else(|_| Err(Problem::internal("a delivery panicked"))),
        Err(_) => Err(Problem::internal("a delivery takes too long")),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Draw,
    GiveUp,
}

async fn take_up(app: Arc<App>, id: String, purpose: Purpose) -> Result<(), Problem> {
    let attempt = format!("{:032x}", fastrand::u128(..));
    match app.jobs.begin(&id, &attempt, (app.clock)()).await? {
        Begun::Ended(job) => settle_later(&app, &id, &job),
        Begun::Unknown => tracing::warn!("a message is about a job that is not known here; it is dropped"),
        // Delivered twice; or its process has died, which shows when the lease ends. Nobody waits for
        // it in a place that others need.
        Begun::Busy(left) => app.jobs.enqueue(&id, left + LOOKED_AFTER).await?,
        Begun::Orphan(begun) => {
            let (lease, job) = *begun;
            return settle_orphan(&app, lease, job).await;
        }
        Begun::Ours(begun) if purpose == Purpose::Draw => {
            let (lease, job) = *begun;
            return draw(&app, lease, job).await;
        }
        Begun::Ours(begun) | Begun::Spent(begun) => {
            let (lease, job) = *begun;
            let trouble = job.trouble.clone().unwrap_or_else(|| Trouble::from(&given_up()));
            fail(&app, &lease, job, End::Failed { trouble, lost: false }).await?;
        }
    }
    Ok(())
}

async fn draw(app: &Arc<App>, lease: Lease, job: Job) -> Result<(), Problem> {
    let Some(work) = job.work.clone() else { return Ok(()) };
    let failed = |problem: &Problem, lost| End::Failed { trouble: Trouble::from(problem), lost };
    let generation = match generation(app, &job, &work) {
        Ok(generation) => generation,
        // Settings have changed since.
        Err(error) => {
            let end = failed(&error.into(), false);
            return Ok(fail(app, &lease, job, end).await?);
        }
    };
    if work.bill.in_budget && app.quota.most(generation.orders()) > work.bill.reserved {
        return Ok(fail(app, &lease, job, failed(&too_dear(), false)).await?);
    }
    let (reporter, _progress) = Reporter::new();
    let drawn = generate::draw(app, &generation, &work.bill, Permission::Lease(&lease), &reporter).await;
    let error = match drawn {
        Ok((outcome, settlement)) => {
            let end = End::of(outcome);
            let ended = patiently(|| lease.end(&end)).await;
            let (told, picture, id) = (ended.is_ok(), job.picture, lease.id().to_owned());
            if let Some(settlement) = settlement {
                let settling = Arc::clone(app);
                later(app, async move {
                    let settled = settlement.settle(&settling).await;
                    if told && settled {
                        let _ = settling.jobs.settled(&id).await;
                    }
                    generate::finish(&settling, &picture, told && settled).await;
                });
            }
            return Ok(ended?);
        }
        // Whoever has it now does the rest.
        Err(Error::Withdrawn) => return Ok(()),
        Err(error) => error,
    };
    if error.is_passing() {
        let problem = Problem::from(error);
        let trouble = Trouble::from(&problem);
        patiently(|| lease.release(trouble.clone())).await?;
        return Err(problem);
    }
    if Settlement::of(app, &error, &work.bill, &generation).await.is_none() {
        // It is in the spool, and whoever recovers it tells of it.
        patiently(|| lease.let_go()).await?;
        return Err(Problem::from(error));
    }
    let lost = error.loss().is_some();
    Ok(fail(app, &lease, job, failed(&Problem::from(error), lost)).await?)
}

/// The provider was asked by a process that has died: what it has drawn is in the spool or lost.
async fn settle_orphan(app: &Arc<App>, lease: Lease, job: Job) -> Result<(), Problem> {
    let is_there = match app.spool.get(&job.picture).await {
        Ok(entry) => entry.is_some(),
        Err(spool::Error::Damaged) => false,
        Err(error) => {
            patiently(|| lease.let_go()).await?;
            return Err(Problem::from(Error::Spool(error)));
        }
    };
    if is_there {
        if recover::one(app, &job.picture).await {
            patiently(|| lease.let_go()).await?;
            return Err(azure::Error::Unreachable.into());
        }
        return Ok(());
    }
    let trouble = Trouble::from(&Error::Provider(openai::Error::LostAnswer(None)).into());
    Ok(fail(app, &lease, job, End::Failed { trouble, lost: true }).await?)
}

async fn fail(app: &Arc<App>, lease: &Lease, mut job: Job, end: End) -> Result<(), azure::Error> {
    patiently(|| lease.end(&end)).await?;
    job.end = Some(end);
    settle_later(app, lease.id(), &job);
    Ok(())
}

/// Ends what was reserved for a job that has ended, and frees its key where nothing was paid. May be
/// done again, and is, by whoever meets the job, until it is written that it was done.
fn settle_later(app: &Arc<App>, id: &str, job: &Job) {
    let Some(work) = &job.work else { return };
    let (bill, model) = (work.bill.clone(), work.model.clone());
    let settlement = match &job.end {
        Some(End::Cancelled) => Settlement::Unused { bill, model, why: Unused::NotAsked },
        Some(End::Failed { lost: false, trouble }) => Settlement::Unused { bill, model, why: unused(trouble) },
        Some(End::Failed { lost: true, .. }) => Settlement::Lost { bill, model },
        // Whoever stored it does that, or finds it in the spool.
        None | Some(End::Stored(_) | End::StoredLater { .. }) => return,
    };
    // Where a picture may have been paid, the key leads to that.
    let key = work.claim.clone().filter(|_| !matches!(settlement, Settlement::Lost { .. }));
    let (id, picture, settling) = (id.to_owned(), job.picture.clone(), Arc::clone(app));
    later(app, async move {
        let freed = match &key {
            Some(row) => generate::free(&settling, row, &picture).await,
            None => true,
        };
        if settlement.settle(&settling).await && freed {
            // If not, whoever meets it does it all again.
            let _ = settling.jobs.settled(&id).await;
        }
    });
}

/// Why no picture came of a job, as far as the code that its caller is told says so.
fn unused(trouble: &Trouble) -> Unused {
    match trouble.code.as_str() {
        "prompt_rejected" => Unused::Refusal,
        code if code.starts_with("provider_") => Unused::Failure,
        _ => Unused::NotAsked,
    }
}

/// Does what nobody but a stop has to wait for.
fn later(app: &Arc<App>, work: impl Future<Output = ()> + Send + 'static) {
    app.generations.spawn(work.in_current_span());
}

/// Writes what has to be written; for some time.
async fn patiently<F: Future<Output = Result<(), azure::Error>>>(write: impl Fn() -> F) -> Result<(), azure::Error> {
    let written = azure::patiently(&END_PAUSES_SECONDS, write).await;
    if let Err(error) = &written {
        tracing::error!(cause = chain(error), "the state of a job could not be written");
    }
    written
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
pub(crate) async fn cancel(app: &Arc<App>, id: &str) -> Result<Cancelled, azure::Error> {
    let cancelled = app.jobs.cancel(id).await?;
    if let Cancelled::Yes(job) = &cancelled {
        settle_later(app, id, job);
    }
    Ok(cancelled)
}

/// Makes a job of a generation under way, whose caller cannot be kept waiting any longer; its id. The
/// end of the generation becomes the job's.
///
/// # Errors
/// The job could not be written; the generation goes on, and is given back.
pub(crate) async fn adopt(app: &Arc<App>, running: Running) -> Result<String, (azure::Error, Box<Running>)> {
    let now = (app.clock)();
    let mut job = Job::new(&running.id, running.prompt.clone(), None, now);
    job.phase = running.progress.borrow().phase;
    let lease = match app.jobs.adopt(job, now).await {
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
            Err(error) => {
                let lost = error.loss().is_some();
                End::Failed { trouble: Trouble::from(&Problem::from(error)), lost }
            }
        };
        // It has told why it could not be.
        let _ = patiently(|| lease.end(&how)).await;
    };
    app.generations.spawn(keep.in_current_span());
    Ok(id)
}

/// A job, for whoever asks: one whose process has died says so.
///
/// # Errors
/// It is not known how it stands.
pub(crate) async fn look(app: &Arc<App>, id: &str, now: OffsetDateTime) -> Result<Option<Job>, azure::Error> {
    let Some(job) = app.jobs.get(id).await? else { return Ok(None) };
    if job.is_abandoned(now) {
        let trouble = Trouble::from(&Error::Provider(openai::Error::LostAnswer(None)).into());
        return app.jobs.abandon(id, &End::Failed { trouble, lost: true }, now).await;
    }
    if job.end.is_some() {
        settle_later(app, id, &job);
    } else if let Err(error) = app.jobs.enqueue_again(id, &job, now).await {
        tracing::warn!(cause = chain(&error), "a job could not be queued again");
    }
    Ok(Some(job))
}

/// The model, its price or the settings have changed since.
fn too_dear() -> Problem {
    Problem::new(
        axum::http::StatusCode::CONFLICT,
        "job_outdated",
        "The picture would cost more than when the job was accepted. Nothing was drawn. Please send it again.",
    )
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
