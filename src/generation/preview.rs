//! Previews: partial images, made small enough to send to watchers.

use std::io::Cursor;

use ::image::codecs::jpeg::JpegEncoder;
use ::image::imageops::thumbnail;
use ::image::{ImageReader, Limits, RgbImage};
use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::image::Image;

/// A file up to this size is sent unchanged. Base64 adds a third.
const MAX_BYTES: usize = 96 * 1024;
/// A larger file is scaled down to fit into a square of this side, in pixels. The first side whose JPEG
/// fits is taken; at the last side, every image fits.
const SIDES: [u32; 3] = [512, 384, 192];
const JPEG_QUALITY: u8 = 70;
/// Images above these limits are not decoded.
const MAX_SIDE: u32 = 4_096;
const MAX_MEMORY: u64 = 64 * 1024 * 1024;

/// The preview as a `data:` URL (RFC 2397) of at most 128 KiB; `None` if the image cannot be decoded.
/// Scaling an image down takes tens of milliseconds of CPU time.
pub(crate) fn data_url(image: &Image) -> Option<String> {
    if image.bytes().len() <= MAX_BYTES {
        return Some(url(image.format().content_type(), image.bytes()));
    }
    let mut reader = ImageReader::new(Cursor::new(image.bytes())).with_guessed_format().ok()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_MEMORY);
    reader.limits(limits);
    // JPEG does not support transparency.
    let whole = reader.decode().ok()?.into_rgb8();
    SIDES
        .into_iter()
        .map(|side| scaled_down(&whole, side))
        .find(|file| file.len() <= MAX_BYTES)
        .map(|file| url("image/jpeg", &file))
}

/// Scales an image down to fit into a square with this side, as a JPEG.
fn scaled_down(whole: &RgbImage, fits: u32) -> Vec<u8> {
    let longest = whole.width().max(whole.height()).max(1);
    let side = |side: u32| (side * fits.min(longest) / longest).max(1);
    let small = thumbnail(whole, side(whole.width()), side(whole.height()));
    let mut file = Vec::new();
    // Writing to memory cannot fail.
    let _ = small.write_with_encoder(JpegEncoder::new_with_quality(&mut file, JPEG_QUALITY));
    file
}

fn url(content_type: &str, bytes: &[u8]) -> String {
    format!("data:{content_type};base64,{}", BASE64_STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use ::image::{DynamicImage, ImageFormat, RgbaImage};

    use super::*;

    /// An image of noise, which does not compress.
    fn noise(width: u32, height: u32, format: ImageFormat) -> Image {
        let mut random = fastrand::Rng::with_seed(7);
        let image =
            RgbaImage::from_fn(width, height, |_, _| ::image::Rgba([random.u8(..), random.u8(..), random.u8(..), 255]));
        let mut file = Cursor::new(Vec::new());
        DynamicImage::from(image).into_rgb8().write_to(&mut file, format).expect("it can be written");
        Image::recognise(file.into_inner().into()).expect("an image")
    }

    #[test]
    fn a_small_image_is_sent_unchanged_and_a_large_one_is_scaled_down() {
        let small = noise(64, 64, ImageFormat::Png);
        let url = data_url(&small).expect("a preview");
        assert_eq!(url, format!("data:image/png;base64,{}", BASE64_STANDARD.encode(small.bytes())));
        for format in [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP] {
            let large = noise(1_024, 1_536, format);
            assert!(large.bytes().len() > MAX_BYTES);
            let url = data_url(&large).expect("a preview");
            assert!(url.len() <= 128 * 1024 + 32, "{} bytes", url.len());
            let file =
                BASE64_STANDARD.decode(url.strip_prefix("data:image/jpeg;base64,").expect("a JPEG")).expect("base64");
            let made = ::image::load_from_memory(&file).expect("an image");
            assert_eq!((made.width(), made.height()), (341, 512));
        }
    }

    #[test]
    fn the_preview_of_any_image_has_a_bounded_size() {
        let worst = noise(512, 512, ImageFormat::Png);
        let url = data_url(&worst).expect("a preview");
        assert!(url.len() <= 128 * 1024 + 32, "{} bytes", url.len());
    }

    #[test]
    fn a_broken_or_huge_image_has_no_preview() {
        let broken = [noise(1_024, 1_024, ImageFormat::Png).bytes()[..200_000].to_vec(), vec![0; 10]].concat();
        assert_eq!(data_url(&Image::recognise(broken.into()).expect("it begins like one")), None);
        // A header that claims 60,000 x 60,000 pixels.
        let mut bomb = noise(1_024, 1_024, ImageFormat::Png).bytes().to_vec();
        bomb[16..24].copy_from_slice(&[0, 0, 0xEA, 0x60, 0, 0, 0xEA, 0x60]);
        assert_eq!(data_url(&Image::recognise(bomb.into()).expect("it begins like one")), None);
    }
}
