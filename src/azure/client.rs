//! The options of the storage SDK's clients.

use std::sync::Arc;
use std::time::Duration;

use azure_core::{ExponentialRetryOptions, HttpClient, Request, Response, RetryOptions, TransportOptions};
use azure_storage::{CloudLocation, StorageCredentials};
use futures_util::future::BoxFuture;
use reqwest::Url;
use secrecy::ExposeSecret as _;

use super::error::Error;
use super::http::Http;
use crate::config::Access;
use crate::logs;

pub(super) fn location(account: &str, endpoint: &Url) -> CloudLocation {
    let uri = endpoint.as_str().trim_end_matches('/').to_owned();
    CloudLocation::Custom { account: account.to_owned(), uri }
}

pub(super) fn credentials(account: &str, access: &Access, http: &Http) -> StorageCredentials {
    match (access, http.credential()) {
        (Access::Key(key), _) => {
            let key = azure_core::auth::Secret::new(key.expose_secret().to_owned());
            StorageCredentials::access_key(account.to_owned(), key)
        }
        (Access::Identity, Some(credential)) => StorageCredentials::token_credential(Arc::new(credential.clone())),
        // The settings rule this out.
        (Access::Identity, None) => StorageCredentials::anonymous(),
    }
}

/// The app's HTTP client. The SDK's default client has no timeout and sends the Authorization header to
/// redirects.
pub(super) fn transport(http: &Http) -> TransportOptions {
    TransportOptions::new(Arc::new(Traced(http.client().clone())))
}

/// An HTTP client whose requests carry the trace of the current request. The SDK has no setting for it.
#[derive(Debug)]
struct Traced(reqwest::Client);

impl HttpClient for Traced {
    fn execute_request<'a, 'b, 'c>(&'a self, request: &'b Request) -> BoxFuture<'c, azure_core::Result<Response>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        let mut request = request.clone();
        if let Some(trace) = logs::Trace::current() {
            request.insert_header("traceparent", trace.to_string());
        }
        Box::pin(async move { self.0.execute_request(&request).await })
    }
}

/// The retries of one operation. The SDK's default retries for 82 seconds.
pub(super) fn retry() -> RetryOptions {
    let retry = ExponentialRetryOptions::default()
        .initial_delay(Duration::from_millis(200))
        .max_retries(3u32)
        .max_total_elapsed(Duration::from_secs(15))
        .max_delay(Duration::from_secs(2));
    RetryOptions::exponential(retry)
}

/// Limits an operation and all its retries to `limit`. The SDK itself sleeps as long as `Retry-After` says.
pub(super) async fn timely<T>(limit: Duration, operation: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(limit, operation).await.unwrap_or(Err(Error::Unreachable))
}
