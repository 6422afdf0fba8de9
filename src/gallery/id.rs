//! The id of an image: the key of its row in the index, and a cursor in pages of the gallery.

use ring::digest;
use time::OffsetDateTime;

use super::name;
use crate::digest::sha256_128;

/// The latest time of an id: the most milliseconds that 13 digits hold, in the year 2286.
const LATEST_MS: i64 = 9_999_999_999_999;
/// The digits of the time in an id.
const TIME_DIGITS: usize = 13;
/// The hexadecimal digits of the digest in an id: 128 bits.
const DIGEST_DIGITS: usize = 32;
const MS_PER_DAY: i64 = 24 * 60 * 60 * 1_000;
/// A partition's key ends with this number minus the days since 1970.
const LATEST_DAY: i64 = 999_999;

/// The id of an image, such as `8299999999999-0123456789abcdef0123456789abcdef`: 9999999999999 minus the
/// image's time in milliseconds, and a digest of the blob's name. Ids sort newest first.
///
/// The digest has no key: an account has two keys, and they are rotated, but ids and cursors stay. Nobody can
/// make a second name with the digest of another one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ImageId(String);

impl ImageId {
    /// The id of a blob.
    pub(crate) fn of(name: &str, last_modified: Option<OffsetDateTime>) -> Self {
        let inverted = LATEST_MS - time_ms(name, last_modified);
        Self(format!("{inverted:013}-{}", sha256_128(name.as_bytes())))
    }

    /// The last id, in the order of ids, of an image of this time.
    pub(super) fn last_at(time: OffsetDateTime) -> Self {
        let inverted = LATEST_MS - name::epoch_ms(time).clamp(0, LATEST_MS);
        Self(format!("{inverted:013}-{}", "f".repeat(DIGEST_DIGITS)))
    }

    /// Parses an id. Only the exact form is accepted, because an id becomes part of a query.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (time, digest) = text.split_once('-')?;
        let is_time = time.len() == TIME_DIGITS && time.bytes().all(|byte| byte.is_ascii_digit());
        let is_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_digest = digest.len() == DIGEST_DIGITS && digest.bytes().all(is_hex);
        (is_time && is_digest).then(|| Self(text.to_owned()))
    }

    /// The text: 46 ASCII characters, safe in a URL and in a table's key.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The image's time.
    pub(crate) fn created_at(&self) -> OffsetDateTime {
        let nanoseconds = i128::from(self.time_ms()) * 1_000_000;
        OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }

    /// The partition of the image's row: the container's name and the inverted day. Partitions sort newest
    /// first, too.
    pub(crate) fn partition(&self, container: &str) -> String {
        format!("{container}_{:06}", LATEST_DAY - self.time_ms() / MS_PER_DAY)
    }

    /// The first 64 bits of the digest, see [`fingerprint`].
    pub(crate) fn fingerprint(&self) -> u64 {
        self.0.get(TIME_DIGITS + 1..TIME_DIGITS + 17).and_then(|hex| u64::from_str_radix(hex, 16).ok()).unwrap_or(0)
    }

    fn time_ms(&self) -> i64 {
        let inverted = self.0.get(..TIME_DIGITS).and_then(|digits| digits.parse::<i64>().ok());
        LATEST_MS - inverted.unwrap_or(LATEST_MS)
    }
}

/// The time of a blob in milliseconds since 1970: the one in its name, else Last-Modified, else 0.
pub(super) fn time_ms(name: &str, last_modified: Option<OffsetDateTime>) -> i64 {
    let time = name::timestamp_ms(name).or(last_modified.map(name::epoch_ms));
    time.unwrap_or_default().clamp(0, LATEST_MS)
}

/// The fingerprint of a blob's name: the first 64 bits of the digest in its id.
pub(super) fn fingerprint(name: &str) -> u64 {
    let digest = digest::digest(&digest::SHA256, name.as_bytes());
    digest.as_ref().iter().take(8).fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use time::macros::datetime;

    use super::*;

    #[test]
    fn ids_and_their_partitions_sort_newest_first() {
        let ids = [
            ImageId::of("far future_9999999999999.png", None),
            ImageId::of("a fox_1700000000001.png", None),
            ImageId::of("a fox_1700000000000.png", None),
            ImageId::of("no time.png", Some(datetime!(2020-01-01 00:00 UTC))),
            ImageId::of("no time at all.png", None),
        ];
        assert!(ids.is_sorted());
        assert!(ids.clone().map(|id| id.partition("images")).is_sorted());
        assert_eq!(ids[1].as_str(), "8299999999998-0e7c7f5e98bd200d8132c98c7c16fdfb");
        assert_eq!(ids[1].partition("images"), "images_980324");
        assert_eq!(ids[1].created_at(), datetime!(2023-11-14 22:13:20.001 UTC));
        assert_eq!(ids[4].created_at(), OffsetDateTime::UNIX_EPOCH);
        assert_eq!(ids[1].fingerprint(), 0x0e7c_7f5e_98bd_200d);
        assert_eq!(ids[1].fingerprint(), fingerprint("a fox_1700000000001.png"));
    }

    #[test]
    fn only_the_exact_form_of_an_id_is_parsed() {
        let id = ImageId::of("a fox_1700000000001.png", None);
        assert_eq!(ImageId::parse(id.as_str()), Some(id.clone()));
        let text = id.as_str();
        for wrong in [
            "",
            "-",
            &text[1..],
            &text[..45],
            &format!("{text}0"),
            &text.to_uppercase(),
            &text.replacen('-', "' or '", 1),
            &text.replacen('8', "+", 1),
            &text.replacen('8', "\u{ff18}", 1),
        ] {
            assert_eq!(ImageId::parse(wrong), None, "{wrong}");
        }
    }
}
