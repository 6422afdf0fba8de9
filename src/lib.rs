//! Visionary: the backend of an AI image app, run by Azure Functions as a custom handler.
//!
//! A request goes one way, top to bottom in this list; nothing below calls up. A test reads the list
//! and holds the code to it (`tests/architecture.rs`).
//!
//! 1. `main` reads the settings, starts the log, binds and serves.
//! 2. `server` runs until it is told to stop.
//! 3. `functions` has one file per function folder, and the route table.
//! 4. `error` says what a caller is told when something below fails.
//! 5. `expiry` deletes rows that are past; `model_watch` looks out for models that go.
//! 6. `app` holds the services that requests work with.
//! 7. `generation` is the way from a prompt to an image in the gallery.
//! 8. `prompts` has texts written.
//! 9. `openai` and `gallery` are the two services outside.
//! 10. `azure` is the storage account.
//! 11. `spending` is the arithmetic of prices, quotas and budgets.
//! 12. `caller`, `image`, `prompt` and `logs` are what everything speaks in.
//! 13. `digest` names things so that nobody can tell what they stand for.
//! 14. `config` has the settings, `lock` the way to lock.

pub mod app;
mod azure;
mod caller;
pub mod config;
mod digest;
mod error;
mod expiry;
pub mod functions;
mod gallery;
mod generation;
mod image;
mod lock;
pub mod logs;
mod model_watch;
mod openai;
mod prompt;
mod prompts;
pub mod server;
mod spending;
