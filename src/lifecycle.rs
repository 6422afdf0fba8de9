//! Looks out for models that are going away. Image models get three months' notice, and a backend
//! whose model is gone draws nothing.

use std::sync::PoisonError;
use std::time::Duration;

use crate::app::{App, KnownModel};
use crate::openai::ModelState;

/// Announcements are made months before.
const PAUSE: Duration = Duration::from_secs(24 * 60 * 60);
/// From when the operator is told, and from when it is urgent, in days.
const TOLD_BEFORE: i64 = 90;
const URGENT_BEFORE: i64 = 14;

/// Asks at the start and once a day, in nobody's way. Goes on until it is dropped.
pub async fn run(app: &App) {
    loop {
        let mut models = app.models.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for known in &mut models {
            known.state = app.openai.model(&known.model).await;
        }
        for known in &models {
            tell(app, known, &models);
        }
        *app.models.lock().unwrap_or_else(PoisonError::into_inner) = models;
        tokio::time::sleep(PAUSE).await;
    }
}

fn tell(app: &App, known: &KnownModel, models: &[KnownModel]) {
    let KnownModel { setting, model, state } = known;
    let fallbacks: Vec<&str> = models
        .iter()
        .filter(|other| other.setting == "OPENAI_IMAGE_FALLBACKS" && other.model != *model)
        .map(|other| other.model.as_str())
        .collect();
    let fallbacks = match (*setting, fallbacks.as_slice()) {
        ("OPENAI_TEXT_MODEL", _) => "the built-in suggestions".to_owned(),
        (_, []) => "none: set OPENAI_IMAGE_FALLBACKS".to_owned(),
        (_, some) => some.join(", "),
    };
    match state {
        ModelState::Unknown | ModelState::Available { shutdown: None } => {}
        ModelState::Gone => {
            tracing::error!(setting, model, fallbacks, "the provider does not have this model: change the setting");
        }
        ModelState::Available { shutdown: Some(date) } => {
            let days = (*date - (app.clock)().date()).whole_days();
            let shutdown_date = date.to_string();
            if days <= URGENT_BEFORE {
                tracing::error!(
                    setting,
                    model,
                    shutdown_date,
                    days,
                    fallbacks,
                    "this model is going away: change the setting"
                );
            } else if days <= TOLD_BEFORE {
                tracing::warn!(
                    setting,
                    model,
                    shutdown_date,
                    days,
                    fallbacks,
                    "this model is going away: change the setting"
                );
            }
        }
    }
}
