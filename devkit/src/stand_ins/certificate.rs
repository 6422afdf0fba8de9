//! A self-signed certificate for 127.0.0.1, made anew for each start.

use anyhow::anyhow;
use base64::{Engine as _, prelude::BASE64_STANDARD};
use rcgen::{CertificateParams, PKCS_ECDSA_P256_SHA256, PublicKeyData, SerialNumber, SignatureAlgorithm, SigningKey};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _};

/// A certificate and its key.
pub(super) struct Certificate {
    /// The certificate in DER.
    pub(super) der: Vec<u8>,
    /// The certificate and the key in PEM.
    pub(super) pem: String,
}

impl Certificate {
    pub(super) fn new() -> anyhow::Result<Self> {
        let random = SystemRandom::new();
        let key = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)
            .map_err(|_| anyhow!("no key can be made"))?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, key.as_ref(), &random)
            .map_err(|_| anyhow!("the key cannot be read"))?;
        let mut params = CertificateParams::new(["127.0.0.1".to_owned()])?;
        params.serial_number = Some(SerialNumber::from(fastrand::u64(1..)));
        let der = params.self_signed(&Signer(pair))?.der().to_vec();
        let pem = format!("{}{}", pem("CERTIFICATE", &der), pem("PRIVATE KEY", key.as_ref()));
        Ok(Self { der, pem })
    }
}

/// `ring` for rcgen. rcgen's own feature for it would bring a dozen crates into `Cargo.lock`.
struct Signer(EcdsaKeyPair);

impl PublicKeyData for Signer {
    fn der_bytes(&self) -> &[u8] {
        self.0.public_key().as_ref()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ECDSA_P256_SHA256
    }
}

impl SigningKey for Signer {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signed = self.0.sign(&SystemRandom::new(), message);
        Ok(signed.map_err(|_| rcgen::Error::RingUnspecified)?.as_ref().to_vec())
    }
}

/// PEM, RFC 7468: base64 in lines of 64 characters.
fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for (at, character) in text.chars().enumerate() {
        if at > 0 && at % 64 == 0 {
            pem.push('\n');
        }
        pem.push(character);
    }
    pem.push_str(&format!("\n-----END {label}-----\n"));
    pem
}
