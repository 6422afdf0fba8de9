//! What an app that is opened with its managed identity needs before it works: tokens, roles, and the key of digests.
//! All of it is fetched beside the first requests, not before them. New roles take some minutes to reach storage.

use std::time::Duration;

use super::App;
use crate::azure;
use crate::lock::locked;
use crate::logs::chain;

/// The pause after a failed check; each further pause is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl App {
    /// What keeps the app's identity from working, as a sentence for the operator.
    pub(crate) fn identity_problem(&self) -> Option<String> {
        locked(&self.identity_problem).clone()
    }

    /// Returns when digests can be made that are stored.
    ///
    /// # Errors
    /// The state table cannot be read or written.
    pub(crate) async fn digest_key_known(&self) -> Result<(), azure::Error> {
        self.digest_key.known().await
    }

    /// Checks the identity until it works, and then waits until the future is dropped. An app with keys has none.
    pub(crate) async fn keep_checking_identity(&self) {
        let mut pause = FIRST_PAUSE;
        while self.identity_problem().is_some() {
            match self.check_identity().await {
                Ok(()) => {
                    *locked(&self.identity_problem) = None;
                    tracing::info!(event = "identity_ready", "the app's identity opens all that the app needs");
                }
                Err((cause, sentence)) => {
                    *locked(&self.identity_problem) = Some(sentence.clone());
                    tracing::warn!(
                        event = "identity_not_ready",
                        cause,
                        sentence,
                        delay_s = pause.as_secs(),
                        "the app's identity does not open all that the app needs; it is tried again after the delay"
                    );
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
        std::future::pending().await
    }

    /// # Errors
    /// The first failure, with its causes and as a sentence.
    async fn check_identity(&self) -> Result<(), (String, String)> {
        let storage = |error: azure::Error| {
            let sentence = error.advice().unwrap_or("Storage cannot be reached.");
            (chain(&error), sentence.to_owned())
        };
        self.digest_key.known().await.map_err(storage)?;
        self.gallery.check().await.map_err(storage)?;
        self.generations.check_queue().await.map_err(storage)?;
        self.openai.check_identity().await.map_err(|error| {
            let sentence = "There is no token of the app's identity for the provider. The operator should check the app's \
                            identity and OPENAI_AUTH_SCOPE.";
            (chain(&error), sentence.to_owned())
        })
    }
}
