//! An image: bytes in one of the three formats that providers draw.

use bytes::Bytes;

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

    /// The bytes as the provider sent them. A clone shares the memory.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The detected format.
    pub fn format(&self) -> ImageFormat {
        self.format
    }
}
