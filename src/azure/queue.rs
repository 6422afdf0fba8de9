//! A queue of short texts.

use std::time::Duration;

use azure_core::StatusCode;
use azure_storage_queues::{QueueClient, QueueServiceClientBuilder};
use base64::{Engine as _, prelude::BASE64_STANDARD};

use super::client::{self, timely};
use super::error::Error;
use crate::config::ServiceConfig;

/// For one operation, the SDK's retries included, because somebody waits.
const TIMEOUT: Duration = Duration::from_secs(10);

/// One queue.
#[derive(Debug, Clone)]
pub(crate) struct Queue(QueueClient);

impl Queue {
    pub(crate) fn new(config: &ServiceConfig, name: &str, http: reqwest::Client) -> Self {
        let location = client::location(&config.account, &config.endpoint);
        let client =
            QueueServiceClientBuilder::with_location(location, client::credentials(&config.account, &config.key))
                .transport(client::transport(http))
                .retry(client::retry())
                .build();
        Self(client.queue_client(name))
    }

    /// Puts a message at the end, in base64 as the Functions host wants it, to be seen after `delay`;
    /// makes the queue if it is missing.
    pub(crate) async fn put(&self, text: &str, delay: Duration) -> Result<(), Error> {
        let text = BASE64_STANDARD.encode(text);
        let put = || async { Ok(self.0.put_message(text.clone()).visibility_timeout(delay).await.map(|_| ())?) };
        match timely(TIMEOUT, put()).await {
            Err(error) if error.is("QueueNotFound") => {
                timely(TIMEOUT, self.create()).await?;
                timely(TIMEOUT, put()).await
            }
            result => result,
        }
    }

    async fn create(&self) -> Result<(), Error> {
        match self.0.create().await {
            Ok(_) => Ok(()),
            Err(error) if error.as_http_error().is_some_and(|answer| answer.status() == StatusCode::Conflict) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}
