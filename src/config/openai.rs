//! The settings of the provider.

use std::time::Duration;

use reqwest::Url;
use secrecy::SecretString;

use super::{Error, Ignored, Vars, header_value, service_url};

/// The settings of the provider.
#[derive(Debug, Clone)]
pub struct OpenAiConfig {
    /// `OPENAI_AUTH` (`bearer`): how requests are authorized.
    pub auth: OpenAiAuth,
    /// `OPENAI_ORG_ID` (none), or `OPEN_AI_ORGANIZATION` as in VisionaryAI: the organisation that pays.
    pub organization: Option<String>,
    /// `OPENAI_PROJECT_ID` (none): the project that pays.
    pub project: Option<String>,
    /// `OPENAI_BASE_URL` (`https://api.openai.com/v1`): the API's base URL; its query string is kept.
    pub base_url: Url,
    /// `OPENAI_IMAGE_MODEL` (`gpt-image-2.5-flare`): the image model's or deployment's name.
    pub image_model: String,
    /// `OPENAI_IMAGE_FALLBACKS` (none): the image models to try, in order, when the provider no longer
    /// has the one before.
    pub image_fallbacks: Vec<String>,
    /// `OPENAI_TEXT_MODEL` (`gpt-6-luna`): the text model's or deployment's name.
    pub text_model: String,
    /// `OPENAI_IMAGE_WIRE` (`auto`): the request format of the image endpoint.
    pub image_wire: ImageWire,
    /// `OPENAI_TEXT_API` (`auto`): the endpoint for suggestions and rewritten prompts.
    pub text_api: TextApi,
    /// `OPENAI_TIMEOUT_SECONDS` (200): the time limit for drawing one image, with all retries.
    pub timeout: Duration,
}

/// How requests to the provider are authorized. The key is `OPENAI_API_KEY`, or `OPEN_AI_KEY` as in VisionaryAI.
#[derive(Debug, Clone)]
pub enum OpenAiAuth {
    /// `Authorization: Bearer KEY`.
    Bearer(SecretString),
    /// `api-key: KEY`, as Azure OpenAI expects it.
    ApiKey(SecretString),
    /// `Authorization: Bearer TOKEN`, with a token of the app's managed identity.
    Identity {
        /// `OPENAI_AUTH_SCOPE` (`https://cognitiveservices.azure.com`): the resource that the token is for.
        resource: String,
    },
}

/// The request format of an image endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageWire {
    /// By the model's name: `dall-e` for `dall-e…`, `gpt-image` for all others.
    Auto,
    /// `quality: low|medium|high`; the image is always base64.
    GptImage,
    /// `quality: standard|hd`, `response_format`, `style`.
    DallE,
}

/// The endpoint of a text model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TextApi {
    /// By the model's name: `completions` for `…-instruct`, `responses` for all others.
    Auto,
    /// `POST /responses`.
    Responses,
    /// `POST /chat/completions`.
    Chat,
    /// `POST /completions`.
    Completions,
}

impl OpenAiConfig {
    pub(super) fn from_vars(vars: &Vars) -> Result<Self, Error> {
        let base_url = vars.get("OPENAI_BASE_URL")?;
        Ok(Self {
            auth: OpenAiAuth::from_vars(vars, base_url.is_some())?,
            organization: vars
                .either("OPENAI_ORG_ID", "OPEN_AI_ORGANIZATION")?
                .map(|id| header_value("OPENAI_ORG_ID", id))
                .transpose()?,
            project: vars.get("OPENAI_PROJECT_ID")?.map(|id| header_value("OPENAI_PROJECT_ID", id)).transpose()?,
            base_url: service_url(
                "OPENAI_BASE_URL",
                &base_url.unwrap_or_else(|| "https://api.openai.com/v1".to_owned()),
            )?,
            image_model: vars.get("OPENAI_IMAGE_MODEL")?.unwrap_or_else(|| "gpt-image-2.5-flare".to_owned()),
            image_fallbacks: vars.list("OPENAI_IMAGE_FALLBACKS")?,
            text_model: vars.get("OPENAI_TEXT_MODEL")?.unwrap_or_else(|| "gpt-6-luna".to_owned()),
            image_wire: match vars.get("OPENAI_IMAGE_WIRE")?.as_deref() {
                None | Some("auto") => ImageWire::Auto,
                Some("gpt-image") => ImageWire::GptImage,
                Some("dall-e") => ImageWire::DallE,
                Some(_) => {
                    return Err(Error::Malformed { name: "OPENAI_IMAGE_WIRE", expected: "auto, gpt-image or dall-e" });
                }
            },
            text_api: match vars.get("OPENAI_TEXT_API")?.as_deref() {
                None | Some("auto") => TextApi::Auto,
                Some("responses") => TextApi::Responses,
                Some("chat") => TextApi::Chat,
                Some("completions") => TextApi::Completions,
                Some(_) => {
                    return Err(Error::Malformed {
                        name: "OPENAI_TEXT_API",
                        expected: "auto, responses, chat or completions",
                    });
                }
            },
            timeout: Duration::from_secs(
                vars.number("OPENAI_TIMEOUT_SECONDS", "a whole number of seconds, 1 to 600", 1..=600)?.unwrap_or(200),
            ),
        })
    }

    /// The key, if the identity is used instead.
    pub(super) fn ignored(&self, vars: &Vars) -> Result<Option<Ignored>, Error> {
        let key = vars.either("OPENAI_API_KEY", "OPEN_AI_KEY")?;
        let is_ignored = key.is_some() && matches!(self.auth, OpenAiAuth::Identity { .. });
        Ok(is_ignored.then_some(Ignored { name: "OPENAI_API_KEY", because: "OPENAI_AUTH is identity" }))
    }
}

impl OpenAiAuth {
    fn from_vars(vars: &Vars, has_base_url: bool) -> Result<Self, Error> {
        let key = vars.either("OPENAI_API_KEY", "OPEN_AI_KEY")?;
        let scope = vars.get("OPENAI_AUTH_SCOPE")?;
        let auth = vars.get("OPENAI_AUTH")?;
        if auth.as_deref() == Some("identity") {
            if !has_base_url {
                return Err(Error::Missing {
                    name: "OPENAI_BASE_URL",
                    hint: "set it to the Azure OpenAI endpoint that takes the app's identity",
                });
            }
            let scope = scope.unwrap_or_else(|| "https://cognitiveservices.azure.com".to_owned());
            // The identity endpoint takes a resource. The scope of the same resource, as in Azure's SDKs, has a suffix.
            let resource = scope.strip_suffix("/.default").unwrap_or(&scope).to_owned();
            if Url::parse(&resource).is_err() {
                return Err(Error::Malformed { name: "OPENAI_AUTH_SCOPE", expected: "a resource, as a URL" });
            }
            return Ok(Self::Identity { resource });
        }
        let key = key.ok_or(Error::Missing {
            name: "OPENAI_API_KEY",
            hint: "set it (or OPEN_AI_KEY) to the provider's API key, or OPENAI_AUTH to identity",
        })?;
        let key = header_value("OPENAI_API_KEY", key)?.into();
        match auth.as_deref() {
            None | Some("bearer") => Ok(Self::Bearer(key)),
            Some("api-key") => Ok(Self::ApiKey(key)),
            Some(_) => Err(Error::Malformed { name: "OPENAI_AUTH", expected: "bearer, api-key or identity" }),
        }
    }
}
