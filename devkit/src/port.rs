//! Ports for processes that are told theirs before they listen.
//!
//! A port that the system chose, and that was given back to be bound by somebody else, may be chosen
//! again in between. So these come from below what systems choose from (32768 on Linux, 49152
//! elsewhere, RFC 6335), and who reserves one holds its UDP twin, which keeps others of us away
//! for as long as the process lives, and however it ends.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;

use anyhow::Context as _;

const RANGE: Range<u16> = 20_000..30_000;

/// A port on 127.0.0.1 that nobody else reserves until this is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _twin: UdpSocket,
}

impl Port {
    /// Reserves a port on which nobody listens.
    ///
    /// # Errors
    /// If there is none.
    pub fn reserve() -> anyhow::Result<Self> {
        Self::reserve_in(RANGE)
    }

    fn reserve_in(range: Range<u16>) -> anyhow::Result<Self> {
        let mut numbers: Vec<u16> = range.clone().collect();
        fastrand::shuffle(&mut numbers);
        let free = |number| {
            let twin = UdpSocket::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
            TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
            Some(Self { number, _twin: twin })
        };
        numbers.into_iter().find_map(free).with_context(|| format!("no port of {range:?} is free"))
    }

    /// Its number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_nobody_elses_until_it_is_dropped() {
        let first = Port::reserve().unwrap();
        let only = first.number()..first.number() + 1;
        assert!(Port::reserve_in(only.clone()).is_err(), "it is reserved");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, first.number())).expect("its owner can bind it");
        drop(first);
        assert!(Port::reserve_in(only.clone()).is_err(), "somebody listens");
        drop(listener);
        assert_eq!(Port::reserve_in(only.clone()).unwrap().number(), only.start);
    }
}
