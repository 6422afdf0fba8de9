//! The clients of the storage account: blobs, queue and table. No SDK type leaves this folder. An SDK error
//! is neither shown nor logged, because its text can contain headers, signatures and whole bodies.

mod client;
mod container;
mod error;
mod http;
mod queue;
mod sas;
mod table;
mod transaction;

pub(crate) use container::{Container, Properties};
pub use error::Error;
pub(crate) use http::{Http, Purpose};
pub(crate) use queue::Queue;
pub(crate) use sas::Grant;
pub(crate) use table::{Continuation, Page, Query, Table};
pub(crate) use transaction::{Change, Columns, Failed, Operation, Version};
