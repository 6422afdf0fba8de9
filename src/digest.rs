//! Keyed digests: the same input gets the same name, and nobody without the account's key can tell
//! what a name stands for or try inputs until one fits.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::hmac;
use secrecy::ExposeSecret as _;

use crate::config::StorageConfig;

/// Makes digests with the storage account's key.
#[derive(Debug, Clone)]
pub(crate) struct Digests(hmac::Key);

impl Digests {
    pub(crate) fn new(config: &StorageConfig) -> Self {
        // The settings have checked that it is base64.
        let key = BASE64_STANDARD.decode(config.key.expose_secret()).unwrap_or_default();
        Self(hmac::Key::new(hmac::HMAC_SHA256, &key))
    }

    /// HMAC-SHA-256 in hexadecimal. Each part is preceded by its length, so that no two lists of parts
    /// are taken for each other.
    pub(crate) fn of(&self, parts: &[&[u8]]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
