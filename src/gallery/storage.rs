//! The container, through the storage SDK. No SDK type leaves this file, and no SDK error is shown
//! or logged as it is: its text can hold headers, signatures and whole bodies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use azure_core::error::ErrorKind;
use azure_core::headers::Headers;
use azure_core::request_options::{IfMatchCondition, Metadata};
use azure_core::{Context, CustomHeaders, ExponentialRetryOptions, RetryOptions, StatusCode, TransportOptions};
use azure_storage::prelude::BlobSasPermissions;
use azure_storage::shared_access_signature::{SasProtocol, SasToken as _};
use azure_storage::{CloudLocation, StorageCredentials};
use azure_storage_blobs::prelude::{ClientBuilder, ContainerClient};
use secrecy::ExposeSecret as _;
use time::OffsetDateTime;

use crate::config::StorageConfig;
use crate::image::Image;

/// A picture's blob never changes. `private`, because its URL is a signed one.
const CACHE_CONTROL: &str = "private, max-age=31536000, immutable";

/// The storage account did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It answered with an error.
    #[error("the storage account answered {status} {code}")]
    Answered {
        /// The HTTP status.
        status: u16,
        /// `x-ms-error-code`, see
        /// <https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes>.
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
    pub(super) fn is(&self, wanted: &str) -> bool {
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

/// Where a token is good, and for what.
pub(super) struct Grant<'a> {
    /// Some of `racwdl`.
    pub(super) permissions: &'a str,
    pub(super) starts_on: OffsetDateTime,
    pub(super) expires_on: OffsetDateTime,
}

/// The container that the pictures are in.
#[derive(Debug, Clone)]
pub(super) struct Storage {
    container: ContainerClient,
    https: bool,
}

impl Storage {
    pub(super) fn new(config: &StorageConfig, http: reqwest::Client) -> Self {
        let location = CloudLocation::Custom {
            account: config.account.clone(),
            uri: config.blob_endpoint.as_str().trim_end_matches('/').to_owned(),
        };
        let key = azure_core::auth::Secret::new(config.key.expose_secret().to_owned());
        // Stated, because the default goes on for 82 seconds.
        let retry = ExponentialRetryOptions::default()
            .initial_delay(Duration::from_millis(200))
            .max_retries(3u32)
            .max_total_elapsed(Duration::from_secs(15))
            .max_delay(Duration::from_secs(2));
        let container =
            ClientBuilder::with_location(location, StorageCredentials::access_key(config.account.clone(), key))
                .transport(TransportOptions::new(Arc::new(http)))
                .retry(RetryOptions::exponential(retry))
                .container_client(&config.container);
        Self { container, https: config.blob_endpoint.scheme() == "https" }
    }

    /// Stores a new blob; one of that name is never overwritten (409 `BlobAlreadyExists`).
    pub(super) async fn put_new(
        &self,
        name: &str,
        image: &Image,
        metadata: &BTreeMap<&'static str, String>,
    ) -> Result<(), Error> {
        let mut values = Metadata::new();
        for (key, value) in metadata {
            values.insert(*key, value.clone());
        }
        // The SDK has no setter for a blob's Cache-Control.
        let mut headers = Headers::new();
        headers.insert("x-ms-blob-cache-control", CACHE_CONTROL);
        let mut context = Context::new();
        context.insert(CustomHeaders::from(headers));
        let result = self
            .container
            .blob_client(name)
            .put_block_blob(image.bytes().clone())
            .content_type(image.format().content_type())
            .metadata(values)
            .if_match(IfMatchCondition::NotMatch("*".to_owned()))
            .context(context)
            .await;
        result.map(|_| ()).map_err(Error::from)
    }

    /// One metadata value of a blob.
    pub(super) async fn metadata(&self, name: &str, key: &str) -> Result<Option<String>, Error> {
        let answer = self.container.blob_client(name).get_metadata().await?;
        Ok(answer.metadata.get(key).map(|value| String::from_utf8_lossy(&value).into_owned()))
    }

    /// Makes the container, private; one that is there already is left as it is.
    pub(super) async fn create_container(&self) -> Result<(), Error> {
        match self.container.create().await {
            Ok(()) => Ok(()),
            Err(error) if error.as_http_error().is_some_and(|answer| answer.status() == StatusCode::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Signs a container token: a query string that begins with `sv=`.
    pub(super) async fn sign(&self, grant: &Grant<'_>) -> Result<String, Error> {
        let allows = |letter| grant.permissions.contains(letter);
        let permissions = BlobSasPermissions {
            read: allows('r'),
            add: allows('a'),
            create: allows('c'),
            write: allows('w'),
            delete: allows('d'),
            list: allows('l'),
            ..BlobSasPermissions::default()
        };
        let mut signature =
            self.container.shared_access_signature(permissions, grant.expires_on).await?.start(grant.starts_on);
        // Where the endpoint is plain http (Azurite), a token for https alone would be refused.
        if self.https {
            signature = signature.protocol(SasProtocol::Https);
        }
        Ok(signature.token()?)
    }

    /// The container's own URL, unsigned.
    pub(super) fn url(&self) -> Result<reqwest::Url, Error> {
        Ok(self.container.url()?)
    }
}
