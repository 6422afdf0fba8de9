//! The main job: a prompt becomes a picture in the gallery.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt as _;
use serde::Serialize;
use tokio::sync::{oneshot, watch};
use tracing::Instrument as _;

use crate::app::App;
use crate::azure;
use crate::caller::Caller;
use crate::config::PromptEnhancement;
use crate::director::{self, Directed, Direction};
use crate::gallery::{self, Details, Gallery, Stored};
use crate::idempotency::{self, Claim, Claimed, Ending, Loss, Repeatable};
use crate::jobs::{Lease, Withdrawn};
use crate::logs::chain;
use crate::openai::{self, Drawing, InvalidWish, Wishes};
use crate::price::{Bill, Cost, Order};
use crate::progress::{Accepted, Phase, Progress, Reporter};
use crate::prompt::{self, Prompt};
use crate::quota::{self, Standing, Unused};
use crate::spool;
use crate::turns::Busy;

/// Between tries to save a picture that could not be put into the spool.
const UNSAFE_PAUSES_SECONDS: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];

/// No picture is in the gallery.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The prompt is none.
    #[error(transparent)]
    Prompt(#[from] prompt::Error),
    /// The model cannot do what is wished.
    #[error(transparent)]
    Wish(#[from] InvalidWish),
    /// The provider gave no picture.
    #[error(transparent)]
    Provider(#[from] openai::Error),
    /// The request was sent before, or cannot be told from one that was.
    #[error(transparent)]
    Idempotency(#[from] idempotency::Error),
    /// The provider's moderation flagged the prompt, for these categories. Nothing was asked of it else.
    #[error("the provider's moderation flagged the prompt")]
    Flagged(Vec<String>),
    /// Nothing could be reserved.
    #[error(transparent)]
    Quota(#[from] quota::Error),
    /// No turn is free. Nothing was asked of the provider.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// No picture can be kept safe. Nothing was asked of the provider.
    #[error(transparent)]
    Spool(#[from] spool::Error),
    /// A job was cancelled, or has become another process's.
    #[error("the job is nobody's, or another process's")]
    Withdrawn,
    /// The state of a job cannot be read or written.
    #[error("the state of a job cannot be reached")]
    Jobs(#[source] azure::Error),
    /// The generation panicked.
    #[error("the generation panicked")]
    Panicked,
    /// There is a picture, and it could not be stored.
    #[error(transparent)]
    Storage(#[from] gallery::Error),
}

/// A picture that is in the gallery and can be listed.
#[derive(Debug, Serialize)]
pub struct Generated {
    /// A read-only link.
    pub url: String,
    /// The prompt as typed.
    pub prompt: Prompt,
    /// What is kept of it.
    #[serde(flatten)]
    pub stored: Stored,
}

/// What became of a paid picture.
#[derive(Debug)]
pub enum Outcome {
    /// It is in the gallery.
    Stored(Box<Generated>),
    /// It is safe, and will be in the gallery under this name when storage can be reached again.
    StoredLater {
        /// The blob's name.
        name: String,
    },
    /// A job is about it.
    Job {
        /// The job's id.
        id: String,
    },
}

/// What a caller asks for.
#[derive(Debug)]
pub struct Request {
    /// As typed.
    pub prompt: String,
    /// What else is wished.
    pub wishes: Wishes,
    /// How the prompt is to be enhanced.
    pub direction: Direction,
    /// Who asks.
    pub caller: Caller,
    /// How to know the request again, if it has an Idempotency-Key.
    pub repeatable: Option<Repeatable>,
}

/// How a request ended, and how its caller stands then, as far as that was found out.
#[derive(Debug)]
pub struct Answered {
    /// How it ended.
    pub result: Result<Outcome, Error>,
    /// How the caller stands.
    pub standing: Option<Standing>,
}

/// A generation under way. It goes on when this is dropped.
#[derive(Debug)]
pub struct Running {
    /// The picture's id.
    pub id: String,
    /// The prompt as typed.
    pub prompt: Prompt,
    /// How far it has come.
    pub progress: watch::Receiver<Progress>,
    /// Its end.
    pub answered: oneshot::Receiver<Answered>,
}

/// A request that can be fulfilled.
#[derive(Debug)]
pub(crate) struct Generation {
    /// Of the picture that is to come.
    pub(crate) id: String,
    pub(crate) prompt: Prompt,
    pub(crate) direction: Direction,
    pub(crate) drawing: Drawing,
    pub(crate) caller: Caller,
    /// Where the claim of its Idempotency-Key is, if it has one.
    pub(crate) claim: Option<String>,
}

/// What has to be told before the provider is asked, and kept up while it draws.
pub(crate) enum Permission<'a> {
    /// Nobody.
    Free,
    /// That an Idempotency-Key is being worked on.
    Claim(&'a mut Box<Claim>),
    /// That a job is.
    Lease(&'a Lease),
}

/// What is left to do when the caller has the answer.
#[derive(Default)]
struct Rest {
    settlement: Option<Settlement>,
    key: Option<Key>,
}

/// An Idempotency-Key that could not be told how its request ended.
enum Key {
    Ended(Box<Claim>),
    /// Nothing was paid with the key in this row.
    Free(String),
}

/// How a reservation ends.
#[derive(Debug)]
pub(crate) enum Settlement {
    /// The picture is in the gallery.
    Drawn { bill: Bill, model: String, cost: Cost },
    /// It may have been drawn and is lost.
    Lost { bill: Bill, model: String },
    /// None was drawn.
    Unused { bill: Bill, model: String, why: Unused },
}

/// A clock is a little ahead of another one.
const HANDED_OVER_BEFORE: Duration = Duration::from_secs(1);
/// Between tries to end a reservation: each may be made again.
const SETTLE_PAUSES_SECONDS: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];

/// Has a picture drawn and stored. Goes on to its end when the caller stops waiting: the picture is
/// paid from the moment the provider is asked.
///
/// # Errors
/// The request cannot be fulfilled by anybody.
pub fn start(app: &Arc<App>, request: Request) -> Result<Running, Error> {
    let repeatable = request.repeatable.clone();
    let generation = Generation::of(app, request)?;
    let (reporter, progress) = Reporter::new();
    let (tell, answered) = oneshot::channel();
    let (id, prompt) = (generation.id.clone(), generation.prompt.clone());
    app.generations.spawn(run(Arc::clone(app), generation, repeatable, reporter, tell).in_current_span());
    Ok(Running { id, prompt, progress, answered })
}

async fn run(
    app: Arc<App>,
    generation: Generation,
    repeatable: Option<Repeatable>,
    reporter: Reporter,
    tell: oneshot::Sender<Answered>,
) {
    let began = Instant::now();
    let (answered, rest) = run_once(&app, &generation, repeatable.as_ref(), &reporter).await;
    let stored = match &answered.result {
        Ok(Outcome::Stored(generated)) => Some(generated.stored.clone()),
        _ => None,
    };
    // Who watches sees that nothing more will come.
    drop(reporter);
    // A caller who has left is told nothing.
    let _ = tell.send(answered);
    let id = &generation.id;
    // It may have become a job meanwhile.
    let handed_over = stored.as_ref().filter(|_| began.elapsed() + HANDED_OVER_BEFORE >= app.sync_limit);
    // At once, because each may take minutes, and whoever asks meanwhile is told something else.
    let told = tokio::join!(
        async {
            match &rest.settlement {
                Some(settlement) => settlement.settle(&app).await,
                None => true,
            }
        },
        async {
            match rest.key {
                Some(Key::Ended(claim)) => claim.end_after_all().await,
                Some(Key::Free(row)) => free(&app, &row, id).await,
                None => true,
            }
        },
        async {
            match handed_over {
                Some(stored) => app.jobs.done_after_all(id, stored).await.is_ok(),
                None => true,
            }
        },
    );
    if stored.is_some() && matches!(rest.settlement, Some(Settlement::Drawn { .. })) {
        finish(&app, id, told == (true, true, true)).await;
    }
}

/// Frees an Idempotency-Key that nothing was paid with; whether that was written, in the end.
pub(crate) async fn free(app: &App, row: &str, picture: &str) -> bool {
    let freed = azure::patiently(&SETTLE_PAUSES_SECONDS, || app.claims.free(row, picture)).await;
    if let Err(error) = &freed {
        tracing::error!(
            cause = chain(error),
            "an Idempotency-Key could not be freed; its picture counts as lost to it"
        );
    }
    freed.is_ok()
}

/// Ends a stored picture's time in the spool: it is the last to go, so that a process that dies before
/// leaves it to be found. Where somebody was not told, whoever finds it does that.
pub(crate) async fn finish(app: &App, id: &str, told: bool) {
    if !told {
        leave_behind(app, id);
    } else if let Err(error) = app.spool.remove(id).await {
        tracing::error!(cause = chain(&error), "a stored picture cannot be removed from the spool");
    }
}

/// Lets go of a picture in the spool, which is recovered then.
fn leave_behind(app: &App, id: &str) {
    app.spool.leave(id);
    app.left_behind.notify_one();
}

/// Does the work, unless it was done before.
async fn run_once(
    app: &App,
    generation: &Generation,
    repeatable: Option<&Repeatable>,
    reporter: &Reporter,
) -> (Answered, Rest) {
    let _entry = match app.turns.enter() {
        Ok(entry) => entry,
        Err(busy) => return (Error::from(busy).into(), Rest::default()),
    };
    let Some(repeatable) = repeatable else {
        let (answered, settlement) = reserve_and_draw(app, generation, Permission::Free, reporter).await;
        return (answered, Rest { settlement, key: None });
    };
    let mut claim = match claim(app, generation, repeatable).await {
        Ok(Ok(claim)) => claim,
        Ok(Err(outcome)) => return (Answered { result: Ok(outcome), standing: None }, Rest::default()),
        Err(error) => return (error.into(), Rest::default()),
    };
    let (answered, settlement) = reserve_and_draw(app, generation, Permission::Claim(&mut claim), reporter).await;
    let told = match Ending::of(&answered.result) {
        Some(ending) => claim.end(ending).await.map(|_| ()).map_err(|error| (error, Key::Ended(claim))),
        None => claim.take_back().await.map_err(|error| (error, Key::Free(repeatable.row().to_owned()))),
    };
    let key = told.err().map(|(error, key)| {
        tracing::warn!(
            cause = chain(&error),
            "the claim of an Idempotency-Key could not be written; it is tried again"
        );
        key
    });
    (answered, Rest { settlement, key })
}

/// The claim of a request's Idempotency-Key, or the answer that it had the first time.
pub(crate) async fn claim(
    app: &App,
    generation: &Generation,
    repeatable: &Repeatable,
) -> Result<Result<Box<Claim>, Outcome>, Error> {
    match app.claims.claim(repeatable, &generation.id, (app.clock)()).await? {
        Claimed::Ours(claim) => Ok(Ok(claim)),
        Claimed::Ended(ending) => answer_again(app, ending, generation.prompt.clone()).await.map(Err),
    }
}

async fn answer_again(app: &App, ending: Ending, prompt: Prompt) -> Result<Outcome, Error> {
    match ending {
        Ending::Stored(stored) => Ok(linked(app, prompt, stored).await?),
        Ending::StoredLater { name } => Ok(Outcome::StoredLater { name }),
        Ending::Job { id } => Ok(Outcome::Job { id }),
        Ending::Lost(Loss::Timeout) => Err(openai::Error::Timeout.into()),
        Ending::Lost(Loss::Answer) => Err(openai::Error::LostAnswer(None).into()),
        Ending::Lost(Loss::UselessAnswer) => Err(openai::Error::BadAnswer("the first one was").into()),
        Ending::Lost(Loss::Unsaved) => Err(gallery::Error::Unreachable.into()),
    }
}

/// A picture that was stored before, with a link of now.
pub(crate) async fn linked(app: &App, prompt: Prompt, stored: Stored) -> Result<Outcome, gallery::Error> {
    let url = app.gallery.link(&stored.name, (app.clock)()).await?;
    Ok(Outcome::Stored(Box::new(Generated { url, prompt, stored })))
}

/// Reserves before the provider is asked, and gives back what was not used.
async fn reserve_and_draw(
    app: &App,
    generation: &Generation,
    permission: Permission<'_>,
    reporter: &Reporter,
) -> (Answered, Option<Settlement>) {
    let (bill, standing) = match reserve(app, generation).await {
        Ok(reserved) => reserved,
        Err((error, settlement)) => return (error.into(), settlement),
    };
    reporter.accepted(Accepted {
        name: Gallery::caption(&generation.prompt),
        remaining: standing.map(|standing| standing.remaining()),
        estimate: generation.estimate(app),
    });
    let error = match draw(app, generation, &bill, permission, reporter).await {
        Ok((outcome, settlement)) => return (Answered { result: Ok(outcome), standing }, settlement),
        Err(error) => error,
    };
    match Settlement::of(app, &error, &bill, generation).await {
        Some(Settlement::Unused { bill, model, why }) => match app.quota.give_back(&bill, &model, why).await {
            Ok(standing) => (Answered { result: Err(error), standing }, None),
            Err(_) => (Answered { result: Err(error), standing }, Some(Settlement::Unused { bill, model, why })),
        },
        settlement => (Answered { result: Err(error), standing }, settlement),
    }
}

/// Moderates a prompt and reserves a picture and its money; with what is left to be settled, where
/// that failed.
pub(crate) async fn reserve(
    app: &App,
    generation: &Generation,
) -> Result<(Bill, Option<Standing>), (Error, Option<Settlement>)> {
    // Trouble with the key or the account is told at once while it lasts.
    app.openai.check().map_err(|error| (error.into(), None))?;
    if let Err(error) = check(app, &generation.prompt).await {
        return Err((error, None));
    }
    let (id, caller) = (&generation.id, &generation.caller);
    let model = generation.drawing.model().to_owned();
    app.quota.reserve(id, caller, generation.orders(), (app.clock)()).await.map_err(|(error, bill)| {
        let unused = bill.map(|bill| Settlement::Unused { bill, model, why: Unused::NotAsked });
        (error.into(), unused)
    })
}

/// Has a picture drawn that was reserved, and stores it. A panic must not leave a claim or a
/// reservation as it is.
pub(crate) async fn draw(
    app: &App,
    generation: &Generation,
    bill: &Bill,
    permission: Permission<'_>,
    reporter: &Reporter,
) -> Result<(Outcome, Option<Settlement>), Error> {
    let drawing = AssertUnwindSafe(draw_in_turn(app, generation, bill, permission, reporter)).catch_unwind().await;
    drawing.unwrap_or(Err(Error::Panicked))
}

/// Whether the prompt is one that the provider would rather not have. It is free advice, and the
/// provider looks again when it draws: without a verdict the request goes on.
async fn check(app: &App, prompt: &Prompt) -> Result<(), Error> {
    if !app.moderation {
        return Ok(());
    }
    match app.openai.moderate(prompt).await {
        Ok(None) => Ok(()),
        Ok(Some(categories)) => Err(Error::Flagged(categories)),
        Err(error) => {
            tracing::warn!(cause = chain(&error), "the prompt could not be moderated; the request goes on");
            Ok(())
        }
    }
}

/// Waits until the provider may be asked, and keeps the permission up while it works.
async fn draw_in_turn(
    app: &App,
    generation: &Generation,
    bill: &Bill,
    permission: Permission<'_>,
    reporter: &Reporter,
) -> Result<(Outcome, Option<Settlement>), Error> {
    if let Permission::Lease(lease) = permission {
        // A job's lease is kept while it waits, too.
        return tokio::select! {
            ended = draw_job(app, generation, bill, lease, reporter) => ended,
            () = lease.renew(&*app.clock, reporter.watch()) => Err(Error::Panicked),
        };
    }
    let _turn = app.turns.take().await?;
    let directed = direct(app, generation).await?;
    let Permission::Claim(claim) = permission else {
        return draw_and_store(app, generation, directed, bill, reporter).await;
    };
    claim.ask((app.clock)()).await?;
    tokio::select! {
        ended = draw_and_store(app, generation, directed, bill, reporter) => ended,
        () = claim.renew(&*app.clock) => Err(Error::Panicked),
    }
}

async fn draw_job(
    app: &App,
    generation: &Generation,
    bill: &Bill,
    lease: &Lease,
    reporter: &Reporter,
) -> Result<(Outcome, Option<Settlement>), Error> {
    // Nobody holds a connection open for it.
    let _turn = app.turns.take_patiently().await?;
    let directed = direct(app, generation).await?;
    lease.ask((app.clock)()).await?;
    draw_and_store(app, generation, directed, bill, reporter).await
}

/// The prompt to be sent, if there is room for what comes back.
async fn direct(app: &App, generation: &Generation) -> Result<Directed, Error> {
    app.spool.check_room().await?;
    let limit = generation.drawing.prompt_limit();
    let (prompt, direction) = (&generation.prompt, generation.direction);
    Ok(director::direct(&app.openai, prompt, direction, limit, app.moderation).await)
}

async fn draw_and_store(
    app: &App,
    generation: &Generation,
    mut directed: Directed,
    bill: &Bill,
    reporter: &Reporter,
) -> Result<(Outcome, Option<Settlement>), Error> {
    reporter.phase(Phase::Drawing);
    let started = Instant::now();
    let show = |index, image| reporter.preview(index, image);
    let mut drawn = app.openai.draw(&generation.drawing.with_prompt(&directed.prompt), &show).await;
    if matches!(drawn, Err(openai::Error::PromptRefused(_))) && directed.enhancement == PromptEnhancement::Rewrite {
        // What is refused is not the user's: it is not billed, and not for the user to put differently.
        directed = director::styled(&generation.prompt, generation.direction, generation.drawing.prompt_limit());
        drawn = app.openai.draw(&generation.drawing.with_prompt(&directed.prompt), &show).await;
    }
    let drawn = drawn?;
    reporter.phase(Phase::Saving);
    generation.took(app, started.elapsed());
    let cost = app.quota.cost(generation.drawing.order(&drawn.model), drawn.usage, bill);
    let details = Details {
        id: generation.id.clone(),
        prompt: generation.prompt.clone(),
        final_prompt: Some(directed.prompt).filter(|sent| sent != generation.prompt.as_str()),
        enhancement: directed.enhancement,
        revised_prompt: drawn.revised_prompt,
        model: drawn.model,
        size: drawn.size,
        quality: drawn.quality,
        // The time of the picture and not of the request, so that the newest picture is listed first.
        created_at: (app.clock)(),
        claim: generation.claim.clone(),
        bill: Some(bill.clone()),
        cost: Some(cost.clone()),
    };
    let mut safe = app.spool.put(&drawn.image, &details).await;
    if let Err(error) = &safe {
        tracing::error!(cause = chain(error), "a picture could not be put into the spool; it is uploaded without");
    }
    let mut stored = app.gallery.store(&drawn.image, &details).await;
    for seconds in UNSAFE_PAUSES_SECONDS {
        if safe.is_ok() || stored.is_ok() {
            break;
        }
        // Nowhere but in this process: it is worth waiting for.
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        safe = app.spool.put(&drawn.image, &details).await;
        stored = app.gallery.store(&drawn.image, &details).await;
    }
    match stored {
        Ok(stored) => {
            app.spool.stored(&details.id);
            // Signing is arithmetic: it has worked at the start.
            let url = app.gallery.link(&stored.name, (app.clock)()).await.unwrap_or_default();
            let settlement = Settlement::Drawn { bill: bill.clone(), model: details.model, cost };
            let generated = Generated { url, prompt: details.prompt, stored };
            Ok((Outcome::Stored(Box::new(generated)), Some(settlement)))
        }
        Err(error) if safe.is_ok() => {
            tracing::error!(
                cause = chain(&error),
                image.id = details.id,
                "a picture could not be stored; it is tried again"
            );
            leave_behind(app, &details.id);
            // Whoever stores it settles it.
            Ok((Outcome::StoredLater { name: Gallery::name(&drawn.image, &details) }, None))
        }
        Err(error) => Err(error.into()),
    }
}

impl Generation {
    pub(crate) fn of(app: &App, request: Request) -> Result<Self, Error> {
        let prompt = Prompt::parse(&request.prompt)?;
        let drawing = app.openai.plan(&prompt, &request.wishes)?;
        let id = format!("{:032x}", fastrand::u128(..));
        let claim = request.repeatable.map(|repeatable| repeatable.row().to_owned());
        Ok(Self { id, prompt, direction: request.direction, drawing, caller: request.caller, claim })
    }

    /// What it may cost: what the director adds is not known yet.
    pub(crate) fn orders(&self) -> impl Iterator<Item = Order<'_>> {
        let added = director::added_bytes(self.direction.enhancement);
        self.drawing.orders().map(move |order| order.longer_by(added))
    }

    /// How long such pictures took lately.
    pub(crate) fn estimate(&self, app: &App) -> Option<Duration> {
        let order = self.drawing.orders().next()?;
        app.estimates.of(order.model, order.size)
    }

    fn took(&self, app: &App, time: Duration) {
        if let Some(order) = self.drawing.orders().next() {
            app.estimates.note(order.model, order.size, time);
        }
    }
}

impl Settlement {
    /// How a reservation ends whose generation failed; `None` where somebody else ends it.
    pub(crate) async fn of(app: &App, error: &Error, bill: &Bill, generation: &Generation) -> Option<Self> {
        if matches!(error, Error::Withdrawn) {
            return None;
        }
        if matches!(error, Error::Panicked) && matches!(app.spool.get(&generation.id).await, Ok(Some(_))) {
            // Whoever recovers it settles it.
            leave_behind(app, &generation.id);
            return None;
        }
        let (bill, model) = (bill.clone(), generation.drawing.model().to_owned());
        Some(match error.loss() {
            Some(_) => Self::Lost { bill, model },
            None => Self::Unused { bill, model, why: error.unused() },
        })
    }

    /// Whether that was written, in the end.
    pub(crate) async fn settle(&self, app: &App) -> bool {
        let settled = azure::patiently(&SETTLE_PAUSES_SECONDS, || self.settle_once(app)).await;
        if let Err(error) = &settled {
            tracing::error!(cause = chain(error), "a reservation could not be ended; it counts as it was made");
        }
        settled.is_ok()
    }

    async fn settle_once(&self, app: &App) -> Result<(), azure::Error> {
        match self {
            Self::Drawn { bill, model, cost } => app.quota.settle(bill, model, cost).await,
            Self::Lost { bill, model } => app.quota.keep(bill, model).await,
            Self::Unused { bill, model, why } => app.quota.give_back(bill, model, *why).await.map(|_| ()),
        }
    }
}

impl From<Withdrawn> for Error {
    fn from(error: Withdrawn) -> Self {
        match error {
            Withdrawn::Withdrawn => Self::Withdrawn,
            Withdrawn::Table(error) => Self::Jobs(error),
        }
    }
}

impl From<Error> for Answered {
    fn from(error: Error) -> Self {
        let standing = match &error {
            Error::Quota(quota::Error::Exceeded { standing, .. }) => Some(*standing),
            _ => None,
        };
        Self { result: Err(error), standing }
    }
}

impl Ending {
    /// `None` where nothing was paid, so that another try is worth something.
    fn of(result: &Result<Outcome, Error>) -> Option<Self> {
        match result {
            Ok(Outcome::Stored(generated)) => Some(Self::Stored(generated.stored.clone())),
            Ok(Outcome::StoredLater { name }) => Some(Self::StoredLater { name: name.clone() }),
            Ok(Outcome::Job { id }) => Some(Self::Job { id: id.clone() }),
            Err(error) => error.loss().map(Self::Lost),
        }
    }
}

impl Error {
    /// How a picture was lost that may have been drawn and billed; `None` where none was drawn.
    pub(crate) fn loss(&self) -> Option<Loss> {
        match self {
            Self::Provider(openai::Error::Timeout) => Some(Loss::Timeout),
            Self::Provider(openai::Error::LostAnswer(_) | openai::Error::GatewayTimeout(_)) => Some(Loss::Answer),
            Self::Provider(openai::Error::BadAnswer(_)) => Some(Loss::UselessAnswer),
            Self::Storage(_) | Self::Panicked => Some(Loss::Unsaved),
            Self::Provider(
                openai::Error::Unreachable(_)
                | openai::Error::PromptRefused(_)
                | openai::Error::WishRefused(..)
                | openai::Error::ReasoningRefused(_)
                | openai::Error::StreamRefused(_)
                | openai::Error::BadRequest(_)
                | openai::Error::Denied(_)
                | openai::Error::ModelGone(_)
                | openai::Error::OutOfCredit(_)
                | openai::Error::RateLimited(_)
                | openai::Error::Failed(_),
            )
            | Self::Prompt(_)
            | Self::Wish(_)
            | Self::Idempotency(_)
            | Self::Flagged(_)
            | Self::Quota(_)
            | Self::Busy(_)
            | Self::Withdrawn
            | Self::Jobs(_)
            | Self::Spool(_) => None,
        }
    }

    /// Whether another delivery of a job may do better. Nothing was drawn.
    pub(crate) fn is_passing(&self) -> bool {
        match self {
            Self::Provider(error) => error.may_be_repeated(),
            Self::Busy(_) | Self::Spool(_) | Self::Jobs(_) => true,
            _ => false,
        }
    }

    /// Why nothing came of a reservation, where [`Self::loss`] knows of none.
    fn unused(&self) -> Unused {
        match self {
            Self::Provider(openai::Error::PromptRefused(_)) => Unused::Refusal,
            Self::Provider(_) => Unused::Failure,
            _ => Unused::NotAsked,
        }
    }
}
