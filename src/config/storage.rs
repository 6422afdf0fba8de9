//! The settings of the storage account: `accountName` and `accountKey`, a connection string, or the app's identity.

use std::collections::HashMap;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::Url;
use ring::hmac;
use secrecy::{ExposeSecret as _, SecretString};

use super::{Error, Vars, service_url};

/// How requests to a storage account are authorized.
#[derive(Debug, Clone)]
pub enum Access {
    /// `accountKey`, or `AccountKey` of `AzureWebJobsStorage`: with the account's key; valid base64.
    Key(SecretString),
    /// With tokens of the app's managed identity.
    Identity,
}

impl Access {
    /// The account's key, which signs requests and tokens; `None` for the identity.
    pub(crate) fn key(&self) -> Option<hmac::Key> {
        match self {
            Self::Key(key) => {
                // The settings have been checked.
                let key = BASE64_STANDARD.decode(key.expose_secret()).unwrap_or_default();
                Some(hmac::Key::new(hmac::HMAC_SHA256, &key))
            }
            Self::Identity => None,
        }
    }
}

/// The storage account and container of the images.
#[derive(Debug, Clone)]
pub struct StorageConfig {
    /// `accountName`, or `AccountName` of `AzureWebJobsStorage`, or the account in `AzureWebJobsStorage__…`.
    pub account: String,
    /// How requests are authorized.
    pub access: Access,
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
    /// How requests are authorized.
    pub access: Access,
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
    /// `DIGEST_KEY`, in base64 like the account key that it was.
    pub(super) fn digest_key(vars: &Vars) -> Result<Option<SecretString>, Error> {
        vars.get("DIGEST_KEY")?.map(|key| account_key("DIGEST_KEY", key)).transpose()
    }

    /// The name of the container of the thumbnails.
    pub fn thumbnail_container(&self) -> String {
        format!("{}{THUMBNAILS}", self.container)
    }

    pub(super) fn from_vars(vars: &Vars, host: Option<&HostStorage>, has_identity: bool) -> Result<Self, Error> {
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
            (Some(name), Some(key), _) => {
                Self::from_account(&name, Access::Key(account_key("accountKey", key)?), container)
            }
            (Some(name), None, _) if has_identity => Self::from_account(&name, Access::Identity, container),
            (Some(_), None, _) => Err(Error::Missing {
                name: "accountKey",
                hint: "set it to the account's key, because accountName is set, or give the app a managed identity",
            }),
            (None, Some(_), _) => Err(Error::Missing {
                name: "accountName",
                hint: "set it to the account's name, because accountKey is set",
            }),
            (None, None, Some(text)) => Self::from_connection_string(&text, container),
            (None, None, None) => match host {
                Some(host) => {
                    let ServiceConfig { account, access, endpoint } = host.blob()?;
                    Ok(Self { account, access, blob_endpoint: endpoint, container })
                }
                None => Err(Error::Missing {
                    name: CONNECTION_STRING,
                    hint: "set it to the storage account's connection string, or set accountName and accountKey, or \
                           set AzureWebJobsStorage__accountName and give the app a managed identity",
                }),
            },
        }
    }

    fn from_account(name: &str, access: Access, container: String) -> Result<Self, Error> {
        let account = account_name("accountName", name)?;
        Ok(Self {
            access,
            blob_endpoint: service_url("accountName", &format!("https://{account}.blob.core.windows.net"))?,
            account,
            container,
        })
    }

    fn from_connection_string(text: &str, container: String) -> Result<Self, Error> {
        let parsed = ConnectionString::parse(text)?;
        let blob_endpoint = parsed.endpoint("blob")?;
        Ok(Self { blob_endpoint, account: parsed.account, access: Access::Key(parsed.key), container })
    }
}

impl ServiceConfig {
    /// The Queue service of the account in `AzureWebJobsStorage` or `AzureWebJobsStorage__…`, whose queues trigger
    /// functions. `None` if neither leads to one: an app with `accountName` works without, but has no jobs.
    pub(super) fn queue(vars: &Vars, host: Option<&HostStorage>) -> Result<Option<Self>, Error> {
        if let Some(config) = Self::of_connection_string(vars, "queue")? {
            return Ok(Some(config));
        }
        host.map_or(Ok(None), HostStorage::queue)
    }

    /// The Table service of the account in `AzureWebJobsStorage` or `AzureWebJobsStorage__…`, or else of the images'
    /// account. That order matters, because a blob-only storage account has no Table service.
    pub(super) fn table(vars: &Vars, host: Option<&HostStorage>, storage: &StorageConfig) -> Result<Self, Error> {
        if let Some(config) = Self::of_connection_string(vars, "table")? {
            return Ok(config);
        }
        if let Some(host) = host {
            return host.table();
        }
        let account = &storage.account;
        let endpoint = service_url("accountName", &format!("https://{account}.table.core.windows.net"))?;
        Ok(Self { account: account.clone(), access: storage.access.clone(), endpoint })
    }

    /// The setting that is ignored because both a connection string and an identity open the host's account.
    pub(super) fn ignored(vars: &Vars, host: Option<&HostStorage>) -> Result<Option<&'static str>, Error> {
        let has_key = Self::of_connection_string(vars, "table")?.is_some();
        Ok(host.filter(|_| has_key).map(HostStorage::name))
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
        Ok(Some(Self { account: parsed.account, access: Access::Key(parsed.key), endpoint }))
    }
}

/// The storage account of the Functions host, opened with the app's identity: the settings `AzureWebJobsStorage__…`
/// (<https://learn.microsoft.com/azure/azure-functions/functions-reference#connecting-to-host-storage-with-an-identity>).
pub(crate) struct HostStorage {
    account: Option<String>,
    blob: Option<Url>,
    queue: Option<Url>,
    table: Option<Url>,
}

/// The setting with the account's name.
const ACCOUNT_NAME: &str = "AzureWebJobsStorage__accountName";
const BLOB: &str = "AzureWebJobsStorage__blobServiceUri";
const QUEUE: &str = "AzureWebJobsStorage__queueServiceUri";
const TABLE: &str = "AzureWebJobsStorage__tableServiceUri";

impl HostStorage {
    /// `None` if no such setting names an account or a service.
    pub(super) fn from_vars(vars: &Vars) -> Result<Option<Self>, Error> {
        let uri = |name: &'static str| {
            let uri = vars.get(name)?;
            uri.map(|uri| service_url(name, uri.trim_end_matches('/'))).transpose()
        };
        let account = vars.get(ACCOUNT_NAME)?.map(|name| account_name(ACCOUNT_NAME, &name)).transpose()?;
        let (blob, queue, table) = (uri(BLOB)?, uri(QUEUE)?, uri(TABLE)?);
        let credential = vars.get("AzureWebJobsStorage__credential")?;
        if credential.is_some_and(|credential| !credential.eq_ignore_ascii_case("managedidentity")) {
            return Err(Error::Malformed {
                name: "AzureWebJobsStorage__credential",
                expected: "managedidentity, or nothing",
            });
        }
        let is_set = account.is_some() || blob.is_some() || queue.is_some() || table.is_some();
        Ok(is_set.then_some(Self { account, blob, queue, table }))
    }

    fn blob(&self) -> Result<ServiceConfig, Error> {
        let found = self.service("blob", BLOB, self.blob.as_ref())?;
        found.ok_or(Error::Missing {
            name: ACCOUNT_NAME,
            hint: "set it, or AzureWebJobsStorage__blobServiceUri, beside the other AzureWebJobsStorage__… settings",
        })
    }

    /// The first of the settings that is set.
    fn name(&self) -> &'static str {
        match self {
            Self { account: Some(_), .. } => ACCOUNT_NAME,
            Self { blob: Some(_), .. } => BLOB,
            Self { queue: Some(_), .. } => QUEUE,
            Self { .. } => TABLE,
        }
    }

    /// The Queue service; `None` if no setting leads to it.
    fn queue(&self) -> Result<Option<ServiceConfig>, Error> {
        self.service("queue", QUEUE, self.queue.as_ref())
    }

    fn table(&self) -> Result<ServiceConfig, Error> {
        let found = self.service("table", TABLE, self.table.as_ref())?;
        found.ok_or(Error::Missing {
            name: TABLE,
            hint: "set it, or AzureWebJobsStorage__accountName: the app keeps its state in a table",
        })
    }

    /// A service at its own URI; else at the account's default one; else beside another service of the account.
    fn service(&self, service: &str, name: &'static str, uri: Option<&Url>) -> Result<Option<ServiceConfig>, Error> {
        let beside = || {
            let known = [("blob", &self.blob), ("queue", &self.queue), ("table", &self.table)];
            known.into_iter().find_map(|(other, uri)| {
                let mut uri = uri.clone()?;
                let (account, suffix) = uri.host_str()?.split_once(&format!(".{other}."))?;
                let host = format!("{account}.{service}.{suffix}");
                uri.set_host(Some(&host)).ok()?;
                Some(uri)
            })
        };
        let default = || {
            let account = self.account.as_ref()?;
            Url::parse(&format!("https://{account}.{service}.core.windows.net")).ok()
        };
        let Some(endpoint) = uri.cloned().or_else(default).or_else(beside) else { return Ok(None) };
        let account = match &self.account {
            Some(account) => account.clone(),
            None => account_name(name, &account_of(&endpoint))?,
        };
        Ok(Some(ServiceConfig { account, access: Access::Identity, endpoint }))
    }
}

/// The account in a service's URL: the first label of the host; after an address, as with Azurite, the first segment of
/// the path.
fn account_of(endpoint: &Url) -> String {
    let name = match endpoint.host() {
        Some(url::Host::Domain(host)) if host != "localhost" => host.split('.').next(),
        _ => endpoint.path_segments().and_then(|mut segments| segments.next()),
    };
    name.unwrap_or_default().to_owned()
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
