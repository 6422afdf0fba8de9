//! `Idempotency-Key`: the same request, sent again, gets the first answer and costs nothing
//! (<https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>).
//!
//! A key is claimed by insert-if-absent before the provider is asked, and the answer is written over
//! the claim by ETag, so two processes never both have it. While the work goes on its lease is
//! renewed. Before the provider is asked the claim says so: once the lease of a process that died has
//! ended, its claim is free where the provider was not asked, and where it was the picture may have
//! been paid and lost, unless somebody recovers it. Where nothing was paid the claim is taken back,
//! so that a retry is worth something; where a picture may have been paid and lost, that is the
//! answer, and asking for another one takes another key.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::azure::{self, Key, Table, Version};
use crate::caller::Caller;
use crate::digest::Digests;
use crate::gallery::Stored;
use crate::logs::chain;

/// So long an answer is given again.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// So long a claim stands that nobody renews.
const LEASE: Duration = Duration::from_secs(60);
const RENEWED_EVERY: Duration = Duration::from_secs(15);
const RENEWED_AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Between tries to write an ending that could not be written at first.
const END_PAUSES_SECONDS: [u64; 5] = [1, 2, 4, 8, 16];
/// Others may come in between, but each time somebody gets on.
const MAX_TRIES: usize = 5;

/// All claims.
#[derive(Debug, Clone)]
pub(crate) struct Claims {
    table: Table,
    digests: Digests,
}

/// A request that says how to know it again.
#[derive(Debug, Clone)]
pub struct Repeatable {
    /// Of the key and its caller.
    row: String,
    /// Of the body.
    fingerprint: String,
}

/// The key is not free for this request.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The first request with this key has no answer yet.
    #[error("a request with this Idempotency-Key is under way")]
    InProgress,
    /// The key was used with another body.
    #[error("the Idempotency-Key was used for another request")]
    Reused,
    /// The claims cannot be read or written.
    #[error("the claims of Idempotency-Keys cannot be reached")]
    Table(#[from] azure::Error),
}

/// How a request ended, as far as it is final.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Ending {
    /// The picture is in the gallery.
    Stored(Stored),
    /// It is safe, and will be in the gallery under this name.
    StoredLater {
        /// The blob's name.
        name: String,
    },
    /// A job is about it, which knows more.
    Job {
        /// The job's id.
        id: String,
    },
    /// It may have been drawn and billed, and is lost.
    Lost(Loss),
}

/// How a picture is lost.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Loss {
    /// The provider did not answer in time.
    Timeout,
    /// The provider's answer broke off.
    Answer,
    /// The provider's answer was of no use.
    UselessAnswer,
    /// It could neither be stored nor kept.
    Unsaved,
}

/// What a key is good for.
pub(crate) enum Claimed {
    /// The work is this request's.
    Ours(Box<Claim>),
    /// It was done before.
    Ended(Ending),
}

/// The right to do the work, and the duty to say how it ended.
#[derive(Debug)]
pub(crate) struct Claim {
    table: Table,
    key: Key,
    record: Record,
    version: Version,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Record {
    fingerprint: String,
    /// The id of the picture that it is about.
    owner: String,
    #[serde(with = "time::serde::rfc3339")]
    claimed_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339")]
    lease_ends: OffsetDateTime,
    /// Whether the provider is, or was, asked.
    asked: bool,
    ending: Option<Ending>,
}

impl Claims {
    pub(crate) fn new(table: Table, digests: Digests) -> Self {
        Self { table, digests }
    }

    /// Knows a request by its key, who sent it, and its body.
    pub(crate) fn repeatable(&self, key: &str, caller: &Caller, body: &[u8]) -> Repeatable {
        Repeatable {
            row: self.digests.of(&[b"idempotency key", caller.as_str().as_bytes(), key.as_bytes()]),
            fingerprint: self.digests.of(&[b"body", body]),
        }
    }

    /// Claims a key for the picture that is going to have the id `owner`.
    pub(crate) async fn claim(&self, request: &Repeatable, owner: &str, now: OffsetDateTime) -> Result<Claimed, Error> {
        let key = key(request.row.clone());
        let record = Record {
            fingerprint: request.fingerprint.clone(),
            owner: owner.to_owned(),
            claimed_at: now,
            lease_ends: now + LEASE,
            asked: false,
            ending: None,
        };
        let ours = |version| {
            let (table, key, record) = (self.table.clone(), key.clone(), record.clone());
            Ok(Claimed::Ours(Box::new(Claim { table, key, record, version })))
        };
        for _ in 0..MAX_TRIES {
            if let Some(version) = self.table.insert(&key, &record, record.expires()).await? {
                return ours(version);
            }
            // It may have been taken back in between.
            let Some((found, version)) = self.table.get::<Record>(&key).await? else { continue };
            if found.owner == owner {
                // Ours was written, and the answer to that was lost.
                return ours(version);
            }
            if found.is_free(now) {
                match self.table.replace(&key, &record, record.expires(), &version).await? {
                    Some(version) => return ours(version),
                    None => continue,
                }
            }
            if found.fingerprint != record.fingerprint {
                return Err(Error::Reused);
            }
            return match found.ending {
                Some(ending) => Ok(Claimed::Ended(ending)),
                // Its process died, and the answer with it.
                None if found.lease_ends <= now => Ok(Claimed::Ended(Ending::Lost(Loss::Answer))),
                None => Err(Error::InProgress),
            };
        }
        Err(Error::InProgress)
    }

    /// Frees the key of a picture that nothing was paid for.
    pub(crate) async fn free(&self, row: &str, owner: &str) -> Result<(), azure::Error> {
        let key = key(row.to_owned());
        match self.table.get::<Record>(&key).await? {
            Some((record, version)) if record.owner == owner => {
                Claim { table: self.table.clone(), key, record, version }.take_back().await
            }
            _ => Ok(()),
        }
    }

    /// Says of a picture that was stored after all, by whichever process, how its request ended.
    pub(crate) async fn ended_after_all(&self, row: &str, owner: &str, stored: Stored) -> Result<(), azure::Error> {
        let key = key(row.to_owned());
        match self.table.get::<Record>(&key).await? {
            Some((record, version)) if record.owner == owner => {
                let mut claim = Claim { table: self.table.clone(), key, record, version };
                claim.end(Ending::Stored(stored)).await.map(|_| ())
            }
            // Its key is free, or another picture's.
            _ => Ok(()),
        }
    }
}

impl Repeatable {
    /// Where the claim is, for [`Claims::ended_after_all`].
    pub(crate) fn row(&self) -> &str {
        &self.row
    }
}

impl Claim {
    /// Says that the provider is about to be asked.
    ///
    /// # Errors
    /// [`Error::InProgress`] where the claim has become somebody else's.
    pub(crate) async fn ask(&mut self, now: OffsetDateTime) -> Result<(), Error> {
        self.record.asked = true;
        self.record.lease_ends = now + LEASE;
        if self.write().await? { Ok(()) } else { Err(Error::InProgress) }
    }

    /// Renews the lease until it is dropped.
    pub(crate) async fn renew(&mut self, clock: &(dyn Fn() -> OffsetDateTime + Send + Sync)) {
        let mut pause = RENEWED_EVERY;
        loop {
            tokio::time::sleep(pause).await;
            self.record.lease_ends = clock() + LEASE;
            pause = match self.write().await {
                Ok(_) => RENEWED_EVERY,
                Err(error) => {
                    tracing::warn!(cause = chain(&error), "the claim of an Idempotency-Key could not be renewed");
                    RENEWED_AGAIN_AFTER
                }
            };
        }
    }

    /// Says how the work ended; whether the claim was still ours.
    pub(crate) async fn end(&mut self, ending: Ending) -> Result<bool, azure::Error> {
        self.record.ending = Some(ending);
        self.write().await
    }

    /// Says it again, where that failed; for some time. Whether it is said.
    pub(crate) async fn end_after_all(mut self) -> bool {
        for seconds in END_PAUSES_SECONDS {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            if self.write().await.is_ok() {
                return true;
            }
        }
        tracing::error!("the claim of an Idempotency-Key could not be ended; its picture counts as lost to it");
        false
    }

    /// Takes the claim back: nothing was paid, and the key may be used again.
    pub(crate) async fn take_back(self) -> Result<(), azure::Error> {
        let mut version = self.version;
        for _ in 0..MAX_TRIES {
            if self.table.delete(&self.key, &version).await? {
                break;
            }
            // A renewal whose answer nobody waited for, perhaps.
            match self.table.get::<Record>(&self.key).await? {
                Some((found, newer)) if found.owner == self.record.owner => version = newer,
                _ => break,
            }
        }
        Ok(())
    }

    /// Writes the record; whether the claim is still ours.
    async fn write(&mut self) -> Result<bool, azure::Error> {
        for _ in 0..MAX_TRIES {
            if let Some(version) =
                self.table.replace(&self.key, &self.record, self.record.expires(), &self.version).await?
            {
                self.version = version;
                return Ok(true);
            }
            match self.table.get::<Record>(&self.key).await? {
                Some((found, version)) if found.owner == self.record.owner => {
                    // Recovered by another process: there is no better ending.
                    if let Some(Ending::Stored(_)) = found.ending {
                        return Ok(true);
                    }
                    // Else a write of ours whose answer was lost, perhaps.
                    self.version = version;
                }
                _ => return Ok(false),
            }
        }
        Err(azure::Error::Malformed)
    }
}

impl Record {
    fn expires(&self) -> OffsetDateTime {
        self.claimed_at + KEPT
    }

    fn is_free(&self, now: OffsetDateTime) -> bool {
        let nothing_was_paid = self.ending.is_none() && !self.asked;
        self.expires() <= now || nothing_was_paid && self.lease_ends <= now
    }
}

fn key(row: String) -> Key {
    Key { partition: "idempotency".to_owned(), row }
}
