//! A prompt: what the user asked for, in the user's own words.

use serde::{Deserialize, Serialize};

/// A prompt that can be sent: not blank, and free of control characters but tabs and line breaks.
///
/// How long it may be depends on the model, so that is asked where the model is known.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prompt(String);

/// Why a text is no prompt.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Nothing, or nothing but white space.
    #[error("The prompt is blank. Say in a few words what the image should show.")]
    Blank,
    /// A character that no provider takes and no name can hold.
    #[error("The prompt has the control character U+{:04X} in it. Remove it.", u32::from(*.0))]
    ControlCharacter(char),
}

impl Prompt {
    /// Trims the text and checks it.
    ///
    /// # Errors
    /// Blank, or with a control character (U+0000 for example).
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let control = |c: &char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
        if let Some(character) = text.chars().find(control) {
            return Err(Error::ControlCharacter(character));
        }
        if text.is_empty() { Err(Error::Blank) } else { Ok(Self(text.to_owned())) }
    }

    /// The words.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Prompt {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        Self::parse(&text)
    }
}

impl From<Prompt> for String {
    fn from(prompt: Prompt) -> Self {
        prompt.0
    }
}

/// A prompt belongs to its user: a log that prints a structure shows its length alone.
impl std::fmt::Debug for Prompt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Prompt({} characters)", self.0.chars().count())
    }
}
