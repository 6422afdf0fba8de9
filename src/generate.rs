//! The main job: a prompt becomes a picture in the gallery.

use std::sync::Arc;

use serde::Serialize;
use time::OffsetDateTime;
use tracing::Instrument as _;

use crate::app::App;
use crate::gallery::{self, Details, Gallery, Stored};
use crate::image::Image;
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
#[serde(rename_all = "camelCase")]
pub struct Generated {
    /// The blob's name.
    pub name: String,
    /// A read-only link.
    pub url: String,
    /// The prompt as typed.
    pub prompt: String,
    /// The prompt as the provider rewrote it.
    pub revised_prompt: Option<String>,
    /// The model that drew it.
    pub model: String,
    /// Its size, in the provider's words.
    pub size: String,
    /// Its quality, in the provider's words.
    pub quality: String,
    /// Its media type.
    pub content_type: &'static str,
    /// Its length.
    pub bytes: usize,
    /// When it came; the time in its name.
    #[serde(with = "time::serde::rfc3339")]
    pub created_at: OffsetDateTime,
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

/// Has the picture drawn and stores it. Goes on to its end when the caller stops waiting: the
/// picture is paid from the moment the provider is asked.
///
/// # Errors
/// See [`Error`].
pub async fn generate(app: &Arc<App>, prompt: &str, wishes: &Wishes) -> Result<Outcome, Error> {
    let prompt = Prompt::parse(prompt)?;
    let drawing = app.openai.plan(&prompt, wishes)?;
    let generation = draw_and_store(Arc::clone(app), prompt, drawing).in_current_span();
    app.generations.spawn(generation).await.unwrap_or(Err(Error::Panicked))
}

async fn draw_and_store(app: Arc<App>, prompt: Prompt, drawing: Drawing) -> Result<Outcome, Error> {
    let _turn = app.turns.take().await?;
    app.spool.check_room().await?;
    let drawn = app.openai.draw(&drawing).await?;
    let details = Details {
        id: format!("{:032x}", fastrand::u128(..)),
        prompt,
        revised_prompt: drawn.revised_prompt,
        model: drawn.model,
        size: drawn.size,
        quality: drawn.quality,
        // The time of the picture and not of the request, so that the newest picture is listed first.
        created_at: (app.clock)(),
    };
    let safe = app.spool.put(&drawn.image, &details).await;
    if let Err(error) = &safe {
        tracing::error!(cause = chain(error), "a picture could not be put into the spool; it is uploaded without");
    }
    match app.gallery.store(&drawn.image, &details, details.created_at).await {
        Ok(stored) => {
            if let Err(error) = app.spool.remove(&details.id).await {
                tracing::error!(cause = chain(&error), "a stored picture cannot be removed from the spool");
            }
            Ok(Outcome::Stored(Generated::new(stored, details, &drawn.image)))
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

impl Generated {
    fn new(stored: Stored, details: Details, image: &Image) -> Self {
        Self {
            name: stored.name,
            url: stored.url,
            prompt: details.prompt.into(),
            revised_prompt: details.revised_prompt,
            model: details.model,
            size: details.size,
            quality: details.quality,
            content_type: image.format().content_type(),
            bytes: image.bytes().len(),
            created_at: stored.created_at,
        }
    }
}
