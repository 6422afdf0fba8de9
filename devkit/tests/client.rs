//! The client (`client/`): its types, its conduct when the app fails, and its use of the whole app, in Node.js and in a
//! page of another origin.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails panics")]

mod support;

use std::fs;

use devkit::port::Port;

use support::{WholeApp, modules, node, require_chromium};

#[tokio::test]
async fn the_types_of_the_client_are_those_of_the_document_and_of_the_module() {
    let folder = tempfile::tempdir().unwrap();
    let packages = ("VISIONARY_CLIENT_MODULES", modules("client").await.to_str().unwrap().to_owned());

    node("client", &["types.mjs", folder.path().to_str().unwrap()], &[packages]).await;

    for name in ["wire.d.ts", "visionary.d.ts"] {
        let generated = fs::read_to_string(folder.path().join(name)).unwrap();
        let committed = fs::read_to_string(devkit::root().join("client").join(name)).unwrap();
        assert!(generated == committed, "client/{name} is outdated: run `node devkit/client/types.mjs client`");
    }
}

#[tokio::test]
async fn the_client_and_an_example_of_its_use_compile_in_strict_mode() {
    let compiler = modules("client").await.join("typescript/bin/tsc");
    let project = devkit::root().join("client");

    node("client", &[compiler.to_str().unwrap(), "-p", project.to_str().unwrap()], &[]).await;
}

#[tokio::test]
async fn the_client_goes_on_after_faults_and_names_refusals() {
    node("client", &["--test", "faults.test.mjs"], &[]).await;
}

#[tokio::test]
async fn the_client_uses_the_whole_app_in_node_and_from_another_origin_in_chromium() {
    require_chromium();
    let front_end = Port::reserve().unwrap();
    let origin = format!("http://127.0.0.1:{}", front_end.number());
    let app = WholeApp::start(&[("DAILY_IMAGE_QUOTA", "10")], std::slice::from_ref(&origin)).await;

    let mut environment = app.addresses().to_vec();
    environment.push(("VISIONARY_FRONT_END", front_end.number().to_string()));
    node("client", &["--test", "whole-app.mjs"], &environment).await;

    assert_eq!(app.openai.images_drawn().len(), 4, "each image is paid once");
    app.host.stop().await;
}
