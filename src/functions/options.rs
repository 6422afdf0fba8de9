//! `GET /api/options`: what a request for an image may ask for. A front end that offers a choice reads it.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::etag;
use crate::app::App;
use crate::config::PromptEnhancement;
use crate::error::Problem;
use crate::generation::Offer;
use crate::prompts::enhance::STYLES;

/// The answer changes only with the settings and the release.
const CACHE_CONTROL: HeaderValue = HeaderValue::from_static("public, max-age=300");
/// Images that a front end may request for one prompt, each with a request of its own.
const VARIATIONS: [u32; 3] = [1, 2, 4];

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    sizes: Vec<Size>,
    qualities: Vec<Named>,
    formats: Vec<Named>,
    enhancements: [&'static str; 3],
    default_enhancement: &'static str,
    styles: Vec<Style>,
    /// Not more than a caller may draw in a day.
    variations: Vec<u32>,
    /// Whether there are jobs.
    jobs: bool,
    /// Whether users sign in (App Service authentication).
    sign_in: bool,
    max_prompt_characters: usize,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Size {
    name: String,
    /// In pixels, like the height.
    width: u32,
    height: u32,
    is_default: bool,
    /// The qualities that may be drawn in this size.
    qualities: Vec<&'static str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    name: &'static str,
    is_default: bool,
}

#[derive(Serialize)]
struct Style {
    name: &'static str,
    title: &'static str,
}

pub(super) async fn handle(State(app): State<Arc<App>>, headers: HeaderMap) -> Result<Response, Problem> {
    let body = serde_json::to_string(&answer(&app, app.generations.offer()));
    let body = body.map_err(|_| Problem::internal("the options could not be written as JSON"))?;
    let etag = etag::of(body.as_bytes());
    let mut response = if etag::is_named(&headers, &etag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, "application/json")], body).into_response()
    };
    response.headers_mut().insert(header::CACHE_CONTROL, CACHE_CONTROL);
    response.headers_mut().extend(HeaderValue::try_from(etag).map(|etag| (header::ETAG, etag)));
    Ok(response)
}

fn answer(app: &App, offer: Offer) -> Answer {
    let most = app.generations.daily_images().unwrap_or(u32::MAX);
    let sizes = offer.sizes.into_iter().enumerate().map(|(at, size)| Size {
        name: size.name(),
        width: size.width,
        height: size.height,
        is_default: at == 0,
        qualities: size.qualities,
    });
    let named = |name: &&'static str, default: Option<&'static str>| Named { name, is_default: default == Some(name) };
    Answer {
        sizes: sizes.collect(),
        qualities: offer.qualities.iter().map(|name| named(name, offer.default_quality)).collect(),
        formats: offer.formats.iter().map(|name| named(name, offer.formats.first().copied())).collect(),
        enhancements: [PromptEnhancement::Off, PromptEnhancement::Style, PromptEnhancement::Rewrite]
            .map(PromptEnhancement::name),
        default_enhancement: app.enhancement.name(),
        styles: STYLES.iter().map(|style| Style { name: style.name, title: style.title }).collect(),
        variations: VARIATIONS.into_iter().filter(|count| *count <= most).collect(),
        jobs: app.generations.can_queue(),
        sign_in: app.authentication,
        max_prompt_characters: offer.max_prompt_characters,
    }
}
