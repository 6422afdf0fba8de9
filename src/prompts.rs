//! Texts from the text model: enhanced prompts, and suggestions for prompts.

pub mod enhance;
mod styles;
mod suggestions;
mod text_cleanup;
mod text_limit;
mod text_model;

pub(crate) use suggestions::{Source, Suggestions, Topic};
pub(crate) use text_model::TextModel;
