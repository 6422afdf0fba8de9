//! Digests. Those of identifiers are keyed: equal inputs have equal digests, and without the storage account's
//! key a digest can neither be reversed nor found by hashing guessed inputs.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use ring::{digest, hmac};
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
        hex(context.sign().as_ref())
    }
}

/// The first 128 bits of a SHA-256 digest, in hexadecimal. It has no key: everybody can compute it.
pub(crate) fn sha256_128(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref().get(..16).unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
