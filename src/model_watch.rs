//! Warns the operator before the provider retires a configured model. OpenAI announces the shutdown
//! of an image model three months before it, and an app whose model is gone cannot draw.

use std::time::Duration;

use time::Date;

use crate::app::{App, KnownModel};
use crate::lock::locked;
use crate::openai::ModelState;

/// The pause between two checks. A day is enough, because shutdowns are announced months before.
const PAUSE: Duration = Duration::from_secs(24 * 60 * 60);
/// The days before a shutdown from which it is logged as a warning.
const WARNING_DAYS: i64 = 90;
/// The days before a shutdown from which it is logged as an error.
const ERROR_DAYS: i64 = 14;

/// Asks the provider for each configured model, at the start and once a day, until the future is
/// dropped. Requests do not wait for it.
pub async fn run(app: &App) {
    loop {
        let mut models = locked(&app.models).clone();
        for known in &mut models {
            match app.openai.model(&known.model).await {
                // The provider gave no answer about the model, so the last known state stays.
                ModelState::Unknown => {}
                state => known.state = state,
            }
        }
        for known in &models {
            log(app, known, &models);
        }
        *locked(&app.models) = models;
        tokio::time::sleep(PAUSE).await;
    }
}

/// Logs a model that is gone or has a shutdown date within [`WARNING_DAYS`].
fn log(app: &App, known: &KnownModel, models: &[KnownModel]) {
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
    let left = |date: Date| (date - (app.clock)().date()).whole_days();
    let (urgency, shutdown) = match *state {
        ModelState::Unknown => (Urgency::None, None),
        ModelState::Gone => (Urgency::Error, None),
        ModelState::Available { shutdown } => (shutdown.map(left).map_or(Urgency::None, Urgency::of), shutdown),
    };
    let shutdown_date = shutdown.map(|date| date.to_string());
    match urgency {
        Urgency::None => {}
        Urgency::Warning => {
            tracing::warn!(
                event = "model_shutdown_announced",
                setting,
                model,
                shutdown_date,
                fallbacks,
                "the provider shuts this model down on shutdown_date: change the setting"
            );
        }
        Urgency::Error if shutdown.is_some() => {
            tracing::error!(
                event = "model_shutdown_near",
                setting,
                model,
                shutdown_date,
                fallbacks,
                "the provider shuts this model down on shutdown_date: change the setting"
            );
        }
        Urgency::Error => {
            tracing::error!(
                event = "model_gone",
                setting,
                model,
                fallbacks,
                "the provider does not have this model: change the setting"
            );
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Urgency {
    None,
    Warning,
    Error,
}

impl Urgency {
    /// By the days until the shutdown.
    fn of(days: i64) -> Self {
        match days {
            _ if days <= ERROR_DAYS => Self::Error,
            _ if days <= WARNING_DAYS => Self::Warning,
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shutdown_is_a_warning_from_90_days_before_it_and_an_error_from_14() {
        for (days, wanted) in [
            (-1, Urgency::Error),
            (0, Urgency::Error),
            (14, Urgency::Error),
            (15, Urgency::Warning),
            (90, Urgency::Warning),
            (91, Urgency::None),
        ] {
            assert_eq!(Urgency::of(days), wanted, "{days}");
        }
    }
}
