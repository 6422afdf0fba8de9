//! The records under stress, over a table in memory.

mod committer;
mod interleavings;
mod model;
mod scale;
