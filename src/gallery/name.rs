//! A blob's name: `{prompt}_{timestamp}.{extension}`.
//!
//! Front ends parse the name. The caption is the text before the first `_` and the first `.`; the time is the
//! last `_` segment up to its first `.`. So `_` and `.` of the prompt are replaced by characters that look
//! alike, and so are the characters that break a path or a URL. Azure's rules:
//! <https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata>.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use time::OffsetDateTime;
use unicode_segmentation::UnicodeSegmentation as _;

use crate::image::ImageFormat;
use crate::prompt::Prompt;

/// The characters that are percent-encoded in a path: all but RFC 3986's unreserved characters and `/`.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Azure's limit on a blob name, in characters.
const MAX_CHARACTERS: usize = 1024;
/// The limit of the encoded name, in bytes: its URL must pass proxies and browsers.
const MAX_ENCODED_BYTES: usize = 2048;
/// The part of both limits that is kept for `_{timestamp}.{extension}`.
const SUFFIX: usize = 24;

/// The blob name of an image.
pub(crate) fn blob_name(prompt: &Prompt, created_at_ms: i64, format: ImageFormat) -> String {
    format!("{}_{created_at_ms}.{}", caption(prompt), format.extension())
}

/// The caption: the part of a name before its first `_`.
pub(crate) fn caption(prompt: &Prompt) -> String {
    let caption = shortened(prompt.as_str());
    if caption.is_empty() { "image".to_owned() } else { caption }
}

/// The time in a name, in milliseconds since 1970: the last `_` segment up to its first `.`.
///
/// Only a number of 13 digits (the years 2001 to 2286) is a time; the 5 in `cat_5.png` is not.
pub(crate) fn timestamp_ms(name: &str) -> Option<i64> {
    let (_, last) = name.rsplit_once('_')?;
    let digits = last.split('.').next()?;
    let plausible = digits.len() == 13 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plausible { digits.parse().ok() } else { None }
}

/// Percent-encodes a name for the path of a URL.
pub(crate) fn encode(name: &str) -> percent_encoding::PercentEncode<'_> {
    utf8_percent_encode(name, PATH)
}

/// Whole milliseconds since 1970.
pub(crate) fn epoch_ms(at: OffsetDateTime) -> i64 {
    // The years of `OffsetDateTime` (-9999 to 9999) fit into i64 milliseconds.
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// The prompt on one line, without the characters that have a meaning in a name, path or URL. A long prompt is
/// cut between grapheme clusters.
fn shortened(prompt: &str) -> String {
    let safe: String = prompt.chars().filter_map(safe).collect();
    let mut caption = String::new();
    let mut characters = 0;
    let mut encoded_bytes = 0;
    let words = safe.split_whitespace().enumerate();
    for (index, word) in words {
        let space = if index == 0 { "" } else { " " };
        for piece in std::iter::once(space).chain(word.graphemes(true)) {
            characters += piece.chars().count();
            encoded_bytes += encode(piece).map(str::len).sum::<usize>();
            if characters + SUFFIX > MAX_CHARACTERS || encoded_bytes + SUFFIX > MAX_ENCODED_BYTES {
                return caption.trim_end().to_owned();
            }
            caption.push_str(piece);
        }
    }
    caption
}

/// The replacement of a character; `None` leaves it out.
fn safe(character: char) -> Option<char> {
    Some(match character {
        '_' => '\u{02CD}',  // modifier letter low macron
        '.' => '\u{2024}',  // one dot leader
        '/' => '\u{2215}',  // division slash
        '\\' => '\u{2216}', // set minus
        '?' => '\u{FF1F}',  // full-width question mark
        '#' => '\u{FF03}',  // full-width number sign
        '%' => '\u{FF05}',  // full-width percent sign
        // Bidirectional controls change the display of the text after them, including the file extension.
        '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => return None,
        // Unicode noncharacters: XML, and so a listing, cannot hold U+FFFE and U+FFFF.
        character if (u32::from(character) & 0xFFFE) == 0xFFFE => return None,
        '\u{FDD0}'..='\u{FDEF}' => return None,
        '\u{2028}' | '\u{2029}' => ' ',
        character if character.is_control() => ' ',
        character => character,
    })
}
