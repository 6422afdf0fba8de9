//! The fingerprints of the rows of an index, in little memory.

/// The most fingerprints that are kept at a time: 16 MB of memory.
const MAX_KEPT: usize = 2_000_000;

/// The fingerprints from a lowest one on, with a mark on each that was seen. If there are too many, only the
/// lowest ones are kept, and [`Self::next_lowest`] says where the next round begins.
#[derive(Debug)]
pub(super) struct Fingerprints {
    lowest: u64,
    /// Inclusive.
    highest: u64,
    max_kept: usize,
    sorted: Vec<u64>,
    /// One bit for each fingerprint.
    seen: Vec<u64>,
}

impl Fingerprints {
    pub(super) fn from(lowest: u64) -> Self {
        Self { lowest, highest: u64::MAX, max_kept: MAX_KEPT, sorted: Vec::new(), seen: Vec::new() }
    }

    /// Adds the fingerprint of a row.
    pub(super) fn add(&mut self, fingerprint: u64) {
        if !(self.lowest..=self.highest).contains(&fingerprint) {
            return;
        }
        self.sorted.push(fingerprint);
        if self.sorted.len() > self.max_kept {
            self.sorted.sort_unstable();
            self.sorted.dedup();
            self.sorted.truncate(self.max_kept / 2);
            self.highest = self.sorted.last().copied().unwrap_or(self.highest);
        }
    }

    /// Ends the adding.
    pub(super) fn finish(&mut self) {
        self.sorted.sort_unstable();
        self.sorted.dedup();
        self.seen = vec![0; self.sorted.len().div_ceil(64)];
    }

    /// Marks a fingerprint as seen. Returns whether it belongs to this round and has no row.
    pub(super) fn is_missing(&mut self, fingerprint: u64) -> bool {
        if !(self.lowest..=self.highest).contains(&fingerprint) {
            return false;
        }
        let Ok(index) = self.sorted.binary_search(&fingerprint) else { return true };
        if let Some(bits) = self.seen.get_mut(index / 64) {
            *bits |= 1 << (index % 64);
        }
        false
    }

    /// Whether a fingerprint was added and not seen.
    pub(super) fn is_unseen(&self, fingerprint: u64) -> bool {
        let index = self.sorted.binary_search(&fingerprint);
        index.is_ok_and(|index| self.seen.get(index / 64).is_some_and(|bits| bits & (1 << (index % 64)) == 0))
    }

    pub(super) fn has_unseen(&self) -> bool {
        self.sorted.len() > self.seen.iter().map(|bits| bits.count_ones() as usize).sum()
    }

    /// The lowest fingerprint of the next round; `None` if this is the last one.
    pub(super) fn next_lowest(&self) -> Option<u64> {
        self.highest.checked_add(1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = u64> {
        self.sorted.iter().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_fingerprints_are_covered_in_rounds_of_bounded_memory() {
        let rows: Vec<u64> = (0..1_000).map(|_| fastrand::u64(..)).chain([0, u64::MAX]).collect();
        let (mut lowest, mut rounds, mut missing, mut unseen) = (Some(0), 0, 0, 0);
        while let Some(from) = lowest {
            let mut round = Fingerprints { max_kept: 100, ..Fingerprints::from(from) };
            rows.iter().for_each(|row| round.add(*row));
            round.finish();
            assert!(round.iter().count() <= 100);
            // The first half of the rows has blobs, and 500 blobs have no row.
            missing += rows.iter().take(501).filter(|row| round.is_missing(**row)).count();
            missing += (0..500_u64).filter(|number| round.is_missing(number * 37 + 1)).count();
            unseen += rows.iter().filter(|row| round.is_unseen(**row)).count();
            assert_eq!(round.has_unseen(), rows.iter().any(|row| round.is_unseen(*row)));
            (lowest, rounds) = (round.next_lowest(), rounds + 1);
        }
        assert_eq!((missing, unseen), (500, 501), "in {rounds} rounds");
        assert!((10..=25).contains(&rounds), "{rounds} rounds");
    }
}
