//! `GET /api/health`: whether the app works, for everyone. `GET /api/status`: the details, for the
//! operator.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::response::Response;
use serde_json::{Value, json};

use super::answers;
use crate::app::{App, KnownModel};
use crate::lock::locked;
use crate::openai::ModelState;

pub(super) async fn handle(State(app): State<Arc<App>>) -> Response {
    let state = Health::of(&app).await;
    let mut answer = json!({"status": state.word(), "version": env!("CARGO_PKG_VERSION")});
    if let Some(problem) = state.identity_problem {
        answer["reason"] = json!(problem);
    }
    answers::json(&answer)
}

pub(super) async fn status(State(app): State<Arc<App>>) -> Response {
    let state = Health::of(&app).await;
    let mut answer = json!({
        "status": state.word(),
        "version": env!("CARGO_PKG_VERSION"),
        "build": if cfg!(debug_assertions) { "debug" } else { "release" },
        "uptimeSeconds": app.started.elapsed().as_secs(),
        "storage": if state.storage { "reachable" } else { "unreachable" },
        "provider": if state.provider { "ok" } else { "refuses the key or the account" },
        "waitingInSpool": state.waiting,
        "models": state.models.iter().map(model).collect::<Vec<_>>(),
    });
    if let Some(problem) = state.identity_problem {
        answer["reason"] = json!(problem);
    }
    answers::json(&answer)
}

/// How long a check of storage and the spool is reused. Anyone may request `/api/health` at any rate.
const LOOKED_AGAIN_AFTER: Duration = Duration::from_secs(15);
/// Storage that does not answer within this time counts as unreachable: probes of a load balancer wait for seconds only.
const LONGEST_LOOK: Duration = Duration::from_secs(1);

/// The current state of the app.
struct Health {
    storage: bool,
    provider: bool,
    /// What keeps the app's identity from working.
    identity_problem: Option<String>,
    /// The images in the spool; `None` if it cannot be read.
    waiting: Option<usize>,
    models: Vec<KnownModel>,
}

impl Health {
    async fn of(app: &App) -> Self {
        let (storage, waiting) = {
            let mut looked = app.looked.lock().await;
            match *looked {
                Some((at, storage, waiting)) if at.elapsed() < LOOKED_AGAIN_AFTER => (storage, waiting),
                _ => {
                    let storage = tokio::time::timeout(LONGEST_LOOK, app.gallery.check());
                    let (storage, waiting) = tokio::join!(storage, app.generations.waiting_in_spool());
                    let storage = matches!(storage, Ok(Ok(())));
                    *looked = Some((Instant::now(), storage, waiting));
                    (storage, waiting)
                }
            }
        };
        Self {
            storage,
            provider: !app.openai.is_failing(),
            identity_problem: app.identity_problem(),
            waiting,
            models: locked(&app.models).clone(),
        }
    }

    fn word(&self) -> &'static str {
        // Only OPENAI_IMAGE_MODEL degrades the app. The app draws without a fallback, and built-in
        // suggestions replace the text model.
        let draws = self.models.iter().filter(|known| known.setting != "OPENAI_TEXT_MODEL");
        let gone = draws.clone().next().is_some_and(|known| known.state == ModelState::Gone);
        let spooled = self.waiting.is_none_or(|waiting| waiting > 0);
        let works = self.storage && self.provider && self.identity_problem.is_none();
        if works && !gone && !spooled { "ok" } else { "degraded" }
    }
}

fn model(known: &KnownModel) -> Value {
    let (state, shutdown) = match known.state {
        ModelState::Available { shutdown } => ("available", shutdown),
        ModelState::Gone => ("gone", None),
        ModelState::Unknown => ("unknown", None),
    };
    json!({
        "setting": known.setting,
        "model": known.model,
        "state": state,
        "shutdownDate": shutdown.map(|date| date.to_string()),
    })
}
