//! Signs container tokens, that is service shared access signatures (SAS)
//! (<https://learn.microsoft.com/rest/api/storageservices/create-service-sas>), or user delegation SAS without an account
//! key (<https://learn.microsoft.com/rest/api/storageservices/create-user-delegation-sas>). The SDK cannot sign the
//! response headers of a download, and its user delegation tokens do not begin with `sv=`, where front ends split links.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::hmac;
use time::OffsetDateTime;
use url::form_urlencoded;

use super::delegation::{DelegationKey, DelegationKeys, timestamp};
use super::error::Error;
use super::http::Http;
use crate::config::StorageConfig;

/// `sv`: the version of the fields that are signed, and of their order.
const VERSION: &str = "2022-11-02";

/// The permissions and the validity of a container token.
pub(crate) struct Grant<'a> {
    /// Letters out of `racwdl`, in this order, as in `sp=` of a SAS.
    pub(crate) permissions: &'a str,
    pub(crate) starts_on: OffsetDateTime,
    pub(crate) expires_on: OffsetDateTime,
    /// If it is not empty, each answer to a request with the token has it as its `Content-Disposition`.
    pub(crate) disposition: &'static str,
}

/// Signs tokens for one container.
#[derive(Debug, Clone)]
pub(super) struct Signer {
    key: Key,
    /// The canonicalized resource: `/blob/{account}/{container}`.
    resource: String,
    /// `spr`: the only protocol that a token is valid for; empty for any.
    protocol: &'static str,
}

#[derive(Debug, Clone)]
enum Key {
    Account(hmac::Key),
    Delegated(DelegationKeys),
}

impl Signer {
    pub(super) fn new(config: &StorageConfig, container: &str, http: Http) -> Self {
        let key = match config.access.key() {
            Some(key) => Key::Account(key),
            None => Key::Delegated(DelegationKeys::new(&config.blob_endpoint, http)),
        };
        Self {
            key,
            resource: format!("/blob/{}/{container}", config.account),
            // Azurite uses plain http and rejects a token that is valid for https only.
            protocol: if config.blob_endpoint.scheme() == "https" { "https" } else { "" },
        }
    }

    /// Signs tokens for another container of the account with the same key.
    pub(super) fn beside(&self, config: &StorageConfig, container: &str) -> Self {
        Self { resource: format!("/blob/{}/{container}", config.account), ..self.clone() }
    }

    pub(super) fn is_of_identity(&self) -> bool {
        matches!(self.key, Key::Delegated(_))
    }

    /// The identity that signs; `None` for the account's key.
    pub(super) async fn signed_by(&self) -> Result<Option<String>, Error> {
        match &self.key {
            Key::Account(_) => Ok(None),
            // All keys are of the same identity, so an expired one will do.
            Key::Delegated(keys) => Ok(Some(keys.get(OffsetDateTime::UNIX_EPOCH).await?.object_id.clone())),
        }
    }

    /// A token as a query string that begins with `sv=`.
    pub(super) async fn sign(&self, grant: &Grant<'_>) -> Result<String, Error> {
        match &self.key {
            Key::Account(key) => Ok(self.sign_with_account(key, grant)),
            Key::Delegated(keys) => Ok(self.sign_with_identity(&*keys.get(grant.expires_on).await?, grant)),
        }
    }

    fn sign_with_account(&self, key: &hmac::Key, grant: &Grant<'_>) -> String {
        let (starts_on, expires_on) = (timestamp(grant.starts_on), timestamp(grant.expires_on));
        let own = [
            grant.permissions,
            &starts_on,
            &expires_on,
            &self.resource,
            "", // the identifier of a stored access policy
        ];
        let signature = self.signature(key, &own, grant);
        query(&[
            ("sv", VERSION),
            ("sp", grant.permissions),
            ("sr", "c"),
            ("se", &expires_on),
            ("st", &starts_on),
            ("spr", self.protocol),
            ("rscd", grant.disposition),
            ("sig", &signature),
        ])
    }

    /// The token is valid only while the key is.
    fn sign_with_identity(&self, key: &DelegationKey, grant: &Grant<'_>) -> String {
        let starts_on = timestamp(grant.starts_on.max(key.starts_on));
        let expires_on = timestamp(grant.expires_on.min(key.expires_on));
        let own = [
            grant.permissions,
            &starts_on,
            &expires_on,
            &self.resource,
            &key.object_id,
            &key.tenant_id,
            &key.start,
            &key.expiry,
            &key.service,
            &key.version,
            "", // the object id of an authorized user
            "", // the object id of an unauthorized user
            "", // a correlation id
        ];
        let signature = self.signature(key.value.key(), &own, grant);
        query(&[
            ("sv", VERSION),
            ("spr", self.protocol),
            ("st", &starts_on),
            ("se", &expires_on),
            ("skoid", &key.object_id),
            ("sktid", &key.tenant_id),
            ("skt", &key.start),
            ("ske", &key.expiry),
            ("sks", &key.service),
            ("skv", &key.version),
            ("sr", "c"),
            ("sp", grant.permissions),
            ("rscd", grant.disposition),
            ("sig", &signature),
        ])
    }

    /// The signature of the fields that a kind of token begins with, and of those that all kinds end with.
    fn signature(&self, key: &hmac::Key, own: &[&str], grant: &Grant<'_>) -> String {
        let common = [
            "", // IP addresses
            self.protocol,
            VERSION,
            "c", // the resource is a container
            "",  // a snapshot's time
            "",  // the encryption scope
            "",  // Cache-Control
            grant.disposition,
            "", // Content-Encoding
            "", // Content-Language
            "", // Content-Type
        ];
        let signed = [own, &common].concat().join("\n");
        BASE64_STANDARD.encode(hmac::sign(key, signed.as_bytes()).as_ref())
    }
}

/// A query string of the parameters that have a value.
fn query(parameters: &[(&str, &str)]) -> String {
    let given = parameters.iter().filter(|(_, value)| !value.is_empty());
    form_urlencoded::Serializer::new(String::new()).extend_pairs(given).finish()
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::super::delegation::tests::example;
    use super::*;
    use crate::config::Access;

    const HTTP: &str = "http://127.0.0.1:10000/visionarytest";
    const HTTPS: &str = "https://visionarytest.blob.core.windows.net";

    fn signer(endpoint: &str, access: Access) -> Signer {
        let config = StorageConfig {
            account: "visionarytest".to_owned(),
            access,
            blob_endpoint: endpoint.parse().expect("a URL"),
            container: "images".to_owned(),
        };
        Signer::new(&config, "images", Http::new(reqwest::Client::new()))
    }

    fn grant(disposition: &'static str) -> Grant<'static> {
        Grant {
            permissions: "rcw",
            starts_on: datetime!(2026-11-21 10:19:00.9 UTC),
            expires_on: datetime!(2026-11-21 11:54:05 +1),
            disposition,
        }
    }

    /// The expected signatures are those of Python's `hmac` over the fields as Azure documents them.
    #[tokio::test]
    async fn a_token_has_the_documented_fields_in_the_order_that_front_ends_know() {
        let fields = "sv=2022-11-02&sp=rcw&sr=c&se=2026-11-21T10%3A54%3A05Z&st=2026-11-21T10%3A19%3A00Z";
        for (endpoint, disposition, rest) in [
            (HTTP, "", "&sig=1cKDnVE3J%2FtwcTssFkkEKy%2FkvKnhs3Y7aIDMbE50gwo%3D"),
            (HTTPS, "", "&spr=https&sig=5Y9CP%2B1Tz0HpbOdJ6fPBeTVqTeTfIRA8l0%2F6kcYYBqY%3D"),
            (HTTPS, "attachment", "&spr=https&rscd=attachment&sig=SFA52V9dt%2Byt56N5KknFAPvpNB7u3iQiK6yj%2FSncOgs%3D"),
        ] {
            let signer = signer(endpoint, Access::Key("c2VjcmV0".to_owned().into()));
            let token = signer.sign(&grant(disposition)).await.expect("a token");
            assert_eq!(token, format!("{fields}{rest}"));
        }
    }

    /// The expected signatures are those of Azure's JavaScript SDK (`generateBlobSASQueryParameters` with a user delegation
    /// key and the version 2022-11-02).
    #[test]
    fn a_token_of_the_identity_begins_with_its_version_and_has_the_signature_of_the_sdk() {
        let fields = "st=2026-11-21T10%3A19%3A00Z&se=2026-11-21T10%3A54%3A05Z\
            &skoid=a1b2c3d4-0000-4000-8000-000000000001&sktid=a1b2c3d4-0000-4000-8000-000000000002\
            &skt=2026-11-21T10%3A00%3A00Z&ske=2026-11-28T10%3A00%3A00Z&sks=b&skv=2022-11-02&sr=c&sp=rcw";
        for (endpoint, disposition, first, rest) in [
            (HTTP, "", "sv=2022-11-02", "&sig=iyXAo7zF0FwEfFfA%2Bv%2F2ouIV0%2B1LWbFKuMbdudgESeM%3D"),
            (HTTPS, "", "sv=2022-11-02&spr=https", "&sig=cQCrjB6h3wzZXxMXCQ2Lv5ptScg6gDN1iLhlg3xRF04%3D"),
            (
                HTTPS,
                "attachment",
                "sv=2022-11-02&spr=https",
                "&rscd=attachment&sig=VVtTFHQRjahPsKvPR6b4wmPZEhx2Y0ORDXiroqqPKYg%3D",
            ),
        ] {
            let token = signer(endpoint, Access::Identity).sign_with_identity(&example(), &grant(disposition));
            assert_eq!(token, format!("{first}&{fields}{rest}"));
        }
    }

    #[test]
    fn a_token_of_the_identity_is_not_valid_for_longer_than_the_key_that_signs_it() {
        let long = Grant {
            starts_on: datetime!(2026-11-14 10:00 UTC),
            expires_on: datetime!(2026-12-14 10:00 UTC),
            ..grant("")
        };
        let token = signer(HTTPS, Access::Identity).sign_with_identity(&example(), &long);
        assert!(token.contains("&st=2026-11-21T10%3A00%3A00Z&se=2026-11-28T10%3A00%3A00Z&"), "{token}");
    }
}
