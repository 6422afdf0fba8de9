//! The commands of `.cargo/config.toml`: each module is one.

pub(crate) mod chaos;
pub(crate) mod dev;
pub(crate) mod figures;
pub(crate) mod package;
