//! The storage account: its blobs, its queue, its table. No SDK type leaves this folder, and no SDK
//! error is shown or logged as it is: its text can hold headers, signatures and whole bodies.

mod client;
mod container;
mod error;
mod queue;
mod table;
mod transaction;

pub(crate) use container::{Container, Grant, Properties};
pub use error::Error;
pub(crate) use queue::Queue;
pub(crate) use table::{Query, Table};
pub(crate) use transaction::{Change, Columns, Failed, Operation, Version};
