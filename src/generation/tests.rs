//! Tests of the records and the committer on a table in memory.

mod committer;
mod interleavings;
mod model;
mod scale;
