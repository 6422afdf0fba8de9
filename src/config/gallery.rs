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
}

impl GalleryConfig {
    pub(super) fn from_vars(vars: &Vars) -> Result<Self, Error> {
        let limit = vars.number("LISTING_LIMIT", "a whole number, 0 (all images) to 1000000", 0..=1_000_000)?;
        let hours = vars.number("RECONCILE_HOURS", "a whole number of hours, 0 (only at the start) to 720", 0..=720)?;
        Ok(Self {
            listing_limit: Some(limit.unwrap_or(5_000)).filter(|limit| *limit > 0),
            reconcile_every: Some(hours.unwrap_or(24))
                .filter(|hours| *hours > 0)
                .map(|h| Duration::from_secs(h * 3600)),
        })
    }
}
