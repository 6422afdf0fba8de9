//! Fetches an image from where the provider put it.
//!
//! The address comes from a server's answer and may lead anywhere, into the app's own network for
//! example. So each step is checked: https, a public address, and a name that resolves to one; or
//! this machine, where the provider itself is on it.

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
use crate::config::is_loopback;

/// An image is one or two steps away from where the provider says it is.
const MAX_REDIRECTS: usize = 3;
/// Between tries to fetch it.
const PAUSES_MS: [u64; 3] = [250, 1_000, 3_000];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A line that brings nothing for so long is given up, and another is tried.
const READ_TIMEOUT: Duration = Duration::from_secs(20);
/// For all of it, after the time that drawing may take.
const TIMEOUT: Duration = Duration::from_secs(60);

impl OpenAi {
    /// The image is drawn: nothing that happens here is a reason to have it drawn again.
    pub(super) async fn fetch(&self, url: &str) -> Result<Bytes, Error> {
        tokio::time::timeout(TIMEOUT, self.follow_to(url)).await.unwrap_or(Err(Error::Timeout))
    }

    async fn follow_to(&self, url: &str) -> Result<Bytes, Error> {
        let provider_is_here = is_loopback(&self.config.base_url);
        // One for each download: what keeps images at URLs is rare, and no connection is worth keeping.
        let client = Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .dns_resolver(Arc::new(Public { or_loopback: provider_is_here }))
            .build()
            .map_err(|_| Error::BadAnswer("TLS cannot be set up for the image's URL"))?;
        let mut url = Url::parse(url).map_err(|_| Error::BadAnswer("the image's URL is malformed"))?;
        for _ in 0..=MAX_REDIRECTS {
            check(&url, provider_is_here)?;
            let response = match get(&client, &url).await? {
                Found::Image(bytes) => return Ok(bytes),
                Found::Other(response) => response,
            };
            let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
            let next = location.filter(|_| response.status().is_redirection()).and_then(|next| url.join(next).ok());
            url = next.ok_or(Error::BadAnswer("the image's URL does not lead to it"))?;
        }
        Err(Error::BadAnswer("the image's URL redirects too often"))
    }
}

const LEADS_INSIDE: Error = Error::BadAnswer("the image's URL leads to a private address");

enum Found {
    Image(Bytes),
    /// A redirect, or an error that stays.
    Other(Response),
}

/// Tried again where that may help: the image is paid and still there.
async fn get(client: &Client, url: &Url) -> Result<Found, Error> {
    let mut pauses = PAUSES_MS.into_iter();
    loop {
        let found = get_once(client, url).await;
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

async fn get_once(client: &Client, url: &Url) -> Result<Found, Error> {
    let response = client.get(url.clone()).send().await.map_err(|error| {
        let mut causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        if causes.any(|cause| cause.is::<LeadsInside>()) { LEADS_INSIDE } else { Error::from_reading(error) }
    })?;
    match response.status() {
        status if status.is_success() => read_body(response, MAX_IMAGE_BYTES).await.map(Found::Image),
        _ => Ok(Found::Other(response)),
    }
}

fn check(url: &Url, provider_is_here: bool) -> Result<(), Error> {
    if provider_is_here && is_loopback(url) {
        return Ok(());
    }
    if url.scheme() != "https" {
        return Err(Error::BadAnswer("the image's URL is not https"));
    }
    let public = match url.host() {
        // What it resolves to is checked when it is resolved.
        Some(Host::Domain(name)) => name != "localhost" && !name.ends_with(".localhost"),
        Some(Host::Ipv4(address)) => is_public(address.into()),
        Some(Host::Ipv6(address)) => is_public(address.into()),
        None => false,
    };
    if public { Ok(()) } else { Err(LEADS_INSIDE) }
}

/// Whether an address may be anybody's (<https://www.iana.org/assignments/iana-ipv4-special-registry>,
/// <https://www.iana.org/assignments/iana-ipv6-special-registry>).
fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => is_public_v4(address),
        // 2000::/3 holds all that is routed; 64:ff9b::/96 and 2002::/16 lead to IPv4.
        IpAddr::V6(address) => address.segments()[0] & 0xE000 == 0x2000 && address.segments()[0] != 0x2002,
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [first, second, third, _] = address.octets();
    let shared = first == 100 && second & 0xC0 == 64;
    let benchmarking = first == 198 && second & 0xFE == 18;
    let protocol_assignments = (first, second, third) == (192, 0, 0);
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || first >= 224
        || first == 0
        || shared
        || benchmarking
        || protocol_assignments)
}

/// Resolves names to public addresses alone, so that no name leads into the app's network.
struct Public {
    or_loopback: bool,
}

/// A name resolves to no public address.
#[derive(Debug, thiserror::Error)]
#[error("the name leads to a private address")]
struct LeadsInside;

impl Resolve for Public {
    fn resolve(&self, name: Name) -> Resolving {
        let or_loopback = self.or_loopback;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed = |address: &SocketAddr| is_public(address.ip()) || or_loopback && address.ip().is_loopback();
            let addresses: Vec<SocketAddr> = found.filter(allowed).collect();
            if addresses.is_empty() {
                return Err(LeadsInside.into());
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
            ("fd00::1", false),
            ("fe80::1", false),
        ] {
            assert_eq!(is_public(address.parse().expect("an address")), public, "{address}");
        }
    }

    #[tokio::test]
    async fn a_name_that_resolves_to_a_private_address_leads_nowhere() {
        let name = || "localhost".parse::<Name>().expect("a name");
        assert!(Public { or_loopback: false }.resolve(name()).await.is_err());
        assert!(Public { or_loopback: true }.resolve(name()).await.is_ok());
        let client = Client::builder().dns_resolver(Arc::new(Public { or_loopback: false })).build().expect("a client");
        let found = get(&client, &"https://localhost/x.png".parse().expect("a URL")).await;
        assert!(matches!(found, Err(Error::BadAnswer(why)) if why.contains("private")), "it is not tried again");
    }
}
