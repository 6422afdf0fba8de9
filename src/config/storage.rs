//! The storage account: from `accountName` and `accountKey`, or from a connection string.

use std::collections::HashMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::Url;
use secrecy::SecretString;

use super::{Error, Vars, service_url};

/// The account that pictures are kept in.
#[derive(Debug, Clone)]
pub struct StorageConfig {
    /// `accountName`, or `AccountName` of `AzureWebJobsStorage`.
    pub account: String,
    /// `accountKey`, or `AccountKey` of `AzureWebJobsStorage`; checked to be base64.
    pub key: SecretString,
    /// The account's blob endpoint, without a trailing slash.
    pub blob_endpoint: Url,
    /// The account's table endpoint, likewise.
    pub table_endpoint: Url,
    /// `IMAGE_CONTAINER` (`images`): created, private, when it is missing.
    pub container: String,
}

/// The setting that holds the connection string; the Functions host itself uses it too.
const CONNECTION_STRING: &str = "AzureWebJobsStorage";

/// Azurite's account, the same everywhere
/// (<https://learn.microsoft.com/azure/storage/common/storage-connect-azurite>).
const DEVELOPMENT_STORAGE: &str = "AccountName=devstoreaccount1;\
    AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;\
    BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;\
    QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;\
    TableEndpoint=http://127.0.0.1:10002/devstoreaccount1";

impl StorageConfig {
    pub(super) fn from_vars(vars: &Vars) -> Result<Self, Error> {
        let container = vars.get("IMAGE_CONTAINER")?.unwrap_or_else(|| "images".to_owned());
        if !is_container_name(&container) {
            return Err(Error::Malformed {
                name: "IMAGE_CONTAINER",
                expected: "3 to 63 lowercase letters, digits and single hyphens, as Azure wants container names",
            });
        }
        let connection_string = vars.get(CONNECTION_STRING)?;
        match (vars.get("accountName")?, vars.get("accountKey")?, connection_string) {
            (Some(name), Some(key), _) => Self::from_account(&name, key, container),
            (Some(_), None, _) => {
                Err(Error::Missing { name: "accountKey", hint: "accountName is set, so its key must be, too" })
            }
            (None, Some(_), _) => {
                Err(Error::Missing { name: "accountName", hint: "accountKey is set, so its account must be, too" })
            }
            (None, None, Some(text)) => Self::from_connection_string(&text, container),
            (None, None, None) => Err(Error::Missing {
                name: CONNECTION_STRING,
                hint: "set it to the storage account's connection string, or set accountName and accountKey",
            }),
        }
    }

    fn from_account(name: &str, key: String, container: String) -> Result<Self, Error> {
        let account = account_name("accountName", name)?;
        Ok(Self {
            key: account_key("accountKey", key)?,
            blob_endpoint: service_url("accountName", &format!("https://{account}.blob.core.windows.net"))?,
            table_endpoint: service_url("accountName", &format!("https://{account}.table.core.windows.net"))?,
            account,
            container,
        })
    }

    /// See <https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string>.
    fn from_connection_string(text: &str, container: String) -> Result<Self, Error> {
        let malformed = |expected| Error::Malformed { name: CONNECTION_STRING, expected };
        let parts = connection_string_parts(text)
            .ok_or(malformed("a connection string: Name=value pairs with semicolons between them"))?;
        if parts.get("usedevelopmentstorage").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Self::from_connection_string(DEVELOPMENT_STORAGE, container);
        }
        let (Some(name), Some(key)) = (parts.get("accountname"), parts.get("accountkey")) else {
            return Err(malformed(
                "a connection string with AccountName and AccountKey (tokens are signed with the key)",
            ));
        };
        let account = account_name(CONNECTION_STRING, name)?;
        let endpoint = |explicit: &str, service: &str| match parts.get(explicit) {
            Some(endpoint) => service_url(CONNECTION_STRING, endpoint.trim_end_matches('/')),
            None => {
                let scheme = parts.get("defaultendpointsprotocol").map_or("https", String::as_str);
                let suffix = parts.get("endpointsuffix").map_or("core.windows.net", String::as_str);
                service_url(CONNECTION_STRING, &format!("{scheme}://{account}.{service}.{suffix}"))
            }
        };
        Ok(Self {
            key: account_key(CONNECTION_STRING, key.clone())?,
            blob_endpoint: endpoint("blobendpoint", "blob")?,
            table_endpoint: endpoint("tableendpoint", "table")?,
            account,
            container,
        })
    }
}

/// The pairs, names in lower case. `None` where a part has no `=`.
fn connection_string_parts(text: &str) -> Option<HashMap<String, String>> {
    text.split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (name, value) = part.split_once('=')?;
            Some((name.trim().to_ascii_lowercase(), value.trim().to_owned()))
        })
        .collect()
}

fn account_name(setting: &'static str, name: &str) -> Result<String, Error> {
    let valid =
        (3..=24).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    if valid {
        Ok(name.to_owned())
    } else {
        Err(Error::Malformed {
            name: setting,
            expected: "a storage account name of 3 to 24 lowercase letters and digits",
        })
    }
}

fn account_key(setting: &'static str, key: String) -> Result<SecretString, Error> {
    match BASE64_STANDARD.decode(&key) {
        Ok(bytes) if !bytes.is_empty() => Ok(key.into()),
        _ => Err(Error::Malformed { name: setting, expected: "the account key in base64, as the portal shows it" }),
    }
}

/// See <https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata>.
fn is_container_name(name: &str) -> bool {
    (3..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}
