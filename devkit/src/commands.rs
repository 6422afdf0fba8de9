//! The cargo aliases of `.cargo/config.toml`, one module for each.

pub(crate) mod chaos;
pub(crate) mod dev;
pub(crate) mod figures;
pub(crate) mod package;
