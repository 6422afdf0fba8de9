//! Lists the container with a list token, plain HTTP and a streaming XML parser.
//!
//! The SDK's listing is not used: it fails a whole page for one unexpected blob, does not decode `Encoded`
//! names, and takes twice the time. API reference:
//! <https://learn.microsoft.com/rest/api/storageservices/list-blobs>.

use std::time::Duration;

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use reqwest::{StatusCode, Url, header};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::azure::Error;

/// The version of the service, sent as `x-ms-version`.
const VERSION: &str = "2022-11-02";
/// The most pages that are read. A page holds at most 5,000 blobs.
const MAX_PAGES: usize = 1_000;
/// Limit for one request.
const PAGE_TIMEOUT: Duration = Duration::from_secs(20);

/// A blob in a listing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) last_modified: Option<OffsetDateTime>,
}

/// One page of a listing.
#[derive(Debug, Default)]
struct Page {
    entries: Vec<Entry>,
    next_marker: Option<String>,
}

/// Lists all blobs of the container, or those whose names begin with `prefix`, in the order of the service. A
/// missing container has no blobs.
///
/// # Errors
/// A page could not be read, or there are more than [`MAX_PAGES`] pages (`Malformed`).
pub(super) async fn list(
    http: &reqwest::Client,
    container: &Url,
    token: &str,
    prefix: Option<&str>,
) -> Result<Vec<Entry>, Error> {
    let mut url = container.clone();
    url.set_query(Some(token));
    url.query_pairs_mut().append_pair("restype", "container").append_pair("comp", "list");
    if let Some(prefix) = prefix {
        url.query_pairs_mut().append_pair("prefix", prefix);
    }
    let mut entries = Vec::new();
    let mut marker = None;
    for _ in 0..MAX_PAGES {
        let Some(page) = fetch(http, url.clone(), marker.as_deref()).await? else { return Ok(entries) };
        entries.extend(page.entries);
        marker = page.next_marker;
        if marker.is_none() {
            return Ok(entries);
        }
    }
    Err(Error::Malformed)
}

async fn fetch(http: &reqwest::Client, mut url: Url, marker: Option<&str>) -> Result<Option<Page>, Error> {
    if let Some(marker) = marker {
        url.query_pairs_mut().append_pair("marker", marker);
    }
    // Listing changes nothing, so a 5xx or a broken connection is tried once more.
    let send = || http.get(url.clone()).header("x-ms-version", VERSION).timeout(PAGE_TIMEOUT).send();
    let response = match send().await {
        Ok(response) if response.status().is_server_error() => send().await,
        Ok(response) => Ok(response),
        Err(error) if error.is_timeout() => Err(error),
        Err(_) => send().await,
    };
    let response = response.map_err(|_| Error::Unreachable)?;
    let status = response.status();
    let code = response.headers().get("x-ms-error-code").and_then(|code| code.to_str().ok()).map(str::to_owned);
    if status == StatusCode::NOT_FOUND && code.as_deref() == Some("ContainerNotFound") {
        return Ok(None);
    }
    if !status.is_success() {
        return Err(Error::Answered {
            status: status.as_u16(),
            code: code.unwrap_or_else(|| "without a code".to_owned()),
        });
    }
    let is_xml = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/xml"));
    let body = response.bytes().await.map_err(|_| Error::Unreachable)?;
    let Ok(xml) = std::str::from_utf8(&body) else { return Err(Error::Malformed) };
    if is_xml { read(xml).map(Some) } else { Err(Error::Malformed) }
}

/// Parses a page. Unknown elements are skipped.
fn read(xml: &str) -> Result<Page, Error> {
    let mut reader = Reader::from_str(xml.trim_start_matches('\u{FEFF}'));
    let mut page = Page::default();
    let mut blob = Blob::default();
    let mut path: Vec<String> = Vec::new();
    let mut text = String::new();
    loop {
        match reader.read_event().map_err(|_| Error::Malformed)? {
            Event::Start(element) => {
                if element.local_name().as_ref() == "Blob" {
                    blob = Blob::default();
                }
                if element.local_name().as_ref() == "Name" {
                    blob.encoded = is_encoded(&element);
                }
                path.push(element.local_name().as_ref().to_owned());
                text.clear();
            }
            Event::Text(part) => text.push_str(&part),
            Event::CData(part) => text.push_str(&part),
            Event::GeneralRef(reference) => text.push_str(&resolve(&reference)?),
            Event::End(_) => {
                let names: Vec<&str> = path.iter().map(String::as_str).collect();
                match names.as_slice() {
                    [_, "Blobs", "Blob", "Name"] => blob.name = Some(std::mem::take(&mut text)),
                    [_, "Blobs", "Blob", "Properties", "Last-Modified"] => {
                        blob.last_modified = OffsetDateTime::parse(&text, &Rfc2822).ok();
                    }
                    [_, "Blobs", "Blob", "Properties", "ResourceType"] => blob.directory = text == "directory",
                    [_, "Blobs", "Blob"] => page.entries.extend(std::mem::take(&mut blob).entry()),
                    [_, "NextMarker"] if !text.is_empty() => page.next_marker = Some(std::mem::take(&mut text)),
                    _ => {}
                }
                path.pop();
                text.clear();
            }
            Event::Eof => break,
            _ => {}
        }
    }
    if path.is_empty() { Ok(page) } else { Err(Error::Malformed) }
}

/// The blob whose element is being parsed.
#[derive(Default)]
struct Blob {
    name: Option<String>,
    encoded: bool,
    last_modified: Option<OffsetDateTime>,
    directory: bool,
}

impl Blob {
    fn entry(self) -> Option<Entry> {
        let name = self.name.filter(|name| !name.is_empty() && !self.directory)?;
        let name = if self.encoded {
            percent_encoding::percent_decode_str(&name).decode_utf8_lossy().into_owned()
        } else {
            name
        };
        Some(Entry { name, last_modified: self.last_modified })
    }
}

/// Whether a name is percent-encoded. Since version 2021-02-12, the service encodes names that XML cannot hold.
fn is_encoded(element: &BytesStart<'_>) -> bool {
    element
        .attributes()
        .flatten()
        .any(|attribute| attribute.key.local_name().as_ref() == "Encoded" && attribute.value.as_ref() == "true")
}

fn resolve(reference: &BytesRef<'_>) -> Result<String, Error> {
    if let Some(character) = reference.resolve_char_ref().map_err(|_| Error::Malformed)? {
        return Ok(character.to_string());
    }
    resolve_predefined_entity(reference).map(str::to_owned).ok_or(Error::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(xml: &str) -> Vec<String> {
        read(xml).map(|page| page.entries.into_iter().map(|entry| entry.name).collect()).unwrap_or_default()
    }

    #[test]
    fn an_unexpected_blob_does_not_fail_its_page() {
        let xml = r#"<?xml version="1.0"?><EnumerationResults><Blobs>
            <Blob><Name>no properties</Name></Blob>
            <Blob><Name Encoded="true">a%EF%BF%BEb</Name><Properties><AccessTier>Polar</AccessTier></Properties></Blob>
            <Blob><Name>a &amp; b &#x1F431;</Name><Properties><Last-Modified>yesterday</Last-Modified></Properties></Blob>
            <Blob><Name>folder</Name><Properties><ResourceType>directory</ResourceType></Properties></Blob>
            <Blob><Properties><Content-Type/></Properties></Blob>
            <BlobPrefix><Name>prefix</Name></BlobPrefix>
        </Blobs><NextMarker>more</NextMarker></EnumerationResults>"#;
        assert_eq!(names(xml), ["no properties", "a\u{FFFE}b", "a & b 🐱"]);
    }

    #[test]
    fn a_truncated_page_is_an_error_and_not_a_short_page() {
        let whole = "<EnumerationResults><Blobs><Blob><Name>a</Name></Blob></Blobs><NextMarker/></EnumerationResults>";
        assert_eq!(names(whole), ["a"]);
        assert!(read(&whole[..60]).is_err());
    }
}
