//! Port numbers for child processes that get theirs before they listen.
//!
//! The usual way is to bind port 0, read the number and close the socket. The system may then give the
//! same number to another process before the child binds it. This module avoids both causes:
//!
//! - The numbers are below the range from which systems choose (from 32768 on Linux, from 49152
//!   elsewhere, RFC 6335).
//! - A reservation binds the UDP port of the same number, which keeps every other reservation away.
//!   The system frees that port when the process ends, even after a crash.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;

use anyhow::Context as _;

const RANGE: Range<u16> = 20_000..30_000;

/// A reserved TCP port on 127.0.0.1. The reservation ends when the value is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _twin: UdpSocket,
}

impl Port {
    /// Reserves a port on which no process listens.
    ///
    /// # Errors
    /// Fails if no port of the range is free.
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
        numbers.into_iter().find_map(free).with_context(|| format!("no port in {range:?} is free"))
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_or_used_port_is_not_reserved_again() {
        let first = Port::reserve().unwrap();
        let only = first.number()..first.number() + 1;
        assert!(Port::reserve_in(only.clone()).is_err(), "the port is reserved");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, first.number()))
            .expect("the owner of the reservation can bind the port");
        drop(first);
        assert!(Port::reserve_in(only.clone()).is_err(), "a socket listens on the port");
        drop(listener);
        assert_eq!(Port::reserve_in(only.clone()).unwrap().number(), only.start);
    }
}
