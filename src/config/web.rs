//! The settings of the page.

use reqwest::Url;

use super::{Error, Vars};

/// The settings of the page.
#[derive(Debug, Clone)]
pub struct WebConfig {
    /// `WEB_PAGE` (`on`): whether the app has a page at `/`.
    pub page: bool,
    /// The origin of the images' links, from the storage account.
    pub image_origin: String,
}

impl WebConfig {
    pub(super) fn from_vars(vars: &Vars, blob_endpoint: &Url) -> Result<Self, Error> {
        Ok(Self {
            page: match vars.get("WEB_PAGE")?.as_deref() {
                None | Some("on") => true,
                Some("off") => false,
                Some(_) => return Err(Error::Malformed { name: "WEB_PAGE", expected: "on or off" }),
            },
            image_origin: blob_endpoint.origin().ascii_serialization(),
        })
    }
}
