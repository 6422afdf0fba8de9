//! What callers may ask for: the options of the configured model, of those what the price ceiling allows.

use super::generations::Generations;
use crate::openai::ImageOptions;
use crate::prompt::Prompt;

/// What callers may ask for.
#[derive(Debug, Default)]
pub(crate) struct Offer {
    /// The first one is the default.
    pub(crate) sizes: Vec<OfferedSize>,
    /// The qualities that may be drawn in at least one size, from the cheapest to the dearest.
    pub(crate) qualities: Vec<&'static str>,
    /// `None` if no quality may be drawn.
    pub(crate) default_quality: Option<&'static str>,
    /// The first one is the default.
    pub(crate) formats: &'static [&'static str],
    pub(crate) max_prompt_characters: usize,
}

/// A size, and the qualities that may be drawn in it.
#[derive(Debug)]
pub(crate) struct OfferedSize {
    /// In pixels, like the height.
    pub(crate) width: u32,
    pub(crate) height: u32,
    /// At least one.
    pub(crate) qualities: Vec<&'static str>,
}

impl OfferedSize {
    /// The size as a request names it.
    pub(crate) fn name(&self) -> String {
        format!("{}x{}", self.width, self.height)
    }
}

impl Generations {
    /// What callers may ask for. It depends only on the settings.
    pub(crate) fn offer(&self) -> Offer {
        // Only a blank prompt is an error.
        let Ok(prompt) = Prompt::parse("an image") else { return Offer::default() };
        let choices = self.openai.choices();
        let mut sizes: Vec<OfferedSize> = Vec::new();
        for (width, height) in choices.sizes {
            let mut size = OfferedSize { width: *width, height: *height, qualities: Vec::new() };
            let may_be_drawn = |quality: &str| {
                let options = ImageOptions {
                    size: Some(size.name()),
                    quality: Some(quality.to_owned()),
                    // A request may ask for this many, and each costs a little.
                    partial_images: 3,
                    ..ImageOptions::default()
                };
                self.ceiling.allows(&self.openai, &prompt, &options)
            };
            let allowed = choices.qualities.iter().copied().filter(|quality| may_be_drawn(quality)).collect();
            size.qualities = allowed;
            sizes.extend((!size.qualities.is_empty()).then_some(size));
        }
        let is_allowed = |quality: &&&str| sizes.iter().any(|size| size.qualities.contains(quality));
        let qualities: Vec<&str> = choices.qualities.iter().filter(is_allowed).copied().collect();
        let has_default = qualities.contains(&choices.default_quality);
        let plan = self.openai.plan(&prompt, &ImageOptions::default());
        Offer {
            default_quality: if has_default { Some(choices.default_quality) } else { qualities.last().copied() },
            sizes,
            qualities,
            formats: choices.formats,
            max_prompt_characters: plan.map_or(0, |image_request| image_request.prompt_limit()),
        }
    }
}
