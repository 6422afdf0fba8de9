//! The client of the blob container.

use std::collections::BTreeMap;
use std::time::Duration;

use azure_core::headers::Headers;
use azure_core::request_options::{IfMatchCondition, Metadata};
use azure_core::{Context, CustomHeaders};
use azure_storage_blobs::blob::operations::DeleteBlobBuilder;
use azure_storage_blobs::prelude::{ClientBuilder, ContainerClient};
use bytes::Bytes;
use reqwest::Url;

use super::client;
use super::error::Error;
use super::http::{Http, Purpose};
use super::sas::{Grant, Signer};
use crate::config::StorageConfig;

/// `immutable`, because the blob of an image never changes; `private`, because its URL is signed.
const CACHE_CONTROL: &str = "private, max-age=31536000, immutable";

/// Limit for one upload with the SDK's retries, because the caller waits. The spool keeps an image whose upload
/// takes longer; it is stored later.
const UPLOAD_TIMEOUT: Duration = Duration::from_secs(15);
/// Added to [`UPLOAD_TIMEOUT`] for each MiB.
const UPLOAD_TIMEOUT_PER_MIB: Duration = Duration::from_secs(1);
/// Limit for an operation without a body, with the SDK's retries.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The properties of a blob.
#[derive(Debug)]
pub(crate) struct Properties {
    pub(crate) metadata: BTreeMap<String, String>,
    pub(crate) content_type: String,
    pub(crate) bytes: usize,
    /// Changes with each write.
    pub(crate) etag: String,
}

/// A container of the images' account.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    client: ContainerClient,
    http: Http,
    signer: Signer,
    url: Url,
}

impl Container {
    pub(crate) fn new(config: &StorageConfig, name: &str, http: Http) -> Self {
        let client = ClientBuilder::with_location(
            client::location(&config.account, &config.blob_endpoint),
            client::credentials(&config.account, &config.access, &http),
        )
        .transport(client::transport(&http))
        .retry(client::retry())
        .container_client(name);
        let mut url = config.blob_endpoint.clone();
        // It fails only for a URL without a host, and the endpoint has one.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.push(name);
        }
        Self { client, signer: Signer::new(config, name, http.clone()), http, url }
    }

    /// Another container of the same account, which shares what signs tokens.
    pub(crate) fn beside(&self, config: &StorageConfig, name: &str) -> Self {
        Self { signer: self.signer.beside(config, name), ..Self::new(config, name, self.http.clone()) }
    }

    /// Uploads a new blob, and creates the container if it is missing. An existing blob is not overwritten.
    ///
    /// # Errors
    /// `BlobAlreadyExists` (409) if the name is taken, and any other [`Error`].
    pub(crate) async fn put_new(
        &self,
        name: &str,
        content_type: &'static str,
        bytes: &Bytes,
        metadata: &BTreeMap<&'static str, String>,
    ) -> Result<(), Error> {
        match self.put(name, content_type, bytes, metadata).await {
            Err(error) if error.is("ContainerNotFound") => {
                self.create().await?;
                self.put(name, content_type, bytes, metadata).await
            }
            result => result,
        }
    }

    async fn put(
        &self,
        name: &str,
        content_type: &'static str,
        bytes: &Bytes,
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
            .put_block_blob(bytes.clone())
            .content_type(content_type)
            .metadata(values)
            .if_match(IfMatchCondition::NotMatch("*".to_owned()))
            .context(context);
        let mib = u32::try_from(bytes.len() / (1024 * 1024)).unwrap_or(u32::MAX);
        let limit = UPLOAD_TIMEOUT + UPLOAD_TIMEOUT_PER_MIB.saturating_mul(mib);
        let _permit = self.http.permit(Purpose::Generation).await?;
        client::timely(limit, async { Ok(upload.await.map(|_| ())?) }).await
    }

    /// Copies the blob behind a signed link of the same account to a name that is free, with its metadata and headers.
    ///
    /// # Errors
    /// `BlobAlreadyExists` (409) if the name is taken, `ContainerNotFound` (404), another 404 if the link leads to no
    /// blob, and any other [`Error`].
    pub(crate) async fn copy_new(&self, name: &str, link: &str) -> Result<(), Error> {
        let link = Url::parse(link).map_err(|_| Error::Malformed)?;
        let copy = self
            .client
            .blob_client(name)
            .copy_from_url(link)
            .is_synchronous(true)
            .if_match(IfMatchCondition::NotMatch("*".to_owned()));
        let _permit = self.http.permit(Purpose::Caller).await?;
        client::timely(UPLOAD_TIMEOUT, async { Ok(copy.await.map(drop)?) }).await
    }

    /// Deletes a blob that may be gone already.
    ///
    /// # Errors
    /// It is unknown whether the blob is there.
    pub(crate) async fn delete(&self, name: &str) -> Result<(), Error> {
        self.send_delete(self.client.blob_client(name).delete()).await
    }

    /// Deletes a blob that was not written since it had this ETag, and that may be gone already.
    ///
    /// # Errors
    /// 412 if it was written since, and as for [`Self::delete`].
    pub(crate) async fn delete_version(&self, name: &str, etag: &str) -> Result<(), Error> {
        let condition = IfMatchCondition::Match(etag.to_owned());
        self.send_delete(self.client.blob_client(name).delete().if_match(condition)).await
    }

    async fn send_delete(&self, delete: DeleteBlobBuilder) -> Result<(), Error> {
        let _permit = self.http.permit(Purpose::Caller).await?;
        match client::timely(TIMEOUT, async { Ok(delete.await.map(drop)?) }).await {
            Err(error) if error.is_not_found() => Ok(()),
            result => result,
        }
    }

    /// Reads the properties of a blob; `None` if there is no such blob.
    ///
    /// # Errors
    /// It is unknown whether the blob is there.
    pub(crate) async fn find(&self, name: &str, purpose: Purpose) -> Result<Option<Properties>, Error> {
        match self.properties(name, purpose).await {
            Ok(properties) => Ok(Some(properties)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the properties of a blob.
    pub(crate) async fn properties(&self, name: &str, purpose: Purpose) -> Result<Properties, Error> {
        let blob = self.client.blob_client(name);
        let _permit = self.http.permit(purpose).await?;
        let answer = client::timely(TIMEOUT, async { Ok(blob.get_properties().await?) }).await?;
        let properties = answer.blob.properties;
        Ok(Properties {
            metadata: answer.blob.metadata.unwrap_or_default().into_iter().collect(),
            content_type: properties.content_type,
            bytes: usize::try_from(properties.content_length).unwrap_or(usize::MAX),
            etag: properties.etag.to_string(),
        })
    }

    /// Whether the app may use the container, which need not exist yet.
    ///
    /// # Errors
    /// It may not, or storage cannot be reached.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        let _permit = self.http.permit(Purpose::Caller).await?;
        client::timely(TIMEOUT, async { Ok(self.client.exists().await.map(drop)?) }).await
    }

    /// Creates the container without public access. An existing container is left unchanged.
    pub(crate) async fn create(&self) -> Result<(), Error> {
        let _permit = self.http.permit(Purpose::Generation).await?;
        match client::timely(TIMEOUT, async { Ok(self.client.create().await?) }).await {
            Err(Error::Answered { status: 409, .. }) => Ok(()),
            result => result,
        }
    }

    /// Signs a container token. Returns a query string that begins with `sv=`.
    ///
    /// # Errors
    /// Only without an account key: the key of the app's identity cannot be fetched.
    pub(crate) async fn sign(&self, grant: &Grant<'_>) -> Result<String, Error> {
        self.signer.sign(grant).await
    }

    /// The identity that signs tokens; `None` if the account's key does. With that, equal grants have equal tokens.
    ///
    /// # Errors
    /// As [`Self::sign`].
    pub(crate) async fn signed_by(&self) -> Result<Option<String>, Error> {
        self.signer.signed_by().await
    }

    /// Whether the app's identity signs tokens, which then live for less than 7 days.
    pub(crate) fn is_signed_by_identity(&self) -> bool {
        self.signer.is_of_identity()
    }

    /// The URL of the container, without a token.
    pub(crate) fn url(&self) -> &Url {
        &self.url
    }
}
