//! A suggestion for a prompt, which cannot fail: what the front ends show as a placeholder may be
//! sent as the next, paid prompt, so an error's text must never come out here.

use std::time::Duration;

use crate::app::App;
use crate::logs::chain;

/// The answer is due in 10 s; the built-in list needs none of it.
const TIME_FOR_THE_MODEL: Duration = Duration::from_secs(8);

const INSTRUCTION: &str = "You write prompts for a text-to-image model. Write one prompt of 15 to 40 words for a \
    striking picture. Name the genre and the kind of picture, such as an oil painting, a watercolour, \
    photo-realistic, 4K, abstract, modern, or black and white, and say something of light and mood. Answer with the \
    prompt alone: one line, no quotation marks, no introduction.";

/// What the model is asked about, so that its answers vary; temperature is refused by many models.
const THEMES: [&str; 40] = [
    "a harbour before sunrise",
    "an animal in an unlikely place",
    "a city a thousand years from now",
    "weather over mountains",
    "a kitchen full of life",
    "a machine that dreams",
    "a market at night",
    "a portrait of somebody old",
    "the deep sea",
    "a garden gone wild",
    "a train journey",
    "music made visible",
    "a desert after rain",
    "a library without end",
    "winter in a small town",
    "a festival of lights",
    "an abandoned observatory",
    "a child's invention",
    "a bridge between two worlds",
    "food as a landscape",
    "the last lighthouse",
    "a forest with its own rules",
    "a dancer in motion",
    "an island in the sky",
    "a workshop of strange tools",
    "a storm seen from above",
    "an insect very close",
    "a quiet room in the afternoon",
    "a ship and a star",
    "an ancient ruin, inhabited",
    "colours without objects",
    "a street in the rain",
    "a meeting of two animals",
    "a mountain hut in the snow",
    "a river through four seasons",
    "an astronaut far from home",
    "a theatre from behind the stage",
    "a tree of enormous age",
    "a rooftop in summer",
    "geometry and light",
];

/// One prompt a line, written for this project.
const BUILT_IN: &str = include_str!("suggest/built_in.txt");

/// Where a suggestion is from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The text model wrote it.
    Model,
    /// The built-in list had to help out.
    BuiltIn,
}

/// A prompt that can be used as it is.
#[derive(Debug)]
pub struct Suggestion {
    /// One line.
    pub text: String,
    /// Where it is from.
    pub source: Source,
}

/// Asks the model; takes one of the built-in list when it does not answer well or in time.
pub async fn suggest(app: &App) -> Suggestion {
    let theme = one_of(&THEMES).unwrap_or("a picture");
    let input = format!("Theme: {theme}.");
    let answer = app.openai.write(INSTRUCTION, &input, TIME_FOR_THE_MODEL);
    match tokio::time::timeout(TIME_FOR_THE_MODEL, answer).await {
        Ok(Ok(text)) => {
            let text = clean(&text);
            if !text.is_empty() {
                return Suggestion { text, source: Source::Model };
            }
            tracing::warn!("the text model's suggestion was empty; a built-in one is given");
        }
        Ok(Err(error)) => {
            tracing::warn!(cause = chain(&error), "the text model gave no suggestion; a built-in one is given");
        }
        Err(_) => tracing::warn!("the text model gave no suggestion in time; a built-in one is given"),
    }
    let built_in: Vec<&str> = BUILT_IN.lines().collect();
    let text = one_of(&built_in).unwrap_or("A lighthouse on a cliff at dusk, oil painting, warm light against a storm");
    Suggestion { text: text.to_owned(), source: Source::BuiltIn }
}

/// One line, without white space at its ends and without quotation marks.
fn clean(text: &str) -> String {
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let line = words.collect::<Vec<_>>().join(" ");
    let unquoted: String = line.chars().filter(|c| !matches!(c, '"' | '“' | '”' | '„' | '«' | '»')).collect();
    unquoted.trim().trim_matches(['\'', '‘', '’']).trim().to_owned()
}

fn one_of<'a>(choices: &[&'a str]) -> Option<&'a str> {
    fastrand::choice(choices).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suggestion_is_one_line_without_quotes() {
        for (answer, wanted) in [
            ("\n\n\"A fox.\"\n", "A fox."),
            ("“A cat’s dream”", "A cat’s dream"),
            ("'A fox\n  in \"snow\"'", "A fox in snow"),
            (" \u{0} \n", ""),
        ] {
            assert_eq!(clean(answer), wanted);
        }
    }

    #[test]
    fn the_built_in_list_has_60_different_usable_prompts() {
        let lines: std::collections::BTreeSet<&str> = BUILT_IN.lines().collect();
        assert!(lines.len() >= 60 && lines.len() == BUILT_IN.lines().count());
        for line in lines {
            assert!((30..=300).contains(&line.chars().count()) && clean(line) == line, "{line}");
        }
    }
}
