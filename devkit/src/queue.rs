//! A queue of Azure Storage, as the Functions host and other apps see it.

use std::time::Duration;

use anyhow::{Context as _, bail};
use azure_storage::{CloudLocation, StorageCredentials};
use azure_storage_queues::operations::Message;
use azure_storage_queues::{QueueClient, QueueServiceClientBuilder};
use base64::{Engine as _, prelude::BASE64_STANDARD};

/// While a message is worked on it is invisible for so long.
const INVISIBLE_FOR: Duration = Duration::from_secs(10 * 60);

/// One queue.
#[derive(Debug, Clone)]
pub struct Queue(QueueClient);

/// A message that was taken out, until it is deleted or comes back.
#[derive(Debug, Clone)]
pub struct Taken {
    pub(crate) text: String,
    pub(crate) deliveries: u64,
    pub(crate) message: Message,
}

impl Queue {
    /// Of the account in a connection string that names its queue endpoint.
    ///
    /// # Errors
    /// If it does not.
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

    /// Puts a message in, in base64 as the host wants it; makes the queue if it is missing.
    ///
    /// # Errors
    /// If it cannot.
    pub async fn put(&self, text: &str) -> anyhow::Result<()> {
        // One that is there is left as it is.
        let _ = self.0.create().await;
        self.0.put_message(BASE64_STANDARD.encode(text)).await.context("a message cannot be put")?;
        Ok(())
    }

    /// The texts that wait, without taking them out.
    ///
    /// # Errors
    /// If the queue cannot be read.
    pub async fn peek(&self) -> anyhow::Result<Vec<String>> {
        let peeked = match self.0.peek_messages().number_of_messages(32_u8).await {
            Ok(peeked) => peeked,
            Err(error) if format!("{error:?}").contains("QueueNotFound") => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        Ok(peeked.messages.into_iter().map(|message| decode(&message.message_text)).collect())
    }

    /// Takes the next message out for good; its text.
    pub async fn take_text(&self) -> Option<String> {
        let taken = self.take(1).await.pop()?;
        self.delete(&taken).await;
        Some(taken.text)
    }

    /// Takes up to so many out; none where there is no queue yet.
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
        // One that is gone is gone.
        let _ = self.0.pop_receipt_client(taken.message.pop_receipt()).delete().await;
    }

    /// Lets a message be taken again, so much later.
    pub(crate) async fn give_back(&self, taken: &Taken, later: Duration) {
        let client = self.0.pop_receipt_client(taken.message.pop_receipt());
        let _ = client.update(taken.message.message_text.clone(), later).await;
    }
}

fn decode(text: &str) -> String {
    let bytes = BASE64_STANDARD.decode(text).ok();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_else(|| text.to_owned())
}
