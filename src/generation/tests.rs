//! The records under stress, over a table in memory.

mod interleavings;
mod model;
mod scale;
