//! A row of the index: what a page of the gallery shows of one image.

use percent_encoding::percent_decode_str;

use super::id::ImageId;
use super::listing::Entry;
use super::thumbnail::{Size, Thumbnail};
use crate::azure::Columns;
use crate::caller::Caller;
use crate::spending::Cost;

const NAME: &str = "Name";
const CONTENT_TYPE: &str = "ContentType";
const WIDTH: &str = "Width";
const HEIGHT: &str = "Height";
const PROMPT: &str = "Prompt";
const MODEL: &str = "Model";
const SIZE: &str = "Size";
const QUALITY: &str = "Quality";
const CALLER: &str = "Caller";
const COST: &str = "CostMicroUsd";
const THUMBNAIL_WIDTH: &str = "ThumbnailWidth";
const THUMBNAIL_HEIGHT: &str = "ThumbnailHeight";
const PLACEHOLDER: &str = "Placeholder";
const NO_THUMBNAIL: &str = "NoThumbnail";

/// The columns that a page shows. The caller and the cost are not public.
pub(super) const PUBLIC_COLUMNS: [&str; 7] =
    [NAME, WIDTH, HEIGHT, PROMPT, THUMBNAIL_WIDTH, THUMBNAIL_HEIGHT, PLACEHOLDER];
/// The columns that say whether an image has a thumbnail.
pub(super) const THUMBNAIL_STATE: [&str; 3] = [NAME, PLACEHOLDER, NO_THUMBNAIL];
/// The column with the blob's name.
pub(super) const NAME_COLUMN: &str = NAME;

/// A row takes at most this number of bytes in UTF-8, with its keys and the names of its columns, unless its
/// blob's name alone takes more: a partition serves 2,000 rows of 1 KiB a second
/// (<https://learn.microsoft.com/azure/storage/tables/scalability-targets>).
const MAX_BYTES: usize = 1024;
/// The part of [`MAX_BYTES`] for the keys of a row with the longest container's name.
const KEYS: usize = 63 + 7 + 46;
/// The part of [`MAX_BYTES`] for what is merged later: the size of a foreign image and of its thumbnail, and the
/// placeholder.
const MERGED_LATER: usize = 128;
/// The most characters of a prompt.
const MAX_PROMPT: usize = 300;

/// What the index knows of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) id: ImageId,
    /// The blob's name.
    pub(crate) name: String,
    /// The image's width and height in pixels, if both are known.
    pub(crate) size: Option<(u32, u32)>,
    /// The beginning of the prompt.
    pub(crate) prompt: Option<String>,
    /// The thumbnail's width and height in pixels, if there is a thumbnail.
    pub(crate) thumbnail: Option<(u32, u32)>,
    /// A `ThumbHash` in base64 (<https://evanw.github.io/thumbhash/>).
    pub(crate) placeholder: Option<String>,
}

/// What is written of an image.
#[derive(Debug, Default)]
pub(super) struct Written<'a> {
    pub(super) name: &'a str,
    pub(super) content_type: &'a str,
    pub(super) prompt: &'a str,
    pub(super) model: &'a str,
    pub(super) size: &'a str,
    pub(super) quality: &'a str,
    pub(super) caller: Option<&'a Caller>,
    pub(super) cost: Option<&'a Cost>,
}

impl Row {
    /// Reads a row; `None` if it is not an image's.
    pub(super) fn read(row: &str, columns: &Columns) -> Option<Self> {
        let pixels = |name: &str| columns.get(name)?.parse().ok();
        Some(Self {
            id: ImageId::parse(row)?,
            name: columns.get(NAME)?.clone(),
            size: pixels(WIDTH).zip(pixels(HEIGHT)),
            prompt: columns.get(PROMPT).cloned(),
            thumbnail: pixels(THUMBNAIL_WIDTH).zip(pixels(THUMBNAIL_HEIGHT)),
            placeholder: columns.get(PLACEHOLDER).cloned(),
        })
    }

    /// Whether the image has a thumbnail, or never gets one.
    pub(super) fn has_thumbnail_state(columns: &Columns) -> bool {
        [PLACEHOLDER, NO_THUMBNAIL].iter().any(|name| columns.contains_key(*name))
    }

    /// The row of a blob of which only a listing without metadata is known.
    pub(super) fn of_entry(id: ImageId, name: String) -> Self {
        Self { id, name, size: None, prompt: None, thumbnail: None, placeholder: None }
    }
}

/// The columns that a thumbnail adds.
pub(super) fn columns_of_thumbnail(thumbnail: &Thumbnail) -> Columns {
    let size = |size: Size, [width, height]: [&str; 2]| {
        [(width.to_owned(), size.width.to_string()), (height.to_owned(), size.height.to_string())]
    };
    let mut columns = Columns::from(size(thumbnail.image_size, [WIDTH, HEIGHT]));
    columns.extend(thumbnail.size.into_iter().flat_map(|of| size(of, [THUMBNAIL_WIDTH, THUMBNAIL_HEIGHT])));
    columns.insert(PLACEHOLDER.to_owned(), thumbnail.placeholder.clone());
    columns
}

/// Removes what says that the image has a thumbnail, so that one is made.
pub(super) fn forget_thumbnail(columns: &mut Columns) {
    for name in [THUMBNAIL_WIDTH, THUMBNAIL_HEIGHT, PLACEHOLDER] {
        columns.remove(name);
    }
}

/// The columns of an image that cannot be decoded, so that it is not tried again.
pub(super) fn columns_without_thumbnail() -> Columns {
    Columns::from([(NO_THUMBNAIL.to_owned(), "yes".to_owned())])
}

/// The columns of a blob in a listing with metadata.
pub(super) fn columns_of_entry(entry: &Entry) -> Columns {
    let value = |key: &str| {
        let encoded = entry.metadata.get(key).map(String::as_str).unwrap_or_default();
        percent_decode_str(encoded).decode_utf8_lossy()
    };
    let [prompt, model, size, quality] = ["prompt", "model", "size", "quality"].map(value);
    columns(&Written {
        name: &entry.name,
        content_type: entry.content_type.as_deref().unwrap_or_default(),
        prompt: &prompt,
        model: &model,
        size: &size,
        quality: &quality,
        caller: None,
        cost: None,
    })
}

/// The columns of an image. What is unknown has no column. The prompt is cut to the room that is left.
pub(super) fn columns(written: &Written<'_>) -> Columns {
    let mut columns = Columns::from([(NAME.to_owned(), written.name.to_owned())]);
    let mut add = |name: &str, value: &str, limit: usize| {
        let value = cut(value, limit);
        if !value.is_empty() {
            columns.insert(name.to_owned(), value.to_owned());
        }
    };
    add(CONTENT_TYPE, written.content_type, 40);
    add(MODEL, written.model, 64);
    add(SIZE, written.size, 16);
    add(QUALITY, written.quality, 16);
    if let Some((width, height)) = pixels(written.size) {
        add(WIDTH, &width.to_string(), 10);
        add(HEIGHT, &height.to_string(), 10);
    }
    if let Some(caller) = written.caller {
        add(CALLER, caller.as_str(), 64);
    }
    if let Some(cost) = written.cost {
        add(COST, &cost.micro_usd.to_string(), 20);
    }
    let others: usize = columns.iter().map(|(name, value)| name.len() + value.len()).sum();
    let room = MAX_BYTES.saturating_sub(KEYS + MERGED_LATER + others + PROMPT.len());
    let end = written.prompt.char_indices().nth(MAX_PROMPT).map_or(written.prompt.len(), |(end, _)| end);
    let prompt = cut(written.prompt.get(..end).unwrap_or_default(), room);
    if !prompt.is_empty() {
        columns.insert(PROMPT.to_owned(), prompt.to_owned());
    }
    columns
}

/// The pixels of a size as providers write it, such as `1024x1536`.
fn pixels(size: &str) -> Option<(u32, u32)> {
    let (width, height) = size.split_once('x')?;
    let pixels = |digits: &str| digits.parse().ok().filter(|pixels| (1..=100_000).contains(pixels));
    pixels(width).zip(pixels(height))
}

/// The longest beginning of a text that has at most `limit` bytes and ends between two characters.
fn cut(text: &str, limit: usize) -> &str {
    text.get(..text.floor_char_boundary(limit)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn bytes(columns: &Columns) -> usize {
        KEYS + columns.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }

    #[test]
    fn a_row_takes_at_most_1_kib_with_what_is_merged_later() {
        let long = "🦊".repeat(4_000);
        let caller = Caller::named(&"f".repeat(64));
        let cost = Cost { micro_usd: u64::MAX, priced: true, usage: None };
        let longest = |name: &str| {
            columns(&Written {
                name,
                content_type: &long,
                prompt: &long,
                model: &long,
                size: "100000x100000",
                quality: &long,
                caller: Some(&caller),
                cost: Some(&cost),
            })
        };
        for length in [1, 100, 300, 350] {
            let name = format!("{}_1700000000000.webp", "n".repeat(length));
            let columns = longest(&name);
            let merged: usize = [
                (THUMBNAIL_WIDTH, "512"),
                (THUMBNAIL_HEIGHT, "512"),
                (PLACEHOLDER, "0123456789abcdef0123456789abcdef0123"),
            ]
            .map(|(name, value)| name.len() + value.len())
            .iter()
            .sum();
            let bytes = bytes(&columns) + merged;
            assert!(bytes <= MAX_BYTES, "{bytes} bytes with a name of {length} characters");
            assert!(columns[PROMPT].chars().count() >= 4, "a part of the prompt is there");
        }
        // The name is never cut: it is the image.
        let name = "n".repeat(1024);
        let columns = longest(&name);
        assert_eq!((columns[NAME].len(), columns.get(PROMPT)), (1024, None));
    }

    #[test]
    fn a_row_is_read_as_it_was_written_without_what_is_private() {
        let caller = Caller::named("caller");
        let cost = Cost { micro_usd: 50_000, priced: true, usage: None };
        let written = Written {
            name: "a fox_1700000000000.png",
            content_type: "image/png",
            prompt: &"a fox ".repeat(100),
            size: "1024x1536",
            caller: Some(&caller),
            cost: Some(&cost),
            ..Written::default()
        };
        let columns = columns(&written);
        let id = ImageId::of(written.name, None);
        let row = Row::read(id.as_str(), &columns).expect("a row");
        assert_eq!((&*row.name, row.size, row.thumbnail), (written.name, Some((1024, 1536)), None));
        assert_eq!(row.prompt.map(|prompt| prompt.chars().count()), Some(MAX_PROMPT));
        assert!(!PUBLIC_COLUMNS.contains(&CALLER) && !PUBLIC_COLUMNS.contains(&COST));
        assert_eq!((&*columns[CALLER], &*columns[COST]), ("caller", "50000"));
        assert_eq!(Row::read("reconcile", &columns), None);
    }

    #[test]
    fn a_blob_in_a_listing_gives_what_its_metadata_has() {
        let metadata = BTreeMap::from([("prompt", "a%20fox"), ("size", "auto"), ("model", "m")]);
        let entry = Entry {
            name: "a fox_1.png".to_owned(),
            last_modified: None,
            content_type: Some("image/png".to_owned()),
            metadata: metadata.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
        };
        let columns = columns_of_entry(&entry);
        let columns: Vec<(&str, &str)> = columns.iter().map(|(name, value)| (&**name, &**value)).collect();
        assert_eq!(
            columns,
            [(CONTENT_TYPE, "image/png"), (MODEL, "m"), (NAME, "a fox_1.png"), (PROMPT, "a fox"), (SIZE, "auto")]
        );
    }
}
