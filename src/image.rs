//! An image: bytes that were recognised as one of the three formats that providers draw.

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
    /// The registered media type.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Png => "image/png",
            Self::Jpeg => "image/jpeg",
            Self::Webp => "image/webp",
        }
    }

    /// The file name's ending, without a dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Png => "png",
            Self::Jpeg => "jpg",
            Self::Webp => "webp",
        }
    }
}

/// Bytes that begin like an image.
///
/// No more is asked of them: a paid image is not thrown away because a decoder is in doubt.
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
    /// Recognises the format by the bytes, whatever the sender called them.
    ///
    /// # Errors
    /// [`NotAnImage`] for everything else, a web page or an empty body for example.
    pub fn recognise(bytes: Bytes) -> Result<Self, NotAnImage> {
        let format = match bytes.as_ref() {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1A, b'\n', ..] => ImageFormat::Png,
            [0xFF, 0xD8, 0xFF, ..] => ImageFormat::Jpeg,
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => ImageFormat::Webp,
            _ => return Err(NotAnImage { length: bytes.len() }),
        };
        Ok(Self { bytes, format })
    }

    /// The image as it came; a clone shares the memory.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The format that the bytes have.
    pub fn format(&self) -> ImageFormat {
        self.format
    }
}
