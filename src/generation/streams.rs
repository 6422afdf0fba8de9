//! Limits the event streams that are open at the same time: each holds a connection for minutes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use crate::caller::Caller;
use crate::lock::locked;

/// Streams of one process. A process may have 1,024 files open, and each stream is one.
const MAX_STREAMS: usize = 500;
/// Streams of one caller. Behind a proxy all its users may be one caller.
const MAX_STREAMS_PER_CALLER: usize = 100;

/// The open streams of each caller.
#[derive(Debug, Default)]
pub(crate) struct Streams(Mutex<HashMap<Caller, usize>>);

/// An open stream. It counts until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenStream {
    streams: Arc<Streams>,
    caller: Caller,
}

impl Streams {
    /// Counts one more stream; `None` if a limit is reached.
    pub(crate) fn open(self: &Arc<Self>, caller: &Caller) -> Option<OpenStream> {
        let mut open = locked(&self.0);
        let all: usize = open.values().sum();
        if all >= MAX_STREAMS || open.get(caller).is_some_and(|count| *count >= MAX_STREAMS_PER_CALLER) {
            return None;
        }
        *open.entry(caller.clone()).or_default() += 1;
        Some(OpenStream { streams: Arc::clone(self), caller: caller.clone() })
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        let mut open = locked(&self.streams.0);
        if let Some(count) = open.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_limited_for_a_caller_and_in_all_and_count_until_they_end() {
        let streams = Arc::new(Streams::default());
        let open = |name: &str, count: usize| -> Vec<OpenStream> {
            (0..count).map_while(|_| streams.open(&Caller::named(name))).collect()
        };
        let annas = open("anna", MAX_STREAMS);
        assert_eq!(annas.len(), MAX_STREAMS_PER_CALLER);
        let others: Vec<_> = (0..10).map(|number| open(&format!("caller {number}"), MAX_STREAMS)).collect();
        assert_eq!(annas.len() + others.iter().map(Vec::len).sum::<usize>(), MAX_STREAMS);
        drop(annas);
        assert_eq!(open("bob", 1).len(), 1);
        drop(others);
        assert!(locked(&streams.0).is_empty());
    }
}
