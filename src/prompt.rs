//! A prompt: the text with which a user describes an image.

use serde::{Deserialize, Serialize};

/// The characters that a blob's name or a front end's caption cannot hold, each with its look-alike that a
/// caption has instead.
pub(crate) const LOOK_ALIKES: [(char, char); 7] = [
    ('_', '\u{02CD}'),  // modifier letter low macron
    ('.', '\u{2024}'),  // one dot leader
    ('/', '\u{2215}'),  // division slash
    ('\\', '\u{2216}'), // set minus
    ('?', '\u{FF1F}'),  // full-width question mark
    ('#', '\u{FF03}'),  // full-width number sign
    ('%', '\u{FF05}'),  // full-width percent sign
];

/// A valid prompt: not blank, without control characters except tabs and line breaks, and without the
/// [look-alikes](LOOK_ALIKES) of a caption.
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
    /// Trims a text, checks it, and replaces look-alikes by the characters that they stand for: front ends copy
    /// captions into the prompt box.
    ///
    /// # Errors
    /// The text is blank, or it contains a control character.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        let control = |c: &char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
        if let Some(character) = text.chars().find(control) {
            return Err(Error::ControlCharacter(character));
        }
        if text.is_empty() { Err(Error::Blank) } else { Ok(Self(text.chars().map(typed).collect())) }
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

/// The character that was typed for this one.
fn typed(character: char) -> char {
    LOOK_ALIKES.iter().find(|(_, look_alike)| *look_alike == character).map_or(character, |(typed, _)| *typed)
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
    fn the_look_alikes_of_a_caption_become_the_characters_that_were_typed() {
        for (text, wanted) in [
            ("snakeˍcase v1․5", "snake_case v1.5"),
            ("50％ of what？ a∕b ∖ ＃1", "50% of what? a/b \\ #1"),
            ("猫は何匹？", "猫は何匹?"),
            ("。，！（）…", "。，！（）…"),
        ] {
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
