//! The container of blobs.

use std::collections::BTreeMap;
use std::time::Duration;

use azure_core::headers::Headers;
use azure_core::request_options::{IfMatchCondition, Metadata};
use azure_core::{Context, CustomHeaders};
use azure_storage::prelude::BlobSasPermissions;
use azure_storage::shared_access_signature::{SasProtocol, SasToken as _};
use azure_storage_blobs::prelude::{ClientBuilder, ContainerClient};
use time::OffsetDateTime;

use super::client;
use super::error::Error;
use crate::config::StorageConfig;
use crate::image::Image;

/// An image's blob never changes. `private`, because its URL is a signed one.
const CACHE_CONTROL: &str = "private, max-age=31536000, immutable";

/// For one upload, the SDK's retries included, because somebody waits: an image that takes longer is
/// safe and stored later.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(15);
const UPLOAD_TIMEOUT_PER_MIB: Duration = Duration::from_secs(1);
/// Likewise, for what has no body.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Where a token is good, and for what.
pub(crate) struct Grant<'a> {
    /// Some of `racwdl`.
    pub(crate) permissions: &'a str,
    pub(crate) starts_on: OffsetDateTime,
    pub(crate) expires_on: OffsetDateTime,
}

/// What is kept with a blob.
#[derive(Debug)]
pub(crate) struct Properties {
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) content_type: String,
    pub(crate) bytes: usize,
}

/// The container that the images are in.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    client: ContainerClient,
    https: bool,
}

impl Container {
    pub(crate) fn new(config: &StorageConfig, http: reqwest::Client) -> Self {
        let client = ClientBuilder::with_location(
            client::location(&config.account, &config.blob_endpoint),
            client::credentials(&config.account, &config.key),
        )
        .transport(client::transport(http))
        .retry(client::retry())
        .container_client(&config.container);
        Self { client, https: config.blob_endpoint.scheme() == "https" }
    }

    /// Stores a new blob; one of that name is never overwritten (409 `BlobAlreadyExists`).
    pub(crate) async fn put_new(
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
        let upload = self
            .client
            .blob_client(name)
            .put_block_blob(image.bytes().clone())
            .content_type(image.format().content_type())
            .metadata(values)
            .if_match(IfMatchCondition::NotMatch("*".to_owned()))
            .context(context);
        let mib = u32::try_from(image.bytes().len() / (1024 * 1024)).unwrap_or(u32::MAX);
        let limit = UPLOAD_TIMEOUT + UPLOAD_TIMEOUT_PER_MIB.saturating_mul(mib);
        client::timely(limit, async { Ok(upload.await.map(|_| ())?) }).await
    }

    /// What is kept with a blob.
    pub(crate) async fn properties(&self, name: &str) -> Result<Properties, Error> {
        let blob = self.client.blob_client(name);
        let answer = client::timely(TIMEOUT, async { Ok(blob.get_properties().await?) }).await?;
        let properties = answer.blob.properties;
        Ok(Properties {
            metadata: answer.blob.metadata.unwrap_or_default().into_iter().collect(),
            content_type: properties.content_type,
            bytes: usize::try_from(properties.content_length).unwrap_or(usize::MAX),
        })
    }

    /// Whether the account answers as it should; the container itself need not be there yet.
    pub(crate) async fn is_reachable(&self) -> bool {
        client::timely(TIMEOUT, async { Ok(self.client.exists().await?) }).await.is_ok()
    }

    /// Makes the container, private; one that is there already is left as it is.
    pub(crate) async fn create_container(&self) -> Result<(), Error> {
        match client::timely(TIMEOUT, async { Ok(self.client.create().await?) }).await {
            Err(Error::Answered { status: 409, .. }) => Ok(()),
            result => result,
        }
    }

    /// Signs a container token: a query string that begins with `sv=`.
    pub(crate) async fn sign(&self, grant: &Grant<'_>) -> Result<String, Error> {
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
            self.client.shared_access_signature(permissions, grant.expires_on).await?.start(grant.starts_on);
        // Where the endpoint is plain http (Azurite), a token for https alone would be refused.
        if self.https {
            signature = signature.protocol(SasProtocol::Https);
        }
        Ok(signature.token()?)
    }

    /// The container's own URL, unsigned.
    pub(crate) fn url(&self) -> Result<reqwest::Url, Error> {
        Ok(self.client.url()?)
    }
}
