//! `MAX_IMAGE_USD`: the most that one image may cost. Without it, a few of the largest images would use up
//! the budget of everybody for a day.

use crate::openai::{ImageOptions, ImageRequest, InvalidOption, OpenAi};
use crate::prompt::Prompt;
use crate::spending::{ImageSpec, Prices};

/// Qualities and sizes that every caller may know, from which the answer names those that are allowed.
const QUALITIES: [&str; 5] = ["low", "medium", "standard", "high", "hd"];
const SIZES: [&str; 3] = ["1024x1024", "1024x1792", "1792x1024"];
/// A cent, in millionths of a US dollar.
const CENT: u64 = 10_000;

/// The most that one image may cost.
#[derive(Debug)]
pub(crate) struct Ceiling {
    prices: Prices,
    /// In millionths of a US dollar; 0 means no limit.
    most: u64,
}

impl Ceiling {
    /// The ceiling that is configured. By default it is what an image of the configured model costs at most
    /// with the quality `hd` and the size `1792x1024`, rounded up to a cent; none, if the model does not draw
    /// such images.
    pub(super) fn new(configured: Option<u64>, prices: Prices, openai: &OpenAi) -> Self {
        let most = configured.unwrap_or_else(|| {
            let options = ImageOptions {
                size: Some("1792x1024".to_owned()),
                quality: Some("hd".to_owned()),
                partial_images: 3,
                ..ImageOptions::default()
            };
            let planned = Prompt::parse("an image").ok().and_then(|prompt| openai.plan(&prompt, &options).ok());
            planned.map_or(0, |request| image_cost(&prices, &request).div_ceil(CENT) * CENT)
        });
        Self { prices, most }
    }

    /// Checks that an image does not cost too much. The prompt's tokens do not count.
    ///
    /// # Errors
    /// The image may cost more. The text names sizes and qualities that are allowed, and no price.
    pub(super) fn check(
        &self,
        openai: &OpenAi,
        prompt: &Prompt,
        options: &ImageOptions,
        image_request: &ImageRequest,
    ) -> Result<(), InvalidOption> {
        if self.fits(image_request) {
            return Ok(());
        }
        let may_be_drawn = |options: ImageOptions| self.allows(openai, prompt, &options);
        let with_quality = |quality: &str| ImageOptions { quality: Some(quality.to_owned()), ..options.clone() };
        let with_size = |size: &str| ImageOptions { size: Some(size.to_owned()), ..options.clone() };
        let qualities: Vec<&str> = QUALITIES.into_iter().filter(|value| may_be_drawn(with_quality(value))).collect();
        let sizes: Vec<&str> = SIZES.into_iter().filter(|value| may_be_drawn(with_size(value))).collect();
        let mut text = "This app does not draw images of this size and quality.".to_owned();
        if !qualities.is_empty() {
            text.push_str(&format!(" Allowed qualities for this size: {}.", qualities.join(", ")));
        }
        if !sizes.is_empty() {
            text.push_str(&format!(" Allowed sizes for this quality: {}.", sizes.join(", ")));
        }
        Err(InvalidOption::new(text))
    }

    /// Whether the configured model draws such an image, and it does not cost too much.
    pub(super) fn allows(&self, openai: &OpenAi, prompt: &Prompt, options: &ImageOptions) -> bool {
        openai.plan(prompt, options).is_ok_and(|image_request| self.fits(&image_request))
    }

    fn fits(&self, image_request: &ImageRequest) -> bool {
        self.most == 0 || image_cost(&self.prices, image_request) <= self.most
    }
}

/// The most that the image itself costs, with any of the configured models.
fn image_cost(prices: &Prices, request: &ImageRequest) -> u64 {
    request.specs().map(|spec| prices.most(ImageSpec { prompt_bytes: 0, ..spec })).max().unwrap_or_default()
}
