//! Estimated drawing times: the median of recent images of the same model and size.

use std::collections::{HashMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use crate::lock::locked;

/// Drawing times that are kept for each model and size.
const SAMPLES_PER_KIND: usize = 20;
/// Pairs of model and size that are kept. Callers choose the size, so the number needs a bound.
const MAX_KINDS: usize = 100;

/// The recent drawing times of this process, by model and size.
#[derive(Debug, Default)]
pub(crate) struct Estimates(Mutex<HashMap<(String, String), VecDeque<Duration>>>);

impl Estimates {
    /// Adds the drawing time of an image.
    pub(crate) fn note(&self, model: &str, size: &str, took: Duration) {
        let mut kinds = locked(&self.0);
        let kind = (model.to_owned(), size.to_owned());
        if kinds.len() >= MAX_KINDS && !kinds.contains_key(&kind) {
            return;
        }
        let samples = kinds.entry(kind).or_default();
        samples.push_back(took);
        if samples.len() > SAMPLES_PER_KIND {
            samples.pop_front();
        }
    }

    /// The median drawing time; `None` if no such image was drawn yet.
    pub(crate) fn of(&self, model: &str, size: &str) -> Option<Duration> {
        let kinds = locked(&self.0);
        let mut samples: Vec<Duration> = kinds.get(&(model.to_owned(), size.to_owned()))?.iter().copied().collect();
        samples.sort_unstable();
        samples.get(samples.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_is_the_median_of_the_last_twenty_of_a_model_and_size() {
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
