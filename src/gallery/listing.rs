//! Lists the container with a list token, plain HTTP and a streaming XML parser.
//!
//! The SDK's listing is not used: it fails a whole page for one unexpected blob, does not decode `Encoded`
//! names, and takes twice the time. API reference:
//! <https://learn.microsoft.com/rest/api/storageservices/list-blobs>.

use std::collections::BTreeMap;
use std::time::Duration;

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesRef, BytesStart, Event};
use reqwest::{Method, Url, header};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

use crate::azure::{Error, Http, Purpose};

/// The version of the service, sent as `x-ms-version`.
const VERSION: &str = "2022-11-02";
/// The most pages that are read for one list of all blobs. A page holds at most 5,000 blobs.
pub(super) const MAX_PAGES: usize = 1_000;
/// Limit for one request.
const PAGE_TIMEOUT: Duration = Duration::from_secs(20);

/// A blob in a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) last_modified: Option<OffsetDateTime>,
    pub(super) content_type: Option<String>,
    /// The metadata, with keys in lower case. Only [`Listing::with_metadata`] asks for it.
    pub(super) metadata: BTreeMap<String, String>,
}

/// One page of a listing.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) entries: Vec<Entry>,
    /// Where the next page begins; `None` after the last page.
    pub(super) next_marker: Option<String>,
}

/// A listing of the container's blobs, in the order of the service. A missing container has no blobs.
#[derive(Debug)]
pub(super) struct Listing {
    http: Http,
    url: Url,
}

impl Listing {
    /// A listing with a list token.
    pub(super) fn new(http: &Http, container: &Url, token: &str) -> Self {
        let mut url = container.clone();
        url.set_query(Some(token));
        url.query_pairs_mut().append_pair("restype", "container").append_pair("comp", "list");
        Self { http: http.clone(), url }
    }

    /// Lists only the blobs whose names begin with `prefix`.
    pub(super) fn with_prefix(mut self, prefix: &str) -> Self {
        self.url.query_pairs_mut().append_pair("prefix", prefix);
        self
    }

    /// Lists the blobs' metadata, too.
    pub(super) fn with_metadata(mut self) -> Self {
        self.url.query_pairs_mut().append_pair("include", "metadata");
        self
    }

    /// Reads the page that begins at a marker.
    ///
    /// # Errors
    /// The page could not be read completely.
    pub(super) async fn page(&self, marker: Option<&str>) -> Result<Page, Error> {
        let mut url = self.url.clone();
        if let Some(marker) = marker {
            url.query_pairs_mut().append_pair("marker", marker);
        }
        fetch(&self.http, url).await
    }

    /// The blobs of a page and of all pages after it.
    ///
    /// # Errors
    /// A page could not be read, or there are more than `max_pages` more pages (`Malformed`).
    pub(super) async fn all_from(&self, first: Page, max_pages: usize) -> Result<Vec<Entry>, Error> {
        let Page { mut entries, next_marker: mut marker } = first;
        for _ in 0..max_pages {
            let Some(at) = marker else { return Ok(entries) };
            let page = self.page(Some(&at)).await?;
            entries.extend(page.entries);
            marker = page.next_marker;
        }
        if marker.is_none() { Ok(entries) } else { Err(Error::Malformed) }
    }
}

async fn fetch(http: &Http, url: Url) -> Result<Page, Error> {
    let _permit = http.permit(Purpose::Caller).await?;
    // Listing changes nothing, so a 5xx or a broken connection is tried once more.
    let send = || http.request(Method::GET, &url).header("x-ms-version", VERSION).timeout(PAGE_TIMEOUT).send();
    let response = match send().await {
        Ok(response) if response.status().is_server_error() => send().await,
        Ok(response) => Ok(response),
        Err(error) if error.is_timeout() => Err(error),
        Err(_) => send().await,
    };
    let response = response.map_err(|_| Error::Unreachable)?;
    if !response.status().is_success() {
        let error = Error::of_answer(&response);
        return if error.is_not_found() && error.is("ContainerNotFound") { Ok(Page::default()) } else { Err(error) };
    }
    let is_xml = response
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/xml"));
    let body = response.bytes().await.map_err(|_| Error::Unreachable)?;
    let Ok(xml) = std::str::from_utf8(&body) else { return Err(Error::Malformed) };
    if is_xml { read(xml) } else { Err(Error::Malformed) }
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
                    [_, "Blobs", "Blob", "Name"] => blob.entry.name = std::mem::take(&mut text),
                    [_, "Blobs", "Blob", "Properties", "Content-Type"] if !text.is_empty() => {
                        blob.entry.content_type = Some(std::mem::take(&mut text));
                    }
                    [_, "Blobs", "Blob", "Metadata", key] => {
                        blob.entry.metadata.insert(key.to_ascii_lowercase(), std::mem::take(&mut text));
                    }
                    [_, "Blobs", "Blob", "Properties", "Last-Modified"] => {
                        blob.entry.last_modified = OffsetDateTime::parse(&text, &Rfc2822).ok();
                    }
                    [_, "Blobs", "Blob", "Properties", "ResourceType"] => blob.directory = text == "directory",
                    [_, "Blobs", "Blob"] => page.entries.extend(std::mem::take(&mut blob).read()),
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
    entry: Entry,
    encoded: bool,
    directory: bool,
}

impl Blob {
    fn read(self) -> Option<Entry> {
        let mut entry = self.entry;
        if entry.name.is_empty() || self.directory {
            return None;
        }
        if self.encoded {
            entry.name = percent_encoding::percent_decode_str(&entry.name).decode_utf8_lossy().into_owned();
        }
        Some(entry)
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
    fn metadata_and_content_type_belong_to_their_blob() {
        let xml = r#"<EnumerationResults><Blobs>
            <Blob><Name>a</Name><Properties><Content-Type>image/png</Content-Type></Properties>
                <Metadata><Prompt>a%20fox</Prompt><size>1024x1024</size><empty/></Metadata></Blob>
            <Blob><Name>b</Name><Properties><Content-Type /></Properties><Metadata /></Blob>
        </Blobs><NextMarker /></EnumerationResults>"#;
        let entries = read(xml).expect("a page").entries;
        let pairs = [("prompt", "a%20fox"), ("size", "1024x1024")];
        let wanted = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!((&entries[0].content_type, &entries[0].metadata), (&Some("image/png".to_owned()), &wanted.into()));
        assert_eq!(entries[1], Entry { name: "b".to_owned(), ..Entry::default() });
    }

    #[test]
    fn a_truncated_page_is_an_error_and_not_a_short_page() {
        let whole = "<EnumerationResults><Blobs><Blob><Name>a</Name></Blob></Blobs><NextMarker/></EnumerationResults>";
        assert_eq!(names(whole), ["a"]);
        assert!(read(&whole[..60]).is_err());
    }
}
