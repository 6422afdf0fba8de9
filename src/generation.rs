//! From a prompt to an image in the gallery. A generation is one record (`record`), and each of its
//! steps is one transaction (`records`, written by `commit`).
//!
//! A request is looked at and accepted (`accept`), drawn and stored (`draw`), or delivered by the
//! queue as a job (`deliver`), and watched (`watch`). What a process leaves behind is recovered
//! (`recover`) by whoever finds it (`sweep`).

mod accept;
mod admission;
mod batch;
mod commit;
mod deliver;
mod draw;
mod error;
mod estimate;
mod generations;
mod message;
mod outcome;
mod preview;
mod progress;
mod record;
mod records;
mod recover;
mod rows;
mod spool;
mod steps;
mod sweep;
#[cfg(test)]
mod tests;
pub(crate) mod usage;
mod view;
mod watch;
mod watches;

pub(crate) use accept::{Accepted, Request};
pub(crate) use deliver::NotDelivered;
pub(crate) use error::{Drawn, Ended, Error};
pub use generations::Clock;
pub(crate) use generations::{Generations, QUEUE};
pub(crate) use message::Message;
pub(crate) use outcome::Failure;
pub(crate) use progress::{Phase, Progress};
pub(crate) use record::{Address, Order};
pub(crate) use rows::{TIME, timestamp};
pub use spool::Error as SpoolError;
pub(crate) use steps::Advanced;
