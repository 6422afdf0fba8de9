//! The settings of the app's managed identity.

use reqwest::Url;
use secrecy::SecretString;

use super::{Error, Vars, header_value, is_loopback};

/// The endpoint from which the app gets tokens of its managed identity
/// (<https://learn.microsoft.com/azure/app-service/overview-managed-identity#rest-endpoint-reference>). The platform's
/// variables are read once, at the start. A change needs a restart.
#[derive(Debug, Clone)]
pub struct IdentityConfig {
    /// `IDENTITY_ENDPOINT`: set by the platform while the app has an identity.
    pub endpoint: Url,
    /// `IDENTITY_HEADER`: set by the platform; the endpoint refuses requests without it.
    pub header: SecretString,
    /// `AzureWebJobsStorage__clientId` (none): the client id of a user-assigned identity. Without it the tokens are
    /// those of the system-assigned identity.
    pub client_id: Option<String>,
}

/// The variables of the identity. They are parsed only for an app that uses its identity: the platform sets them for
/// every app that has one.
pub(crate) struct IdentityVars {
    endpoint: Option<String>,
    header: Option<String>,
    client_id: Option<String>,
}

impl IdentityVars {
    pub(super) fn read(vars: &Vars) -> Result<Self, Error> {
        Ok(Self {
            endpoint: vars.get("IDENTITY_ENDPOINT")?,
            header: vars.get("IDENTITY_HEADER")?,
            client_id: vars.get("AzureWebJobsStorage__clientId")?,
        })
    }

    /// Whether the app has an identity.
    pub(super) fn is_set(&self) -> bool {
        self.endpoint.is_some()
    }

    /// The identity of an app that uses it.
    pub(super) fn parse(self) -> Result<IdentityConfig, Error> {
        let missing = |name| Error::Missing {
            name,
            hint: "the platform sets it for an app with a managed identity: assign one to the app, or set a key instead",
        };
        let header = self.header.ok_or_else(|| missing("IDENTITY_HEADER"));
        Ok(IdentityConfig {
            endpoint: endpoint(&self.endpoint.ok_or_else(|| missing("IDENTITY_ENDPOINT"))?)?,
            header: header_value("IDENTITY_HEADER", header?)?.into(),
            client_id: self.client_id.map(|id| header_value("AzureWebJobsStorage__clientId", id)).transpose()?,
        })
    }
}

/// Parses `IDENTITY_ENDPOINT`. On Azure it is plain http at a link-local address such as 169.254.255.2, which is not
/// reached over a network.
fn endpoint(text: &str) -> Result<Url, Error> {
    let malformed = Error::Malformed {
        name: "IDENTITY_ENDPOINT",
        expected: "the URL that the platform sets (http only for this machine and for 169.254.0.0/16)",
    };
    let Ok(url) = Url::parse(text) else { return Err(malformed) };
    let is_link_local = matches!(url.host(), Some(url::Host::Ipv4(address)) if address.is_link_local());
    let is_allowed = match url.scheme() {
        "https" => url.has_host(),
        "http" => is_link_local || is_loopback(&url),
        _ => false,
    };
    if is_allowed && url.username().is_empty() && url.password().is_none() { Ok(url) } else { Err(malformed) }
}

#[cfg(test)]
mod tests {
    use super::super::{Access, Config};
    use super::*;

    /// The configuration of an app with an identity, with these changes.
    fn read(changes: &[(&str, &str)]) -> Result<Config, String> {
        let known = [
            ("OPENAI_API_KEY", "key"),
            ("IDENTITY_ENDPOINT", "http://169.254.255.2:8081/msi/token"),
            ("IDENTITY_HEADER", "h"),
        ];
        let lookup = |name: &str| {
            let changed = changes.iter().find(|(known, _)| *known == name);
            changed.or(known.iter().find(|(known, _)| *known == name)).map(|(_, value)| (*value).to_owned())
        };
        Config::from_vars(lookup).map_err(|error| error.to_string())
    }

    /// Settings and their values.
    type Changes<'a> = &'a [(&'a str, &'a str)];

    /// The access and the endpoint of blobs, tables and queues, and what is ignored.
    fn access(config: &Config) -> [String; 4] {
        let one = |access: &Access, endpoint: &Url| {
            let access = if matches!(access, Access::Key(_)) { "key" } else { "identity" };
            format!("{access} {endpoint}")
        };
        [
            format!("{} of {}", one(&config.storage.access, &config.storage.blob_endpoint), config.storage.account),
            one(&config.state.access, &config.state.endpoint),
            config.queue.as_ref().map_or("none".to_owned(), |queue| one(&queue.access, &queue.endpoint)),
            config.ignored.iter().map(|ignored| ignored.name).collect::<Vec<_>>().join(" "),
        ]
    }

    #[test]
    fn each_service_is_opened_with_a_key_where_there_is_one_and_else_with_the_identity() {
        const CONNECTION: (&str, &str) = ("AzureWebJobsStorage", "AccountName=host;AccountKey=c2VjcmV0");
        const HOST: (&str, &str) = ("AzureWebJobsStorage__accountName", "host");
        let (name, key) = (("accountName", "own"), ("accountKey", "c2VjcmV0"));
        let uris = [
            ("AzureWebJobsStorage__blobServiceUri", "http://127.0.0.1:1/devstoreaccount1"),
            ("AzureWebJobsStorage__queueServiceUri", "http://127.0.0.1:2/devstoreaccount1"),
            ("AzureWebJobsStorage__tableServiceUri", "http://127.0.0.1:3/devstoreaccount1/"),
        ];
        let blob = "https://host.blob.core.windows.net/ of host";
        let (table, queue) = ("https://host.table.core.windows.net/", "https://host.queue.core.windows.net/");
        let own = "https://own.blob.core.windows.net/ of own";
        let cases: [(Changes, [String; 4]); 9] = [
            (&[CONNECTION], [format!("key {blob}"), format!("key {table}"), format!("key {queue}"), String::new()]),
            (
                &[CONNECTION, HOST],
                [format!("key {blob}"), format!("key {table}"), format!("key {queue}"), HOST.0.to_owned()],
            ),
            (
                &[HOST, ("AzureWebJobsStorage__credential", "ManagedIdentity")],
                [format!("identity {blob}"), format!("identity {table}"), format!("identity {queue}"), String::new()],
            ),
            (
                &[name],
                [
                    format!("identity {own}"),
                    "identity https://own.table.core.windows.net/".to_owned(),
                    "none".to_owned(),
                    String::new(),
                ],
            ),
            (
                &[name, CONNECTION],
                [format!("identity {own}"), format!("key {table}"), format!("key {queue}"), String::new()],
            ),
            (
                &[name, key, HOST],
                [format!("key {own}"), format!("identity {table}"), format!("identity {queue}"), String::new()],
            ),
            (
                &uris,
                [
                    "identity http://127.0.0.1:1/devstoreaccount1 of devstoreaccount1".to_owned(),
                    "identity http://127.0.0.1:3/devstoreaccount1".to_owned(),
                    "identity http://127.0.0.1:2/devstoreaccount1".to_owned(),
                    String::new(),
                ],
            ),
            (
                &[("AzureWebJobsStorage__blobServiceUri", "https://host.blob.core.chinacloudapi.cn/")],
                [
                    "identity https://host.blob.core.chinacloudapi.cn/ of host".to_owned(),
                    "identity https://host.table.core.chinacloudapi.cn/".to_owned(),
                    "identity https://host.queue.core.chinacloudapi.cn/".to_owned(),
                    String::new(),
                ],
            ),
            (
                &[CONNECTION, ("DIGEST_KEY", "c2VjcmV0")],
                [format!("key {blob}"), format!("key {table}"), format!("key {queue}"), "DIGEST_KEY".to_owned()],
            ),
        ];
        for (changes, wanted) in cases {
            let config = read(changes).expect("the settings are right");
            assert_eq!(access(&config), wanted, "{changes:?}");
            assert_eq!(config.identity.is_some(), wanted.iter().any(|one| one.contains("identity ")), "{changes:?}");
        }
    }

    #[test]
    fn each_wrong_setting_of_the_identity_is_named() {
        const HOST: (&str, &str) = ("AzureWebJobsStorage__accountName", "host");
        const OPENAI: [(&str, &str); 3] = [HOST, ("OPENAI_AUTH", "identity"), ("OPENAI_API_KEY", "")];
        let uri = |uri: &'static str| [("AzureWebJobsStorage__blobServiceUri", uri)];
        let cases: [(Changes, &str); 14] = [
            (&[], "AzureWebJobsStorage is missing"),
            (
                &[("AzureWebJobsStorage__accountName", "@Microsoft.KeyVault(x)")],
                "AzureWebJobsStorage__accountName is an",
            ),
            (&[("AzureWebJobsStorage__accountName", "No")], "AzureWebJobsStorage__accountName is malformed"),
            (&uri("http://host.example"), "AzureWebJobsStorage__blobServiceUri is malformed"),
            (&uri("https://no.example"), "AzureWebJobsStorage__blobServiceUri is malformed"),
            (&uri("http://127.0.0.1/account"), "AzureWebJobsStorage__tableServiceUri is missing"),
            (&[HOST, ("AzureWebJobsStorage__credential", "password")], "AzureWebJobsStorage__credential is malformed"),
            (&[HOST, ("IDENTITY_ENDPOINT", "")], "IDENTITY_ENDPOINT is missing"),
            (&[HOST, ("IDENTITY_HEADER", "")], "IDENTITY_HEADER is missing"),
            (&[HOST, ("IDENTITY_ENDPOINT", "http://192.0.2.1/msi")], "IDENTITY_ENDPOINT is malformed"),
            (&[("accountName", "own"), ("IDENTITY_ENDPOINT", "")], "accountKey is missing"),
            (
                &[HOST, ("SAS_MINUTES", "5001")],
                "SAS_MINUTES is malformed: expected a whole number of minutes, 1 to 5000",
            ),
            (&[HOST, ("DIGEST_KEY", "secret!")], "DIGEST_KEY is malformed"),
            (&OPENAI, "OPENAI_BASE_URL is missing"),
        ];
        for (changes, wanted) in cases {
            let error = read(changes).map(|_| ()).expect_err(wanted);
            assert!(error.starts_with(wanted), "{error}");
        }
    }

    #[test]
    fn the_provider_takes_the_identity_without_a_key_and_says_that_a_key_is_ignored() {
        let azure = ("OPENAI_BASE_URL", "https://x.openai.azure.com/openai/v1");
        let changes = [("AzureWebJobsStorage", "UseDevelopmentStorage=true"), ("OPENAI_AUTH", "identity"), azure];
        let config = read(&[&changes[..], &[("OPENAI_API_KEY", "")]].concat()).expect("no key is needed");
        assert!(config.identity.is_some() && config.ignored.is_empty());
        let config = read(&changes).expect("a key beside it is no error");
        assert_eq!(config.ignored.iter().map(|ignored| ignored.name).collect::<Vec<_>>(), ["OPENAI_API_KEY"]);
    }
}
