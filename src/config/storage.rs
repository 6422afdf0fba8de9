//! The settings of the storage account: `accountName` and `accountKey`, or a connection string.

use std::collections::HashMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::Url;
use secrecy::SecretString;

use super::{Error, Vars, service_url};

/// The storage account and container of the images.
#[derive(Debug, Clone)]
pub struct StorageConfig {
    /// `accountName`, or `AccountName` of `AzureWebJobsStorage`.
    pub account: String,
    /// `accountKey`, or `AccountKey` of `AzureWebJobsStorage`; valid base64.
    pub key: SecretString,
    /// The account's blob endpoint, without a trailing slash.
    pub blob_endpoint: Url,
    /// `IMAGE_CONTAINER` (`images`): the container. The app creates it, private, when it is missing.
    pub container: String,
}

/// What follows the name of the images' container in the name of the thumbnails' container.
const THUMBNAILS: &str = "-thumbnails";

/// The Queue or Table service of a storage account.
#[derive(Debug, Clone)]
pub struct ServiceConfig {
    /// The account's name.
    pub account: String,
    /// The account's key; valid base64.
    pub key: SecretString,
    /// The service's endpoint, without a trailing slash.
    pub endpoint: Url,
}

/// The setting with the connection string. The Functions host uses it, too.
const CONNECTION_STRING: &str = "AzureWebJobsStorage";

/// The well-known account of Azurite, the storage emulator
/// (<https://learn.microsoft.com/azure/storage/common/storage-connect-azurite>).
const DEVELOPMENT_STORAGE: &str = "AccountName=devstoreaccount1;\
    AccountKey=Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==;\
    BlobEndpoint=http://127.0.0.1:10000/devstoreaccount1;\
    QueueEndpoint=http://127.0.0.1:10001/devstoreaccount1;\
    TableEndpoint=http://127.0.0.1:10002/devstoreaccount1";

impl StorageConfig {
    /// The name of the container of the thumbnails.
    pub fn thumbnail_container(&self) -> String {
        format!("{}{THUMBNAILS}", self.container)
    }

    pub(super) fn from_vars(vars: &Vars) -> Result<Self, Error> {
        let container = vars.get("IMAGE_CONTAINER")?.unwrap_or_else(|| "images".to_owned());
        // Azure allows 63 characters, of which the thumbnails' container needs 11 for itself.
        if !is_container_name(&container) || !is_container_name(&format!("{container}{THUMBNAILS}")) {
            return Err(Error::Malformed {
                name: "IMAGE_CONTAINER",
                expected: "a container name of 3 to 52 lowercase letters, digits and single hyphens",
            });
        }
        let connection_string = vars.get(CONNECTION_STRING)?;
        match (vars.get("accountName")?, vars.get("accountKey")?, connection_string) {
            (Some(name), Some(key), _) => Self::from_account(&name, key, container),
            (Some(_), None, _) => Err(Error::Missing {
                name: "accountKey",
                hint: "set it to the account's key, because accountName is set",
            }),
            (None, Some(_), _) => Err(Error::Missing {
                name: "accountName",
                hint: "set it to the account's name, because accountKey is set",
            }),
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
            account,
            container,
        })
    }

    fn from_connection_string(text: &str, container: String) -> Result<Self, Error> {
        let parsed = ConnectionString::parse(text)?;
        Ok(Self { blob_endpoint: parsed.endpoint("blob")?, account: parsed.account, key: parsed.key, container })
    }
}

impl ServiceConfig {
    /// The Queue service of the account in `AzureWebJobsStorage`, whose queues trigger functions.
    /// `None` if that setting is not a connection string with an account key: an app with
    /// `accountName` and `accountKey` works without one, but has no jobs.
    pub(super) fn queue(vars: &Vars) -> Result<Option<Self>, Error> {
        Self::of_connection_string(vars, "queue")
    }

    /// The Table service of the account in `AzureWebJobsStorage`, or else of the images' account. That
    /// order matters, because a blob-only storage account has no Table service.
    pub(super) fn table(vars: &Vars, storage: &StorageConfig) -> Result<Self, Error> {
        if let Some(config) = Self::of_connection_string(vars, "table")? {
            return Ok(config);
        }
        let account = &storage.account;
        let endpoint = service_url("accountName", &format!("https://{account}.table.core.windows.net"))?;
        Ok(Self { account: account.clone(), key: storage.key.clone(), endpoint })
    }

    fn of_connection_string(vars: &Vars, service: &str) -> Result<Option<Self>, Error> {
        let Some(text) = vars.get(CONNECTION_STRING)? else { return Ok(None) };
        let Ok(parsed) = ConnectionString::parse(&text) else { return Ok(None) };
        let endpoint = match parsed.endpoint(service) {
            Ok(endpoint) => endpoint,
            Err(error) if parsed.parts.contains_key(&format!("{service}endpoint")) => return Err(error),
            // There is no explicit endpoint, and the default one is not usable: it is not https.
            Err(_) => return Ok(None),
        };
        Ok(Some(Self { account: parsed.account, key: parsed.key, endpoint }))
    }
}

/// A connection string
/// (<https://learn.microsoft.com/azure/storage/common/storage-configure-connection-string>).
struct ConnectionString {
    account: String,
    key: SecretString,
    parts: HashMap<String, String>,
}

impl ConnectionString {
    fn parse(text: &str) -> Result<Self, Error> {
        let malformed = |expected| Error::Malformed { name: CONNECTION_STRING, expected };
        let parts = connection_string_parts(text)
            .ok_or(malformed("a connection string: Name=value pairs with semicolons between them"))?;
        if parts.get("usedevelopmentstorage").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
            return Self::parse(DEVELOPMENT_STORAGE);
        }
        let (Some(name), Some(key)) = (parts.get("accountname"), parts.get("accountkey")) else {
            return Err(malformed(
                "a connection string with AccountName and AccountKey (tokens are signed with the key)",
            ));
        };
        let account = account_name(CONNECTION_STRING, name)?;
        let key = account_key(CONNECTION_STRING, key.clone())?;
        Ok(Self { account, key, parts })
    }

    /// A service's endpoint: the explicit one, or else Azure's default for the account.
    fn endpoint(&self, service: &str) -> Result<Url, Error> {
        let part = |name: &str| self.parts.get(name).map(String::as_str);
        if let Some(endpoint) = part(&format!("{service}endpoint")) {
            return service_url(CONNECTION_STRING, endpoint.trim_end_matches('/'));
        }
        let scheme = part("defaultendpointsprotocol").unwrap_or("https");
        let suffix = part("endpointsuffix").unwrap_or("core.windows.net");
        service_url(CONNECTION_STRING, &format!("{scheme}://{}.{service}.{suffix}", self.account))
    }
}

/// The pairs of a connection string, with names in lower case; `None` if a part has no `=`.
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

/// Whether a name follows Azure's rules
/// (<https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata>).
fn is_container_name(name: &str) -> bool {
    (3..=63).contains(&name.len())
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-')
        && !name.contains("--")
}
