//! Read-only links to blobs, which browsers can cache.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use reqwest::Url;
use time::OffsetDateTime;

use super::name;
use crate::azure::{Change, Columns, Container, Error, Failed, Grant, Http, Operation, Purpose, STATE_TABLE, Table};
use crate::config::ServiceConfig;
use crate::digest::sha256_128;
use crate::lock::locked;
use crate::logs::chain;

/// A token becomes valid this much earlier, because the clock of the storage service may be behind.
pub(super) const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);
/// The Content-Disposition with which a browser saves a blob as a file.
const DOWNLOAD: &str = "attachment";
/// The column of a token's row.
const TOKEN: &str = "Token";

/// Builds links from blob names.
pub(super) struct Links {
    container: Url,
    token: String,
}

impl Links {
    /// Links that show a blob.
    ///
    /// # Errors
    /// As [`Container::sign`], like those below.
    pub(super) async fn to_show(
        tokens: &WindowTokens,
        container: &Container,
        now: OffsetDateTime,
        window: Duration,
    ) -> Result<Self, Error> {
        Self::of_window(tokens, container, now, window, "").await
    }

    /// Links with which a browser saves a blob as a file.
    pub(super) async fn to_download(
        tokens: &WindowTokens,
        container: &Container,
        now: OffsetDateTime,
        window: Duration,
    ) -> Result<Self, Error> {
        Self::of_window(tokens, container, now, window, DOWNLOAD).await
    }

    async fn of_window(
        tokens: &WindowTokens,
        container: &Container,
        now: OffsetDateTime,
        window: Duration,
        disposition: &'static str,
    ) -> Result<Self, Error> {
        let grant = read_only(now, window, disposition);
        let token = match container.signed_by().await? {
            // Equal grants have equal tokens.
            None => container.sign(&grant).await?,
            Some(identity) => tokens.get(container, &identity, &grant, now).await?,
        };
        Ok(Self { container: container.url().clone(), token })
    }

    /// Links by which storage copies a blob, valid for five minutes.
    pub(super) async fn to_copy(container: &Container, now: OffsetDateTime) -> Result<Self, Error> {
        let token = container.sign(&for_one_call(now, "r")).await?;
        Ok(Self { container: container.url().clone(), token })
    }

    /// The link to a blob, percent-encoded.
    pub(super) fn to(&self, name: &str) -> String {
        format!("{}/{}?{}", self.container.as_str().trim_end_matches('/'), name::encode(name), self.token)
    }
}

/// The tokens that the app's identity has signed, one for each window, container and use. The service does not promise
/// the same key to two processes, so the first process of a window stores its token, and the others read it.
#[derive(Debug)]
pub(super) struct WindowTokens {
    table: Table,
    /// The tokens by row key, and when they expire.
    known: Mutex<BTreeMap<String, (String, OffsetDateTime)>>,
    /// Held while a token is read or stored, so that one request does it for all.
    reading: tokio::sync::Mutex<()>,
}

impl WindowTokens {
    pub(super) fn new(config: &ServiceConfig, container: &str, http: Http) -> Self {
        let table = Table::new(config, STATE_TABLE, container, http);
        Self { table, known: Mutex::default(), reading: tokio::sync::Mutex::default() }
    }

    async fn get(
        &self,
        container: &Container,
        identity: &str,
        grant: &Grant<'_>,
        now: OffsetDateTime,
    ) -> Result<String, Error> {
        let opens = grant.starts_on.unix_timestamp();
        let rest =
            format!("{} {identity} {} {}", container.url(), grant.expires_on.unix_timestamp(), grant.disposition);
        // The row key begins with a time, so that rows expire in their order.
        let row = format!("link-{opens:012}-{}", sha256_128(rest.as_bytes()));
        let known = || locked(&self.known).get(&row).map(|(token, _)| token.clone());
        if let Some(token) = known() {
            return Ok(token);
        }
        let _reading = self.reading.lock().await;
        if let Some(token) = known() {
            return Ok(token);
        }
        let own = container.sign(grant).await?;
        let token = match self.agree(&row, &own).await {
            Ok(token) => token,
            Err(error) => {
                tracing::warn!(
                    event = "link_token_not_shared",
                    cause = chain(&error),
                    "the links of this process may differ from those of other processes for a while; all are valid"
                );
                own
            }
        };
        let mut known = locked(&self.known);
        known.retain(|_, (_, expires_on)| *expires_on > now);
        known.insert(row, (token.clone(), grant.expires_on));
        Ok(token)
    }

    /// Stores a token, unless another process has stored one. Returns the stored one.
    async fn agree(&self, row: &str, own: &str) -> Result<String, Error> {
        if let Some(token) = self.read(row).await? {
            return Ok(token);
        }
        let columns = Columns::from([(TOKEN.to_owned(), own.to_owned())]);
        match self.table.transact(&[Operation { row: row.to_owned(), change: Change::Insert(columns) }]).await {
            Ok(_) => Ok(own.to_owned()),
            Err(Failed::Conflict(_)) => self.read(row).await?.ok_or(Error::Malformed),
            Err(Failed::Rejected(cause) | Failed::Unknown { cause, .. }) => Err(cause),
        }
    }

    async fn read(&self, row: &str) -> Result<Option<String>, Error> {
        let Some((mut columns, _)) = self.table.get(row, Purpose::Caller).await? else { return Ok(None) };
        columns.remove(TOKEN).filter(|token| token.starts_with("sv=")).map(Some).ok_or(Error::Malformed)
    }
}

/// What one call of this process needs, valid for five minutes.
pub(super) fn for_one_call(now: OffsetDateTime, permissions: &str) -> Grant<'_> {
    Grant { permissions, starts_on: now - CLOCK_SKEW, expires_on: now + CLOCK_SKEW, disposition: "" }
}

/// A read token for the window in which `now` lies. All processes use the same windows, so the URL of a blob stays
/// the same within a window and browsers can cache the blob. A token is also valid in the next window, so a link is
/// valid for at least the length of a window.
fn read_only(now: OffsetDateTime, window: Duration, disposition: &'static str) -> Grant<'static> {
    let seconds = i64::try_from(window.as_secs()).unwrap_or(i64::MAX);
    let into_window = time::Duration::seconds(now.unix_timestamp().rem_euclid(seconds));
    let opens = whole_seconds(now) - into_window;
    Grant {
        permissions: "r",
        starts_on: opens - CLOCK_SKEW,
        // One second more, because `opens` is rounded down to a whole second.
        expires_on: opens + 2 * window + Duration::from_secs(1),
        disposition,
    }
}

/// The time without the fraction of its second.
pub(super) fn whole_seconds(at: OffsetDateTime) -> OffsetDateTime {
    at - Duration::from_nanos(at.nanosecond().into())
}

#[cfg(test)]
mod tests {
    use devkit::stand_ins::azurite::Azurite;

    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn the_processes_of_a_window_agree_on_the_first_token() {
        let azurite = tokio::task::spawn_blocking(Azurite::start).await.expect("a thread").expect("Azurite starts");
        let text = azurite.connection_string();
        let lookup = |name: &str| match name {
            "OPENAI_API_KEY" => Some("key".to_owned()),
            "AzureWebJobsStorage" => Some(text.clone()),
            _ => None,
        };
        let config = Config::from_vars(lookup).expect("the settings are right");
        let process = || WindowTokens::new(&config.state, "images", Http::new(reqwest::Client::new()));
        let (one, other) = (process(), process());
        let (first, second) = tokio::join!(one.agree("link-1", "sv=1"), other.agree("link-1", "sv=2"));
        let first = first.expect("a token");
        assert_eq!(first, second.expect("a token"));
        assert_eq!(process().agree("link-1", "sv=3").await.expect("a token"), first);
        assert_eq!(process().agree("link-2", "sv=3").await.expect("a token"), "sv=3");
    }
}
