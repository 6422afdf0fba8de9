//! Limits what callers hold at the same time in this process, such as event streams.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::Caller;
use crate::lock::locked;

/// The slots of one kind, and how many each caller has taken.
#[derive(Debug)]
pub(crate) struct Slots {
    max: usize,
    max_of_caller: usize,
    taken: Mutex<HashMap<Caller, usize>>,
}

/// A taken slot. It is free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Arc<Slots>,
    caller: Caller,
}

impl Slots {
    /// `max` slots, of which one caller may take `max_of_caller`.
    pub(crate) fn new(max: usize, max_of_caller: usize) -> Arc<Self> {
        Arc::new(Self { max, max_of_caller, taken: Mutex::default() })
    }

    /// Takes a slot; `None` if a limit is reached.
    pub(crate) fn take(self: &Arc<Self>, caller: &Caller) -> Option<Slot> {
        let mut taken = locked(&self.taken);
        let all: usize = taken.values().sum();
        if all >= self.max || taken.get(caller).is_some_and(|count| *count >= self.max_of_caller) {
            return None;
        }
        *taken.entry(caller.clone()).or_default() += 1;
        Some(Slot { slots: Arc::clone(self), caller: caller.clone() })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = locked(&self.slots.taken);
        if let Some(count) = taken.get_mut(&self.caller) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_limited_for_a_caller_and_in_all_and_count_until_they_are_dropped() {
        let slots = Slots::new(500, 100);
        let take = |name: &str, count: usize| -> Vec<Slot> {
            (0..count).map_while(|_| slots.take(&Caller::named(name))).collect()
        };
        let annas = take("anna", 500);
        assert_eq!(annas.len(), 100);
        let others: Vec<_> = (0..10).map(|number| take(&format!("caller {number}"), 500)).collect();
        assert_eq!(annas.len() + others.iter().map(Vec::len).sum::<usize>(), 500);
        drop(annas);
        assert_eq!(take("bob", 1).len(), 1);
        drop(others);
        assert!(locked(&slots.taken).is_empty());
    }
}
