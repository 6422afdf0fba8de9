//! Entities that many write at once: counters, for example.
//!
//! A change is a function on the state. The changes to one entity that come while another is being
//! written are gathered and written together, by compare-and-swap on its ETag: a process has one
//! write under way for each entity, however many wait, and what is left to fight over is between
//! processes. So a hot counter needs no shards.
//!
//! A write whose answer was lost may have been made, and is made again: a change must know by its own
//! marks in the state whether it is there already, and then leave it as it is.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde::Serialize;
use serde::de::DeserializeOwned;
use time::OffsetDateTime;
use tokio::sync::{Semaphore, oneshot};

use crate::azure::{Error, Key, Table, Version};
use crate::lock::locked;

/// After so long there is no other try to write, because somebody waits.
const TIME_LIMIT: Duration = Duration::from_secs(10);
const MAX_TRIES: u32 = 40;
const SHORTEST_PAUSE_MS: u64 = 2;
const LONGEST_PAUSE_MS: u64 = 100;
/// So many entities are remembered after they were written.
const MAX_REMEMBERED: usize = 1_000;

/// Entities of one kind.
#[derive(Debug)]
pub(crate) struct Ledger<S> {
    table: Table,
    accounts: Mutex<HashMap<Key, Arc<Account<S>>>>,
}

/// One entity.
#[derive(Debug)]
struct Account<S> {
    key: Key,
    waiting: Mutex<Vec<Waiting<S>>>,
    /// Who has the permit writes what has been gathered.
    turn: Semaphore,
    last_seen: Mutex<Option<(S, Version)>>,
}

struct Waiting<S> {
    /// May be called several times, and keeps the result of the last.
    change: Box<dyn FnMut(&mut S) + Send>,
    expires: OffsetDateTime,
    written: oneshot::Sender<Result<(), Error>>,
}

impl<S> std::fmt::Debug for Waiting<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").finish_non_exhaustive()
    }
}

impl<S: Default + Clone + Serialize + DeserializeOwned> Ledger<S> {
    pub(crate) fn new(table: Table) -> Self {
        Self { table, accounts: Mutex::default() }
    }

    /// Changes an entity, or a new one from its default, and gives back what the change said.
    ///
    /// # Errors
    /// It is not known whether the change was written. It may be made again.
    pub(crate) async fn change<R: Send + 'static>(
        &self,
        key: &Key,
        expires: OffsetDateTime,
        mut change: impl FnMut(&mut S) -> R + Send + 'static,
    ) -> Result<R, Error> {
        let account = self.account(key);
        let said = Arc::new(Mutex::new(None));
        let (written, mut done) = oneshot::channel();
        let change = {
            let said = Arc::clone(&said);
            Box::new(move |state: &mut S| *locked(&said) = Some(change(state)))
        };
        locked(&account.waiting).push(Waiting { change, expires, written });
        let turn = tokio::select! {
            // Somebody else has written it.
            result = &mut done => return finished(result, &said),
            turn = account.turn.acquire() => turn.map_err(|_| Error::Unreachable)?,
        };
        let gathered: Vec<Waiting<S>> = std::mem::take(&mut *locked(&account.waiting));
        self.write(&account, gathered).await;
        drop(turn);
        finished(done.await, &said)
    }

    /// Reads an entity; its default where there is none.
    pub(crate) async fn read(&self, key: &Key) -> Result<S, Error> {
        Ok(self.table.get(key).await?.map(|(state, _)| state).unwrap_or_default())
    }

    /// Reads all entities of a partition, by row.
    pub(crate) async fn list(&self, partition: &str) -> Result<Vec<(String, S)>, Error> {
        self.table.list(partition).await
    }

    async fn write(&self, account: &Account<S>, mut gathered: Vec<Waiting<S>>) {
        // Whose change was written by somebody else has nothing left to write.
        let Some(expires) = gathered.iter().map(|waiting| waiting.expires).max() else { return };
        let result = self.write_once(account, &mut gathered, expires).await;
        if result.is_err() {
            // Who came meanwhile has waited, too, and would wait as long for the same.
            gathered.append(&mut locked(&account.waiting));
        }
        for waiting in gathered {
            // Who has stopped waiting does not need to know.
            let _ = waiting.written.send(result.clone());
        }
    }

    async fn write_once(
        &self,
        account: &Account<S>,
        gathered: &mut [Waiting<S>],
        expires: OffsetDateTime,
    ) -> Result<(), Error> {
        let (key, started) = (&account.key, Instant::now());
        let mut known = locked(&account.last_seen).take();
        let mut last_error = Error::Unreachable;
        for tries in 0..MAX_TRIES {
            if tries > 0 {
                let longest = LONGEST_PAUSE_MS.min(SHORTEST_PAUSE_MS << tries.min(10));
                tokio::time::sleep(Duration::from_millis(fastrand::u64(SHORTEST_PAUSE_MS..=longest))).await;
            }
            if started.elapsed() > TIME_LIMIT {
                break;
            }
            if known.is_none() {
                known = match self.table.get(key).await {
                    Ok(found) => found,
                    Err(error) => {
                        last_error = error;
                        continue;
                    }
                };
            }
            let (mut state, version) = match known.take() {
                Some((state, version)) => (state, Some(version)),
                None => (S::default(), None),
            };
            for waiting in gathered.iter_mut() {
                (waiting.change)(&mut state);
            }
            let written = match &version {
                Some(version) => self.table.replace(key, &state, expires, version).await,
                None => self.table.insert(key, &state, expires).await,
            };
            match written {
                Ok(Some(version)) => {
                    *locked(&account.last_seen) = Some((state, version));
                    return Ok(());
                }
                // Somebody else was faster.
                Ok(None) => {}
                Err(error) => last_error = error,
            }
        }
        Err(last_error)
    }

    fn account(&self, key: &Key) -> Arc<Account<S>> {
        let mut accounts = locked(&self.accounts);
        if accounts.len() >= MAX_REMEMBERED {
            accounts.retain(|_, account| Arc::strong_count(account) > 1);
        }
        let new = || {
            Arc::new(Account {
                key: key.clone(),
                waiting: Mutex::default(),
                turn: Semaphore::new(1),
                last_seen: Mutex::new(None),
            })
        };
        Arc::clone(accounts.entry(key.clone()).or_insert_with(new))
    }
}

fn finished<R>(
    result: Result<Result<(), Error>, oneshot::error::RecvError>,
    said: &Mutex<Option<R>>,
) -> Result<R, Error> {
    // Who was to write it has gone: it is not known whether it was written.
    result.unwrap_or(Err(Error::Unreachable))?;
    locked(said).take().ok_or(Error::Unreachable)
}
