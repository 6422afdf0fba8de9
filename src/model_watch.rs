//! Looks out for models that are going away. Image models get three months' notice, and a backend
//! whose model is gone draws nothing.

use std::time::Duration;

use time::Date;

use crate::app::{App, KnownModel};
use crate::lock::locked;
use crate::openai::ModelState;

/// Announcements are made months before.
const PAUSE: Duration = Duration::from_secs(24 * 60 * 60);
/// From when the operator is told, and from when it is urgent, in days.
const TOLD_BEFORE: i64 = 90;
const URGENT_BEFORE: i64 = 14;

/// Asks at the start and once a day, in nobody's way. Goes on until it is dropped.
pub async fn run(app: &App) {
    loop {
        let mut models = locked(&app.models).clone();
        for known in &mut models {
            match app.openai.model(&known.model).await {
                // No news: what was known stays.
                ModelState::Unknown => {}
                state => known.state = state,
            }
        }
        for known in &models {
            tell(app, known, &models);
        }
        *locked(&app.models) = models;
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
            tracing::warn!(setting, model, shutdown_date, fallbacks, "this model is going away: change the setting");
        }
        Urgency::Error if shutdown.is_some() => {
            tracing::error!(setting, model, shutdown_date, fallbacks, "this model is going away: change the setting");
        }
        Urgency::Error => {
            tracing::error!(setting, model, fallbacks, "the provider does not have this model: change the setting");
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
    /// By the days that are left.
    fn of(days: i64) -> Self {
        match days {
            _ if days <= URGENT_BEFORE => Self::Error,
            _ if days <= TOLD_BEFORE => Self::Warning,
            _ => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_is_told_from_90_days_on_and_urgently_from_14() {
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
