//! The settings of the quota, the budget and the prices.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Error, Vars};

/// The quota, the budget and the prices. Limits count per UTC day.
#[derive(Debug, Clone)]
pub struct LimitsConfig {
    /// `DAILY_IMAGE_QUOTA` (5): the quota, images for each caller; 0 means no quota.
    pub daily_images: u32,
    /// `DAILY_BUDGET_USD` (20): the app's budget, here in millionths of a US dollar; 0 means no budget.
    pub daily_budget: u64,
    /// `DAILY_CALLER_USD` (0): each caller's own budget, here in millionths of a US dollar; 0 means none.
    pub daily_caller_cost: u64,
    /// `MAX_IMAGE_USD` (see `docs/settings.md`): the most that one image may cost, here in millionths of a US
    /// dollar; 0 means no limit.
    pub max_image_cost: Option<u64>,
    /// `DAILY_REFUSALS` (20): prompts of one caller that the provider may refuse; 0 means no limit.
    pub daily_refusals: u32,
    /// `DAILY_JOBS` (100): jobs of one caller, with those that were cancelled; 0 means no limit.
    pub daily_jobs: u32,
    /// `IMAGE_PRICES` (none): prices by model, which replace the built-in prices.
    pub prices: BTreeMap<String, Price>,
}

/// The price of a model.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Price {
    /// The model is priced by tokens.
    Tokens(TokenPrice),
    /// The model is priced by images.
    Image(ImagePrice),
}

/// Prices in US dollars for a million tokens, which equal millionths of a dollar for one token.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenPrice {
    /// For the prompt's tokens.
    pub text_input: f64,
    /// For the tokens of images in the request.
    #[serde(default)]
    pub image_input: f64,
    /// For the tokens of the drawn image, or of the written text.
    #[serde(alias = "output")]
    pub image_output: f64,
}

/// The price of one image.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagePrice {
    /// In US dollars, for any size and quality.
    pub image: f64,
}

impl LimitsConfig {
    pub(super) fn from_vars(vars: &Vars) -> Result<Self, Error> {
        let budget = vars.number("DAILY_BUDGET_USD", "US dollars, such as 20 or 0.50", 0.0..=1_000_000.0)?;
        let count = |name, default| {
            let count = vars.number(name, "a whole number, 0 (no limit) to 1000000", 0..=1_000_000)?;
            Ok::<u32, Error>(count.unwrap_or(default))
        };
        Ok(Self {
            daily_images: count("DAILY_IMAGE_QUOTA", 5)?,
            daily_caller_cost: micro_usd(
                vars.number("DAILY_CALLER_USD", "US dollars, such as 1 or 0.50", 0.0..=1_000_000.0)?.unwrap_or(0.0),
            ),
            max_image_cost: vars.number("MAX_IMAGE_USD", "US dollars, such as 0.40", 0.0..=1_000_000.0)?.map(micro_usd),
            daily_refusals: count("DAILY_REFUSALS", 20)?,
            daily_jobs: count("DAILY_JOBS", 100)?,
            daily_budget: micro_usd(budget.unwrap_or(20.0)),
            prices: vars.get("IMAGE_PRICES")?.map_or(Ok(BTreeMap::new()), |text| prices(&text))?,
        })
    }
}

fn prices(text: &str) -> Result<BTreeMap<String, Price>, Error> {
    let prices: Option<BTreeMap<String, Price>> = serde_json::from_str(text).ok();
    let is_valid = |price: &Price| {
        let numbers = match price {
            Price::Tokens(price) => [price.text_input, price.image_input, price.image_output],
            Price::Image(price) => [price.image; 3],
        };
        numbers.iter().all(|number| (0.0..=10_000.0).contains(number))
    };
    prices.filter(|prices| prices.values().all(is_valid)).ok_or(Error::Malformed {
        name: "IMAGE_PRICES",
        expected: "JSON such as {\"MODEL\": {\"textInput\": 5, \"imageInput\": 8, \"imageOutput\": 30}} in US dollars for \
                   a million tokens, or {\"MODEL\": {\"image\": 0.04}} in US dollars for an image",
    })
}

/// Converts US dollars to millionths of a dollar, rounded up so that a cost is never too low.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "amounts are bounded and not negative")]
pub(crate) fn micro_usd(usd: f64) -> u64 {
    // Floating-point errors must not round a whole number up to the next one.
    (usd * 1_000_000.0 - 1e-6).ceil().max(0.0) as u64
}
