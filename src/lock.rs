//! Locks that a panic does not close for everybody else.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after somebody panicked with the lock: what is behind a lock here is whole after
/// each statement.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
