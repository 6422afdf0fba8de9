//! A blob's name: `{prompt}_{timestamp}.{extension}`.
//!
//! Front ends parse the name. The caption is the text before the first `_` and the first `.`; the time is the
//! last `_` segment up to its first `.`. So `_` and `.` of the prompt are replaced by characters that look
//! alike, and so are the characters that break a path or a URL. `Prompt::parse` turns them back. Azure's rules:
//! <https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata>.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use time::OffsetDateTime;
use unicode_segmentation::UnicodeSegmentation as _;

use crate::image::ImageFormat;
use crate::prompt::{LOOK_ALIKES, Prompt};

/// The characters that are percent-encoded in a path: all but RFC 3986's unreserved characters and `/`.
const PATH: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// The limit of a caption, in characters. From 350 characters on, a caption covers the buttons of a front end.
/// Azure's limit on a whole name is 1,024 characters.
const MAX_CHARACTERS: usize = 300;
/// The limit of the encoded caption, in bytes: the URL must pass proxies and browsers. With
/// `_{timestamp}.{extension}` a name takes at most 2,048 bytes.
const MAX_ENCODED_BYTES: usize = 2_024;
/// The last character of a caption that was cut.
const ELLIPSIS: char = '…';
/// The size of [`ELLIPSIS`], percent-encoded.
const ELLIPSIS_BYTES: usize = 9;

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
/// cut after a word, or between grapheme clusters if that would drop more than half of the caption: some scripts
/// have no spaces.
fn shortened(prompt: &str) -> String {
    let safe: String = prompt.chars().filter_map(safe).collect();
    let line = safe.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MAX_CHARACTERS && encode(&line).map(str::len).sum::<usize>() <= MAX_ENCODED_BYTES {
        return line;
    }
    let (mut characters, mut bytes) = (1, ELLIPSIS_BYTES);
    let fits = |grapheme: &&str| {
        characters += grapheme.chars().count();
        bytes += encode(grapheme).map(str::len).sum::<usize>();
        characters <= MAX_CHARACTERS && bytes <= MAX_ENCODED_BYTES
    };
    let cut: usize = line.graphemes(true).take_while(fits).map(str::len).sum();
    let (kept, rest) = line.split_at(cut);
    let ends_word = rest.starts_with(' ');
    let words = kept.rfind(' ').filter(|space| !ends_word && *space >= kept.len() / 2).map(|space| &kept[..space]);
    format!("{}{ELLIPSIS}", words.unwrap_or(kept).trim_end())
}

/// The replacement of a character; `None` leaves it out.
fn safe(character: char) -> Option<char> {
    Some(match character {
        // Bidirectional controls change the display of the text after them, including the file extension.
        '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => return None,
        // Unicode noncharacters: XML, and so a listing, cannot hold U+FFFE and U+FFFF.
        character if (u32::from(character) & 0xFFFE) == 0xFFFE => return None,
        '\u{FDD0}'..='\u{FDEF}' => return None,
        '\u{2028}' | '\u{2029}' => ' ',
        character if character.is_control() => ' ',
        character => LOOK_ALIKES.iter().find(|(typed, _)| *typed == character).map_or(character, |(_, other)| *other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caption_of(prompt: &str) -> String {
        caption(&Prompt::parse(prompt).expect(prompt))
    }

    #[test]
    fn a_long_caption_is_cut_at_a_word_and_ends_with_an_ellipsis() {
        let exact = "ab ".repeat(100).trim_end().to_owned() + "c";
        assert_eq!((caption_of(&exact), exact.chars().count()), (exact.clone(), 300));
        // 299 characters and the ellipsis: the limit lies behind a word, then inside one.
        assert_eq!(caption_of(&format!("{} cd", &exact[..299])), format!("{}…", &exact[..299]));
        assert_eq!(caption_of(&format!("{exact}de")), format!("{}…", "ab ".repeat(99).trim_end()));
    }

    #[test]
    fn a_caption_without_spaces_is_cut_between_grapheme_clusters() {
        assert_eq!(caption_of(&"x".repeat(301)), format!("{}…", "x".repeat(299)));
        assert_eq!(caption_of(&format!("a {}", "x".repeat(301))), format!("a {}…", "x".repeat(297)));
        let family = "👩‍👩‍👧‍👦";
        let (clusters, cut) = (caption_of(&family.repeat(50)), family.chars().count());
        let clusters = clusters.strip_suffix('…').expect("it was cut");
        assert!(clusters.chars().count() % cut == 0 && clusters.replace(family, "").is_empty(), "{clusters}");
        // Three bytes a character, nine encoded: the limit in bytes comes first.
        assert_eq!(caption_of(&"猫".repeat(301)).chars().count(), (MAX_ENCODED_BYTES - ELLIPSIS_BYTES) / 9 + 1);
    }

    #[test]
    fn a_caption_as_a_prompt_has_the_same_caption() {
        for prompt in ["snake_case v1.5", "a/b?c#d%20 \\", "猫は何匹？", &"ab cd. ".repeat(100)] {
            let caption = caption_of(prompt);
            assert_eq!(caption_of(&caption), caption, "{prompt}");
        }
    }
}
