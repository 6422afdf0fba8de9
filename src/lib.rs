//! Visionary: the backend of an AI image app, run by Azure Functions as a custom handler.
//!
//! The list below has the layers of the code, top to bottom. A module uses only modules of lower
//! layers. The test `no_module_calls_up` in `tests/architecture.rs` parses the list and enforces this
//! rule.
//!
//! 1. `main` reads the settings, starts the log, binds the port and runs the server.
//! 2. `server` serves requests and runs the background loops until the process stops.
//! 3. `functions` has the route table and one file for each function folder.
//! 4. `error` maps every failure to an HTTP status, an error code and a sentence.
//! 5. `expiry` deletes expired rows; `model_watch` reports models that the provider retires.
//! 6. `app` holds the services that requests share.
//! 7. `generation` takes a prompt to an image in the gallery.
//! 8. `prompts` suggests and enhances prompts with a text model.
//! 9. `openai` and `gallery` are the clients of the provider and of the image container.
//! 10. `azure` is the client of the storage account.
//! 11. `spending` computes prices, quotas and budgets.
//! 12. `caller`, `image`, `prompt` and `logs` are the basic types, and the log.
//! 13. `digest` makes keyed digests of identifiers.
//! 14. `config` reads the settings; `lock` locks a mutex.

pub mod app;
mod azure;
mod caller;
pub mod config;
mod digest;
pub mod error;
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
