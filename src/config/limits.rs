//! What may be spent: by a caller, by the app, and at which prices.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::{Error, Vars};

/// What may be spent in a UTC day.
#[derive(Debug, Clone)]
pub struct LimitsConfig {
    /// `DAILY_IMAGE_QUOTA` (5): images for one caller; 0 is without a limit.
    pub daily_images: u32,
    /// `DAILY_BUDGET_USD` (20): for the whole app, in millionths of a US dollar; 0 is without a limit.
    pub daily_budget: u64,
    /// `IMAGE_PRICES` (none): prices that come before those in the source.
    pub prices: BTreeMap<String, Price>,
}

/// What a model costs.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum Price {
    /// By tokens.
    Tokens(TokenPrice),
    /// By image, in US dollars.
    Image(ImagePrice),
}

/// US dollars for a million tokens, which is millionths of a dollar for one.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TokenPrice {
    /// Of the prompt.
    pub text_input: f64,
    /// Of images that are sent along.
    pub image_input: f64,
    /// Of the image.
    pub image_output: f64,
}

/// US dollars for one image.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImagePrice {
    /// Of any size and quality.
    pub image: f64,
}

impl LimitsConfig {
    pub(super) fn from_vars(vars: &Vars) -> Result<Self, Error> {
        let budget = vars.number("DAILY_BUDGET_USD", "US dollars, such as 20 or 0.50", 0.0..=1_000_000.0)?;
        Ok(Self {
            daily_images: vars
                .number("DAILY_IMAGE_QUOTA", "a whole number, 0 (no limit) to 1000000", 0..=1_000_000)?
                .unwrap_or(5),
            daily_budget: micro_usd(budget.unwrap_or(20.0)),
            prices: vars.get("IMAGE_PRICES")?.map_or(Ok(BTreeMap::new()), |text| prices(&text))?,
        })
    }
}

fn prices(text: &str) -> Result<BTreeMap<String, Price>, Error> {
    let prices: Option<BTreeMap<String, Price>> = serde_json::from_str(text).ok();
    let sane = |price: &Price| {
        let numbers = match price {
            Price::Tokens(price) => [price.text_input, price.image_input, price.image_output],
            Price::Image(price) => [price.image; 3],
        };
        numbers.iter().all(|number| (0.0..=10_000.0).contains(number))
    };
    prices.filter(|prices| prices.values().all(sane)).ok_or(Error::Malformed {
        name: "IMAGE_PRICES",
        expected: "JSON such as {\"MODEL\": {\"textInput\": 5, \"imageInput\": 8, \"imageOutput\": 30}} in US dollars for \
                   a million tokens, or {\"MODEL\": {\"image\": 0.04}} for an image",
    })
}

/// Millionths of a dollar, rounded up: a cost is never told as less than it is.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "amounts are bounded and not negative")]
pub(crate) fn micro_usd(usd: f64) -> u64 {
    // What is a whole number but for the last bits is not rounded up.
    (usd * 1_000_000.0 - 1e-6).ceil().max(0.0) as u64
}
