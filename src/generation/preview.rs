//! Previews: partial images, made small enough to send to watchers.

use base64::{Engine as _, prelude::BASE64_STANDARD};

use crate::image::{self, Image};

/// A file up to this size is sent unchanged. Base64 adds a third.
const MAX_BYTES: usize = 96 * 1024;
/// A larger file is scaled down to fit into a square of this side, in pixels. The first side whose JPEG
/// fits is taken; at the last side, every image fits.
const SIDES: [u32; 3] = [512, 384, 192];
const JPEG_QUALITY: u8 = 70;

/// The preview as a `data:` URL (RFC 2397) of at most 128 KiB; `None` if the image cannot be decoded.
/// Scaling an image down takes tens of milliseconds of CPU time.
pub(crate) fn data_url(image: &Image) -> Option<String> {
    if image.bytes().len() <= MAX_BYTES {
        return Some(url(image.format().content_type(), image.bytes()));
    }
    let whole = image.decode()?;
    SIDES
        .into_iter()
        .map(|side| image::jpeg(&image::scaled_down(&whole, side), JPEG_QUALITY))
        .find(|file| file.len() <= MAX_BYTES)
        .map(|file| url("image/jpeg", &file))
}

fn url(content_type: &str, bytes: &[u8]) -> String {
    format!("data:{content_type};base64,{}", BASE64_STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

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
