//! The media type of an answer, by the Accept header (RFC 9110, section 12.5.1).

use axum::http::{HeaderMap, header};

/// The media type of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Accept {
    /// `text/plain`, for all callers that accept it. Axios names `application/json` first, but its
    /// users expect a string.
    Text,
    /// JSON, for callers that accept it and do not accept text.
    Json,
}

impl Accept {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let ranges: Vec<Range> = ranges(headers).collect();
        if ranges.is_empty() || accepts(&ranges, "text", "plain") {
            return Self::Text;
        }
        // The events of a stream contain JSON, so a problem document fits, too.
        let json = wants_events(headers)
            || accepts(&ranges, "application", "json")
            || accepts(&ranges, "application", "problem+json");
        if json { Self::Json } else { Self::Text }
    }
}

/// Whether the Accept header names server-sent events.
pub(super) fn wants_events(headers: &HeaderMap) -> bool {
    ranges(headers).any(|range| !range.refused && range.kind == "text" && range.subtype == "event-stream")
}

/// Whether the Accept header names CSV, and does not name JSON before it.
pub(super) fn prefers_csv(headers: &HeaderMap) -> bool {
    let mut named =
        ranges(headers).filter(|range| !range.refused && (range.subtype == "csv" || range.subtype == "json"));
    named.next().is_some_and(|range| range.subtype == "csv")
}

/// Whether the caller takes gzip (RFC 9110, section 12.5.3).
pub(super) fn takes_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|coding| {
        let (name, weight) = coding.split_once(';').unwrap_or((coding, "q=1"));
        let is_refused = weight.trim().trim_start_matches("q=").parse() == Ok(0.0_f32);
        name.trim().eq_ignore_ascii_case("gzip") && !is_refused
    })
}

fn ranges(headers: &HeaderMap) -> impl Iterator<Item = Range> {
    let values = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).filter_map(Range::parse)
}

struct Range {
    kind: String,
    subtype: String,
    refused: bool,
}

impl Range {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let refused = parts
            .filter_map(|parameter| parameter.split_once('='))
            .any(|(name, value)| name.trim().eq_ignore_ascii_case("q") && value.trim().parse() == Ok(0.0_f32));
        Some(Self { kind: kind.to_ascii_lowercase(), subtype: subtype.to_ascii_lowercase(), refused })
    }
}

/// Whether a type is accepted: the most specific range that matches it decides.
fn accepts(ranges: &[Range], kind: &str, subtype: &str) -> bool {
    let named = |k: &str, s: &str| ranges.iter().find(|range| range.kind == k && range.subtype == s);
    let range = named(kind, subtype).or_else(|| named(kind, "*")).or_else(|| named("*", "*"));
    range.is_some_and(|range| !range.refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_chosen_whenever_it_is_accepted() {
        for (accept, wanted) in [
            (None, Accept::Text),
            (Some("*/*"), Accept::Text),
            (Some("application/json, text/plain, */*"), Accept::Text),
            (Some("application/json, text/*;q=0.1"), Accept::Text),
            (Some("application/json"), Accept::Json),
            (Some("Application/JSON; charset=utf-8"), Accept::Json),
            (Some("application/problem+json"), Accept::Json),
            (Some("application/*"), Accept::Json),
            (Some("application/json, text/plain;q=0, */*"), Accept::Json),
            (Some("text/html"), Accept::Text),
            (Some("nonsense"), Accept::Text),
            (Some("text/event-stream"), Accept::Json),
            (Some("text/event-stream, */*"), Accept::Text),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(Ok(value)) = accept.map(str::parse) {
                headers.insert(header::ACCEPT, value);
            }
            assert_eq!(Accept::of(&headers), wanted, "{accept:?}");
        }
    }
}
