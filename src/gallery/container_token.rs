//! The container token of generateSASToken.

use serde::Serialize;
use time::OffsetDateTime;

use super::links::{CLOCK_SKEW, whole_seconds};
use super::{Error, Gallery};
use crate::azure::Grant;

/// A container token for a caller.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ContainerToken {
    /// The query string, without `?`.
    pub(crate) sas_token: String,
    /// The URL of the container, without a token.
    pub(crate) container_url: String,
    /// The permissions, in Azure's letters (`r` for read, `l` for list, …).
    pub(crate) permissions: String,
    /// The end of the validity.
    #[serde(with = "time::serde::rfc3339")]
    pub(crate) expires_on: OffsetDateTime,
}

impl Gallery {
    /// Signs a container token with the permissions and the lifetime from the settings, or fails like [`Self::links_to`].
    pub(crate) async fn container_token(&self, now: OffsetDateTime) -> Result<ContainerToken, Error> {
        let permissions = self.sas.permissions.as_str();
        // A token's times are in whole seconds, and `expires_on` must equal the time in the token.
        let expires_on = whole_seconds(now + self.sas.lifetime);
        let grant = Grant { permissions, starts_on: now - CLOCK_SKEW, expires_on, disposition: "" };
        Ok(ContainerToken {
            sas_token: self.container.sign(&grant).await?,
            container_url: self.container.url().to_string(),
            permissions: permissions.to_owned(),
            expires_on,
        })
    }
}
