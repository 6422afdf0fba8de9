//! What the app meets in production, for tests and for `cargo dev`. Azurite is Microsoft's storage
//! emulator. OpenAI and the Functions host cannot run here: their stand-ins refuse what the real ones
//! refuse.

pub mod artist;
pub mod azurite;
pub mod faults;
pub mod host;
pub mod openai;
