//! Downloads an image from the URL in the provider's answer.
//!
//! The URL comes from a remote server and may point into the app's own network (server-side request
//! forgery). So the URL and each redirect are checked: the scheme is https, and the host is a public
//! address or a name that resolves to one. A loopback address is allowed only if the provider's base URL
//! has one too.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::LOCATION;
use reqwest::{Client, Response, Url, redirect};
use url::Host;

use super::body::{MAX_IMAGE_BYTES, read_body};
use super::client::OpenAi;
use super::error::Error;
use super::memory::Memory;
use crate::config::is_loopback;

/// Redirects to follow for one image; providers use one or two.
const MAX_REDIRECTS: usize = 3;
/// Pauses between the tries to download an image, in milliseconds.
const PAUSES_MS: [u64; 3] = [250, 1_000, 3_000];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection without new bytes for this time is closed, and the download is tried again.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// Limit for a whole download with its retries. `OPENAI_TIMEOUT_SECONDS` does not include this time.
const TIMEOUT: Duration = Duration::from_secs(60);

impl OpenAi {
    /// Downloads a drawn image. The image is billed already, so the caller must not draw it again after an
    /// error.
    pub(super) async fn fetch(&self, url: &str) -> Result<Bytes, Error> {
        tokio::time::timeout(TIMEOUT, self.follow_redirects(url)).await.unwrap_or(Err(Error::Timeout))
    }

    async fn follow_redirects(&self, url: &str) -> Result<Bytes, Error> {
        let provider_is_local = is_loopback(&self.config.base_url);
        // One client per download: few providers answer with a URL, so its connections are not worth keeping.
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .dns_resolver(Arc::new(PublicResolver { allow_loopback: provider_is_local }))
            .build()
            .map_err(|_| Error::BadAnswer("no TLS client could be built for the image's URL"))?;
        let mut url = Url::parse(url).map_err(|_| Error::BadAnswer("the image's URL is malformed"))?;
        for _ in 0..=MAX_REDIRECTS {
            check(&url, provider_is_local)?;
            let response = match get(&client, &url, &self.memory).await? {
                Found::Image(bytes) => return Ok(bytes),
                Found::Other(response) => response,
            };
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let next = location.filter(|_| response.status().is_redirection()).and_then(|next| url.join(next).ok());
            url = next.ok_or(Error::BadAnswer("the image's URL answers with no image"))?;
        }
        Err(Error::BadAnswer("the image's URL redirects too often"))
    }
}

const PRIVATE_ADDRESS: Error = Error::BadAnswer("the image's URL leads to a private address");

enum Found {
    Image(Bytes),
    /// A redirect, or an error status that remains after the retries.
    Other(Response),
}

/// Sends GET and retries a failure that may pass: 5xx, 429, a broken connection, a timeout.
async fn get(client: &Client, url: &Url, memory: &Memory) -> Result<Found, Error> {
    let mut pauses = PAUSES_MS.into_iter();
    loop {
        let found = get_once(client, url, memory).await;
        let may_pass = match &found {
            Ok(Found::Image(_)) => false,
            Ok(Found::Other(response)) => response.status().is_server_error() || response.status() == 429,
            Err(error) => matches!(error, Error::LostAnswer(_) | Error::Timeout),
        };
        match pauses.next() {
            Some(pause) if may_pass => tokio::time::sleep(Duration::from_millis(pause)).await,
            _ => return found,
        }
    }
}

async fn get_once(client: &Client, url: &Url, memory: &Memory) -> Result<Found, Error> {
    let response = client.get(url.clone()).send().await.map_err(|error| {
        let mut causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        if causes.any(|cause| cause.is::<NoPublicAddress>()) { PRIVATE_ADDRESS } else { Error::from_reading(error) }
    })?;
    match response.status() {
        status if status.is_success() => {
            let mut room = memory.room();
            let image = read_body(response, MAX_IMAGE_BYTES, Some(&mut room)).await?;
            Ok(Found::Image(room.hold(image)))
        }
        _ => Ok(Found::Other(response)),
    }
}

fn check(url: &Url, provider_is_local: bool) -> Result<(), Error> {
    if provider_is_local && is_loopback(url) {
        return Ok(());
    }
    if url.scheme() != "https" {
        return Err(Error::BadAnswer("the image's URL is not https"));
    }
    let public = match url.host() {
        // `PublicResolver` checks the addresses of the name.
        Some(Host::Domain(name)) => name != "localhost" && !name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => is_public(address.into()),
        Some(Host::Ipv6(address)) => is_public(address.into()),
        None => false,
    };
    if public { Ok(()) } else { Err(PRIVATE_ADDRESS) }
}

/// Whether an address is public, by IANA's registries of special-purpose addresses:
/// <https://www.iana.org/assignments/iana-ipv4-special-registry>,
/// <https://www.iana.org/assignments/iana-ipv6-special-registry>.
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        // Only 2000::/3 is global unicast. In it, 2002::/16 (6to4) and 2001::/32 (Teredo) hold IPv4 addresses.
        IpAddr::V6(address) => {
            let [first, second, ..] = address.segments();
            let is_tunnel = first == 0x2002 || (first, second) == (0x2001, 0);
            first & 0xE000 == 0x2000 && !is_tunnel
        }
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let shared = first == 100 && second & 0xC0 == 64;
    let benchmarking = first == 198 && second & 0xFE == 18;
    let protocol_assignments = (first, second, third) == (192, 0, 0);
    // Azure's own services answer here (https://learn.microsoft.com/azure/virtual-network/what-is-ip-address-168-63-129-16).
    let azure = address == Ipv4Addr::new(168, 63, 129, 16);
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || first >= 224
        || first == 0
        || shared
        || benchmarking
        || protocol_assignments
        || azure)
}

/// Resolves a name to its public addresses only, so that no name leads into the app's network.
struct PublicResolver {
    allow_loopback: bool,
}

/// A name has no public address.
#[derive(Debug, thiserror::Error)]
#[error("the name has no public address")]
struct NoPublicAddress;

impl Resolve for PublicResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let allow_loopback = self.allow_loopback;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed =
                |address: &SocketAddr| is_public(address.ip()) || allow_loopback && address.ip().is_loopback();
            let addresses: Vec<SocketAddr> = found.filter(allowed).collect();
            if addresses.is_empty() {
                return Err(NoPublicAddress.into());
            }
            Ok(Box::new(addresses.into_iter()) as Addrs)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_and_special_addresses_are_not_public() {
        for (address, public) in [
            ("8.8.8.8", true),
            ("172.15.0.1", true),
            ("2606:4700::1111", true),
            ("0.0.0.0", false),
            ("10.0.0.1", false),
            ("100.64.0.1", false),
            ("127.0.0.1", false),
            ("168.63.129.16", false),
            ("169.254.169.254", false),
            ("172.16.0.1", false),
            ("192.0.0.8", false),
            ("192.168.1.1", false),
            ("198.19.0.1", false),
            ("224.0.0.1", false),
            ("255.255.255.255", false),
            ("::", false),
            ("::1", false),
            ("::ffff:10.0.0.1", false),
            ("64:ff9b::a00:1", false),
            ("2002:a00:1::", false),
            ("2001:0:a00:1::", false),
            ("fd00::1", false),
            ("fe80::1", false),
        ] {
            assert_eq!(is_public(address.parse().expect("an address")), public, "{address}");
        }
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_a_private_address_is_refused_without_a_retry() {
        let name = || "localhost".parse::<Name>().expect("a name");
        assert!(PublicResolver { allow_loopback: false }.resolve(name()).await.is_err());
        assert!(PublicResolver { allow_loopback: true }.resolve(name()).await.is_ok());
        let client = Client::builder()
            .dns_resolver(Arc::new(PublicResolver { allow_loopback: false }))
            .build()
            .expect("a client");
        let found = get(&client, &"https://localhost/x.png".parse().expect("a URL"), &Memory::default()).await;
        assert!(
            matches!(found, Err(Error::BadAnswer(why)) if why.contains("private")),
            "a private address is not retried"
        );
    }
}
