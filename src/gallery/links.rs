//! Read-only links to blobs, which browsers can cache.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use reqwest::Url;
use time::OffsetDateTime;
use tokio::sync::Notify;

use super::name;
use crate::azure::{Change, Columns, Container, Error, Grant, Http, Purpose, STATE_TABLE, Table};
use crate::config::ServiceConfig;
use crate::digest::sha256_128;
use crate::lock::locked;
use crate::logs::chain;

/// A token becomes valid this much earlier, because the clock of the storage service may be behind.
pub(super) const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);
/// The Content-Disposition with which a browser saves a blob as a file.
const DOWNLOAD: &str = "attachment";
/// For this time a process uses a token that it could not share.
const UNSHARED_KEPT: Duration = Duration::from_secs(60);
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
        // With an account key, equal grants have equal tokens.
        let token = if container.is_signed_by_identity() {
            tokens.get(container, &grant, now).await?
        } else {
            container.sign(&grant).await?
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
    /// Notified when a token is stored; wakes the deletion of expired rows.
    added: Notify,
    /// The tokens by container, window and use, and until when they are used.
    known: Mutex<BTreeMap<String, (String, OffsetDateTime)>>,
    /// Held while a token is read or stored, so that one request does it for all.
    reading: tokio::sync::Mutex<()>,
}

impl WindowTokens {
    pub(super) fn new(config: &ServiceConfig, container: &str, http: Http) -> Self {
        let table = Table::new(config, STATE_TABLE, container, http);
        Self { table, added: Notify::new(), known: Mutex::default(), reading: tokio::sync::Mutex::default() }
    }

    /// Returns when this process has stored a token since the last call.
    pub(super) async fn added(&self) {
        self.added.notified().await;
    }

    /// The token of a grant. One that is known needs neither the table nor a key.
    async fn get(&self, container: &Container, grant: &Grant<'_>, now: OffsetDateTime) -> Result<String, Error> {
        let (opens, expires_on) = (grant.starts_on.unix_timestamp(), grant.expires_on.unix_timestamp());
        let window = format!("{} {opens} {expires_on} {}", container.url(), grant.disposition);
        let known = || {
            let known = locked(&self.known);
            known.get(&window).filter(|(_, until)| now < *until).map(|(token, _)| token.clone())
        };
        if let Some(token) = known() {
            return Ok(token);
        }
        let _reading = self.reading.lock().await;
        if let Some(token) = known() {
            return Ok(token);
        }
        let own = container.sign(grant).await?;
        let identity = container.signed_by().await?.unwrap_or_default();
        let rest = format!("{} {identity} {expires_on} {}", container.url(), grant.disposition);
        // The row key begins with a time, so that rows expire in their order.
        let row = format!("link-{opens:012}-{}", sha256_128(rest.as_bytes()));
        let (token, until) = self.token_of(&row, own, grant.expires_on, now).await;
        let mut known = locked(&self.known);
        known.retain(|_, (_, until)| *until > now);
        known.insert(window, (token.clone(), until));
        Ok(token)
    }

    /// The token that the processes agree on, or this process's own one, and until when it is used.
    async fn token_of(
        &self,
        row: &str,
        own: String,
        expires_on: OffsetDateTime,
        now: OffsetDateTime,
    ) -> (String, OffsetDateTime) {
        match self.agree(row, &own).await {
            Ok(token) => (token, expires_on),
            Err(error) => {
                tracing::warn!(
                    event = "link_token_not_shared",
                    cause = chain(&error),
                    "the links of this process may differ from those of other processes for a while; all are valid"
                );
                (own, expires_on.min(now + UNSHARED_KEPT))
            }
        }
    }

    /// Stores a token, unless another process has stored one. Returns the stored one.
    async fn agree(&self, row: &str, own: &str) -> Result<String, Error> {
        if let Some(token) = self.read(row).await? {
            return Ok(token);
        }
        let columns = Columns::from([(TOKEN.to_owned(), own.to_owned())]);
        if self.table.change(row, Change::Insert(columns)).await? {
            self.added.notify_one();
            return Ok(own.to_owned());
        }
        self.read(row).await?.ok_or(Error::Malformed)
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
    use devkit::stand_ins::faults::{Faults, Line};
    use futures_util::FutureExt as _;
    use time::macros::datetime;

    use super::*;
    use crate::config::Config;

    #[tokio::test]
    async fn the_processes_of_a_window_agree_on_the_first_token() {
        let azurite = tokio::task::spawn_blocking(Azurite::start).await.expect("a thread").expect("Azurite starts");
        let config = config(&azurite.connection_string());
        let process = || WindowTokens::new(&config.state, "images", Http::new(reqwest::Client::new()));
        let (one, other) = (process(), process());
        let (first, second) = tokio::join!(one.agree("link-1", "sv=1"), other.agree("link-1", "sv=2"));
        let first = first.expect("a token");
        assert_eq!(first, second.expect("a token"));
        assert_eq!(process().agree("link-1", "sv=3").await.expect("a token"), first);
        let third = process();
        assert!(third.added().now_or_never().is_none(), "no row to delete");
        assert_eq!(third.agree("link-2", "sv=3").await.expect("a token"), "sv=3");
        assert!(third.added().now_or_never().is_some(), "its row is deleted later");
    }

    #[tokio::test]
    async fn after_a_failure_of_the_table_the_processes_agree_within_a_minute() {
        let azurite = tokio::task::spawn_blocking(Azurite::start).await.expect("a thread").expect("Azurite starts");
        let port = azurite.table_port();
        let faults = Faults::before(port).await.expect("a proxy");
        let text = azurite.connection_string();
        let behind = config(&text.replace(&format!(":{port}/"), &format!(":{}/", faults.port())));
        let process = |config: &Config| WindowTokens::new(&config.state, "images", Http::new(reqwest::Client::new()));
        let (one, other) = (process(&behind), process(&config(&text)));
        let (now, expires_on) = (datetime!(2026-11-21 10:00 UTC), datetime!(2026-11-24 10:00 UTC));

        faults.set(Line::Answers(403, "AuthorizationFailure"));
        let (token, until) = one.token_of("link-1", "sv=1".to_owned(), expires_on, now).await;
        assert_eq!((&*token, until), ("sv=1", now + Duration::from_secs(60)));
        let (token, until) = other.token_of("link-1", "sv=2".to_owned(), expires_on, now).await;
        assert_eq!((&*token, until), ("sv=2", expires_on));
        faults.set(Line::Whole);
        let (token, until) = one.token_of("link-1", "sv=1".to_owned(), expires_on, now).await;
        assert_eq!((&*token, until), ("sv=2", expires_on));
    }

    fn config(storage: &str) -> Config {
        let lookup = |name: &str| match name {
            "OPENAI_API_KEY" => Some("key".to_owned()),
            "AzureWebJobsStorage" => Some(storage.to_owned()),
            _ => None,
        };
        Config::from_vars(lookup).expect("the settings are right")
    }
}
