//! Keyed digests of identifiers. Equal inputs have equal digests. Without the storage account's key,
//! a digest can neither be reversed nor found by hashing guessed inputs.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::hmac;
use secrecy::ExposeSecret as _;

use crate::config::StorageConfig;

/// Makes keyed digests with the storage account's key.
#[derive(Debug, Clone)]
pub(crate) struct Digests(hmac::Key);

impl Digests {
    pub(crate) fn new(config: &StorageConfig) -> Self {
        // `StorageConfig` has checked that the key is base64.
        let key = BASE64_STANDARD.decode(config.key.expose_secret()).unwrap_or_default();
        Self(hmac::Key::new(hmac::HMAC_SHA256, &key))
    }

    /// The HMAC-SHA-256 of the parts, in hexadecimal. Each part is preceded by its length, so that
    /// different lists of parts never have the same input.
    pub(crate) fn of(&self, parts: &[&[u8]]) -> String {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(&part.len().to_be_bytes());
            context.update(part);
        }
        context.sign().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
