//! The cargo aliases of `.cargo/config.toml`, one module for each, and the handler that two of them start.

pub(crate) mod attack;
pub(crate) mod chaos;
pub(crate) mod contract;
pub(crate) mod dev;
pub(crate) mod figures;
pub(crate) mod handler;
pub(crate) mod package;
pub(crate) mod page;
