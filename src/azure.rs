//! The storage account, through the storage SDK. No SDK type leaves this folder, and no SDK error
//! is shown or logged as it is: its text can hold headers, signatures and whole bodies.

mod container;
mod queue;
mod table;

use std::sync::Arc;
use std::time::Duration;

use azure_core::error::ErrorKind;
use azure_core::{ExponentialRetryOptions, RetryOptions, TransportOptions};
use azure_storage::{CloudLocation, StorageCredentials};
use reqwest::Url;
use secrecy::{ExposeSecret as _, SecretString};

pub(crate) use container::{Container, Grant};
pub(crate) use queue::Queue;
pub(crate) use table::{Key, Table, Version};

/// The storage account did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// It answered with an error.
    #[error("the storage account answered {status} {code}")]
    Answered {
        /// The HTTP status.
        status: u16,
        /// `x-ms-error-code`, see
        /// <https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes>.
        code: String,
    },
    /// It did not answer: no connection, or a broken or hanging one.
    #[error("the storage account does not answer")]
    Unreachable,
    /// Its answer cannot be read.
    #[error("the storage account's answer is malformed")]
    Malformed,
    /// A token could not be signed.
    #[error("a token cannot be signed with the account key")]
    Signing,
}

impl Error {
    pub(crate) fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Answered { code, .. } if code == wanted)
    }
}

impl From<azure_core::Error> for Error {
    fn from(error: azure_core::Error) -> Self {
        if let Some(answer) = error.as_http_error() {
            let code = answer.error_code().unwrap_or("without a code").to_owned();
            return Self::Answered { status: u16::from(answer.status()), code };
        }
        match error.kind() {
            ErrorKind::HttpResponse { status, error_code } => Self::Answered {
                status: u16::from(*status),
                code: error_code.clone().unwrap_or_else(|| "without a code".to_owned()),
            },
            ErrorKind::Credential => Self::Signing,
            ErrorKind::DataConversion => Self::Malformed,
            _ => Self::Unreachable,
        }
    }
}

fn location(account: &str, endpoint: &Url) -> CloudLocation {
    let uri = endpoint.as_str().trim_end_matches('/').to_owned();
    CloudLocation::Custom { account: account.to_owned(), uri }
}

fn credentials(account: &str, key: &SecretString) -> StorageCredentials {
    let key = azure_core::auth::Secret::new(key.expose_secret().to_owned());
    StorageCredentials::access_key(account.to_owned(), key)
}

/// Ours, because the SDK's own never times out and follows redirects with the Authorization header.
fn transport(http: reqwest::Client) -> TransportOptions {
    TransportOptions::new(Arc::new(http))
}

/// Stated, because the default goes on for 82 seconds.
fn retry() -> RetryOptions {
    let retry = ExponentialRetryOptions::default()
        .initial_delay(Duration::from_millis(200))
        .max_retries(3u32)
        .max_total_elapsed(Duration::from_secs(15))
        .max_delay(Duration::from_secs(2));
    RetryOptions::exponential(retry)
}

/// With all retries of the SDK's, which sleeps as long as the service asks it to.
async fn timely<T>(limit: Duration, operation: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::time::timeout(limit, operation).await.unwrap_or(Err(Error::Unreachable))
}

/// Tries until it works, and again after each pause in seconds.
pub(crate) async fn patiently<F: Future<Output = Result<(), Error>>>(
    pauses: &[u64],
    operation: impl Fn() -> F,
) -> Result<(), Error> {
    for pause in pauses {
        if operation().await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(*pause)).await;
    }
    operation().await
}
