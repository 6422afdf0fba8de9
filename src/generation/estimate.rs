//! How long an image takes: as long as such images took lately.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use crate::lock::locked;

/// So many of a kind are remembered.
const REMEMBERED: usize = 20;
/// Sizes are the callers' choice.
const MAX_KINDS: usize = 100;

/// What this process has seen, by model and size.
#[derive(Debug, Default)]
pub(crate) struct Estimates(Mutex<HashMap<(String, String), VecDeque<Duration>>>);

impl Estimates {
    /// An image took so long.
    pub(crate) fn note(&self, model: &str, size: &str, took: Duration) {
        let mut kinds = locked(&self.0);
        let kind = (model.to_owned(), size.to_owned());
        if kinds.len() >= MAX_KINDS && !kinds.contains_key(&kind) {
            return;
        }
        let lately = kinds.entry(kind).or_default();
        lately.push_back(took);
        if lately.len() > REMEMBERED {
            lately.pop_front();
        }
    }

    /// The median; `None` where none was drawn yet.
    pub(crate) fn of(&self, model: &str, size: &str) -> Option<Duration> {
        let kinds = locked(&self.0);
        let mut lately: Vec<Duration> = kinds.get(&(model.to_owned(), size.to_owned()))?.iter().copied().collect();
        lately.sort_unstable();
        lately.get(lately.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_is_the_median_of_the_last_twenty_of_a_kind() {
        let estimates = Estimates::default();
        assert_eq!(estimates.of("a", "1024x1024"), None);
        for seconds in [1; 30].into_iter().chain([9; 8]).chain([20; 11]).chain([300]) {
            estimates.note("a", "1024x1024", Duration::from_secs(seconds));
        }
        assert_eq!(estimates.of("a", "1024x1024"), Some(Duration::from_secs(20)));
        assert_eq!(estimates.of("b", "1024x1024"), None);
        assert_eq!(estimates.of("a", "auto"), None);
    }
}
