//! The prices of images, in millionths of a US dollar.

use serde::{Deserialize, Serialize};

use crate::config::{ImagePrice, LimitsConfig, Price, TokenPrice, micro_usd};

/// The prices of models by tokens, in US dollars for a million tokens of text input, image input and
/// image output, as published in November 2026 (<https://platform.openai.com/docs/pricing>).
const BY_TOKENS: [(&str, f64, f64, f64); 7] = [
    // OpenAI has shut this model down; compatible servers may still have it.
    ("gpt-image-1", 5.0, 10.0, 40.0),
    ("gpt-image-1-mini", 2.0, 2.5, 8.0),
    ("gpt-image-1.5", 5.0, 8.0, 32.0),
    ("gpt-image-2", 5.0, 8.0, 30.0),
    ("gpt-image-2.5", 5.0, 8.0, 30.0),
    ("gpt-image-2.6", 5.0, 8.0, 30.0),
    // The text model. Its last price is for output tokens of text.
    ("gpt-6-luna", 0.1, 0.0, 0.5),
];

/// The price of a text model that is not in the table, in US dollars for a million tokens. It is an assumption of
/// November 2026: 20 times the price of the default text model. The rates of image models do not fit texts: at $40
/// for a million output tokens, a few hundred texts would spend the day's budget.
const UNKNOWN_TEXT: TokenPrice = TokenPrice { text_input: 2.0, image_input: 0.0, image_output: 10.0 };

/// The prices of dall-e-3, which compatible servers still charge: quality, US dollars for an image of
/// 1024x1024, US dollars for an image of any other size.
const DALL_E: [(&str, f64, f64); 2] = [("standard", 0.04, 0.08), ("hd", 0.08, 0.12)];

/// The output tokens of an image of 1024 x 1024 pixels by quality; they grow with the area. The values
/// are rounded up from the highest published ones (272 tokens for `low`; $0.053 for `medium` and $0.211
/// for `high` at $30 for a million tokens). `auto` chooses among these three. OpenAI publishes nothing
/// for `xhigh` and `max`: two and four times `high` are estimates.
const IMAGE_TOKENS: [(&str, f64); 6] =
    [("low", 280.0), ("medium", 1_800.0), ("high", 7_050.0), ("auto", 7_050.0), ("xhigh", 14_100.0), ("max", 28_200.0)];
/// The output tokens of each partial image
/// (<https://platform.openai.com/docs/guides/image-generation#partial-images-cost>).
const PARTIAL_IMAGE_TOKENS: f64 = 100.0;
/// The pixels of the largest image of any model. The size `auto` may choose it.
const MAX_PIXELS: f64 = 8_294_400.0;
/// The tokens that a provider may add to a prompt.
const PROMPT_OVERHEAD_TOKENS: usize = 100;
/// The most output tokens of a text: what a call of the text model asks for.
pub(crate) const MAX_TEXT_TOKENS: u64 = 600;
/// A provider's token count from this on is implausible and ignored.
const MAX_TOKENS: u64 = 10_000_000;

/// The price table: the operator's prices, then the built-in ones.
#[derive(Debug, Clone)]
pub(crate) struct Prices {
    table: Vec<(String, Price)>,
    /// The highest token prices, for models that are not in the table.
    dearest: TokenPrice,
    /// The highest price of an image, for models that are not in the table.
    dearest_image: u64,
}

/// The properties of an image that determine its cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ImageSpec<'a> {
    pub(crate) model: &'a str,
    pub(crate) size: &'a str,
    pub(crate) quality: Option<&'a str>,
    pub(crate) prompt_bytes: usize,
    /// The number of partial images.
    pub(crate) partial_images: u8,
}

impl ImageSpec<'_> {
    /// The same image with a prompt that is `bytes` bytes longer.
    pub(crate) fn longer_by(self, bytes: usize) -> Self {
        Self { prompt_bytes: self.prompt_bytes + bytes, ..self }
    }
}

/// The tokens of an image, as the provider reports them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of text in the request.
    pub text_input: u64,
    /// Tokens of images in the request.
    pub image_input: u64,
    /// Tokens of the drawn image.
    pub output: u64,
}

impl Usage {
    /// The tokens of the request, and those of the answer.
    pub(crate) fn tokens(self) -> (u64, u64) {
        (self.text_input + self.image_input, self.output)
    }
}

/// The cost of an image that was drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// In millionths of a US dollar; the reserved amount if the real cost is unknown.
    pub micro_usd: u64,
    /// Whether the cost follows from the model's own price.
    pub priced: bool,
    /// The reported tokens.
    pub usage: Option<Usage>,
}

impl Prices {
    pub(crate) fn new(config: &LimitsConfig) -> Self {
        let built_in = BY_TOKENS.map(|(model, text_input, image_input, image_output)| {
            (model.to_owned(), Price::Tokens(TokenPrice { text_input, image_input, image_output }))
        });
        let table: Vec<(String, Price)> =
            config.prices.iter().map(|(model, price)| (model.clone(), *price)).chain(built_in).collect();
        let mut dearest = TokenPrice { text_input: 0.0, image_input: 0.0, image_output: 0.0 };
        let mut dearest_image =
            DALL_E.iter().fold(0.0, |dearest: f64, (_, square, other)| dearest.max(*square).max(*other));
        for (_, price) in &table {
            match price {
                Price::Tokens(price) => {
                    dearest.text_input = dearest.text_input.max(price.text_input);
                    dearest.image_input = dearest.image_input.max(price.image_input);
                    dearest.image_output = dearest.image_output.max(price.image_output);
                }
                Price::Image(price) => dearest_image = dearest_image.max(price.image),
            }
        }
        Self { table, dearest, dearest_image: micro_usd(dearest_image) }
    }

    /// The most that an image can cost. A model without a price counts as the most expensive one.
    pub(crate) fn most(&self, spec: ImageSpec<'_>) -> u64 {
        match self.find(spec.model) {
            Some(Price::Image(ImagePrice { image })) => micro_usd(image),
            Some(Price::Tokens(price)) => most_by_tokens(price, spec),
            None if is_dall_e(spec.model) => dall_e(spec),
            None => most_by_tokens(self.dearest, spec).max(self.dearest_image),
        }
    }

    /// The cost of an image that was drawn, or `reserved` if the cost is unknown.
    pub(crate) fn actual_cost(&self, spec: ImageSpec<'_>, usage: Option<Usage>, reserved: u64) -> Cost {
        let cost = self.cost(spec, usage);
        let priced = cost.is_some() && (self.find(spec.model).is_some() || is_dall_e(spec.model));
        Cost { micro_usd: cost.unwrap_or(reserved), priced, usage }
    }

    /// The cost of a text that the text model wrote from `input_bytes` of input. Without a plausible token count
    /// it is the most that the text can cost. A model without a price counts at [`UNKNOWN_TEXT`].
    pub(crate) fn text_cost(&self, model: &str, input_bytes: usize, usage: Option<Usage>) -> Cost {
        let found = self.find(model);
        if let Some(Price::Image(ImagePrice { image })) = found {
            return Cost { micro_usd: micro_usd(image), priced: true, usage };
        }
        let price = if let Some(Price::Tokens(price)) = found { price } else { UNKNOWN_TEXT };
        // A call always has tokens of both kinds, so zero is not a real count.
        let is_count =
            |usage: &Usage| usage.text_input.min(usage.output) > 0 && usage.text_input.max(usage.output) < MAX_TOKENS;
        let usage = usage.filter(is_count);
        // A token has at least one byte, so the number of bytes is an upper bound.
        let (input, output) = match usage {
            Some(usage) => (usage.text_input, usage.output),
            None => ((input_bytes + PROMPT_OVERHEAD_TOKENS) as u64, MAX_TEXT_TOKENS),
        };
        let dollars = (as_float(input) * price.text_input + as_float(output) * price.image_output) / 1_000_000.0;
        Cost { micro_usd: micro_usd(dollars), priced: found.is_some(), usage }
    }

    /// The cost of an image that was drawn; `None` if it needs a token count and `usage` has no plausible
    /// one.
    fn cost(&self, spec: ImageSpec<'_>, usage: Option<Usage>) -> Option<u64> {
        let by_tokens = |price: TokenPrice| {
            // An image always has output tokens, so zero is not a real count.
            let is_count = |usage: &Usage| {
                usage.output > 0 && usage.text_input.max(usage.image_input).max(usage.output) < MAX_TOKENS
            };
            let usage = usage.filter(is_count)?;
            let cost = |tokens: u64, rate: f64| as_float(tokens) * rate / 1_000_000.0;
            Some(micro_usd(
                cost(usage.text_input, price.text_input)
                    + cost(usage.image_input, price.image_input)
                    + cost(usage.output, price.image_output),
            ))
        };
        match self.find(spec.model) {
            Some(Price::Image(ImagePrice { image })) => Some(micro_usd(image)),
            Some(Price::Tokens(price)) => by_tokens(price),
            None if is_dall_e(spec.model) => Some(dall_e(spec)),
            None => by_tokens(self.dearest),
        }
    }

    /// The price of a model. A name in the table matches the model's name or its beginning up to a
    /// hyphen: `gpt-image-2.5` matches `gpt-image-2.5-flare`. The longest match wins; between equal
    /// names, the operator's price wins.
    fn find(&self, model: &str) -> Option<Price> {
        let fits = |name: &str| model.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'));
        let fitting = self.table.iter().rev().filter(|(name, _)| fits(name));
        fitting.max_by_key(|(name, _)| name.len()).map(|(_, price)| *price)
    }
}

fn is_dall_e(model: &str) -> bool {
    model.starts_with("dall-e")
}

fn dall_e(spec: ImageSpec<'_>) -> u64 {
    let row = DALL_E.iter().find(|(quality, ..)| Some(*quality) == spec.quality).unwrap_or(&DALL_E[0]);
    micro_usd(if spec.size == "1024x1024" { row.1 } else { row.2 })
}

fn most_by_tokens(price: TokenPrice, spec: ImageSpec<'_>) -> u64 {
    let square = 1024.0 * 1024.0;
    let pixels = spec.size.split_once('x').and_then(|(width, height)| {
        Some(f64::from(width.parse::<u32>().ok()?) * f64::from(height.parse::<u32>().ok()?))
    });
    // Nothing is published for smaller images, so they count as 1024 x 1024.
    let area = (pixels.unwrap_or(MAX_PIXELS) / square).max(1.0);
    let quality = spec.quality.unwrap_or("auto");
    let dearest = IMAGE_TOKENS.iter().map(|(_, tokens)| *tokens).fold(0.0, f64::max);
    let of_quality = IMAGE_TOKENS.iter().find(|(name, _)| *name == quality).map_or(dearest, |(_, tokens)| *tokens);
    // A token has at least one byte, so the number of bytes is an upper bound.
    let prompt = as_float((spec.prompt_bytes + PROMPT_OVERHEAD_TOKENS) as u64);
    let partial = f64::from(spec.partial_images) * PARTIAL_IMAGE_TOKENS;
    micro_usd((prompt * price.text_input + (of_quality * area + partial) * price.image_output) / 1_000_000.0)
}

#[expect(clippy::cast_precision_loss, reason = "counts of tokens are far below 2^53")]
fn as_float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices(overrides: &str) -> Prices {
        let lookup = |name: &str| match name {
            "OPENAI_API_KEY" => Some("key".to_owned()),
            "AzureWebJobsStorage" => Some("UseDevelopmentStorage=true".to_owned()),
            "IMAGE_PRICES" => Some(overrides.to_owned()),
            _ => None,
        };
        Prices::new(&crate::config::Config::from_vars(lookup).expect("the settings are right").limits)
    }

    fn spec<'a>(model: &'a str, size: &'a str, quality: Option<&'a str>) -> ImageSpec<'a> {
        ImageSpec { model, size, quality, prompt_bytes: 5, partial_images: 0 }
    }

    #[test]
    fn the_most_and_the_cost_follow_the_table() {
        let usage = Some(Usage { text_input: 10, image_input: 0, output: 1_756 });
        let square = "1024x1024";
        for (model, size, quality, most, cost) in [
            ("gpt-image-2.5-flare", square, None, 212_025, Some(52_730)),
            ("gpt-image-2.5-flare", square, Some("low"), 8_925, Some(52_730)),
            ("gpt-image-2", "2048x2048", Some("high"), 846_525, Some(52_730)),
            ("gpt-image-2-2026-04-21", "512x512", Some("medium"), 54_525, Some(52_730)),
            ("gpt-image-2.6-sunburst", square, Some("max"), 846_525, Some(52_730)),
            ("gpt-image-1-mini", square, Some("high"), 56_610, Some(14_068)),
            ("dall-e-3", square, None, 40_000, Some(40_000)),
            ("dall-e-3", "1792x1024", Some("hd"), 120_000, Some(120_000)),
            // Not in the table: the highest price of all.
            ("dream-9", square, Some("high"), 282_525, Some(70_290)),
        ] {
            let spec = spec(model, size, quality);
            let prices = prices("{}");
            assert_eq!((prices.most(spec), prices.cost(spec, usage)), (most, cost), "{model} {size} {quality:?}");
            assert_eq!(prices.actual_cost(spec, usage, 1).priced, model != "dream-9");
        }
        let unknown = prices("{}").actual_cost(spec("gpt-image-2", square, None), None, 212_025);
        assert_eq!((unknown.micro_usd, unknown.priced), (212_025, false), "unknown is not free");
        for (text_input, output) in [(0, 0), (0, u64::MAX), (1_000_000_000_000_000, 1_756)] {
            let odd = Some(Usage { text_input, image_input: 0, output });
            assert_eq!(prices("{}").actual_cost(spec("gpt-image-2", square, None), odd, 7).micro_usd, 7, "{output}");
        }
    }

    /// 700 input tokens, the most for 600 bytes, and 600 output tokens.
    #[test]
    fn a_text_without_a_plausible_count_costs_the_most_and_an_unknown_text_model_less_than_an_image_model() {
        let count = |text_input, output| Some(Usage { text_input, image_input: 0, output });
        for (model, usage, cost) in [
            ("gpt-6-luna", count(200, 100), 70),
            ("gpt-6-luna-2026-09-01", count(200, 100), 70),
            ("words-9", count(200, 100), 1_400),
            ("gpt-6-luna", None, 370),
            ("words-9", None, 7_400),
            ("gpt-6-luna", count(0, 0), 370),
            ("gpt-6-luna", count(200, 0), 370),
            ("gpt-6-luna", count(0, 100), 370),
            ("gpt-6-luna", count(200, u64::MAX), 370),
        ] {
            let text = prices("{}").text_cost(model, 600, usage);
            assert_eq!((text.micro_usd, text.priced), (cost, model != "words-9"), "{model} {usage:?}");
        }
        let own = prices(r#"{"words-9": {"textInput": 1, "output": 4}}"#);
        assert_eq!(own.text_cost("words-9", 600, count(200, 100)).micro_usd, 600);
    }

    #[test]
    fn the_most_includes_the_partial_images() {
        let plain = spec("gpt-image-2", "1024x1024", Some("low"));
        let two = ImageSpec { partial_images: 2, ..plain };
        assert_eq!(prices("{}").most(two) - prices("{}").most(plain), 6_000);
    }

    #[test]
    fn the_operators_prices_come_first() {
        let prices = prices(
            r#"{"dream-9": {"image": 0.02}, "gpt-image-2": {"textInput": 1, "imageInput": 1, "imageOutput": 100}}"#,
        );
        assert_eq!(prices.most(spec("dream-9", "auto", None)), 20_000);
        assert_eq!(prices.most(spec("gpt-image-2", "1024x1024", Some("low"))), 28_105);
        // The longest match wins.
        assert_eq!(prices.most(spec("gpt-image-2.5-flare", "1024x1024", Some("low"))), 8_925);
        assert_eq!(
            prices.most(spec("dream-10", "1024x1024", Some("low"))),
            120_000,
            "the highest price of an image applies"
        );
        assert!(
            prices.most(spec("dream-10", "1024x1024", Some("high"))) >= 705_000,
            "the operator's prices count for the highest price, too"
        );
    }
}
