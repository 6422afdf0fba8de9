//! Puts the files of the page, ready to be sent, into the binary.

#[path = "src/functions/web/bundle.rs"]
mod bundle;

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
    Ok(())
}
