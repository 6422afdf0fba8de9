//! Limits the memory of listings that are being sent. A client that reads slowly keeps its listing in memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::azure;

/// The listings that are being sent may take this many KiB together. A listing of 5,000 images takes 1,400.
const MAX_KIB: u32 = 64 * 1024;

/// The listings of this process that are being sent.
#[derive(Debug, Clone)]
pub(crate) struct Bodies {
    kib: Arc<Semaphore>,
    /// The size of the largest listing so far, in KiB: that of all images.
    largest: Arc<AtomicU32>,
}

/// Why there is no listing.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum NoListing {
    /// The storage account failed.
    #[error(transparent)]
    Storage(#[from] azure::Error),
    /// The listings that are being sent take as much memory as they may.
    #[error(transparent)]
    TooMany(#[from] TooMany),
}

/// The listings that are being sent take as much memory as they may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the listings that are being sent take as much memory as they may")]
pub(crate) struct TooMany;

impl Default for Bodies {
    fn default() -> Self {
        Self { kib: Arc::new(Semaphore::new(MAX_KIB as usize)), largest: Arc::default() }
    }
}

impl Bodies {
    /// Whether another listing of all images would fit, before the container is read for it.
    ///
    /// # Errors
    /// [`TooMany`].
    pub(crate) fn check(&self) -> Result<(), TooMany> {
        let wanted = self.largest.load(Ordering::Relaxed).max(1) as usize;
        if self.kib.available_permits() >= wanted { Ok(()) } else { Err(TooMany) }
    }

    /// A listing to send. It counts until its last clone is dropped. A listing larger than the limit is allowed
    /// while no other one is being sent.
    ///
    /// # Errors
    /// [`TooMany`].
    pub(crate) fn hold(&self, body: Vec<u8>) -> Result<Bytes, TooMany> {
        let kib = u32::try_from(body.len() / 1024 + 1).unwrap_or(MAX_KIB).min(MAX_KIB);
        self.largest.fetch_max(kib, Ordering::Relaxed);
        let permit = Arc::clone(&self.kib).try_acquire_many_owned(kib).map_err(|_| TooMany)?;
        Ok(Bytes::from_owner(Held { body, _permit: permit }))
    }
}

struct Held {
    body: Vec<u8>,
    _permit: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listings_take_bounded_memory_until_they_are_sent() {
        let bodies = Bodies::default();
        let large = || vec![b'x'; 10 * 1024 * 1024];
        let held: Vec<Bytes> = (0..6).map(|_| bodies.hold(large()).expect("it fits")).collect();
        let (shared, sent) = (held[0].clone(), held);
        assert_eq!(bodies.hold(large()), Err(TooMany));
        assert_eq!(bodies.check(), Err(TooMany), "another one would not fit, so the container is not read");
        drop(sent);
        assert_eq!(bodies.check(), Ok(()));
        assert_eq!(bodies.hold(large()).map(|body| body.len()), Ok(10 * 1024 * 1024));
        // A clone that is still being sent counts.
        assert_eq!(bodies.hold(vec![b'x'; 100 * 1024 * 1024]), Err(TooMany));
        drop(shared);
        let alone = bodies.hold(vec![b'x'; 100 * 1024 * 1024]).expect("nothing else is being sent");
        assert_eq!((alone.len(), bodies.check()), (100 * 1024 * 1024, Err(TooMany)));
    }
}
