//! Texts that a model writes: better prompts, and ideas for prompts.

pub mod enhance;
mod styles;
mod suggestions;
mod text_cleanup;

pub(crate) use suggestions::{Source, Suggestions, Topic};
