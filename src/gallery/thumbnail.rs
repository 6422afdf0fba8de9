//! Makes thumbnails: a small JPEG of an image, and a placeholder to show until it is loaded.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;

use crate::image::{self, Image};

/// A thumbnail fits into a square of this side, in pixels.
const SIDE: u32 = 512;
const JPEG_QUALITY: u8 = 75;
/// A placeholder has seven waves on a side at most, so more pixels do not change it. The crate panics above 100.
const PLACEHOLDER_SIDE: u32 = 32;

/// What a listing tells about an image's pixels and its thumbnail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Thumbnail {
    /// The size of the image, as browsers show it.
    pub(crate) image_size: Size,
    /// The size of the thumbnail. `None` if there is none, because the image is transparent and a JPEG is not.
    pub(crate) size: Option<Size>,
    /// The ThumbHash of the image in base64, at most 36 characters (<https://evanw.github.io/thumbhash/>).
    pub(crate) placeholder: String,
}

/// A size in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    pub(crate) width: u32,
    pub(crate) height: u32,
}

/// A thumbnail and its file.
#[derive(Debug)]
pub(crate) struct Made {
    pub(super) thumbnail: Thumbnail,
    /// The JPEG; empty if there is none.
    pub(super) file: Bytes,
}

/// Makes the thumbnail of an image; `None` if the image cannot be decoded. Takes some 20 ms of CPU time.
pub(super) fn make(image: &Image) -> Option<Made> {
    let whole = image.decode()?;
    let small = image::scaled_down(&whole, SIDE);
    let tiny = image::scaled_down(&small, PLACEHOLDER_SIDE).into_rgba8();
    let side = |pixels: u32| usize::try_from(pixels).unwrap_or_default();
    let placeholder = thumbhash::rgba_to_thumb_hash(side(tiny.width()), side(tiny.height()), tiny.as_raw());
    let is_transparent = small.color().has_alpha() && small.to_rgba8().pixels().any(|pixel| pixel.0[3] < u8::MAX);
    let size = |image: &::image::DynamicImage| Size { width: image.width(), height: image.height() };
    Some(Made {
        thumbnail: Thumbnail {
            image_size: size(&whole),
            size: (!is_transparent).then(|| size(&small)),
            placeholder: BASE64_STANDARD.encode(placeholder),
        },
        file: if is_transparent { Bytes::new() } else { image::jpeg(&small, JPEG_QUALITY).into() },
    })
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use ::image::{DynamicImage, ImageFormat, Rgba, RgbaImage};

    use super::*;

    const FORMATS: [ImageFormat; 3] = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP];

    /// A file of an image that is red at the left and blue at the right, with this opacity.
    fn file(width: u32, height: u32, alpha: u8, format: ImageFormat) -> Vec<u8> {
        let shade = |x: u32| u8::try_from(x * 255 / width).expect("a byte");
        let image = RgbaImage::from_fn(width, height, |x, _| Rgba([255 - shade(x), 0, shade(x), alpha]));
        let image = DynamicImage::from(image);
        let image = if format == ImageFormat::Jpeg { image.into_rgb8().into() } else { image };
        let mut file = Cursor::new(Vec::new());
        image.write_to(&mut file, format).expect("it can be written");
        file.into_inner()
    }

    fn made(file: Vec<u8>) -> Option<Made> {
        make(&Image::recognise(file.into()).expect("an image"))
    }

    fn size(width: u32, height: u32) -> Size {
        Size { width, height }
    }

    #[test]
    fn a_thumbnail_is_a_jpeg_of_at_most_512_pixels_with_the_size_of_the_image_and_a_placeholder() {
        for format in FORMATS {
            for (width, height, wanted) in [
                (1_024, 1_536, size(341, 512)),
                (1_792, 1_024, size(512, 293)),
                (512, 512, size(512, 512)),
                (40, 30, size(40, 30)),
                (1, 1, size(1, 1)),
                (4_096, 1, size(512, 1)),
            ] {
                let made = made(file(width, height, 255, format)).expect("a thumbnail");

                assert_eq!((made.thumbnail.image_size, made.thumbnail.size), (size(width, height), Some(wanted)));
                let small = ::image::load_from_memory_with_format(&made.file, ImageFormat::Jpeg).expect("a JPEG");
                assert_eq!(size(small.width(), small.height()), wanted);
                assert!(made.file.len() < 40_000, "{} bytes", made.file.len());
                let hash = BASE64_STANDARD.decode(&made.thumbnail.placeholder).expect("base64");
                assert!((5..=25).contains(&hash.len()) && made.thumbnail.placeholder.len() <= 36, "{hash:?}");
            }
        }
    }

    #[test]
    fn the_placeholder_has_the_colours_and_the_proportions_of_the_image() {
        let made = made(file(1_792, 1_024, 255, ImageFormat::Png)).expect("a thumbnail");
        let hash = BASE64_STANDARD.decode(made.thumbnail.placeholder).expect("base64");
        let (width, height, pixels) = thumbhash::thumb_hash_to_rgba(&hash).expect("a hash");
        assert!((1.5..2.0).contains(&(width as f64 / height as f64)), "{width} x {height}");
        let [first, last] = [&pixels[..4], &pixels[4 * (width - 1)..4 * width]];
        assert!(first[0] > 180 && first[2] < 80 && last[0] < 80 && last[2] > 180, "{first:?} {last:?}");
    }

    #[test]
    fn a_transparent_image_has_a_size_and_a_placeholder_but_no_jpeg() {
        for format in [ImageFormat::Png, ImageFormat::WebP] {
            for alpha in [0, 254] {
                let made = made(file(600, 300, alpha, format)).expect("a thumbnail");
                assert_eq!((made.thumbnail.image_size, made.thumbnail.size), (size(600, 300), None));
                assert!(made.file.is_empty() && !made.thumbnail.placeholder.is_empty());
            }
        }
    }

    #[test]
    fn a_photo_that_lies_on_its_side_is_turned() {
        let upright = file(64, 32, 255, ImageFormat::Jpeg);
        // An Exif segment (APP1) whose only entry is the orientation 6: turn by 90 degrees.
        let exif = b"\xFF\xE1\0\x22Exif\0\0MM\0\x2A\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
        let turned = made([&upright[..2], exif, &upright[2..]].concat()).expect("a thumbnail");
        assert_eq!((turned.thumbnail.image_size, turned.thumbnail.size), (size(32, 64), Some(size(32, 64))));
    }

    #[test]
    fn damaged_and_hostile_files_have_a_thumbnail_or_none_and_never_panic() {
        let mut random = fastrand::Rng::with_seed(7);
        for format in FORMATS {
            for alpha in [255, 100] {
                let whole = file(24, 16, alpha, format);
                let mut without = 0;
                for length in 12..whole.len() {
                    without += usize::from(made(whole[..length].to_vec()).is_none());
                }
                assert!(without > 0, "no prefix of a {format:?} is refused");
                for _ in 0..600 {
                    let mut damaged = whole.clone();
                    for _ in 0..random.usize(1..4) {
                        let at = random.usize(12..damaged.len());
                        damaged[at] ^= 1 << random.u8(..8);
                    }
                    let _ = made(damaged);
                }
            }
        }
        // A header that claims 60,000 x 60,000 pixels.
        let mut bomb = file(24, 16, 255, ImageFormat::Png);
        bomb[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
        assert!(made(bomb).is_none());
    }
}
