//! The HTTP client of the storage account, with a limit for the calls under way, and what authorizes calls without an
//! account key.
//!
//! Each call holds a connection, and a process may have 1,024 files open. Without a limit, many requests at once
//! would leave no file for the spool.

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderValue;
use reqwest::{Method, RequestBuilder, Url};
use time::OffsetDateTime;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::credential::Credential;
use super::error::Error;
use crate::logs;

/// The most calls to the storage account at a time.
const MAX_CALLS: usize = 64;
/// The most calls at a time with [`Purpose::Caller`]. The rest is for [`Purpose::Generation`].
const MAX_CALLS_FOR_CALLERS: usize = 48;
/// A call with [`Purpose::Caller`] that gets no permit within this time fails.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// The HTTP client of the storage account. Clones share the limits.
#[derive(Debug, Clone)]
pub(crate) struct Http {
    client: reqwest::Client,
    all: Arc<Semaphore>,
    for_callers: Arc<Semaphore>,
    /// The app's identity; `None` if all accounts are opened with keys.
    credential: Option<Credential>,
}

/// What a call is for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Purpose {
    /// A generation needs it: an image, or a transaction. A paid image must not fail for a permit, so the wait has
    /// no limit; the calls before it have theirs.
    Generation,
    /// It serves a caller: a row to show, a listing, a message.
    Caller,
}

/// The right to make one call, until it is dropped.
#[derive(Debug)]
pub(crate) struct CallPermit {
    _any: OwnedSemaphorePermit,
    _for_caller: Option<OwnedSemaphorePermit>,
}

impl Http {
    pub(crate) fn new(client: reqwest::Client) -> Self {
        Self {
            client,
            all: Arc::new(Semaphore::new(MAX_CALLS)),
            for_callers: Arc::new(Semaphore::new(MAX_CALLS_FOR_CALLERS)),
            credential: None,
        }
    }

    /// The same client for accounts that are opened with the app's identity.
    pub(crate) fn with_credential(self, credential: Option<Credential>) -> Self {
        Self { credential, ..self }
    }

    /// The app's identity.
    pub(super) fn credential(&self) -> Option<&Credential> {
        self.credential.as_ref()
    }

    /// The value of an Authorization header with a token of the app's identity.
    ///
    /// # Errors
    /// `NoToken`, and `Signing` without an identity, which the settings rule out.
    pub(super) async fn bearer(&self) -> Result<HeaderValue, Error> {
        let credential = self.credential.as_ref().ok_or(Error::Signing)?;
        credential.authorization().await.map_err(Error::NoToken)
    }

    /// The current time, for requests without an account key.
    pub(super) fn now(&self) -> Result<OffsetDateTime, Error> {
        Ok(self.credential.as_ref().ok_or(Error::Signing)?.now())
    }

    /// The client, for a call with a permit.
    pub(crate) fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// Begins a call with a permit, in the trace of the current request.
    pub(crate) fn request(&self, method: Method, url: &Url) -> RequestBuilder {
        self.client.request(method, url.clone()).headers(logs::trace_headers())
    }

    /// Waits for a permit for one call.
    ///
    /// # Errors
    /// `Unreachable`, for [`Purpose::Caller`] only: the account answers so slowly that the calls before this one
    /// took [`LONGEST_WAIT`].
    pub(crate) async fn permit(&self, purpose: Purpose) -> Result<CallPermit, Error> {
        match purpose {
            Purpose::Generation => self.acquire(None).await,
            Purpose::Caller => {
                let acquire = async {
                    let for_caller = Arc::clone(&self.for_callers).acquire_owned().await;
                    self.acquire(Some(for_caller.map_err(|_| Error::Unreachable)?)).await
                };
                tokio::time::timeout(LONGEST_WAIT, acquire).await.unwrap_or(Err(Error::Unreachable))
            }
        }
    }

    async fn acquire(&self, for_caller: Option<OwnedSemaphorePermit>) -> Result<CallPermit, Error> {
        let any = Arc::clone(&self.all).acquire_owned().await.map_err(|_| Error::Unreachable)?;
        Ok(CallPermit { _any: any, _for_caller: for_caller })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn calls_for_callers_are_limited_and_leave_room_for_those_of_generations() {
        let http = Http::new(reqwest::Client::new());
        let mut for_callers = Vec::new();
        while let Some(permit) = http.permit(Purpose::Caller).now_or_never() {
            for_callers.push(permit.expect("a permit"));
        }
        assert_eq!(for_callers.len(), MAX_CALLS_FOR_CALLERS);
        let mut of_generations = Vec::new();
        while let Some(permit) = http.permit(Purpose::Generation).now_or_never() {
            of_generations.push(permit.expect("a permit"));
        }
        assert_eq!(for_callers.len() + of_generations.len(), MAX_CALLS);

        let began = Instant::now();
        assert!(matches!(http.permit(Purpose::Caller).await, Err(Error::Unreachable)));
        assert_eq!(began.elapsed(), LONGEST_WAIT);
        drop((for_callers, of_generations));
        assert!(http.permit(Purpose::Caller).now_or_never().is_some(), "the permits are free again");
    }
}
