//! Tokens of the app's managed identity, from the endpoint that the platform offers
//! (<https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference>).

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use azure_core::auth::{AccessToken, TokenCredential};
use azure_core::error::ErrorKind;
use reqwest::StatusCode;
use reqwest::header::HeaderValue;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;

use super::renewed::{Fetched, Renewed, repeated};
use crate::config::IdentityConfig;
use crate::spending::Clock;

/// The resource of blobs, queues and tables.
pub(crate) const STORAGE: &str = "https://storage.azure.com";
/// The version of the endpoint's API.
const VERSION: &str = "2019-08-01";
/// Limit for one request. The endpoint is on the app's machine, but asks another service for a new token.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The pause before the first repeated request; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// The longest life that is believed. Tokens live for 24 hours at most.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// A token that expires sooner is not sent: it must live until its request arrives.
const UNUSED_BEFORE: Duration = Duration::from_secs(5);

/// Gets tokens for one resource. Clones share the token.
#[derive(Clone)]
pub(crate) struct Credential {
    source: Arc<Source>,
    token: Renewed<SecretString, NoToken>,
}

struct Source {
    http: reqwest::Client,
    identity: IdentityConfig,
    resource: String,
    clock: Clock,
}

/// Why there is no token of the app's identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoToken {
    /// The app has no identity, or not the one whose client id is set (400).
    #[error("the identity endpoint knows no such identity (status 400)")]
    Unassigned,
    /// The endpoint answered with another error.
    #[error("the identity endpoint answered {0}")]
    Answered(u16),
    /// The endpoint did not answer.
    #[error("the identity endpoint does not answer")]
    Unreachable,
    /// The endpoint's answer has no token, or an expired one.
    #[error("the identity endpoint's answer has no valid token")]
    Malformed,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    /// Seconds since 1970, as a text.
    expires_on: Value,
}

impl Credential {
    pub(crate) fn new(http: reqwest::Client, identity: IdentityConfig, resource: &str, clock: Clock) -> Self {
        let resource = resource.to_owned();
        Self { source: Arc::new(Source { http, identity, resource, clock }), token: Renewed::default() }
    }

    /// The value of an Authorization header.
    ///
    /// # Errors
    /// See [`NoToken`].
    pub(crate) async fn authorization(&self) -> Result<HeaderValue, NoToken> {
        let token = self.token().await?;
        let mut value =
            HeaderValue::from_str(&format!("Bearer {}", token.expose_secret())).map_err(|_| NoToken::Malformed)?;
        value.set_sensitive(true);
        Ok(value)
    }

    /// The current time.
    pub(super) fn now(&self) -> OffsetDateTime {
        (self.source.clock)()
    }

    async fn token(&self) -> Result<SecretString, NoToken> {
        let fetch = || {
            let source = Arc::clone(&self.source);
            async move { source.fetch().await }
        };
        self.token.get(fetch).await
    }
}

impl Source {
    /// Asks the endpoint, and again after an error that may pass.
    async fn fetch(&self) -> Result<Fetched<SecretString>, NoToken> {
        let may_pass = |error: &NoToken| match error {
            // 404 and 410 come while the identity is being set up:
            // https://learn.microsoft.com/entra/identity/managed-identities-azure-resources/how-to-use-vm-token#retry-guidance
            NoToken::Answered(status) => matches!(status, 404 | 410 | 429 | 500..),
            NoToken::Unreachable => true,
            NoToken::Unassigned | NoToken::Malformed => false,
        };
        repeated(FIRST_PAUSE, || self.ask(), may_pass).await
    }

    async fn ask(&self) -> Result<Fetched<SecretString>, NoToken> {
        let mut query = vec![("api-version", VERSION), ("resource", &self.resource)];
        query.extend(self.identity.client_id.as_deref().map(|id| ("client_id", id)));
        let mut header =
            HeaderValue::from_str(self.identity.header.expose_secret()).map_err(|_| NoToken::Unreachable)?;
        header.set_sensitive(true);
        let request = self
            .http
            .get(self.identity.endpoint.clone())
            .query(&query)
            .header("x-identity-header", header)
            .timeout(TIMEOUT);
        let response = request.send().await.map_err(|_| NoToken::Unreachable)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST => return Err(NoToken::Unassigned),
            status => return Err(NoToken::Answered(status.as_u16())),
        }
        let body = response.bytes().await.map_err(|_| NoToken::Unreachable)?;
        let Answer { access_token, expires_on } = serde_json::from_slice(&body).map_err(|_| NoToken::Malformed)?;
        let expires_on = expires_on.as_i64().or_else(|| expires_on.as_str()?.parse().ok()).ok_or(NoToken::Malformed)?;
        let left = u64::try_from(expires_on.saturating_sub((self.clock)().unix_timestamp())).unwrap_or_default();
        if left == 0 || HeaderValue::from_str(&access_token).is_err() {
            return Err(NoToken::Malformed);
        }
        let left = Duration::from_secs(left).min(LONGEST_LIFE);
        Ok(Fetched {
            value: access_token.into(),
            // The endpoint has a cache, so an early renewal costs little, and leaves time for an endpoint that is away.
            renew_in: left / 2,
            // A quarter of a short life is enough for a request.
            expires_in: left.saturating_sub(UNUSED_BEFORE).max(left * 3 / 4),
        })
    }
}

/// A token never gets into a log by way of a client that holds the credential.
impl fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Credential").field("resource", &self.source.resource).finish_non_exhaustive()
    }
}

/// What `async_trait` makes of `async fn get_token(&self, scopes: &[&str])`. The scopes are those of [`STORAGE`].
impl TokenCredential for Credential {
    fn get_token<'life0, 'life1, 'life2, 'async_trait>(
        &'life0 self,
        _scopes: &'life1 [&'life2 str],
    ) -> Pin<Box<dyn Future<Output = azure_core::Result<AccessToken>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        'life1: 'async_trait,
        'life2: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async move {
            let token = self.token().await.map_err(|error| azure_core::Error::new(ErrorKind::Credential, error))?;
            // The SDK asks at each request and does not look at the time.
            Ok(AccessToken::new(token.expose_secret().to_owned(), OffsetDateTime::UNIX_EPOCH))
        })
    }

    fn clear_cache<'life0, 'async_trait>(
        &'life0 self,
    ) -> Pin<Box<dyn Future<Output = azure_core::Result<()>> + Send + 'async_trait>>
    where
        'life0: 'async_trait,
        Self: 'async_trait,
    {
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::sync::Mutex;

    use axum::http::HeaderMap;
    use axum::http::Uri;
    use time::macros::datetime;

    use super::super::{Container, Error, Http};
    use super::*;
    use crate::config::{Access, StorageConfig};
    use crate::lock::locked;

    /// What the endpoint was asked: the query and the header.
    type Asked = Arc<Mutex<Vec<(String, String)>>>;

    /// A credential at an endpoint that gives these answers in turn.
    async fn credential(answers: &[(u16, &str)]) -> (Credential, Asked) {
        let asked = Asked::default();
        let answers: VecDeque<(u16, String)> =
            answers.iter().map(|(status, body)| (*status, (*body).to_owned())).collect();
        let (log, answers) = (Arc::clone(&asked), Arc::new(Mutex::new(answers)));
        let answer = move |uri: Uri, headers: HeaderMap| {
            let header = headers["x-identity-header"].to_str().expect("a text").to_owned();
            locked(&log).push((uri.query().unwrap_or_default().to_owned(), header));
            let (status, body) = locked(&answers).pop_front().expect("no more requests");
            let answer = (StatusCode::from_u16(status).expect("a status"), body);
            async move { answer }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let endpoint = format!("http://{}/msi/token", listener.local_addr().expect("an address"));
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        let identity = IdentityConfig {
            endpoint: endpoint.parse().expect("a URL"),
            header: "secret".to_owned().into(),
            client_id: Some("a-client".to_owned()),
        };
        let clock = Arc::new(|| datetime!(2026-11-21 10:00 UTC));
        (Credential::new(reqwest::Client::new(), identity, STORAGE, clock), asked)
    }

    /// At 11:00 of the same day.
    const TOKEN: &str = r#"{"access_token": "abc", "expires_on": "1795258800", "token_type": "Bearer"}"#;

    #[tokio::test]
    async fn a_token_is_asked_for_as_documented_and_kept() {
        let (credential, asked) = credential(&[(200, TOKEN)]).await;
        for _ in 0..2 {
            let header = credential.authorization().await.expect("a token");
            assert!(header.is_sensitive());
            assert_eq!(header, "Bearer abc");
        }
        let query = "api-version=2019-08-01&resource=https%3A%2F%2Fstorage.azure.com&client_id=a-client";
        assert_eq!(*locked(&asked), [(query.to_owned(), "secret".to_owned())]);
        let printed = format!("{credential:?}");
        assert!(!printed.contains("secret") && !printed.contains("abc"), "{printed}");
    }

    #[tokio::test]
    async fn an_error_that_may_pass_is_asked_again_and_another_one_is_not() {
        let passing: Vec<(u16, &str)> = [404, 410, 429].map(|status| (status, "{}")).into_iter().collect();
        let (credential, asked) = credential(&[&passing[..], &[(200, TOKEN)]].concat()).await;
        assert!(credential.authorization().await.is_ok());
        assert_eq!(locked(&asked).len(), 4);
        let expired = r#"{"access_token": "abc", "expires_on": 1795255200}"#;
        for (answer, wanted) in [
            ((400, "{}"), NoToken::Unassigned),
            ((401, "{}"), NoToken::Answered(401)),
            ((200, "{}"), NoToken::Malformed),
            ((200, r#"{"access_token": "a\n", "expires_on": "1795258800"}"#), NoToken::Malformed),
            ((200, expired), NoToken::Malformed),
        ] {
            let (credential, asked) = self::credential(&[answer]).await;
            assert_eq!(credential.authorization().await.expect_err("no token"), wanted);
            assert_eq!(locked(&asked).len(), 1, "{wanted}");
        }
    }

    #[tokio::test]
    async fn the_sdk_passes_on_why_there_is_no_token() {
        let (credential, asked) = credential(&[(400, "{}")]).await;
        let config = StorageConfig {
            account: "account".to_owned(),
            access: Access::Identity,
            blob_endpoint: "http://127.0.0.1:1/account".parse().expect("a URL"),
            container: "images".to_owned(),
        };
        let http = Http::new(reqwest::Client::new()).with_credential(Some(credential));
        let container = Container::new(&config, "images", http);
        for _ in 0..2 {
            let error = container.check().await.expect_err("no token");
            assert!(matches!(error, Error::NoToken(NoToken::Unassigned)), "{error:?}");
            assert!(error.advice().is_some_and(|advice| advice.contains("AzureWebJobsStorage__clientId")));
        }
        assert_eq!(locked(&asked).len(), 1, "it is neither asked again at once nor repeated by the SDK");
    }

    #[tokio::test]
    async fn a_token_is_renewed_after_half_of_its_life_which_is_a_day_at_most() {
        for (lives, renew_in, expires_in) in
            [(i64::MAX, 43_200, 86_395), (3_600, 1_800, 3_595), (400, 200, 395), (8, 4, 6)]
        {
            let expires_on = datetime!(2026-11-21 10:00 UTC).unix_timestamp().saturating_add(lives);
            let body = format!(r#"{{"access_token": "abc", "expires_on": "{expires_on}"}}"#);
            let (credential, _) = credential(&[(200, &body)]).await;
            let fetched = credential.source.fetch().await.expect("a token");
            assert_eq!(fetched.renew_in, Duration::from_secs(renew_in));
            assert_eq!(fetched.expires_in, Duration::from_secs(expires_in));
        }
    }
}
