//! A prompt: the text with which a user describes an image.

use serde::{Deserialize, Serialize};

/// A valid prompt: not blank, and without control characters except tabs and line breaks.
///
/// The length is not checked here, because its limit depends on the model.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prompt(String);

/// Why a text is not a valid prompt.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The text is empty or only white space.
    #[error("The prompt is blank. Describe in a few words what the image should show.")]
    Blank,
    /// The text contains a control character, which providers reject and blob names cannot contain.
    #[error("The prompt contains the control character U+{:04X}. Remove the character.", u32::from(*.0))]
    ControlCharacter(char),
}

impl Prompt {
    /// Trims a text and checks it.
    ///
    /// # Errors
    /// The text is blank, or it contains a control character.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let control = |c: &char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
        if let Some(character) = text.chars().find(control) {
            return Err(Error::ControlCharacter(character));
        }
        if text.is_empty() { Err(Error::Blank) } else { Ok(Self(text.to_owned())) }
    }

    /// The text that takes the place of a prompt that is not kept.
    pub(crate) fn removed() -> Self {
        Self("(removed)".to_owned())
    }

    /// The text of the prompt.
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

/// Shows only the length, because a prompt is private and a structure that holds it may be logged.
impl std::fmt::Debug for Prompt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Prompt({} characters)", self.0.chars().count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_trimmed_and_keeps_its_tabs_and_line_breaks() {
        for (text, wanted) in [("a fox", "a fox"), ("  a fox \n", "a fox"), ("a\tfox\r\nat dawn", "a\tfox\r\nat dawn")]
        {
            assert_eq!(Prompt::parse(text).expect(text).as_str(), wanted);
        }
    }

    #[test]
    fn a_blank_prompt_is_rejected() {
        for text in ["", " ", "\t\r\n", "\u{3000}"] {
            assert_eq!(Prompt::parse(text), Err(Error::Blank), "{text:?}");
        }
    }

    #[test]
    fn a_prompt_with_a_control_character_is_rejected_and_the_character_is_named() {
        for (text, character) in [("a\0fox", '\0'), ("a \u{7f}fox", '\u{7f}'), ("a\u{85}fox", '\u{85}')] {
            let error = Prompt::parse(text).expect_err(text);
            assert_eq!(error, Error::ControlCharacter(character));
            assert!(error.to_string().contains(&format!("U+{:04X}", u32::from(character))), "{error}");
        }
    }

    #[test]
    fn the_debug_form_shows_no_word_of_the_prompt() {
        assert_eq!(format!("{:?}", Prompt::parse("a fox").expect("a prompt")), "Prompt(5 characters)");
    }
}
