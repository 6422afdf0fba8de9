//! Texts that a model writes: better prompts, and ideas for prompts.

pub mod director;
mod styles;
mod suggestions;
mod text_cleanup;

pub(crate) use suggestions::{Source, Suggestions, Wish};
