//! Makes the files of the page ready to be sent: without comments, with a version in their names, and compressed.
//! `build.rs` includes this file, too.

use std::borrow::Cow;
use std::fs;
use std::io::{self, Write as _};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;

/// A kind of files that the page consists of.
struct Kind {
    /// The end of the names.
    end: &'static str,
    content_type: &'static str,
    /// The beginning and the end of a comment, in texts that have comments and refer to other files.
    comments: Option<(&'static str, &'static str)>,
}

/// Files of other kinds, such as `tsconfig.json`, are not sent.
const KINDS: [Kind; 6] = [
    Kind { end: "html", content_type: "text/html; charset=utf-8", comments: Some(("<!--", "-->")) },
    Kind { end: "css", content_type: "text/css; charset=utf-8", comments: Some(("/*", "*/")) },
    Kind { end: "js", content_type: "text/javascript; charset=utf-8", comments: Some(("/*", "*/")) },
    Kind { end: "svg", content_type: "image/svg+xml", comments: None },
    Kind { end: "png", content_type: "image/png", comments: None },
    Kind { end: "woff2", content_type: "font/woff2", comments: None },
];
/// The module of the page that is not in `web/`: the client, which other front ends use, too. Its name in the page is
/// the last part.
const CLIENT: (&str, &str) = ("client/", "visionary.js");
/// The file at `/`.
const INDEX: &str = "index.html";

/// The page.
#[derive(Debug)]
pub(super) struct Page {
    /// A hash of all files. It is in all names but those of pages, so a browser never mixes two versions.
    pub(super) version: Cow<'static, str>,
    pub(super) files: Vec<File>,
}

/// A file of the page, as it is sent.
#[derive(Debug)]
pub(super) struct File {
    /// The path of its URL.
    pub(super) path: Cow<'static, str>,
    /// The media type.
    pub(super) content_type: &'static str,
    /// The content, compressed.
    pub(super) gzip: Cow<'static, [u8]>,
}

/// Reads the page's files from the repository at `root`: those in `web/`, and the client.
///
/// # Errors
/// A file cannot be read, or see [`page`].
pub(super) fn read(root: &Path) -> io::Result<Page> {
    let mut sources = vec![(CLIENT.1.to_owned(), fs::read(root.join(CLIENT.0).join(CLIENT.1))?)];
    for entry in fs::read_dir(root.join("web"))? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if kind(name).is_some() && !name.starts_with('.') && path.is_file() {
            sources.push((name.to_owned(), fs::read(&path)?));
        }
    }
    sources.sort();
    page(&sources).map_err(io::Error::other)
}

/// Makes a page of source files, which are in a fixed order.
///
/// # Errors
/// A file is missing or has a name that cannot be part of a path.
fn page(sources: &[(String, Vec<u8>)]) -> Result<Page, String> {
    if !sources.iter().any(|(name, _)| name == INDEX) {
        return Err(format!("web/{INDEX} does not exist"));
    }
    let version = version(sources);
    let mut files = Vec::new();
    for (name, content) in sources {
        // The host and this app match paths in lower case.
        if name.bytes().any(|byte| !byte.is_ascii_lowercase() && !byte.is_ascii_digit() && !b".-_".contains(&byte)) {
            return Err(format!("web/{name}: use lower-case letters, digits, dots, hyphens and underscores only"));
        }
        let Some(Kind { content_type, comments, .. }) = kind(name) else { continue };
        let content = match comments {
            Some(comments) => {
                let text = std::str::from_utf8(content).map_err(|_| format!("web/{name} is not UTF-8"))?;
                let text = without_comments(name, text, comments)?;
                Cow::Owned(with_versions(name, &text, sources, &version)?.into_bytes())
            }
            None => Cow::Borrowed(content),
        };
        files.push(File {
            path: Cow::Owned(format!("/{}", versioned(name, &version))),
            content_type,
            gzip: Cow::Owned(compressed(&content).map_err(|error| error.to_string())?),
        });
    }
    Ok(Page { version: Cow::Owned(version), files })
}

fn kind(name: &str) -> Option<Kind> {
    let (_, end) = name.rsplit_once('.')?;
    KINDS.into_iter().find(|kind| kind.end == end)
}

/// A hash of all names and contents, in hexadecimal. FNV-1a
/// (<https://datatracker.ietf.org/doc/html/draft-eastlake-fnv>) is enough: it tells versions apart and protects
/// nothing.
fn version(sources: &[(String, Vec<u8>)]) -> String {
    let bytes = sources.iter().flat_map(|(name, content)| {
        let length = content.len().to_be_bytes();
        name.bytes().chain(length).chain(content.iter().copied()).collect::<Vec<u8>>()
    });
    let hash = bytes
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
    // Eight digits: longer names would weigh more than they tell.
    format!("{:08x}", (hash ^ (hash >> 32)) & 0xffff_ffff)
}

/// `app.js` with a version, such as `app.01234567.js`. The address of a page has none: `index.html` is at `/` and
/// `docs.html` at `/docs`.
fn versioned(name: &str, version: &str) -> String {
    match name.rsplit_once('.') {
        Some((stem, "html")) if name != INDEX => stem.to_owned(),
        Some((stem, end)) if name != INDEX => format!("{stem}.{version}.{end}"),
        _ => String::new(),
    }
}

/// A text without comments, indentation and empty lines, which are a third of its compressed size. It does not know
/// strings: none may contain the beginning of a comment or a line that begins with `//`.
///
/// # Errors
/// A comment has no end.
fn without_comments(name: &str, text: &str, (begin, end): (&str, &str)) -> Result<String, String> {
    let (mut code, mut rest) = (String::with_capacity(text.len()), text);
    while let Some((before, comment)) = rest.split_once(begin) {
        let (_, after) = comment.split_once(end).ok_or_else(|| format!("web/{name} has a comment without an end"))?;
        code.push_str(before);
        // The space after a comment within a line.
        rest = after.strip_prefix(' ').unwrap_or(after);
    }
    code.push_str(rest);
    let lines = code.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// Replaces references to other files: what stands between quotes, or between parentheses as in CSS, and is the
/// name of a file, alone or after `./` or `/`, or after `../client/` for the client.
///
/// # Errors
/// A reference with `./` or `../` leads to a file that does not exist.
fn with_versions(name: &str, text: &str, sources: &[(String, Vec<u8>)], version: &str) -> Result<String, String> {
    const ENDS: [char; 5] = ['"', '\'', '`', '(', ')'];
    let mut written = String::with_capacity(text.len());
    // A reference stands between two of these characters, so it is a whole piece.
    for piece in text.split_inclusive(ENDS) {
        let reference = piece.trim_end_matches(ENDS);
        let of_client = reference.strip_prefix("../").and_then(|path| path.strip_prefix(CLIENT.0));
        let target = of_client.unwrap_or(reference).trim_start_matches("./").trim_start_matches('/');
        if sources.iter().any(|(known, _)| known == target) {
            let before = if of_client.is_some() { "./" } else { &reference[..reference.len() - target.len()] };
            written.push_str(&format!("{before}{}{}", versioned(target, version), &piece[reference.len()..]));
        } else if reference.starts_with('.') && kind(target).is_some() {
            return Err(format!("web/{name} refers to {reference}, which does not exist; names must be written out"));
        } else {
            written.push_str(piece);
        }
    }
    Ok(written)
}

/// The content, compressed as well as gzip can.
pub(super) fn compressed(content: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content)?;
    encoder.finish()
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    /// The most bytes that a visit loads, compressed.
    const MOST: usize = 30 * 1024;

    fn sources(files: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
        files.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
    }

    fn text(file: &File) -> String {
        let mut text = String::new();
        flate2::read::GzDecoder::new(&*file.gzip).read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn files_refer_to_each_other_by_names_with_the_version() {
        let page = page(&sources(&[
            (
                "visionary.js",
                "// Calls.\nimport './app.js';\n\n/**\n * @type {import(\"./no.js\").T}\n */\nexport const x = {\n    y: \
                 /** @type {T} */ ('app.js or so'), // kept\n};",
            ),
            ("app.js", "import { x } from \"../client/visionary.js\";\nconst texts = () => import('./texts.de.js');"),
            ("index.html", "<!-- The page. -->\n<link href=\"./page.css\"><script type=\"module\" src='/app.js'></script><a href=\"./\">"),
            ("page.css", "@import \"page.css\"; i { background: url(./sun.svg) } b { background: url('sun.svg') }"),
            ("sun.svg", "<svg><use href=\"./app.js\"/></svg>"),
            ("texts.de.js", "export default \"./app.js?\""),
        ]))
        .unwrap();
        let version = &page.version;
        assert!(version.len() == 8 && version.bytes().all(|byte| byte.is_ascii_hexdigit()), "{version}");
        let shown: Vec<String> = page
            .files
            .iter()
            .map(|file| format!("{} {}: {}", file.path, file.content_type, text(file)).replace(&**version, "V"))
            .collect();
        insta::assert_snapshot!(shown.join("\n"), @r#"
        /visionary.V.js text/javascript; charset=utf-8: import './app.V.js';
        export const x = {
        y: ('app.js or so'), // kept
        };
        /app.V.js text/javascript; charset=utf-8: import { x } from "./visionary.V.js";
        const texts = () => import('./texts.de.V.js');
        / text/html; charset=utf-8: <link href="./page.V.css"><script type="module" src='/app.V.js'></script><a href="./">
        /page.V.css text/css; charset=utf-8: @import "page.V.css"; i { background: url(./sun.V.svg) } b { background: url('sun.V.svg') }
        /sun.V.svg image/svg+xml: <svg><use href="./app.js"/></svg>
        /texts.de.V.js text/javascript; charset=utf-8: export default "./app.js?"
        "#);
    }

    #[test]
    fn each_change_changes_the_version() {
        let version = |files: &[(&str, &str)]| page(&sources(files)).unwrap().version.into_owned();
        let index = ("index.html", "<p>");
        let versions = [
            version(&[index]),
            version(&[("index.html", "<b>")]),
            version(&[("a.js", ""), index]),
            version(&[("a.js", "1"), index]),
            version(&[("b.js", ""), index]),
        ];
        for (at, version) in versions.iter().enumerate() {
            assert!(!versions[..at].contains(version), "{versions:?}");
        }
        assert_eq!(versions[0], version(&[index]));
    }

    #[test]
    fn a_missing_file_and_a_name_that_is_no_path_are_errors() {
        for (files, wanted) in [
            (vec![("app.js", "")], "web/index.html does not exist"),
            (vec![("index.html", "<script src=\"./app.js\">")], "web/index.html refers to ./app.js"),
            (vec![("index.html", "<script src=\"../client/a.js\">")], "web/index.html refers to ../client/a.js"),
            (vec![("index.html", ""), ("app.js", "import(`./texts.${x}.js`)")], "web/app.js refers to ./texts.${x}.js"),
            (vec![("index.html", ""), ("App.js", "")], "web/App.js: use lower-case letters"),
            (
                vec![("index.html", ""), ("app.js", "const types = \"image/*\";")],
                "web/app.js has a comment without an end",
            ),
        ] {
            let error = page(&sources(&files)).unwrap_err();
            assert!(error.starts_with(wanted), "{error}");
        }
    }

    #[test]
    fn a_visit_of_the_page_loads_at_most_30_kib_compressed() {
        let page = read(Path::new(env!("CARGO_MANIFEST_DIR"))).unwrap();
        // The page at `/docs` is another one.
        let files = page.files.iter().filter(|file| !file.path.starts_with("/docs"));
        let sizes: Vec<(&str, usize)> = files.map(|file| (&*file.path, file.gzip.len())).collect();
        // A visit loads the texts of one language.
        let (languages, others): (Vec<_>, Vec<_>) = sizes.iter().partition(|(path, _)| is_language(path));
        let longest = languages.iter().map(|(_, bytes)| bytes).max().unwrap();
        assert!(others.iter().map(|(_, bytes)| bytes).sum::<usize>() + longest <= MOST, "{sizes:?}");
        assert!(languages.len() == 2 && sizes.iter().any(|(path, _)| *path == "/"), "{sizes:?}");
    }

    /// Whether a path is that of a language's texts, such as `/texts.de.01234567.js`.
    fn is_language(path: &str) -> bool {
        path.starts_with("/texts.") && path.matches('.').count() == 3
    }
}
