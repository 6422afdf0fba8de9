//! The log: JSON lines on stdout. The Functions host records each line with level Information.

use tracing::Level;
use tracing_subscriber::filter::{FilterExt as _, Targets, filter_fn};
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;

/// Why [`start`] failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// `RUST_LOG` is not a valid filter.
    #[error("RUST_LOG is malformed: expected levels as in `info` or `visionary=debug,warn`")]
    Filter,
    /// The log has already been started.
    #[error("the log has already been started")]
    Started,
}

/// Starts the log with a filter in the syntax of [`Targets`].
///
/// Libraries log nothing more verbose than `info`, even if `filter` allows it: at `debug` the storage
/// SDK logs the Authorization header (RUSTSEC-2026-0275), and HTTP libraries log URLs.
///
/// # Errors
/// See [`Error`].
pub fn start(filter: &str) -> Result<(), Error> {
    let wanted: Targets = filter.parse().map_err(|_| Error::Filter)?;
    let ours = |target: &str| target == "visionary" || target == "handler" || target.starts_with("visionary::");
    let without_secrets = filter_fn(move |metadata| *metadata.level() <= Level::INFO || ours(metadata.target()));
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_writer(std::io::stdout);
    tracing_subscriber::registry()
        .with(lines.with_filter(wanted.and(without_secrets)))
        .try_init()
        .map_err(|_| Error::Started)
}

/// An error and its sources on one line, separated by colons.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
