//! The user delegation key: signs tokens of the container for an app without the account's key
//! (<https://learn.microsoft.com/rest/api/storageservices/get-user-delegation-key>).

use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::{Url, header};
use ring::hmac;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

use super::error::Error;
use super::http::{Http, Purpose};
use super::renewed::{Fetched, Renewed, repeated};
use crate::lock::locked;

/// The version of the service, sent as `x-ms-version`.
const VERSION: &str = "2022-11-02";
/// Limit for one request.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The pause before a failed request is repeated.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// A key is valid from this time ago, because the clock of the service may be behind.
const CLOCK_SKEW: Duration = Duration::from_secs(15 * 60);
/// The longest life of a key.
const LIFE: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// A key is used for an hour, so that the links that it signs may live nearly as long as a key may.
const USED_FOR: Duration = Duration::from_secs(60 * 60);
const RENEWED_AFTER: Duration = Duration::from_secs(30 * 60);

/// The keys of one account, of which one is used at a time. Clones share it.
#[derive(Debug, Clone)]
pub(super) struct DelegationKeys {
    http: Http,
    /// The account's blob endpoint.
    endpoint: Url,
    current: Renewed<Arc<DelegationKey>, Error>,
    /// The last key, for as long as no other one can be fetched.
    last: Arc<Mutex<Option<Arc<DelegationKey>>>>,
}

/// A key, and what a token must say about it. The texts are in each token exactly as the service sent them.
#[derive(Debug, PartialEq)]
pub(super) struct DelegationKey {
    pub(super) object_id: String,
    pub(super) tenant_id: String,
    pub(super) start: String,
    pub(super) expiry: String,
    pub(super) service: String,
    pub(super) version: String,
    pub(super) value: Value,
    pub(super) starts_on: OffsetDateTime,
    pub(super) expires_on: OffsetDateTime,
}

/// The secret of a key.
#[derive(Clone)]
pub(super) struct Value(hmac::Key);

impl Value {
    fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    pub(super) fn key(&self) -> &hmac::Key {
        &self.0
    }
}

impl DelegationKeys {
    pub(super) fn new(endpoint: &Url, http: Http) -> Self {
        Self { http, endpoint: endpoint.clone(), current: Renewed::default(), last: Arc::default() }
    }

    /// The current key, or the last one if it is valid until the given time and no other one can be fetched.
    ///
    /// # Errors
    /// There is no such key: the app has no token, lacks the role, or storage cannot be reached.
    pub(super) async fn get(&self, until: OffsetDateTime) -> Result<Arc<DelegationKey>, Error> {
        let fetch = || {
            let (http, endpoint) = (self.http.clone(), self.endpoint.clone());
            async move { fetch(&http, &endpoint).await }
        };
        match self.current.get(fetch).await {
            Ok(key) => {
                *locked(&self.last) = Some(Arc::clone(&key));
                Ok(key)
            }
            Err(error) => locked(&self.last).clone().filter(|key| until <= key.expires_on).ok_or(error),
        }
    }
}

async fn fetch(http: &Http, endpoint: &Url) -> Result<Fetched<Arc<DelegationKey>>, Error> {
    let may_pass = |error: &Error| matches!(error, Error::Unreachable | Error::Answered { status: 500.., .. });
    let key = repeated(FIRST_PAUSE, || ask(http, endpoint), may_pass).await?;
    Ok(Fetched { value: Arc::new(key), renew_in: RENEWED_AFTER, expires_in: USED_FOR })
}

async fn ask(http: &Http, endpoint: &Url) -> Result<DelegationKey, Error> {
    let now = http.now()?;
    let starts_on = now - CLOCK_SKEW;
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?><KeyInfo><Start>{}</Start><Expiry>{}</Expiry></KeyInfo>",
        timestamp(starts_on),
        timestamp(starts_on + LIFE)
    );
    let mut url = endpoint.clone();
    url.set_path(&format!("{}/", endpoint.path().trim_end_matches('/')));
    url.set_query(Some("restype=service&comp=userdelegationkey"));
    // The token first: the fetch of one must not hold a permit.
    let authorization = http.bearer().await?;
    let _permit = http.permit(Purpose::Caller).await?;
    let request = http
        .client()
        .post(url)
        .timeout(TIMEOUT)
        .header("x-ms-version", VERSION)
        .header(header::CONTENT_TYPE, "application/xml")
        .header(header::AUTHORIZATION, authorization)
        .body(body);
    let response = request.send().await.map_err(|_| Error::Unreachable)?;
    if !response.status().is_success() {
        return Err(Error::of_answer(&response));
    }
    let answer = response.text().await.map_err(|_| Error::Unreachable)?;
    parse(&answer).ok_or(Error::Malformed)
}

fn parse(answer: &str) -> Option<DelegationKey> {
    // Each element occurs once, without attributes, and its text needs no escaping.
    let element = |name: &str| {
        let (_, rest) = answer.split_once(&format!("<{name}>"))?;
        let (text, _) = rest.split_once(&format!("</{name}>"))?;
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-:.+/=".contains(&byte));
        (is_plain && !text.is_empty()).then(|| text.to_owned())
    };
    let (start, expiry) = (element("SignedStart")?, element("SignedExpiry")?);
    Some(DelegationKey {
        object_id: element("SignedOid")?,
        tenant_id: element("SignedTid")?,
        starts_on: OffsetDateTime::parse(&start, &Rfc3339).ok()?,
        expires_on: OffsetDateTime::parse(&expiry, &Rfc3339).ok()?,
        start,
        expiry,
        service: element("SignedService")?,
        version: element("SignedVersion")?,
        value: Value::new(&BASE64_STANDARD.decode(element("Value")?).ok()?),
    })
}

/// A time in UTC and whole seconds, such as `2026-11-21T10:24:00Z`.
pub(super) fn timestamp(at: OffsetDateTime) -> String {
    let at = at.to_offset(UtcOffset::UTC);
    format!("{}T{:02}:{:02}:{:02}Z", at.date(), at.hour(), at.minute(), at.second())
}

/// The secret is neither shown nor compared.
impl std::fmt::Debug for Value {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Value")
    }
}

impl PartialEq for Value {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

#[cfg(test)]
pub(super) mod tests {
    use time::macros::datetime;

    use super::*;

    /// A key with the secret `secret`.
    pub(in super::super) fn example() -> DelegationKey {
        let answer = "<?xml version=\"1.0\" encoding=\"utf-8\"?><UserDelegationKey>\
            <SignedOid>a1b2c3d4-0000-4000-8000-000000000001</SignedOid>\
            <SignedTid>a1b2c3d4-0000-4000-8000-000000000002</SignedTid>\
            <SignedStart>2026-11-21T10:00:00Z</SignedStart><SignedExpiry>2026-11-28T10:00:00Z</SignedExpiry>\
            <SignedService>b</SignedService><SignedVersion>2022-11-02</SignedVersion>\
            <Value>c2VjcmV0</Value></UserDelegationKey>";
        parse(answer).expect("a key")
    }

    #[tokio::test]
    async fn a_key_that_cannot_be_renewed_signs_what_it_outlives() {
        let endpoint = "http://127.0.0.1:1/account".parse().expect("a URL");
        let keys = DelegationKeys::new(&endpoint, Http::new(reqwest::Client::new()));
        let end = datetime!(2026-11-28 10:00 UTC);
        assert!(keys.get(end).await.is_err());
        *locked(&keys.last) = Some(Arc::new(example()));
        assert_eq!(*keys.get(end).await.expect("the last key"), example());
        assert!(keys.get(end + Duration::from_secs(1)).await.is_err());
    }

    #[test]
    fn a_key_is_read_with_its_times_and_its_texts_and_a_broken_answer_is_none() {
        let key = example();
        assert_eq!((key.starts_on, key.expires_on), (datetime!(2026-11-21 10:00 UTC), datetime!(2026-11-28 10:00 UTC)));
        assert_eq!((&*key.start, &*key.service, &*key.version), ("2026-11-21T10:00:00Z", "b", "2022-11-02"));
        let printed = format!("{key:?}");
        assert!(!printed.contains("secret") && !printed.contains("c2VjcmV0"), "{printed}");
        for broken in ["", "<UserDelegationKey/>", "<SignedOid></SignedOid>", "<SignedOid>a b</SignedOid>"] {
            assert!(parse(broken).is_none());
        }
    }
}
