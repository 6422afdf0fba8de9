//! Families of image models: which fields and values each family accepts, and how a value of one family
//! is translated for another.

use serde::{Deserialize, Serialize};

use crate::config::ImageWire;
use crate::prompt::Prompt;
use crate::spending::ImageSpec;

/// Image options: the fields of a request besides the prompt, as the caller sent them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageOptions {
    /// `WIDTHxHEIGHT` or `auto`; `1024x1024` by default.
    pub size: Option<String>,
    /// The provider chooses by default.
    pub quality: Option<String>,
    /// `vivid` or `natural`; only sent to dall-e models.
    pub style: Option<String>,
    /// `transparent`, `opaque` or `auto`; only sent to gpt-image models.
    pub background: Option<String>,
    /// `png`, `jpeg` or `webp`; only sent to gpt-image models.
    pub output_format: Option<String>,
    /// Number of partial images to stream while the model draws, 0 to 3; only sent to gpt-image models.
    #[serde(default)]
    pub partial_images: u8,
}

/// The model does not support an image option, or the prompt is too long for it. The text is for the caller.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0}")]
pub struct InvalidOption(String);

impl InvalidOption {
    /// An option that the app does not allow, with the sentence for the caller.
    pub(crate) fn new(sentence: String) -> Self {
        Self(sentence)
    }
}

/// The request body. A field that the family does not accept is `None` and is left out.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Body {
    pub(super) model: String,
    prompt: String,
    n: u8,
    pub(super) size: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) quality: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    response_format: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    style: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    background: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output_format: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partial_images: Option<u8>,
}

/// A family of models that accept the same fields and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Family {
    DallE,
    /// gpt-image-1, gpt-image-1.5 and gpt-image-1-mini: three sizes and `auto`.
    GptImage1,
    /// gpt-image-2: any size within limits.
    GptImage2,
    /// gpt-image-2.5, later versions and unknown models: also the qualities `xhigh` and `max`.
    GptImage25,
}

/// The values of dall-e's `style`.
pub(crate) const DALL_E_STYLES: [&str; 2] = ["vivid", "natural"];
const BACKGROUNDS: [&str; 3] = ["auto", "opaque", "transparent"];
const OUTPUT_FORMATS: [&str; 3] = ["png", "jpeg", "webp"];

/// The values that a front end offers, by the names of this API. A model may take more.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choices {
    /// Width and height in pixels. The first one is the default.
    pub(crate) sizes: &'static [(u32, u32)],
    /// From the cheapest to the dearest.
    pub(crate) qualities: &'static [&'static str],
    pub(crate) default_quality: &'static str,
    /// The first one is the default.
    pub(crate) formats: &'static [&'static str],
}

impl Body {
    pub(super) fn with_prompt(&self, prompt: &str) -> Self {
        Self { prompt: prompt.to_owned(), ..self.clone() }
    }

    /// Asks for `count` partial images, if the family can stream.
    pub(super) fn with_partial_images(self, count: u8) -> Self {
        let dall_e = self.response_format.is_some();
        let count = (count > 0 && !dall_e).then_some(count);
        Self { stream: count.map(|_| true), partial_images: count, ..self }
    }

    /// Whether the body asks for partial images.
    pub(super) fn streams(&self) -> bool {
        self.stream == Some(true)
    }

    pub(super) fn spec(&self) -> ImageSpec<'_> {
        ImageSpec {
            model: &self.model,
            size: &self.size,
            quality: self.quality,
            prompt_bytes: self.prompt.len(),
            partial_images: self.partial_images.unwrap_or(0),
        }
    }
}

impl Family {
    /// The family of a model, by `OPENAI_IMAGE_WIRE` and the model's name.
    pub(super) fn of(model: &str, wire: ImageWire) -> Self {
        match wire {
            ImageWire::DallE => return Self::DallE,
            ImageWire::Auto if model.starts_with("dall-e") => return Self::DallE,
            ImageWire::Auto | ImageWire::GptImage => {}
        }
        let version = model.strip_prefix("gpt-image-").and_then(|rest| rest.split('-').next()?.parse::<f32>().ok());
        match version {
            Some(version) if version < 2.0 => Self::GptImage1,
            Some(version) if version < 2.5 => Self::GptImage2,
            Some(_) | None => Self::GptImage25,
        }
    }

    /// Builds the request body.
    ///
    /// # Errors
    /// The family does not support an option, or the prompt is too long. The text names the allowed values.
    pub(super) fn body(self, model: &str, prompt: &Prompt, options: &ImageOptions) -> Result<Body, InvalidOption> {
        let limit = self.max_prompt_characters();
        if prompt.as_str().chars().count() > limit {
            return Err(InvalidOption(format!(
                "The prompt is too long. This model accepts at most {limit} characters."
            )));
        }
        let style = one_of("style", options.style.as_deref(), &DALL_E_STYLES)?;
        let background = one_of("background", options.background.as_deref(), &BACKGROUNDS)?;
        let output_format = one_of("outputFormat", options.output_format.as_deref(), &OUTPUT_FORMATS)?;
        if background == Some("transparent") && output_format == Some("jpeg") {
            return Err(InvalidOption("A transparent background requires the outputFormat png or webp.".to_owned()));
        }
        let dall_e = self == Self::DallE;
        if dall_e && background.is_some_and(|background| background != "auto") {
            return Err(InvalidOption("This model does not support the option background.".to_owned()));
        }
        if dall_e && output_format.is_some_and(|format| format != "png") {
            return Err(InvalidOption("This model only draws PNG. Remove outputFormat.".to_owned()));
        }
        let body = Body {
            model: model.to_owned(),
            prompt: prompt.as_str().to_owned(),
            n: 1,
            size: self.size(options.size.as_deref().unwrap_or("1024x1024"))?,
            quality: self.quality(options.quality.as_deref())?,
            response_format: dall_e.then_some("b64_json"),
            style: style.filter(|_| dall_e),
            background: background.filter(|_| !dall_e),
            output_format: output_format.filter(|_| !dall_e),
            stream: None,
            partial_images: None,
        };
        Ok(body.with_partial_images(options.partial_images))
    }

    /// The longest prompt, in characters (<https://platform.openai.com/docs/api-reference/images/create>).
    pub(super) fn max_prompt_characters(self) -> usize {
        match self {
            Self::DallE => 4_000,
            Self::GptImage1 | Self::GptImage2 | Self::GptImage25 => 32_000,
        }
    }

    /// The values that a front end offers.
    pub(super) fn choices(self) -> Choices {
        // The sizes of the original. Every family takes them, so they are also what free sizes are offered as: one
        // square, one portrait and one landscape.
        const SIZES: [(u32, u32); 3] = [(1024, 1024), (1024, 1792), (1792, 1024)];
        // What gpt-image-1 translates these sizes to.
        const GPT_IMAGE_1_SIZES: [(u32, u32); 3] = [(1024, 1024), (1024, 1536), (1536, 1024)];
        const QUALITIES: [&str; 5] = ["low", "medium", "high", "xhigh", "max"];
        let gpt_image =
            |sizes, qualities| Choices { sizes, qualities, default_quality: "medium", formats: &OUTPUT_FORMATS };
        match self {
            Self::DallE => Choices {
                sizes: &SIZES,
                qualities: &["standard", "hd"],
                default_quality: "standard",
                formats: &OUTPUT_FORMATS[..1],
            },
            Self::GptImage1 => gpt_image(&GPT_IMAGE_1_SIZES, &QUALITIES[..3]),
            Self::GptImage2 => gpt_image(&SIZES, &QUALITIES[..3]),
            Self::GptImage25 => gpt_image(&SIZES, &QUALITIES),
        }
    }

    fn size(self, option: &str) -> Result<String, InvalidOption> {
        let (fixed, allowed): (&[(&str, &str)], _) = match self {
            Self::DallE => (
                &[("1024x1024", "1024x1024"), ("1024x1792", "1024x1792"), ("1792x1024", "1792x1024")],
                "1024x1024, 1024x1792, 1792x1024",
            ),
            Self::GptImage1 => (
                &[
                    ("1024x1024", "1024x1024"),
                    ("1024x1536", "1024x1536"),
                    ("1536x1024", "1536x1024"),
                    ("1024x1792", "1024x1536"),
                    ("1792x1024", "1536x1024"),
                    ("auto", "auto"),
                ],
                "1024x1024, 1024x1536, 1536x1024, 1024x1792, 1792x1024, auto",
            ),
            Self::GptImage2 | Self::GptImage25 => (
                &[("auto", "auto")],
                "auto, or WIDTHxHEIGHT with both multiples of 16, a ratio between 1:3 and 3:1, and 655360 to 8294400 \
                 pixels (1024x1024, 1024x1792, 1792x1024)",
            ),
        };
        if let Some((_, sent)) = fixed.iter().find(|(name, _)| *name == option) {
            return Ok((*sent).to_owned());
        }
        let free = matches!(self, Self::GptImage2 | Self::GptImage25);
        match free_size(option).filter(|_| free) {
            Some(size) => Ok(size),
            None => Err(InvalidOption(format!("This model does not support the size. Allowed: {allowed}."))),
        }
    }

    /// The value to send. A value of another family is translated.
    fn quality(self, option: Option<&str>) -> Result<Option<&'static str>, InvalidOption> {
        let Some(option) = option else { return Ok(None) };
        let (known, allowed): (&[(&str, &'static str)], _) = match self {
            Self::DallE => (&[("standard", "standard"), ("hd", "hd")], "standard, hd"),
            Self::GptImage1 | Self::GptImage2 => {
                (&GPT_IMAGE_QUALITIES[..6], "auto, low, medium, high (standard means medium, hd means high)")
            }
            Self::GptImage25 => {
                (&GPT_IMAGE_QUALITIES, "auto, low, medium, high, xhigh, max (standard means medium, hd means high)")
            }
        };
        match known.iter().find(|(name, _)| *name == option) {
            Some((_, sent)) => Ok(Some(sent)),
            None => Err(InvalidOption(format!("This model does not support the quality. Allowed: {allowed}."))),
        }
    }
}

/// The values that a caller may use, each with the value to send. Only gpt-image-2.5 accepts the last two.
const GPT_IMAGE_QUALITIES: [(&str, &str); 8] = [
    ("auto", "auto"),
    ("low", "low"),
    ("medium", "medium"),
    ("high", "high"),
    ("standard", "medium"),
    ("hd", "high"),
    ("xhigh", "xhigh"),
    ("max", "max"),
];

/// Parses a size and checks the limits of gpt-image-2. Returns it in the provider's notation.
fn free_size(option: &str) -> Option<String> {
    let (width, height) = option.split_once('x')?;
    let number = |text: &str| text.parse::<u32>().ok().filter(|n| (16..=8_192).contains(n) && n % 16 == 0);
    let (width, height) = (number(width)?, number(height)?);
    let fits = (655_360..=8_294_400).contains(&(width * height)) && width <= 3 * height && height <= 3 * width;
    fits.then(|| format!("{width}x{height}"))
}

fn one_of(
    field: &str,
    option: Option<&str>,
    allowed: &'static [&'static str],
) -> Result<Option<&'static str>, InvalidOption> {
    let Some(option) = option else { return Ok(None) };
    match allowed.iter().find(|value| **value == option) {
        Some(value) => Ok(Some(value)),
        None => Err(InvalidOption(format!("The value of {field} is unknown. Allowed: {}.", allowed.join(", ")))),
    }
}
