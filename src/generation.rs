//! Generations: from a prompt to an image in the gallery.
//!
//! Each generation has one record (`record`). Each step changes the record in one transaction
//! (`records`, written by `commit`).
//!
//! `accept` checks and accepts a request. `draw` draws and stores its image. `deliver` does the same
//! for a job that the queue delivers. `watch` reports the progress. `recover` uploads the images that
//! are still in the spool. `sweep` ends the generations of dead processes.

mod accept;
mod admission;
mod batch;
mod ceiling;
mod commit;
mod deliver;
mod draw;
mod error;
mod estimate;
mod generations;
mod message;
mod offer;
mod outcome;
mod preview;
mod progress;
mod record;
mod records;
mod recover;
mod report;
mod rows;
mod spool;
mod steps;
mod store;
mod sweep;
#[cfg(test)]
mod tests;
mod texts;
mod upload;
pub(crate) mod usage;
mod view;
mod watch;
mod watches;

pub(crate) use accept::{Accepted, Request};
pub(crate) use deliver::NotDelivered;
pub(crate) use error::{Drawn, Ended, Error};
pub(crate) use generations::{Generations, QUEUE, Services};
pub(crate) use message::Message;
pub(crate) use offer::Offer;
pub(crate) use outcome::Failure;
pub(crate) use progress::{Phase, Progress};
pub(crate) use record::{Address, Order};
pub(crate) use rows::{TIME, Work, timestamp};
pub use spool::Error as SpoolError;
pub(crate) use steps::Advanced;
