//! The client of a storage queue.

use std::time::Duration;

use azure_core::StatusCode;
use azure_storage_queues::{QueueClient, QueueServiceClientBuilder};
use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::client::{self, timely};
use super::error::Error;
use super::http::{Http, Purpose};
use crate::config::ServiceConfig;

/// Limit for one operation with the SDK's retries, because the caller waits.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A queue of short texts.
#[derive(Debug, Clone)]
pub(crate) struct Queue {
    client: QueueClient,
    http: Http,
}

impl Queue {
    pub(crate) fn new(config: &ServiceConfig, name: &str, http: Http) -> Self {
        let location = client::location(&config.account, &config.endpoint);
        let credentials = client::credentials(&config.account, &config.access, &http);
        let client = QueueServiceClientBuilder::with_location(location, credentials)
            .transport(client::transport(&http))
            .retry(client::retry())
            .build();
        Self { client: client.queue_client(name), http }
    }

    /// Adds a message that becomes visible after `delay`. Creates the queue if it is missing. The text is sent
    /// in base64, the default encoding of the Functions host
    /// (<https://learn.microsoft.com/azure/azure-functions/functions-bindings-storage-queue#hostjson-settings>).
    pub(crate) async fn put(&self, text: &str, delay: Duration) -> Result<(), Error> {
        let text = BASE64_STANDARD.encode(text);
        let _permit = self.http.permit(Purpose::Caller).await?;
        let put = || async { Ok(self.client.put_message(text.clone()).visibility_timeout(delay).await.map(|_| ())?) };
        match timely(TIMEOUT, put()).await {
            Err(error) if error.is("QueueNotFound") => {
                timely(TIMEOUT, self.create()).await?;
                timely(TIMEOUT, put()).await
            }
            result => result,
        }
    }

    /// Whether the app may use the queue, which need not exist yet.
    ///
    /// # Errors
    /// It may not, or storage cannot be reached.
    pub(crate) async fn check(&self) -> Result<(), Error> {
        let _permit = self.http.permit(Purpose::Caller).await?;
        match timely(TIMEOUT, async { Ok(self.client.get_metadata().await.map(drop)?) }).await {
            Err(error) if error.is_not_found() => Ok(()),
            result => result,
        }
    }

    async fn create(&self) -> Result<(), Error> {
        match self.client.create().await {
            Ok(_) => Ok(()),
            Err(error) if error.as_http_error().is_some_and(|answer| answer.status() == StatusCode::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
