//! Signs container tokens, that is service shared access signatures (SAS)
//! (<https://learn.microsoft.com/rest/api/storageservices/create-service-sas>). The SDK cannot sign the response
//! headers of a download.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::hmac;
use secrecy::ExposeSecret as _;
use time::{OffsetDateTime, UtcOffset};
use url::form_urlencoded;

use crate::config::StorageConfig;

/// `sv`: the version of the fields that are signed, and of their order.
const VERSION: &str = "2022-11-02";

/// The permissions and the validity of a container token.
pub(crate) struct Grant<'a> {
    /// Letters out of `racwdl`, in this order, as in `sp=` of a SAS.
    pub(crate) permissions: &'a str,
    pub(crate) starts_on: OffsetDateTime,
    pub(crate) expires_on: OffsetDateTime,
}

/// Signs tokens for one container with the account's key.
#[derive(Debug, Clone)]
pub(super) struct Signer {
    key: hmac::Key,
    /// The canonicalized resource: `/blob/{account}/{container}`.
    resource: String,
    /// `spr`: the only protocol that a token is valid for; empty for any.
    protocol: &'static str,
}

impl Signer {
    pub(super) fn new(config: &StorageConfig, container: &str) -> Self {
        // `StorageConfig` has checked that the key is base64.
        let key = BASE64_STANDARD.decode(config.key.expose_secret()).unwrap_or_default();
        Self {
            key: hmac::Key::new(hmac::HMAC_SHA256, &key),
            resource: format!("/blob/{}/{container}", config.account),
            // Azurite uses plain http and rejects a token that is valid for https only.
            protocol: if config.blob_endpoint.scheme() == "https" { "https" } else { "" },
        }
    }

    /// A token as a query string that begins with `sv=`. If `disposition` is not empty, each answer to a request
    /// with the token has it as its `Content-Disposition`.
    pub(super) fn sign(&self, grant: &Grant<'_>, disposition: &str) -> String {
        let (starts_on, expires_on) = (timestamp(grant.starts_on), timestamp(grant.expires_on));
        let signed = [
            grant.permissions,
            &starts_on,
            &expires_on,
            &self.resource,
            "", // the identifier of a stored access policy
            "", // IP addresses
            self.protocol,
            VERSION,
            "c", // the resource is a container
            "",  // a snapshot's time
            "",  // the encryption scope
            "",  // Cache-Control
            disposition,
            "", // Content-Encoding
            "", // Content-Language
            "", // Content-Type
        ];
        let signature = hmac::sign(&self.key, signed.join("\n").as_bytes());
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("sv", VERSION).append_pair("sp", grant.permissions).append_pair("sr", "c");
        query.append_pair("se", &expires_on).append_pair("st", &starts_on);
        for (name, value) in [("spr", self.protocol), ("rscd", disposition)] {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        query.append_pair("sig", &BASE64_STANDARD.encode(signature.as_ref())).finish()
    }
}

/// A time in UTC and whole seconds, such as `2026-11-21T10:24:00Z`.
fn timestamp(at: OffsetDateTime) -> String {
    let at = at.to_offset(UtcOffset::UTC);
    format!("{}T{:02}:{:02}:{:02}Z", at.date(), at.hour(), at.minute(), at.second())
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    fn signer(endpoint: &str) -> Signer {
        let config = StorageConfig {
            account: "visionarytest".to_owned(),
            key: "c2VjcmV0".to_owned().into(),
            blob_endpoint: endpoint.parse().expect("a URL"),
            container: "images".to_owned(),
        };
        Signer::new(&config, "images")
    }

    /// The expected signatures are those of Python's `hmac` over the fields as Azure documents them.
    #[test]
    fn a_token_has_the_documented_fields_in_the_order_that_front_ends_know() {
        let grant = Grant {
            permissions: "rcw",
            starts_on: datetime!(2026-11-21 10:19:00.9 UTC),
            expires_on: datetime!(2026-11-21 11:54:05 +1),
        };
        let fields = "sv=2022-11-02&sp=rcw&sr=c&se=2026-11-21T10%3A54%3A05Z&st=2026-11-21T10%3A19%3A00Z";
        let (http, https) = ("http://127.0.0.1:10000/visionarytest", "https://visionarytest.blob.core.windows.net");
        for (endpoint, disposition, rest) in [
            (http, "", "&sig=1cKDnVE3J%2FtwcTssFkkEKy%2FkvKnhs3Y7aIDMbE50gwo%3D"),
            (https, "", "&spr=https&sig=5Y9CP%2B1Tz0HpbOdJ6fPBeTVqTeTfIRA8l0%2F6kcYYBqY%3D"),
            (https, "attachment", "&spr=https&rscd=attachment&sig=SFA52V9dt%2Byt56N5KknFAPvpNB7u3iQiK6yj%2FSncOgs%3D"),
        ] {
            assert_eq!(signer(endpoint).sign(&grant, disposition), format!("{fields}{rest}"));
        }
    }
}
