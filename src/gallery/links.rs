//! Read-only links to blobs, which browsers can cache.

use std::time::Duration;

use reqwest::Url;
use time::OffsetDateTime;

use super::name;
use crate::azure::{Container, Grant};

/// A token becomes valid this much earlier, because the clock of the storage service may be behind.
pub(super) const CLOCK_SKEW: Duration = Duration::from_secs(5 * 60);

/// Builds links from blob names.
pub(super) struct Links {
    container: Url,
    token: String,
}

impl Links {
    /// Links that show a blob.
    pub(super) fn to_show(container: &Container, now: OffsetDateTime, window: Duration) -> Self {
        Self { container: container.url().clone(), token: container.sign(&read_only(now, window)) }
    }

    /// Links with which a browser saves a blob as a file.
    pub(super) fn to_download(container: &Container, now: OffsetDateTime, window: Duration) -> Self {
        Self { container: container.url().clone(), token: container.sign_download(&read_only(now, window)) }
    }

    /// Links by which storage copies a blob, valid for five minutes.
    pub(super) fn to_copy(container: &Container, now: OffsetDateTime) -> Self {
        Self { container: container.url().clone(), token: container.sign(&for_one_call(now, "r")) }
    }

    /// The link to a blob, percent-encoded.
    pub(super) fn to(&self, name: &str) -> String {
        format!("{}/{}?{}", self.container.as_str().trim_end_matches('/'), name::encode(name), self.token)
    }
}

/// What one call of this process needs, valid for five minutes.
pub(super) fn for_one_call(now: OffsetDateTime, permissions: &str) -> Grant<'_> {
    Grant { permissions, starts_on: now - CLOCK_SKEW, expires_on: now + CLOCK_SKEW }
}

/// A read token for the window in which `now` lies. All processes use the same windows, so the URL of a blob stays
/// the same within a window and browsers can cache the blob. A token is also valid in the next window, so a link is
/// valid for at least the length of a window.
fn read_only(now: OffsetDateTime, window: Duration) -> Grant<'static> {
    let seconds = i64::try_from(window.as_secs()).unwrap_or(i64::MAX);
    let into_window = time::Duration::seconds(now.unix_timestamp().rem_euclid(seconds));
    let opens = whole_seconds(now) - into_window;
    Grant {
        permissions: "r",
        starts_on: opens - CLOCK_SKEW,
        // One second more, because `opens` is rounded down to a whole second.
        expires_on: opens + 2 * window + Duration::from_secs(1),
    }
}

/// The time without the fraction of its second.
pub(super) fn whole_seconds(at: OffsetDateTime) -> OffsetDateTime {
    at - Duration::from_nanos(at.nanosecond().into())
}
