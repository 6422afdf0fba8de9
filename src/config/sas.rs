//! The settings of the SAS tokens for clients.

use std::time::Duration;

use super::{Access, Error, Vars};

/// The shared access signatures (SAS) for clients.
#[derive(Debug, Clone)]
pub struct SasConfig {
    /// `SAS_MINUTES` (30): the lifetime of a token from `generateSASToken`, and the shortest lifetime
    /// of a link from `getImages`.
    pub lifetime: Duration,
    /// `SAS_PERMISSIONS` (`rcw`): the permissions of a token from `generateSASToken`.
    pub permissions: SasPermissions,
}

/// The permissions of a container token: some letters of `racwdl`, in Azure's order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SasPermissions(String);

impl SasPermissions {
    /// The permission letters in the order that Azure requires
    /// (<https://learn.microsoft.com/rest/api/storageservices/create-service-sas>).
    const LETTERS: &str = "racwdl";

    /// The letters, each once, in Azure's order.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn parse(letters: &str) -> Option<Self> {
        let known = letters.chars().all(|letter| Self::LETTERS.contains(letter));
        let ordered: String = Self::LETTERS.chars().filter(|letter| letters.contains(*letter)).collect();
        (known && ordered.len() == letters.len()).then_some(Self(ordered))
    }
}

impl SasConfig {
    pub(super) fn from_vars(vars: &Vars, access: &Access) -> Result<Self, Error> {
        // A link lives for two windows, and no longer than the key that signs it. A user delegation key lives for 7 days:
        // https://learn.microsoft.com/rest/api/storageservices/get-user-delegation-key
        let (expected, most) = match access {
            Access::Key(_) => ("a whole number of minutes, 1 to 10080", 10_080),
            Access::Identity => ("a whole number of minutes, 1 to 5000 with the app's identity", 5_000),
        };
        let minutes = vars.number("SAS_MINUTES", expected, 1..=most)?.unwrap_or(30_u64);
        let permissions = vars.get("SAS_PERMISSIONS")?.unwrap_or_else(|| "rcw".to_owned());
        Ok(Self {
            lifetime: Duration::from_secs(minutes * 60),
            permissions: SasPermissions::parse(&permissions).ok_or(Error::Malformed {
                name: "SAS_PERMISSIONS",
                expected: "some of the letters racwdl, each at most once",
            })?,
        })
    }
}
