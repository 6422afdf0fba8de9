//! `GET /api/getImages`: the images with their links, newest first: all of them, or a page.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::{RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::{accept, etag};
use crate::app::App;
use crate::azure;
use crate::error::Problem;
use crate::gallery::{Bodies, Document, ImageId, Listed, NoListing, Wanted};

/// The most images of a page.
pub(super) const MAX_LIMIT: usize = 200;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    image_urls: &'a [Listed],
    /// The path of the next page. An answer with all images names it in the header `Link` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
}

pub(super) async fn handle(
    State(app): State<Arc<App>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let wanted = wanted(query.as_deref().unwrap_or_default())?;
    let (reader, key) = (Arc::clone(&app), wanted.clone());
    let document = app.listings.get(key, move || async move { list(&reader, &wanted).await }).await?;
    Ok(answer(&document, &headers, &app.bodies).await)
}

/// Reads `limit` and `cursor`. Other parameters are ignored: front ends add one against caches.
fn wanted(query: &str) -> Result<Wanted, Problem> {
    let value = |wanted: &str| {
        let mut pairs = url::form_urlencoded::parse(query.as_bytes());
        pairs.find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
    };
    let after = match value("cursor") {
        Some(text) => Some(ImageId::parse(&text).ok_or_else(|| {
            Problem::invalid_request("The parameter cursor is not from a page of this gallery. Take it from `next`.")
        })?),
        None => None,
    };
    match value("limit") {
        Some(text) => {
            let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit)).ok_or_else(|| {
                Problem::invalid_request(format!("The parameter limit must be a number from 1 to {MAX_LIMIT}."))
            })?;
            Ok(Wanted::Page { limit, after })
        }
        None if after.is_some() => {
            Err(Problem::invalid_request(format!("The parameter cursor needs limit, a number from 1 to {MAX_LIMIT}.")))
        }
        None => Ok(Wanted::All),
    }
}

/// Lists the images and writes the answer, once for all requests that came meanwhile.
async fn list(app: &App, wanted: &Wanted) -> Result<Arc<Document>, NoListing> {
    if *wanted == Wanted::All {
        app.bodies.check()?;
    }
    let images = app.gallery.list(wanted, (app.clock)()).await?;
    let (limit, is_page) = match wanted {
        Wanted::Page { limit, .. } => (*limit, true),
        Wanted::All => (MAX_LIMIT, false),
    };
    let next = images.next.map(|id| format!("/api/getImages?limit={limit}&cursor={}", id.as_str()));
    if next.is_some() && !is_page && !app.is_cut_logged.swap(true, Ordering::Relaxed) {
        tracing::warn!(
            event = "listing_cut",
            images = images.images.len(),
            "the gallery has more images than LISTING_LIMIT; answers of getImages without limit end there"
        );
    }
    let answer = Answer { image_urls: &images.images, next: next.as_deref().filter(|_| is_page) };
    let body = serde_json::to_vec(&answer).map_err(|_| azure::Error::Malformed)?;
    Ok(Arc::new(Document::new(app.bodies.hold(body)?, next)))
}

/// The document, or 304 for a caller that has it.
async fn answer(document: &Document, headers: &HeaderMap, bodies: &Bodies) -> Response {
    let has_it = etag::is_named(headers, &document.etag);
    let mut response = if has_it {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let gzip = if accept::takes_gzip(headers) { document.gzip(bodies).await } else { None };
        let is_gzip = gzip.is_some();
        let mut response = gzip.unwrap_or_else(|| document.body.clone()).into_response();
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if is_gzip {
            response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    };
    let link = document.next.as_ref().map(|next| format!("<{next}>; rel=\"next\""));
    let texts = [(header::ETAG, Some(document.etag.clone())), (header::LINK, link)];
    let texts = texts.into_iter().filter_map(|(name, text)| Some((name, HeaderValue::try_from(text?).ok()?)));
    response.headers_mut().extend(texts);
    // Caches ask again each time: an image is listed as soon as generateImage has answered.
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_is_all_images_or_a_page() {
        let id = ImageId::of("a fox_1700000000001.png", None);
        let after = |text: &str| text.replace("ID", id.as_str());
        for query in ["", "1699999999999", "_=123&_=456&flag", "limits=3", "%zz"] {
            assert_eq!(wanted(query).ok(), Some(Wanted::All), "{query}");
        }
        let first = Wanted::Page { limit: 60, after: None };
        assert_eq!(wanted("_=1&limit=60").ok(), Some(first));
        let next = Wanted::Page { limit: 200, after: Some(id.clone()) };
        assert_eq!(wanted(&after("cursor=ID&limit=200")).ok(), Some(next));
        for (query, parameter) in [
            ("limit=", "limit"),
            ("limit=0", "limit"),
            ("limit=201", "limit"),
            ("limit=-1", "limit"),
            ("limit=6e1", "limit"),
            ("limit=60&cursor=", "cursor"),
            ("limit=60&cursor=1", "cursor"),
            ("limit=60&cursor=ID'%20or%20'", "cursor"),
            ("cursor=ID", "cursor"),
        ] {
            let problem = wanted(&after(query)).expect_err(query);
            assert!(problem.sentence.contains(parameter), "{query}: {}", problem.sentence);
        }
    }
}
