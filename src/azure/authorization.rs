//! The Authorization header of requests to a table.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::header::HeaderValue;
use ring::hmac;

use super::error::Error;
use super::http::Http;
use crate::config::ServiceConfig;

/// Authorizes requests to the tables of an account.
#[derive(Debug, Clone)]
pub(super) struct Authorization {
    account: String,
    /// The account's key; `None` for the app's identity.
    key: Option<hmac::Key>,
}

impl Authorization {
    pub(super) fn new(config: &ServiceConfig) -> Self {
        Self { account: config.account.clone(), key: config.access.key() }
    }

    /// The header of a request to a path at a date: a signature with the account's key (Shared Key Lite,
    /// <https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key>), or a token of the identity.
    ///
    /// # Errors
    /// There is no token.
    pub(super) async fn header(&self, http: &Http, date: &str, path: &str) -> Result<HeaderValue, Error> {
        let Some(key) = &self.key else { return http.bearer().await };
        let signed = hmac::sign(key, format!("{date}\n/{}{path}", self.account).as_bytes());
        let text = format!("SharedKeyLite {}:{}", self.account, BASE64_STANDARD.encode(signed.as_ref()));
        let mut value = HeaderValue::from_str(&text).map_err(|_| Error::Signing)?;
        value.set_sensitive(true);
        Ok(value)
    }
}
