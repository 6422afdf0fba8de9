//! `GET /`: the page, and its files. They are part of the binary (`build.rs`). A debug build reads them
//! for each request instead, so that a change needs no build.

mod bundle;

use std::borrow::Cow;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;

use self::bundle::{File, Page};
use super::{accept, etag, files};
use crate::app::App;
use crate::error::Problem;

/// The page as it was when the binary was built.
static BUILT: LazyLock<Page> = LazyLock::new(|| include!(concat!(env!("OUT_DIR"), "/page.rs")));
/// The repository from which the binary was built.
const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The name of a versioned file stands for one content.
const IMMUTABLE: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
/// Browsers ask each time whether the page has changed.
const REVALIDATED: HeaderValue = HeaderValue::from_static("no-cache");
const ROBOTS: HeaderName = HeaderName::from_static("x-robots-tag");

pub(super) async fn handle(State(app): State<Arc<App>>, uri: Uri, headers: HeaderMap) -> Result<Response, Problem> {
    let changed;
    let page = if cfg!(debug_assertions) && Path::new(ROOT).is_dir() {
        changed = bundle::read(Path::new(ROOT)).map_err(|error| Problem::internal(&error.to_string()))?;
        &changed
    } else {
        &*BUILT
    };
    let file = page.files.iter().find(|file| app.web.page && file.path == uri.path()).ok_or_else(Problem::not_found)?;
    let is_gzip = accept::takes_gzip(&headers);
    // The address of a page has no version.
    let is_page = file.content_type.starts_with("text/html");
    let etag = is_page.then(|| files::validator(&page.version, is_gzip));
    let has_it = etag.as_ref().is_some_and(|etag| etag::is_named(&headers, etag));
    let mut response = match has_it {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => files::content(file.content_type, bytes(file), is_gzip)?,
    };
    let answered = response.headers_mut();
    answered.insert(header::CACHE_CONTROL, if etag.is_some() { REVALIDATED } else { IMMUTABLE });
    answered.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    answered.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answered.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answered.insert(ROBOTS, HeaderValue::from_static("noindex"));
    let texts = [(header::CONTENT_SECURITY_POLICY, Some(policy(&app.web.image_origin))), (header::ETAG, etag)];
    answered.extend(texts.into_iter().filter_map(|(name, text)| Some((name, HeaderValue::try_from(text?).ok()?))));
    Ok(response)
}

fn bytes(file: &File) -> Bytes {
    match &file.gzip {
        Cow::Borrowed(bytes) => Bytes::from_static(bytes),
        Cow::Owned(bytes) => Bytes::copy_from_slice(bytes),
    }
}

/// What the page may load: its own files and answers, images of the gallery, and previews, which are `data:` URLs.
/// Texts never become markup or script (Trusted Types, <https://www.w3.org/TR/trusted-types/>).
fn policy(image_origin: &str) -> String {
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: {image_origin}; \
         connect-src 'self'; manifest-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; \
         require-trusted-types-for 'script'; trusted-types 'none'"
    )
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    /// The paths, media types and contents.
    fn shown(page: &Page) -> Vec<(&str, &str, String)> {
        let content = |file: &File| {
            let mut content = String::new();
            GzDecoder::new(&*file.gzip).read_to_string(&mut content).unwrap();
            content
        };
        page.files.iter().map(|file| (&*file.path, file.content_type, content(file))).collect()
    }

    #[test]
    fn the_binary_has_the_files_of_the_folder() {
        let folder = bundle::read(Path::new(ROOT)).unwrap();
        assert_eq!((&BUILT.version, shown(&BUILT)), (&folder.version, shown(&folder)));
    }
}
