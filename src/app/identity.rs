//! What an app that is opened with its managed identity needs before it works: tokens, roles, and the key of digests.
//! All of it is fetched beside the first requests, not before them. New roles take some minutes to reach storage.

use std::sync::Mutex;
use std::time::Duration;

use super::App;
use crate::azure;
use crate::lock::locked;
use crate::logs::chain;

/// The pause after a failed check; each further pause is twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The pause after a check that succeeded. An identity or a role may be taken away later.
const PAUSE_AFTER_SUCCESS: Duration = Duration::from_secs(5 * 60);

impl App {
    /// What keeps the app's identity from working, as a sentence for the operator.
    pub(crate) fn identity_problem(&self) -> Option<String> {
        locked(&self.identity_problem).clone()
    }

    /// Returns when the key of digests is known, so that digests may be stored.
    ///
    /// # Errors
    /// The state table cannot be read or written.
    pub(crate) async fn digest_key_known(&self) -> Result<(), azure::Error> {
        self.digest_key.known().await
    }

    /// Checks the identity until the future is dropped. An app with keys has none.
    pub(crate) async fn keep_checking_identity(&self) {
        if self.identity_problem().is_some() {
            keep_checking(&self.identity_problem, || self.check_identity()).await;
        }
        std::future::pending().await
    }

    /// # Errors
    /// The first failure, with its causes and as a sentence.
    async fn check_identity(&self) -> Result<(), (String, String)> {
        self.digest_key.known().await.map_err(|error| problem(&error, "Storage Table Data Contributor"))?;
        self.gallery.check().await.map_err(|error| problem(&error, "Storage Blob Data Contributor"))?;
        self.gallery.check_signing().await.map_err(|error| problem(&error, "Storage Blob Delegator"))?;
        self.generations.check_queue().await.map_err(|error| problem(&error, "Storage Queue Data Contributor"))?;
        self.openai.check_identity().await.map_err(|error| {
            let sentence = "There is no token of the app's identity for the provider. The operator should check the app's \
                            identity and OPENAI_AUTH_SCOPE.";
            (chain(&error), sentence.to_owned())
        })
    }
}

/// Repeats a check until the future is dropped, and keeps the sentence of its last failure.
async fn keep_checking<F>(problem: &Mutex<Option<String>>, check: impl Fn() -> F)
where
    F: Future<Output = Result<(), (String, String)>>,
{
    let mut pause = FIRST_PAUSE;
    loop {
        match check().await {
            Ok(()) => {
                if locked(problem).take().is_some() {
                    tracing::info!(event = "identity_ready", "the app's identity has passed the checks");
                }
                pause = FIRST_PAUSE;
                tokio::time::sleep(PAUSE_AFTER_SUCCESS).await;
            }
            Err((cause, sentence)) => {
                *locked(problem) = Some(sentence.clone());
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
}

/// The causes of a failure, and a sentence for the operator. `role` is the role that the sentence names if it is missing.
fn problem(error: &azure::Error, role: &str) -> (String, String) {
    let sentence = if error.is_missing_role() {
        format!(
            "Storage refuses the app's identity. The operator should give it the role {role} on the storage account, and \
             wait some minutes."
        )
    } else {
        error.advice().unwrap_or("Storage cannot be reached.").to_owned()
    };
    (chain(error), sentence)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_identity_that_fails_later_is_noticed_and_one_that_works_again_too() {
        let (problem, works) = (Mutex::new(Some("unchecked".to_owned())), AtomicBool::new(true));
        let check = || {
            let failure = ("cause".to_owned(), "no role".to_owned());
            std::future::ready(if works.load(Ordering::SeqCst) { Ok(()) } else { Err(failure) })
        };
        let look = async {
            let after = async |pause: Duration| {
                tokio::time::sleep(pause + Duration::from_secs(1)).await;
                locked(&problem).clone()
            };
            assert_eq!(after(Duration::ZERO).await, None);
            works.store(false, Ordering::SeqCst);
            assert_eq!(after(PAUSE_AFTER_SUCCESS).await.as_deref(), Some("no role"));
            works.store(true, Ordering::SeqCst);
            assert_eq!(after(LONGEST_PAUSE).await, None);
        };
        tokio::select! {
            () = keep_checking(&problem, check) => {}
            () = look => {}
        }
    }
}
