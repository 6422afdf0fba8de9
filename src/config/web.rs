//! The settings of the page, and of pages on other sites.

use reqwest::Url;

use super::{Error, Vars};

/// The settings of the page, and of pages on other sites.
#[derive(Debug, Clone)]
pub struct WebConfig {
    /// `WEB_PAGE` (`on`): whether the app has a page at `/`.
    pub page: bool,
    /// The origin of the images' links, from the storage account.
    pub image_origin: String,
    /// `ALLOWED_ORIGINS` (none): the origins of other sites whose pages may draw and delete for signed-in users.
    pub allowed_origins: Vec<String>,
}

impl WebConfig {
    pub(super) fn from_vars(vars: &Vars, blob_endpoint: &Url) -> Result<Self, Error> {
        let allowed_origins = vars.list("ALLOWED_ORIGINS")?;
        if !allowed_origins.iter().all(|origin| is_origin(origin)) {
            return Err(Error::Malformed {
                name: "ALLOWED_ORIGINS",
                expected: "origins such as https://front.example, in lower case and without a path, separated by commas",
            });
        }
        Ok(Self {
            page: match vars.get("WEB_PAGE")?.as_deref() {
                None | Some("on") => true,
                Some("off") => false,
                Some(_) => return Err(Error::Malformed { name: "WEB_PAGE", expected: "on or off" }),
            },
            image_origin: blob_endpoint.origin().ascii_serialization(),
            allowed_origins,
        })
    }
}

/// Whether a text is an origin exactly as browsers write it into the header `Origin`.
fn is_origin(text: &str) -> bool {
    Url::parse(text).is_ok_and(|url| url.origin().is_tuple() && url.origin().ascii_serialization() == text)
}
