//! Texts from the text model: enhanced prompts, and suggestions for prompts.

pub mod enhance;
mod styles;
mod suggestions;
mod text_cleanup;

pub(crate) use suggestions::{Source, Suggestions, Topic};
