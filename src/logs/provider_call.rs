//! What telemetry says about a call of the provider, in the terms of the conventions for generative AI
//! (<https://github.com/open-telemetry/semantic-conventions-genai>).

/// What the provider is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Draws an image.
    Image,
    /// Writes a text from messages.
    Chat,
    /// Continues a text.
    Completion,
}

/// A usable answer.
#[cfg_attr(not(feature = "otlp"), expect(dead_code, reason = "only telemetry reads it"))]
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Answered<'a> {
    /// The model that the answer names.
    pub(crate) model: Option<&'a str>,
    /// The tokens that the answer states: those of the input, and those of the output.
    pub(crate) tokens: Option<(u64, u64)>,
}
