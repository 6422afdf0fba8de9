//! The caller of a request: the signed-in user, the user that a trusted front end names, or the
//! client's address.

mod slots;

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::digest::Digests;

pub(crate) use slots::{Slot, Slots};

/// The signed-in user's id, set by App Service authentication. The platform removes a client's own
/// header only while authentication is on
/// (<https://learn.microsoft.com/azure/app-service/configure-authentication-user-identities>).
const PRINCIPAL_ID: HeaderName = HeaderName::from_static("x-ms-client-principal-id");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The caller of a request, as a keyed digest: storage never holds a user's id or address.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Caller(String);

impl Caller {
    #[cfg(test)]
    pub(crate) fn named(name: &str) -> Self {
        Self(name.to_owned())
    }

    /// The digest: 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Identifies the caller of a request by its headers.
#[derive(Debug, Clone)]
pub(crate) struct Callers {
    authentication: bool,
    user_header: Option<HeaderName>,
    /// Whether it is still to be reported that all callers have the same address.
    reports_proxy: Arc<AtomicBool>,
    digests: Digests,
}

impl Callers {
    pub(crate) fn new(config: &Config, digests: Digests) -> Self {
        Self {
            authentication: config.authentication,
            user_header: config.user_header.clone(),
            reports_proxy: Arc::new(AtomicBool::new(config.on_azure)),
            digests,
        }
    }

    pub(crate) fn identify(&self, headers: &HeaderMap) -> Caller {
        // A proxy that appends its header leaves the client's own one before it.
        let last = |name: &HeaderName| headers.get_all(name).iter().next_back().map(|value| value.as_bytes());
        let value = |name: &HeaderName| last(name).filter(|id| !id.is_empty());
        let signed_in = value(&PRINCIPAL_ID).filter(|_| self.authentication);
        let named = self.user_header.as_ref().and_then(value);
        let digest = match (signed_in, named) {
            (Some(id), _) => self.digests.of(&[b"caller", b"signed in", id]),
            (None, Some(id)) => {
                // A proxy's header may hold an address, as `X-Azure-ClientIP` of Azure Front Door does.
                let address = std::str::from_utf8(id).ok().and_then(parse_address).map(|address| address.to_string());
                self.digests.of(&[b"caller", b"named", address.as_deref().map_or(id, str::as_bytes)])
            }
            (None, None) => {
                let address = address(headers);
                if address.is_none_or(is_private) && self.reports_proxy.swap(false, Ordering::Relaxed) {
                    tracing::error!(
                        event = "callers_look_alike",
                        "requests come without a client's address or with a private one, so all callers share one \
                         quota: set QUOTA_USER_HEADER"
                    );
                }
                let address = address.map(|address| address.to_string()).unwrap_or_default();
                self.digests.of(&[b"caller", b"address", address.as_bytes()])
            }
        };
        Caller(digest)
    }
}

/// The client's address: the last entry of the last X-Forwarded-For. The platform appends that entry;
/// the client can forge all entries before it. An IPv6 address is cut to its /64 network, because one
/// household usually has a whole /64.
fn address(headers: &HeaderMap) -> Option<IpAddr> {
    // The entries that the client sent may not be valid UTF-8, so only the last one is decoded.
    let last = headers.get_all(FORWARDED_FOR).iter().next_back()?.as_bytes().rsplit(|byte| *byte == b',').next()?;
    parse_address(std::str::from_utf8(last).ok()?)
}

/// Whether an address is not one of the public internet, such as that of a proxy in the same network.
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private() || address.is_loopback() || address.is_link_local(),
        IpAddr::V6(address) => address.segments()[0] & 0xE000 != 0x2000,
    }
}

/// An address with or without a port, an IPv6 address cut to its /64 network.
fn parse_address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let bare = text.trim_start_matches('[').trim_end_matches(']');
    let address = text.parse::<SocketAddr>().map(|address| address.ip()).or_else(|_| bare.parse()).ok()?;
    Some(match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
        address @ IpAddr::V4(_) => address,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_address_counts_without_its_port_and_an_ipv6_address_is_cut_to_its_network() {
        for (values, wanted) in [
            (vec!["203.0.113.7"], Some("203.0.113.7")),
            (vec!["203.0.113.7:51234"], Some("203.0.113.7")),
            (vec!["10.0.0.1, 198.51.100.2:1, 203.0.113.7:51234"], Some("203.0.113.7")),
            (vec!["198.51.100.2", "203.0.113.7"], Some("203.0.113.7")),
            (vec!["é, 203.0.113.7"], Some("203.0.113.7")),
            (vec!["[2001:db8:1:2:3:4:5:6]:443"], Some("2001:db8:1:2::")),
            (vec!["[2001:db8:1:2:3:4:5:6]"], Some("2001:db8:1:2::")),
            (vec!["2001:db8:1:2:ffff::"], Some("2001:db8:1:2::")),
            (vec!["::ffff:203.0.113.7"], Some("203.0.113.7")),
            (vec!["203.0.113.7, unknown"], None),
            (vec![""], None),
            (vec![], None),
        ] {
            let headers: HeaderMap =
                values.iter().map(|value| (FORWARDED_FOR, value.as_bytes().try_into().expect("a value"))).collect();
            assert_eq!(address(&headers).map(|address| address.to_string()).as_deref(), wanted, "{values:?}");
        }
    }

    #[test]
    fn callers_of_one_network_are_one_caller_in_a_header_that_holds_an_address_too() {
        let lookup = |name: &str| match name {
            "OPENAI_API_KEY" => Some("key".to_owned()),
            "AzureWebJobsStorage" => Some("UseDevelopmentStorage=true".to_owned()),
            "QUOTA_USER_HEADER" => Some("x-azure-clientip".to_owned()),
            _ => None,
        };
        let config = Config::from_vars(lookup).expect("the settings are valid");
        let callers = Callers::new(&config, Digests::new(&config.storage));
        let caller = |value: &str| {
            callers.identify(&HeaderMap::from_iter([(
                HeaderName::from_static("x-azure-clientip"),
                value.parse().expect("a header value"),
            )]))
        };
        assert_eq!(caller("2001:db8:1:2:3:4:5:6"), caller("2001:db8:1:2:ffff::1"));
        assert_ne!(caller("2001:db8:1:2::1"), caller("2001:db8:1:3::1"));
        assert_ne!(caller("anna"), caller("bob"));
        let mut appended = HeaderMap::new();
        for value in ["bob", "anna"] {
            appended.append("x-azure-clientip", value.parse().expect("a header value"));
        }
        assert_eq!(callers.identify(&appended), caller("anna"), "the last value counts");
    }
}
