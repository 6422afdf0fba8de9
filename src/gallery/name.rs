//! A blob's name: `{prompt}_{timestamp}.{extension}`.
//!
//! Front ends cut the caption out of it (up to the first `_`, then up to the first `.`) and the
//! time (the last `_` segment up to its first `.`), so the prompt's own `_` and `.` become
//! characters that look alike. So do the characters that break a path or a URL. Azure's rules:
//! <https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata>.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use time::OffsetDateTime;
use unicode_segmentation::UnicodeSegmentation as _;

use crate::image::ImageFormat;
use crate::prompt::Prompt;

/// All but RFC 3986's unreserved characters and the path separator.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Azure's limit on a blob name, in characters.
const MAX_CHARACTERS: usize = 1024;
/// A URL has to fit through proxies and browsers: the encoded name's limit, in bytes.
const MAX_ENCODED_BYTES: usize = 2048;
/// What `_{timestamp}.{extension}` may take of both limits.
const SUFFIX: usize = 24;

/// The name that a prompt's image is stored under.
pub(crate) fn blob_name(prompt: &Prompt, created_at_ms: i64, format: ImageFormat) -> String {
    format!("{}_{created_at_ms}.{}", caption(prompt), format.extension())
}

/// What a name begins with, up to its `_`.
pub(crate) fn caption(prompt: &Prompt) -> String {
    let caption = shortened(prompt.as_str());
    if caption.is_empty() { "image".to_owned() } else { caption }
}

/// The time in a name: whole milliseconds since 1970, in the last `_` segment up to its first `.`.
///
/// Only 13 digits count, the years 2001 to 2286: `cat_5.png` is somebody's fifth cat.
pub(crate) fn timestamp_ms(name: &str) -> Option<i64> {
    let (_, last) = name.rsplit_once('_')?;
    let digits = last.split('.').next()?;
    let plausible = digits.len() == 13 && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plausible { digits.parse().ok() } else { None }
}

/// A name as part of a URL's path.
pub(crate) fn encode(name: &str) -> percent_encoding::PercentEncode<'_> {
    utf8_percent_encode(name, PATH)
}

/// Whole milliseconds since 1970.
pub(crate) fn epoch_ms(at: OffsetDateTime) -> i64 {
    // A time that `time` can express (the years -9999 to 9999) fits in i64 milliseconds.
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

/// The prompt on one line, without the characters that mean something in a name, path or URL,
/// cut between what a reader sees as characters.
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

/// What a character becomes; `None` where it is left out.
fn safe(character: char) -> Option<char> {
    Some(match character {
        '_' => '\u{02CD}',  // modifier letter low macron
        '.' => '\u{2024}',  // one dot leader
        '/' => '\u{2215}',  // division slash
        '\\' => '\u{2216}', // set minus
        '?' => '\u{FF1F}',  // full-width question mark
        '#' => '\u{FF03}',  // full-width number sign
        '%' => '\u{FF05}',  // full-width percent sign
        // Marks that turn the direction of all that follows, the file's ending included.
        '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => return None,
        // Not characters at all: XML, and so a listing, cannot hold them.
        character if (u32::from(character) & 0xFFFE) == 0xFFFE => return None,
        '\u{FDD0}'..='\u{FDEF}' => return None,
        '\u{2028}' | '\u{2029}' => ' ',
        character if character.is_control() => ' ',
        character => character,
    })
}
