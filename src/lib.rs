//! Visionary: the backend of an AI image app, run by Azure Functions as a custom handler.
//!
//! A request goes one way, top to bottom in this list; nothing below calls up
//! (`tests/architecture.rs` holds the arrows):
//!
//! 1. `main` reads the settings, starts the log, binds and serves.
//! 2. [`server`] runs until it is told to stop.
//! 3. [`functions`] has one file per function folder, and the route table.
//! 4. `work` is what happens to jobs; [`error`] says what a caller is told when something below fails.
//! 5. [`generate`], [`recover`], [`cleanup`] and [`lifecycle`] are the use cases; [`app`] is what they work with;
//!    [`suggest`] and [`director`] are what has texts written.
//! 6. [`quota`] is what may be spent; [`idempotency`], [`jobs`] and [`spool`] are what a paid picture is safe by;
//!    [`progress`] is for who watches.
//! 7. [`openai`] and [`gallery`] are the two services outside; [`azure`] is the storage account.
//! 8. [`prompt`], [`image`], [`caller`], [`price`], [`turns`], [`logs`] and [`config`] are what everything speaks in.

pub mod app;
pub mod azure;
pub mod caller;
pub mod cleanup;
pub mod config;
mod digest;
pub mod director;
pub mod error;
mod estimate;
pub mod functions;
pub mod gallery;
pub mod generate;
pub mod idempotency;
pub mod image;
pub mod jobs;
mod ledger;
pub mod lifecycle;
mod lock;
pub mod logs;
pub mod openai;
mod preview;
pub mod price;
pub mod progress;
pub mod prompt;
pub mod quota;
pub mod recover;
pub mod server;
pub mod spool;
pub mod suggest;
pub mod turns;
mod wording;
mod work;
