//! A client for a queue of Azure Storage, as the Functions host and other apps use it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use azure_storage::{CloudLocation, StorageCredentials};
use azure_storage_queues::operations::Message;
use azure_storage_queues::{QueueClient, QueueServiceClientBuilder};
use base64::{Engine as _, prelude::BASE64_STANDARD};

/// The visibility timeout of a dequeued message.
const INVISIBLE_FOR: Duration = Duration::from_secs(10 * 60);

/// A client for one queue.
#[derive(Debug, Clone)]
pub struct Queue(QueueClient);

/// A dequeued message. The queue delivers it again unless it is deleted.
#[derive(Debug, Clone)]
pub struct Taken {
    pub(crate) text: String,
    pub(crate) deliveries: u64,
    pub(crate) message: Message,
}

impl Queue {
    /// Opens a queue of the storage account in `connection_string`.
    ///
    /// # Errors
    /// Fails if the connection string lacks AccountName, AccountKey or QueueEndpoint.
    pub fn open(connection_string: &str, name: &str) -> anyhow::Result<Self> {
        let part = |name: &str| {
            let parts = connection_string.split(';').filter_map(|part| part.split_once('='));
            parts.into_iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_owned())
        };
        let (Some(account), Some(key), Some(uri)) = (part("AccountName"), part("AccountKey"), part("QueueEndpoint"))
        else {
            bail!("the connection string needs AccountName, AccountKey and QueueEndpoint");
        };
        let credentials = StorageCredentials::access_key(account.clone(), key);
        let location = CloudLocation::Custom { account, uri };
        Ok(Self(QueueServiceClientBuilder::with_location(location, credentials).build().queue_client(name)))
    }

    /// Enqueues a message in base64, as the Functions host expects; creates the queue if it is missing.
    ///
    /// # Errors
    /// Fails if the queue does not take the message.
    pub async fn put(&self, text: &str) -> anyhow::Result<()> {
        // The call fails if the queue exists, which is fine.
        let _ = self.0.create().await;
        self.0.put_message(BASE64_STANDARD.encode(text)).await.context("the message cannot be enqueued")?;
        Ok(())
    }

    /// The texts of up to 32 visible messages, which stay in the queue. A missing queue is empty.
    ///
    /// # Errors
    /// Fails if the queue cannot be read.
    pub async fn peek(&self) -> anyhow::Result<Vec<String>> {
        let peeked = match self.0.peek_messages().number_of_messages(32_u8).await {
            Ok(peeked) => peeked,
            Err(error) if format!("{error:?}").contains("QueueNotFound") => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        Ok(peeked.messages.into_iter().map(|message| decode(&message.message_text)).collect())
    }

    /// Dequeues and deletes the next message and returns its text.
    pub async fn take_text(&self) -> Option<String> {
        let taken = self.take(1).await.pop()?;
        self.delete(&taken).await;
        Some(taken.text)
    }

    /// Dequeues up to `count` messages; none if the queue cannot be read or does not exist yet.
    pub(crate) async fn take(&self, count: u8) -> Vec<Taken> {
        let got = self.0.get_messages().number_of_messages(count).visibility_timeout(INVISIBLE_FOR).await;
        let messages = got.map(|got| got.messages).unwrap_or_default();
        let taken = |message: Message| Taken {
            text: decode(&message.message_text),
            deliveries: message.dequeue_count,
            message,
        };
        messages.into_iter().map(taken).collect()
    }

    pub(crate) async fn delete(&self, taken: &Taken) {
        // A message that is already gone needs no delete.
        let _ = self.0.pop_receipt_client(taken.message.pop_receipt()).delete().await;
    }

    /// Makes the message visible again after `delay`.
    pub(crate) async fn give_back(&self, taken: &Taken, delay: Duration) {
        let client = self.0.pop_receipt_client(taken.message.pop_receipt());
        let _ = client.update(taken.message.message_text.clone(), delay).await;
    }
}

fn decode(text: &str) -> String {
    let bytes = BASE64_STANDARD.decode(text).ok();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| text.to_owned())
}
