//! Puts the page (the files of `web/` and the client) and the views of `openapi.yaml`, ready to be sent, into the binary.

#[path = "src/functions/web/bundle.rs"]
mod bundle;
#[path = "src/functions/openapi/view.rs"]
mod view;

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=web");
    println!("cargo::rerun-if-changed=client/visionary.js");
    println!("cargo::rerun-if-changed=src/functions/web/bundle.rs");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    let page = bundle::read(Path::new("."))?;
    let mut files = String::new();
    for (number, file) in page.files.iter().enumerate() {
        let gzip = out.join(format!("{number}.gz"));
        fs::write(&gzip, &file.gzip)?;
        writeln!(
            files,
            "bundle::File {{ path: Cow::Borrowed({:?}), content_type: {:?}, gzip: Cow::Borrowed(include_bytes!({gzip:?})) }},",
            file.path, file.content_type
        )?;
    }
    let page = format!("bundle::Page {{ version: Cow::Borrowed({:?}), files: vec![\n{files}] }}\n", page.version);
    fs::write(out.join("page.rs"), page)?;
    write_contract(&out)
}

/// Writes the document and its two views, compressed.
fn write_contract(out: &Path) -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=openapi.yaml");
    println!("cargo::rerun-if-changed=src/functions/openapi/view.rs");
    let yaml = fs::read_to_string("openapi.yaml")?;
    let document = view::Value::parse(&yaml).map_err(|problem| format!("openapi.yaml: {problem}"))?;
    let files = [
        ("openapi.json.gz", document.json()),
        ("openapi-3.1.json.gz", document.into_3_1().json()),
        ("openapi.yaml.gz", yaml),
    ];
    for (name, content) in files {
        fs::write(out.join(name), bundle::compressed(content.as_bytes())?)?;
    }
    Ok(())
}
