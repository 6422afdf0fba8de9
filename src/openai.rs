//! The provider of images and texts: OpenAI, or a server that speaks its API.
//!
//! The API's reference: <https://platform.openai.com/docs/api-reference>.

mod body;
mod client;
mod download;
mod error;
mod family;
mod images;
mod models;
mod moderation;
mod stream;
mod text;
mod trouble;

pub use client::OpenAi;
pub use error::Error;
pub(crate) use family::DALL_E_STYLES;
pub use family::{InvalidWish, Wishes};
pub use images::Drawing;
pub use models::ModelState;
