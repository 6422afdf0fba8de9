//! Limits the memory of the provider's answers, and of the images in them until they are stored.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

const MIB: usize = 1024 * 1024;
/// The answers that are being read and the images that are not stored yet take at most this together, in MiB. One more
/// answer may be read beyond it, so that answers that all wait for room cannot wait for each other.
const MAX_MIB: usize = 128;
/// The first part of each answer needs no room: most errors, and the beginning of a stream.
const FREE_BYTES: usize = MIB;

/// The memory for answers of this process. Clones share the limit.
#[derive(Debug, Clone)]
pub(super) struct Memory {
    mib: Arc<Semaphore>,
    beyond: Arc<Semaphore>,
}

/// The memory that one answer takes, and its image afterwards, until it is dropped.
#[derive(Debug)]
pub(super) struct Room {
    memory: Memory,
    mib: Option<OwnedSemaphorePermit>,
    beyond: Option<OwnedSemaphorePermit>,
}

impl Default for Memory {
    fn default() -> Self {
        Self { mib: Arc::new(Semaphore::new(MAX_MIB)), beyond: Arc::new(Semaphore::new(1)) }
    }
}

impl Memory {
    /// Room for the first part of an answer.
    pub(super) fn room(&self) -> Room {
        Room { memory: self.clone(), mib: None, beyond: None }
    }
}

impl Room {
    /// Waits until there is room for an answer of this size. Nothing is refused: the image is paid.
    pub(super) async fn grow_to(&mut self, bytes: usize) {
        let has = self.mib.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let lacks = bytes.saturating_sub(FREE_BYTES).div_ceil(MIB).min(MAX_MIB).saturating_sub(has);
        if lacks == 0 || self.beyond.is_some() {
            return;
        }
        let more = Arc::clone(&self.memory.mib).acquire_many_owned(u32::try_from(lacks).unwrap_or(u32::MAX));
        tokio::select! {
            biased;
            Ok(more) = more => match &mut self.mib {
                Some(mib) => mib.merge(more),
                None => self.mib = Some(more),
            },
            Ok(beyond) = Arc::clone(&self.memory.beyond).acquire_owned() => self.beyond = Some(beyond),
            // The semaphores are never closed.
            else => {}
        }
    }

    /// The room so far; this one begins again with none.
    pub(super) fn take(&mut self) -> Self {
        let next = self.memory.room();
        std::mem::replace(self, next)
    }

    /// Bytes that keep the room until their last clone is dropped.
    pub(super) fn hold(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Held { bytes, _room: self })
    }
}

struct Held<B> {
    bytes: B,
    _room: Room,
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Held<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    /// Room that is there at once.
    fn room(memory: &Memory, mib: usize) -> Option<Room> {
        let mut room = memory.room();
        room.grow_to(FREE_BYTES + mib * MIB).now_or_never()?;
        Some(room)
    }

    #[tokio::test]
    async fn answers_and_images_take_bounded_memory_and_wait_for_room() {
        let memory = Memory::default();
        let first = room(&memory, MAX_MIB - 10).expect("there is room").hold(vec![1, 2, 3]);
        let second = room(&memory, 10).expect("there is room");
        let beyond = room(&memory, 10).expect("one more may be read");
        assert!(room(&memory, 1).is_none(), "the others wait");
        assert!(room(&memory, 0).is_some(), "a small answer needs no room");

        let mut waiting = memory.room();
        let copy = first.clone();
        let wait = async { tokio::join!(waiting.grow_to(2 * MIB), async move { drop(first) }) };
        assert!(wait.now_or_never().is_none(), "a clone keeps the room");
        drop(copy);
        waiting.grow_to(2 * MIB).await;
        drop((second, beyond, waiting));
        assert!(room(&memory, MAX_MIB).is_some(), "all room is free again");
    }

    #[tokio::test]
    async fn answers_that_grow_together_beyond_the_limit_all_end() {
        let memory = Memory::default();
        let read = async |_| {
            let mut room = memory.room();
            for mib in 1..=33 {
                room.grow_to(mib * MIB).await;
                tokio::task::yield_now().await;
            }
        };
        let all = futures_util::future::join_all((0..16).map(read));
        tokio::time::timeout(std::time::Duration::from_secs(60), all).await.expect("they end within a minute");
    }
}
