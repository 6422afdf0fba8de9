//! Jobs: generations whose callers do not wait, or no longer.
//!
//! What is known of a job is an entity in the table, so any process can tell of it; it is kept for 24
//! hours. A job is worked on under a lease, and before the provider is asked the entity says so. Once
//! the lease of a process that died has ended, its job begins again where the provider had not been
//! asked; where it had, the picture may have been paid and lost, unless it is recovered. So however
//! often a message is delivered, the provider is asked once.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::sync::watch;

use crate::azure::{self, Key, Queue, Table};
use crate::caller::Caller;
use crate::config::{PromptEnhancement, QueueConfig};
use crate::digest::Digests;
use crate::gallery::Stored;
use crate::logs::chain;
use crate::openai::Wishes;
use crate::price::Bill;
use crate::progress::{Phase, Progress};
use crate::prompt::Prompt;

/// The queue that `processImage/function.json` listens to.
pub(crate) const QUEUE: &str = "visionary-jobs";
/// So long a job can be asked for.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// One that ends too early does no harm: what is done in the end is done.
const LEASE: Duration = Duration::from_secs(30);
const RENEWED_EVERY: Duration = Duration::from_secs(5);
const RENEWED_AGAIN_AFTER: Duration = Duration::from_secs(1);
/// So often a job is taken up; after that many failures it is given up, however its messages came.
const MAX_ATTEMPTS: u32 = 5;
/// A message that has not come by then was perhaps never written.
const QUEUED_AGAIN_AFTER: Duration = Duration::from_secs(2 * 60);
/// Others may come in between, but each time somebody gets on.
const MAX_TRIES: usize = 10;

/// All jobs.
#[derive(Debug, Clone)]
pub(crate) struct Jobs {
    table: Table,
    digests: Digests,
    queue: Option<Queue>,
}

/// What is known of a job.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Job {
    /// The id of its picture, which is nobody's business.
    pub(crate) picture: String,
    pub(crate) prompt: Prompt,
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) created_at: OffsetDateTime,
    /// How long it may take, in seconds.
    pub(crate) estimate: Option<u64>,
    pub(crate) phase: Phase,
    /// What whoever works on it needs, until its reservation and its key have been ended, too; `None`
    /// where a process does that already.
    pub(crate) work: Option<Work>,
    /// When a message was put into the queue.
    #[serde(with = "time::serde::rfc3339")]
    queued_at: OffsetDateTime,
    attempt: Option<String>,
    attempts: u32,
    #[serde(with = "time::serde::rfc3339::option")]
    lease_ends: Option<OffsetDateTime>,
    /// Why it could not be done so far.
    pub(crate) trouble: Option<Trouble>,
    pub(crate) end: Option<End>,
}

/// What a job is about.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Work {
    pub(crate) wishes: Wishes,
    pub(crate) enhancement: PromptEnhancement,
    /// The name of a preset.
    pub(crate) style: Option<String>,
    pub(crate) caller: Caller,
    /// Where the claim of its Idempotency-Key is.
    pub(crate) claim: Option<String>,
    pub(crate) bill: Bill,
    /// The model that its reservation is under.
    pub(crate) model: String,
}

/// How a job ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum End {
    /// The picture is in the gallery.
    Stored(Stored),
    /// It is safe, and will be in the gallery under this name.
    StoredLater {
        /// The blob's name.
        name: String,
    },
    /// There is none.
    Failed {
        trouble: Trouble,
        /// Whether one may have been drawn and billed.
        lost: bool,
    },
    /// Nobody wanted it any more.
    Cancelled,
}

/// What a caller is told of a failure.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Trouble {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) sentence: String,
    pub(crate) categories: Vec<String>,
}

/// What a delivery finds.
pub(crate) enum Begun {
    /// It is to be done.
    Ours(Box<(Lease, Job)>),
    /// The provider was asked by a process that has died.
    Orphan(Box<(Lease, Job)>),
    /// It was taken up too often.
    Spent(Box<(Lease, Job)>),
    /// Somebody works on it, for so long at least.
    Busy(Duration),
    /// It has ended.
    Ended(Box<Job>),
    /// There is no such job.
    Unknown,
}

/// What became of a wish to cancel.
pub(crate) enum Cancelled {
    /// It is, or was already.
    Yes(Box<Job>),
    /// It has begun, or ended.
    TooLate,
    /// There is no such job.
    Unknown,
}

/// The right to work on a job, and the duty to say how it goes.
#[derive(Debug, Clone)]
pub(crate) struct Lease {
    jobs: Jobs,
    id: String,
    attempt: String,
}

/// The job was cancelled, or has become another process's.
#[derive(Debug, thiserror::Error)]
pub enum Withdrawn {
    /// It is so.
    #[error("the job is nobody's, or another process's")]
    Withdrawn,
    /// It is not known.
    #[error(transparent)]
    Table(#[from] azure::Error),
}

impl Job {
    pub(crate) fn new(picture: &str, prompt: Prompt, estimate: Option<Duration>, now: OffsetDateTime) -> Self {
        Self {
            picture: picture.to_owned(),
            prompt,
            created_at: now,
            estimate: estimate.map(|estimate| estimate.as_secs_f64().ceil() as u64),
            phase: Phase::Queued,
            work: None,
            queued_at: now,
            attempt: None,
            attempts: 0,
            lease_ends: None,
            trouble: None,
            end: None,
        }
    }

    /// In one word.
    pub(crate) fn status(&self) -> &'static str {
        match (&self.end, self.phase) {
            (Some(End::Stored(_) | End::StoredLater { .. }), _) => "done",
            (Some(End::Failed { .. }), _) => "failed",
            (Some(End::Cancelled), _) => "cancelled",
            (None, Phase::Queued) => "queued",
            (None, Phase::Drawing) => "drawing",
            (None, Phase::Saving) => "saving",
        }
    }

    /// Whether a process worked on it that has died, and no message will bring it to another one.
    pub(crate) fn is_abandoned(&self, now: OffsetDateTime) -> bool {
        self.end.is_none() && self.work.is_none() && !self.is_leased(now)
    }

    fn is_leased(&self, now: OffsetDateTime) -> bool {
        self.lease_ends.is_some_and(|ends| ends > now)
    }

    /// The first end is the end, but a picture that is there is there.
    fn finish(&mut self, end: End) {
        if self.end.as_ref().map_or(0, End::rank) < end.rank() {
            self.end = Some(end);
        }
        (self.attempt, self.lease_ends) = (None, None);
    }
}

impl End {
    /// A higher one is written over a lower one.
    fn rank(&self) -> u8 {
        match self {
            Self::Cancelled | Self::Failed { .. } => 1,
            Self::StoredLater { .. } => 2,
            Self::Stored(_) => 3,
        }
    }
}

impl Jobs {
    pub(crate) fn new(table: Table, digests: Digests, queue: Option<&QueueConfig>, http: reqwest::Client) -> Self {
        Self { table, digests, queue: queue.map(|config| Queue::new(config, QUEUE, http)) }
    }

    /// Whether there is a queue.
    pub(crate) fn can_queue(&self) -> bool {
        self.queue.is_some()
    }

    /// The id of the job about a picture: nobody without the account's key can tell it, and every
    /// process can.
    pub(crate) fn id(&self, picture: &str) -> String {
        self.digests.of(&[b"job", picture.as_bytes()])
    }

    /// Writes a new job.
    pub(crate) async fn insert(&self, job: &Job) -> Result<(), azure::Error> {
        // One that is there is this one: the answer to writing it was lost.
        self.table.insert(&key(&self.id(&job.picture)), job, job.created_at + KEPT).await.map(|_| ())
    }

    /// Has a job delivered, once or more often.
    pub(crate) async fn enqueue(&self, id: &str, delay: Duration) -> Result<(), azure::Error> {
        let queue = self.queue.as_ref().ok_or(azure::Error::Unreachable)?;
        queue.put(&serde_json::json!({"job": id}).to_string(), delay).await
    }

    /// Has a job delivered that nobody has taken up for long: two messages do no harm.
    pub(crate) async fn enqueue_again(&self, id: &str, job: &Job, now: OffsetDateTime) -> Result<(), azure::Error> {
        let forgotten = |job: &Job| {
            job.end.is_none() && job.work.is_some() && !job.is_leased(now) && now - job.queued_at > QUEUED_AGAIN_AFTER
        };
        if !forgotten(job) {
            return Ok(());
        }
        // Of several who look, one does.
        let ours = self.change(id, |job| {
            let ours = forgotten(job);
            if ours {
                job.queued_at = now;
            }
            (ours, ours)
        });
        if ours.await? == Some(true) { self.enqueue(id, Duration::ZERO).await } else { Ok(()) }
    }

    /// What is known of a job.
    pub(crate) async fn get(&self, id: &str) -> Result<Option<Job>, azure::Error> {
        if !is_id(id) {
            return Ok(None);
        }
        Ok(self.table.get::<Job>(&key(id)).await?.map(|(job, _)| job))
    }

    /// Takes a job up, for the delivery that `attempt` names.
    pub(crate) async fn begin(&self, id: &str, attempt: &str, now: OffsetDateTime) -> Result<Begun, azure::Error> {
        let begun = self.change(id, |job| {
            if job.end.is_some() {
                return (Begun::Ended(Box::new(job.clone())), false);
            }
            let ours = job.attempt.as_deref() == Some(attempt);
            if let Some(left) = job.lease_ends.and_then(|ends| Duration::try_from(ends - now).ok())
                && !ours
            {
                return (Begun::Busy(left), false);
            }
            // Written already, and the answer lost, it is ours.
            job.attempts += u32::from(!ours);
            job.attempt = Some(attempt.to_owned());
            job.lease_ends = Some(now + LEASE);
            let ours = Box::new((self.lease(id, attempt), job.clone()));
            let begun = match job.phase {
                Phase::Queued if job.attempts > MAX_ATTEMPTS => Begun::Spent(ours),
                Phase::Queued => Begun::Ours(ours),
                Phase::Drawing | Phase::Saving => Begun::Orphan(ours),
            };
            (begun, true)
        });
        Ok(begun.await?.unwrap_or(Begun::Unknown))
    }

    /// Makes a job of what this process is working on.
    pub(crate) async fn adopt(&self, mut job: Job, now: OffsetDateTime) -> Result<Lease, azure::Error> {
        let lease = self.lease(&self.id(&job.picture), &job.picture);
        job.attempt = Some(lease.attempt.clone());
        job.lease_ends = Some(now + LEASE);
        self.insert(&job).await?;
        Ok(lease)
    }

    /// Cancels a job that has not begun.
    pub(crate) async fn cancel(&self, id: &str) -> Result<Cancelled, azure::Error> {
        let cancelled = self.change(id, |job| match &job.end {
            Some(End::Cancelled) => (Cancelled::Yes(Box::new(job.clone())), false),
            None if job.phase == Phase::Queued && job.work.is_some() => {
                job.finish(End::Cancelled);
                (Cancelled::Yes(Box::new(job.clone())), true)
            }
            _ => (Cancelled::TooLate, false),
        });
        Ok(cancelled.await?.unwrap_or(Cancelled::Unknown))
    }

    /// Says of a job how it ended.
    pub(crate) async fn end(&self, id: &str, end: &End) -> Result<(), azure::Error> {
        self.change(id, |job| {
            job.finish(end.clone());
            ((), true)
        })
        .await
        .map(|_| ())
    }

    /// Ends a job that a process worked on which has died, unless it lives; the job as it is then.
    pub(crate) async fn abandon(&self, id: &str, end: &End, now: OffsetDateTime) -> Result<Option<Job>, azure::Error> {
        self.change(id, |job| {
            let abandoned = job.is_abandoned(now);
            if abandoned {
                job.finish(end.clone());
            }
            (job.clone(), abandoned)
        })
        .await
    }

    /// Forgets what a job was about: its reservation and its key have been ended.
    pub(crate) async fn settled(&self, id: &str) -> Result<(), azure::Error> {
        self.change(id, |job| ((), job.end.is_some() && job.work.take().is_some())).await.map(|_| ())
    }

    /// Says of a picture that was stored after all, by whichever process, that its job is done, if it
    /// has one.
    pub(crate) async fn done_after_all(&self, picture: &str, stored: &Stored) -> Result<(), azure::Error> {
        self.end(&self.id(picture), &End::Stored(stored.clone())).await
    }

    fn lease(&self, id: &str, attempt: &str) -> Lease {
        Lease { jobs: self.clone(), id: id.to_owned(), attempt: attempt.to_owned() }
    }

    /// Changes a job, if the change says so; `None` where there is none. A change may be made again.
    async fn change<R>(&self, id: &str, change: impl Fn(&mut Job) -> (R, bool)) -> Result<Option<R>, azure::Error> {
        if !is_id(id) {
            return Ok(None);
        }
        let key = key(id);
        for _ in 0..MAX_TRIES {
            let Some((mut job, version)) = self.table.get::<Job>(&key).await? else { return Ok(None) };
            let (result, changed) = change(&mut job);
            if !changed || self.table.replace(&key, &job, job.created_at + KEPT, &version).await?.is_some() {
                return Ok(Some(result));
            }
        }
        Err(azure::Error::Unreachable)
    }
}

impl Lease {
    /// The job's id.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// Says that the provider is about to be asked.
    pub(crate) async fn ask(&self, now: OffsetDateTime) -> Result<(), Withdrawn> {
        let asked = self.change(|job| {
            job.phase = Phase::Drawing;
            job.lease_ends = Some(now + LEASE);
        });
        if asked.await? { Ok(()) } else { Err(Withdrawn::Withdrawn) }
    }

    /// Renews the lease and says how far the work has come, until it is dropped.
    pub(crate) async fn renew(
        &self,
        clock: &(dyn Fn() -> OffsetDateTime + Send + Sync),
        mut progress: watch::Receiver<Progress>,
    ) {
        let mut told = Phase::Queued;
        loop {
            let changed = async {
                if progress.wait_for(|progress| progress.phase != told).await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            // Whichever comes first.
            let _ = tokio::time::timeout(RENEWED_EVERY, changed).await;
            let phase = progress.borrow().phase;
            let lease_ends = clock() + LEASE;
            let renewed = self.change(|job| {
                // Never back: that the provider is asked is not to be forgotten.
                job.phase = job.phase.max(phase);
                job.lease_ends = Some(lease_ends);
            });
            // One that takes longer is not waited for as long as the lease.
            match tokio::time::timeout(RENEWED_EVERY, renewed).await.unwrap_or(Err(azure::Error::Unreachable)) {
                Ok(_) => told = phase,
                Err(error) => {
                    tracing::warn!(cause = chain(&error), "the lease of a job could not be renewed");
                    tokio::time::sleep(RENEWED_AGAIN_AFTER).await;
                }
            }
        }
    }

    /// Says how the work ended.
    pub(crate) async fn end(&self, end: &End) -> Result<(), azure::Error> {
        self.jobs.end(&self.id, end).await
    }

    /// Lets another delivery try: nothing was paid.
    pub(crate) async fn release(&self, trouble: Trouble) -> Result<(), azure::Error> {
        let released = self.change(|job| {
            (job.attempt, job.lease_ends, job.phase) = (None, None, Phase::Queued);
            job.trouble = Some(trouble.clone());
        });
        released.await.map(|_| ())
    }

    /// Lets another delivery look again at once.
    pub(crate) async fn let_go(&self) -> Result<(), azure::Error> {
        self.change(|job| (job.attempt, job.lease_ends) = (None, None)).await.map(|_| ())
    }

    /// Changes the job while it is this lease's; whether it was.
    async fn change(&self, change: impl Fn(&mut Job)) -> Result<bool, azure::Error> {
        let changed = self.jobs.change(&self.id, |job| {
            let ours = job.end.is_none() && job.attempt.as_deref() == Some(&self.attempt);
            if ours {
                change(job);
            }
            (ours, ours)
        });
        Ok(changed.await? == Some(true))
    }
}

/// As [`Jobs::id`] makes them.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn key(id: &str) -> Key {
    Key { partition: "job".to_owned(), row: id.to_owned() }
}
