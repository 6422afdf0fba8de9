//! The client of the provider: OpenAI, or a server that implements its API.
//!
//! API reference: <https://platform.openai.com/docs/api-reference>.

mod answer;
mod body;
mod client;
mod download;
mod error;
mod family;
mod images;
mod memory;
mod models;
mod moderation;
mod remembered;
mod stream;
mod text;

pub use client::OpenAi;
pub use error::Error;
pub(crate) use family::DALL_E_STYLES;
pub use family::{ImageOptions, InvalidOption};
pub use images::ImageRequest;
pub use models::ModelState;
