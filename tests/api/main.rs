//! Tests of the app through HTTP: the handler process behind the stand-in for the Functions host, with
//! Azurite and the stand-in for OpenAI.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails panics")]

mod conduct;
mod contract;
mod enhance;
mod errors;
mod events;
mod faults;
mod faults_process;
mod faults_storage;
mod gallery;
mod generate_image;
mod harness;
mod hostile;
mod idempotency;
mod identity;
mod images;
mod jobs;
mod matrix;
mod memory;
mod model_watch;
mod operating;
mod options;
mod pages;
mod promises;
mod providers;
mod quota;
mod reconcile;
mod routes;
mod settings;
mod spool;
mod sse;
mod suggestion;
mod thumbnails;
mod tokens;
mod ways;
mod web;
