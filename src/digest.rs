//! Digests. Those of identifiers are keyed: equal inputs have equal digests, and without the key a digest can neither
//! be reversed nor found by hashing guessed inputs.

use std::sync::{Arc, OnceLock};

use ring::{digest, hmac};

use crate::config::StorageConfig;

/// Makes keyed digests. The key is the storage account's. An app without an account key reads or creates a key in
/// storage, and passes it to [`Self::set_key`].
#[derive(Debug, Clone)]
pub(crate) struct Digests {
    key: Arc<OnceLock<hmac::Key>>,
    /// The key that is used until `key` is known. It is random, so its digests match none in storage.
    random: hmac::Key,
}

impl Digests {
    pub(crate) fn new(config: &StorageConfig) -> Self {
        let random: [u8; 32] = std::array::from_fn(|_| fastrand::u8(..));
        let digests = Self { key: Arc::default(), random: hmac::Key::new(hmac::HMAC_SHA256, &random) };
        if let Some(key) = config.access.key() {
            digests.set_key(key);
        }
        digests
    }

    /// Sets the key, unless it is known already.
    pub(crate) fn set_key(&self, key: hmac::Key) {
        self.key.get_or_init(|| key);
    }

    /// Whether the key is known. A digest that is stored, or compared with a stored one, must not be made before.
    pub(crate) fn has_key(&self) -> bool {
        self.key.get().is_some()
    }

    /// The HMAC-SHA-256 of the parts, in hexadecimal. Each part is preceded by its length, so that
    /// different lists of parts never have the same input.
    pub(crate) fn of(&self, parts: &[&[u8]]) -> String {
        let mut context = hmac::Context::with_key(self.key.get().unwrap_or(&self.random));
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
