//! The key of digests, for an app without an account key: 32 random bytes, the same in all processes and for ever.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};
use secrecy::{ExposeSecret as _, SecretString};

use crate::azure::{Change, Columns, Error, Http, Purpose, STATE_TABLE, Table};
use crate::config::Config;
use crate::digest::Digests;
use crate::gallery::Coalesced;

/// The row of the key in the state table, and its column.
const ROW: &str = "digest-key";
const KEY: &str = "Key";

/// Reads or creates the key of digests, once.
pub(super) struct DigestKey {
    digests: Digests,
    table: Table,
    /// `DIGEST_KEY`, in base64.
    given: Option<SecretString>,
    loads: Coalesced<(), Result<(), Error>>,
}

impl DigestKey {
    pub(super) fn new(config: &Config, digests: Digests, http: Http) -> Self {
        let table = Table::new(&config.state, STATE_TABLE, &config.storage.container, http);
        Self { digests, table, given: config.digest_key.clone(), loads: Coalesced::default() }
    }

    /// Returns when the key is known. All requests that wait share one read.
    ///
    /// # Errors
    /// The state table cannot be read or written.
    pub(super) async fn known(&self) -> Result<(), Error> {
        if self.digests.has_key() {
            return Ok(());
        }
        let (digests, table, given) = (self.digests.clone(), self.table.clone(), self.given.clone());
        let load = move || async move {
            if !digests.has_key() {
                let key = read_or_create(&table, given).await?;
                digests.set_key(hmac::Key::new(hmac::HMAC_SHA256, &key));
            }
            Ok(())
        };
        self.loads.get((), load).await
    }
}

/// The key in the table. The first process stores the one of the settings, or a random one.
async fn read_or_create(table: &Table, given: Option<SecretString>) -> Result<Vec<u8>, Error> {
    let given = given.map(|given| BASE64_STANDARD.decode(given.expose_secret()).unwrap_or_default());
    let stored = match read(table).await? {
        Some(stored) => stored,
        None => {
            let new = given.clone().map_or_else(random, Ok)?;
            let columns = Columns::from([(KEY.to_owned(), BASE64_STANDARD.encode(&new))]);
            if table.change(ROW, Change::Insert(columns)).await? {
                tracing::info!(event = "digest_key_stored", "the key of digests is stored in the state table");
                new
            } else {
                // Another process was first.
                read(table).await?.ok_or(Error::Malformed)?
            }
        }
    };
    if given.is_some_and(|given| given != stored) {
        tracing::error!(
            event = "digest_key_ignored",
            "DIGEST_KEY is not the key in the state table, which is used: to change it, delete the row digest-key"
        );
    }
    Ok(stored)
}

async fn read(table: &Table) -> Result<Option<Vec<u8>>, Error> {
    let Some((columns, _)) = table.get(ROW, Purpose::Caller).await? else { return Ok(None) };
    let key = columns.get(KEY).and_then(|key| BASE64_STANDARD.decode(key).ok()).filter(|key| !key.is_empty());
    // Another key in its place would start all counts anew.
    key.map(Some).ok_or(Error::Malformed)
}

fn random() -> Result<Vec<u8>, Error> {
    let mut bytes = vec![0; 32];
    SystemRandom::new().fill(&mut bytes).map_err(|_| Error::Signing)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use devkit::stand_ins::azurite::Azurite;

    use super::*;

    #[tokio::test]
    async fn all_processes_get_one_key_and_the_given_one_counts_if_it_comes_first() {
        let azurite = tokio::task::spawn_blocking(Azurite::start).await.expect("a thread").expect("Azurite starts");
        let text = azurite.connection_string();
        let lookup = |name: &str| match name {
            "OPENAI_API_KEY" => Some("key".to_owned()),
            "AzureWebJobsStorage" => Some(text.clone()),
            _ => None,
        };
        let config = Config::from_vars(lookup).expect("the settings are right");
        let table = |partition| Table::new(&config.state, STATE_TABLE, partition, Http::new(reqwest::Client::new()));
        let given = |text: &str| Some(SecretString::from(BASE64_STANDARD.encode(text)));

        let random = table("random");
        let (one, other) = tokio::join!(read_or_create(&random, None), read_or_create(&random, None));
        let one = one.expect("a key");
        assert_eq!(one, other.expect("a key"));
        assert_eq!(one.len(), 32);
        assert_eq!(read_or_create(&random, given("late")).await.expect("a key"), one, "it is the stored one for ever");

        let switched = table("switched");
        assert_eq!(read_or_create(&switched, given("old")).await.expect("a key"), b"old");
        assert_eq!(read_or_create(&switched, None).await.expect("a key"), b"old", "the setting is needed once");

        let damaged = table("damaged");
        damaged.insert_or_merge(ROW, &Columns::from([(KEY.to_owned(), "?".to_owned())])).await.expect("it is written");
        assert!(matches!(read_or_create(&damaged, None).await, Err(Error::Malformed)), "no other key takes its place");
    }
}
