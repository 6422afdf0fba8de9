//! The files of both deployments: the zip, and the upload of `func azure functionapp publish`.

#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test that fails panics")]

use std::collections::BTreeMap;
use std::fs;
use std::io::Cursor;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Output};

use devkit::stand_ins::host::{FunctionsHost, Options, Wire};

const FOLDERS: [&str; 21] = [
    "generateImage",
    "generateImageJob",
    "generateSASToken",
    "getChatGPTSuggestion",
    "getImages",
    "health",
    "image",
    "imageRestore",
    "manageImage",
    "manageImageRestore",
    "openapi",
    "openapi31",
    "openapiYaml",
    "options",
    "processImage",
    "processImagePoison",
    "quota",
    "status",
    "styles",
    "usage",
    "web",
];

/// Runs `cargo package-app` with these options.
fn package_app(options: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_devkit")).arg("package-app").args(options).output().unwrap()
}

fn zip_path() -> PathBuf {
    devkit::target_dir().join("visionary.zip")
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test]
async fn the_zip_contains_only_the_app_and_its_handler_starts_from_it() {
    let native = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let package = package_app(&["--target", &native]);
    assert!(package.status.success(), "{}", String::from_utf8_lossy(&package.stderr));
    let bytes = fs::read(zip_path()).unwrap();
    // Where it can run, the default is the same target.
    let options: &[&str] = if native == "x86_64-unknown-linux-gnu" { &[] } else { &["--target", &native] };
    assert!(package_app(options).status.success());
    assert!(fs::read(zip_path()).unwrap() == bytes, "the same files do not give the same zip");

    let mut zip = zip::ZipArchive::new(Cursor::new(bytes)).unwrap();
    let mut modes = BTreeMap::new();
    for index in 0..zip.len() {
        let entry = zip.by_index(index).unwrap();
        modes.insert(entry.name().unwrap().into_owned(), entry.unix_mode().unwrap() & 0o777);
        assert_eq!(entry.last_modified().unwrap(), zip::DateTime::default(), "the time of the build is in the zip");
    }
    let functions = FOLDERS.iter().map(|folder| (format!("{folder}/function.json"), 0o644));
    let mut wanted: BTreeMap<String, u32> = functions.collect();
    wanted.extend([("host.json".to_owned(), 0o644), ("handler".to_owned(), 0o755)]);
    assert_eq!(modes, wanted);

    // The platform unpacks the zip like this.
    let app = devkit::target_dir().join(format!("devkit/unpacked-{}", std::process::id()));
    zip.extract(&app).unwrap();
    let handler = fs::read(app.join("handler")).unwrap();
    assert_eq!(fs::metadata(app.join("handler")).unwrap().permissions().mode() & 0o111, 0o111);
    assert!(!contains(&handler, "/ld-linux"), "the handler is linked dynamically");
    // Another machine has other paths, and would build other bytes.
    for folder in [devkit::root(), devkit::target_dir(), std::env::home_dir().unwrap()] {
        let folder = format!("{}/", folder.display());
        assert!(!contains(&handler, &folder), "the handler contains the path {folder}");
    }
    assert!(contains(&handler, "/crates/"), "the handler names its sources");
    let settings = [("OPENAI_API_KEY", "key"), ("AzureWebJobsStorage", "UseDevelopmentStorage=true")];
    let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let host = FunctionsHost::start(Options { settings, ..Options::new(app.clone(), Wire::Proxying) }).await.unwrap();
    let mut functions = host.functions();
    functions.sort_unstable();
    let queues = |folder: &&str| folder.starts_with("processImage");
    assert_eq!(functions, FOLDERS.iter().copied().filter(|folder| !queues(folder)).collect::<Vec<_>>());
    let token = reqwest::get(format!("{}/api/generateSASToken", host.url())).await.unwrap();
    assert_eq!(token.status(), 200);
    host.stop().await;
    fs::remove_dir_all(app).unwrap();
}

#[test]
fn a_target_that_is_not_installed_is_an_error_of_one_line() {
    let output = package_app(&["--target", "riscv64gc-unknown-linux-gnu"]);
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(!output.status.success());
    let wanted = "The target riscv64gc-unknown-linux-gnu is not installed. Run `rustup target add";
    assert!(error.starts_with(wanted) && error.lines().count() == 1, "{error}");
}

#[test]
fn publishing_from_the_root_uploads_only_the_app() {
    let root = devkit::root();
    let mut walk = ignore::WalkBuilder::new(&root);
    walk.standard_filters(false).add_custom_ignore_filename(".funcignore");
    let mut uploaded: Vec<String> = walk
        .build()
        .map(Result::unwrap)
        .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_file()))
        .map(|entry| entry.path().strip_prefix(&root).unwrap().to_str().unwrap().to_owned())
        // `cargo package-app` writes this file.
        .filter(|path| path != "handler")
        .collect();
    uploaded.sort();
    let mut wanted: Vec<String> = FOLDERS.iter().map(|folder| format!("{folder}/function.json")).collect();
    wanted.push("host.json".to_owned());
    wanted.sort();
    assert_eq!(uploaded, wanted);
}
