//! Stand-ins for the services that the app meets in production, for the tests and for `cargo dev`.
//!
//! Azurite is Microsoft's storage emulator. The OpenAI API and the Functions host cannot run here, so
//! their stand-ins imitate them and refuse the requests that the real ones refuse.

pub mod artist;
pub mod azurite;
mod certificate;
pub mod collector;
pub mod faults;
mod forward;
pub mod host;
pub mod identity;
pub mod keyless;
pub mod listing;
pub mod openai;
