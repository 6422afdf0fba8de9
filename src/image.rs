//! An image: bytes in one of the three formats that providers draw.

use std::io::Cursor;

use ::image::codecs::jpeg::JpegEncoder;
use ::image::metadata::Orientation;
use ::image::{DynamicImage, ImageDecoder as _, ImageReader, Limits};
use bytes::Bytes;

/// Images above these limits are not decoded.
const MAX_SIDE: u32 = 4_096;
const MAX_MEMORY: u64 = 64 * 1024 * 1024;

/// An image's file format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// <https://www.w3.org/TR/png-3/>
    Png,
    /// <https://www.w3.org/Graphics/JPEG/itu-t81.pdf>
    Jpeg,
    /// <https://www.rfc-editor.org/rfc/rfc9649>
    Webp,
}

impl ImageFormat {
    /// The media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }

    /// The file name extension, without a dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Webp => "webp",
        }
    }
}

/// Bytes that begin with the signature of an image format.
///
/// They are not decoded: a paid image must not be lost because a decoder rejects it.
#[derive(Debug, Clone)]
pub struct Image {
    bytes: Bytes,
    format: ImageFormat,
}

/// The bytes are neither PNG nor JPEG nor WebP.
#[derive(Debug, thiserror::Error)]
#[error("{length} bytes that are neither PNG nor JPEG nor WebP")]
pub struct NotAnImage {
    length: usize,
}

impl Image {
    /// Detects the format by the first bytes, because a declared media type may be wrong.
    ///
    /// # Errors
    /// [`NotAnImage`] for any other bytes, such as an HTML page or an empty body.
    pub fn recognise(bytes: Bytes) -> Result<Self, NotAnImage> {
        let format = match bytes.as_ref() {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => ImageFormat::Png,
            [0xFF, 0xD8, 0xFF, ..] => ImageFormat::Jpeg,
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => ImageFormat::Webp,
            _ => return Err(NotAnImage { length: bytes.len() }),
        };
        Ok(Self { bytes, format })
    }

    /// A copy with memory of its own.
    pub(crate) fn copied(&self) -> Self {
        Self { bytes: Bytes::copy_from_slice(&self.bytes), format: self.format }
    }

    /// The bytes as the provider sent them. A clone shares the memory.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The detected format.
    pub fn format(&self) -> ImageFormat {
        self.format
    }

    /// The pixels, turned as browsers turn them; `None` if the image cannot be decoded, has more than 4,096 pixels
    /// on a side, or needs more than 64 MiB. Decoding takes milliseconds of CPU time.
    pub(crate) fn decode(&self) -> Option<DynamicImage> {
        let mut limits = Limits::default();
        limits.max_image_width = Some(MAX_SIDE);
        limits.max_image_height = Some(MAX_SIDE);
        limits.max_alloc = Some(MAX_MEMORY);
        let mut reader = ImageReader::new(Cursor::new(&self.bytes)).with_guessed_format().ok()?;
        reader.limits(limits.clone());
        let mut decoder = reader.into_decoder().ok()?;
        limits.reserve(decoder.total_bytes()).ok()?;
        // A camera's JPEG may lie on its side.
        let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
        let mut decoded = DynamicImage::from_decoder(decoder).ok()?;
        decoded.apply_orientation(orientation);
        Some(decoded)
    }
}

/// Scales an image down to fit into a square with this side, in pixels. A smaller image stays as it is.
pub(crate) fn scaled_down(image: &DynamicImage, side: u32) -> DynamicImage {
    let side = side.min(image.width().max(image.height()));
    image.thumbnail(side, side)
}

/// Encodes an image as a JPEG, which has no transparency.
pub(crate) fn jpeg(image: &DynamicImage, quality: u8) -> Vec<u8> {
    let mut file = Vec::new();
    // Writing to memory cannot fail.
    let _ = image.to_rgb8().write_with_encoder(JpegEncoder::new_with_quality(&mut file, quality));
    file
}
