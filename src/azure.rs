//! The clients of the storage account: blobs, queue and table. No SDK type leaves this folder. An SDK error
//! is neither shown nor logged, because its text can contain headers, signatures and whole bodies.

mod authorization;
mod client;
mod container;
mod credential;
mod delegation;
mod error;
mod http;
mod queue;
mod renewed;
mod sas;
mod table;
mod transaction;

pub(crate) use container::{Container, Properties};
pub use credential::NoToken;
pub(crate) use credential::{Credential, STORAGE};
pub use error::Error;
pub(crate) use http::{Http, Purpose};
pub(crate) use queue::Queue;
pub(crate) use sas::Grant;
pub(crate) use table::{Continuation, Page, Query, STATE_TABLE, Table};
pub(crate) use transaction::{Change, Columns, Failed, Operation, Version};
