//! The main job: a prompt becomes a picture in the gallery.

use std::sync::Arc;

use serde::Serialize;
use tracing::Instrument as _;

use crate::app::App;
use crate::gallery::{self, Details, Gallery, Stored};
use crate::idempotency::{self, Claimed, Ending, Loss, Repeatable};
use crate::logs::chain;
use crate::openai::{self, Drawing, InvalidWish, Wishes};
use crate::prompt::{self, Prompt};
use crate::spool;
use crate::turns::Busy;

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
    /// No turn is free. Nothing was asked of the provider.
    #[error(transparent)]
    Busy(#[from] Busy),
    /// No picture can be kept safe. Nothing was asked of the provider.
    #[error(transparent)]
    Spool(#[from] spool::Error),
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
    Stored(Generated),
    /// It is safe, and will be in the gallery under this name when storage can be reached again.
    StoredLater {
        /// The blob's name.
        name: String,
    },
}

/// What a caller asks for.
#[derive(Debug)]
pub struct Request<'a> {
    /// As typed.
    pub prompt: &'a str,
    /// What else is wished.
    pub wishes: Wishes,
    /// How to know the request again, if it has an Idempotency-Key.
    pub repeatable: Option<Repeatable>,
}

/// A request that can be fulfilled.
struct Generation {
    /// Of the picture that is to come.
    id: String,
    prompt: Prompt,
    drawing: Drawing,
    repeatable: Option<Repeatable>,
}

/// Has the picture drawn and stores it. Goes on to its end when the caller stops waiting: the
/// picture is paid from the moment the provider is asked.
///
/// # Errors
/// See [`Error`].
pub async fn generate(app: &Arc<App>, request: Request<'_>) -> Result<Outcome, Error> {
    let prompt = Prompt::parse(request.prompt)?;
    let drawing = app.openai.plan(&prompt, &request.wishes)?;
    let id = format!("{:032x}", fastrand::u128(..));
    let generation = Generation { id, prompt, drawing, repeatable: request.repeatable };
    let work = run_once(Arc::clone(app), generation).in_current_span();
    app.generations.spawn(work).await.unwrap_or(Err(Error::Panicked))
}

/// Does the work, unless it was done before.
async fn run_once(app: Arc<App>, generation: Generation) -> Result<Outcome, Error> {
    let Some(repeatable) = &generation.repeatable else { return draw_and_store(&app, &generation).await };
    let mut claim = match app.claims.claim(repeatable, &generation.id, (app.clock)()).await? {
        Claimed::Ours(claim) => claim,
        Claimed::Ended(ending) => return answer_again(&app, ending, generation.prompt).await,
    };
    let result = tokio::select! {
        result = draw_and_store(&app, &generation) => result,
        () = claim.renew(&*app.clock) => Err(Error::Panicked),
    };
    let told = match Ending::of(&result) {
        Some(ending) => claim.end(ending).await,
        None => claim.take_back().await,
    };
    if let Err(error) = told {
        tracing::error!(cause = chain(&error), "the claim of an Idempotency-Key could not be written");
    }
    result
}

async fn answer_again(app: &App, ending: Ending, prompt: Prompt) -> Result<Outcome, Error> {
    match ending {
        Ending::Stored(stored) => {
            let url = app.gallery.link(&stored.name, (app.clock)()).await?;
            Ok(Outcome::Stored(Generated { url, prompt, stored }))
        }
        Ending::StoredLater { name } => Ok(Outcome::StoredLater { name }),
        Ending::Lost(Loss::Timeout) => Err(openai::Error::Timeout.into()),
        Ending::Lost(Loss::Answer) => Err(openai::Error::LostAnswer(None).into()),
        Ending::Lost(Loss::UselessAnswer) => Err(openai::Error::BadAnswer("the first one was").into()),
        Ending::Lost(Loss::Unsaved) => Err(gallery::Error::Unreachable.into()),
    }
}

async fn draw_and_store(app: &App, generation: &Generation) -> Result<Outcome, Error> {
    let _turn = app.turns.take().await?;
    app.spool.check_room().await?;
    let drawn = app.openai.draw(&generation.drawing).await?;
    let details = Details {
        id: generation.id.clone(),
        prompt: generation.prompt.clone(),
        revised_prompt: drawn.revised_prompt,
        model: drawn.model,
        size: drawn.size,
        quality: drawn.quality,
        // The time of the picture and not of the request, so that the newest picture is listed first.
        created_at: (app.clock)(),
        claim: generation.repeatable.as_ref().map(|repeatable| repeatable.row().to_owned()),
    };
    let safe = app.spool.put(&drawn.image, &details).await;
    if let Err(error) = &safe {
        tracing::error!(cause = chain(error), "a picture could not be put into the spool; it is uploaded without");
    }
    match app.gallery.store(&drawn.image, &details).await {
        Ok(stored) => {
            if let Err(error) = app.spool.remove(&details.id).await {
                tracing::error!(cause = chain(&error), "a stored picture cannot be removed from the spool");
            }
            let url = app.gallery.link(&stored.name, (app.clock)()).await?;
            Ok(Outcome::Stored(Generated { url, prompt: details.prompt, stored }))
        }
        Err(error) if safe.is_ok() => {
            tracing::error!(
                cause = chain(&error),
                image.id = details.id,
                "a picture could not be stored; it is tried again"
            );
            app.spool.leave(&details.id);
            app.left_behind.notify_one();
            Ok(Outcome::StoredLater { name: Gallery::name(&drawn.image, &details) })
        }
        Err(error) => Err(error.into()),
    }
}

impl Ending {
    /// `None` where nothing was paid, so that another try is worth something.
    fn of(result: &Result<Outcome, Error>) -> Option<Self> {
        match result {
            Ok(Outcome::Stored(generated)) => Some(Self::Stored(generated.stored.clone())),
            Ok(Outcome::StoredLater { name }) => Some(Self::StoredLater { name: name.clone() }),
            Err(error) => error.loss().map(Self::Lost),
        }
    }
}

impl Error {
    /// How a picture was lost that may have been drawn and billed; `None` where none was drawn.
    fn loss(&self) -> Option<Loss> {
        match self {
            Self::Provider(openai::Error::Timeout) => Some(Loss::Timeout),
            Self::Provider(openai::Error::LostAnswer(_) | openai::Error::GatewayTimeout(_)) => Some(Loss::Answer),
            Self::Provider(openai::Error::BadAnswer(_)) => Some(Loss::UselessAnswer),
            Self::Storage(_) | Self::Panicked => Some(Loss::Unsaved),
            Self::Provider(
                openai::Error::Unreachable(_)
                | openai::Error::PromptRefused(_)
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
            | Self::Busy(_)
            | Self::Spool(_) => None,
        }
    }
}
