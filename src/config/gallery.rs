//! The settings of the gallery's index and listings.

use std::time::Duration;

use super::{Error, Vars};

/// The settings of the gallery's index and listings.
#[derive(Debug, Clone)]
pub struct GalleryConfig {
    /// `LISTING_LIMIT` (5000): the most images in an answer of getImages without `limit`; `None` (0) lists all.
    pub listing_limit: Option<usize>,
    /// `RECONCILE_HOURS` (24): the pause between two comparisons of the index with the container; `None` (0)
    /// compares them only at the start.
    pub reconcile_every: Option<Duration>,
    /// `DELETE_UNDO_SECONDS` (86400): how long a deleted image can be restored.
    pub undo: Duration,
    /// `TTL_DAYS` (0): the age at which images are deleted; `None` (0) keeps them for ever.
    pub ttl: Option<Duration>,
}

impl GalleryConfig {
    pub(super) fn from_vars(vars: &Vars) -> Result<Self, Error> {
        let limit = vars.number("LISTING_LIMIT", "a whole number, 0 (all images) to 1000000", 0..=1_000_000)?;
        let hours = vars.number("RECONCILE_HOURS", "a whole number of hours, 0 (only at the start) to 720", 0..=720)?;
        let undo = vars.number("DELETE_UNDO_SECONDS", "seconds, 30 to 2592000 (30 days)", 30..=2_592_000)?;
        let ttl = vars.number("TTL_DAYS", "a whole number of days, 0 (for ever) to 36500", 0..=36_500)?;
        Ok(Self {
            undo: Duration::from_secs(undo.unwrap_or(86_400)),
            ttl: ttl.filter(|days| *days > 0).map(|days| Duration::from_secs(days * 24 * 60 * 60)),
            listing_limit: Some(limit.unwrap_or(5_000)).filter(|limit| *limit > 0),
            reconcile_every: Some(hours.unwrap_or(24))
                .filter(|hours| *hours > 0)
                .map(|h| Duration::from_secs(h * 3600)),
        })
    }
}
