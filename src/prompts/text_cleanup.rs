//! Extracts one usable text from a text model's answer. Despite its instruction, a model may add an
//! introduction, a list marker, quotation marks or a code block, or it may refuse.

/// The shortest usable text, in characters.
const SHORTEST: usize = 10;

/// First words of an introduction, such as "Sure, here it is:".
const INTRODUCTIONS: [&str; 9] =
    ["sure", "certainly", "of course", "absolutely", "okay", "ok", "here", "prompt", "suggestion"];
/// Last words of an introduction before its colon, such as "Text-to-image prompt:".
const LABELS: [&str; 6] = ["prompt", "prompts", "suggestion", "suggestions", "idea", "description"];

/// First words of a refusal, in lower case and with straight apostrophes.
const REFUSALS: [&str; 25] = [
    "i'm sorry",
    "i am sorry",
    "i'm really sorry",
    "i'm so sorry",
    "i'm afraid",
    "sorry",
    "apologies",
    "i don't",
    "i do not",
    "i must decline",
    "i will not",
    "i apologize",
    "i apologise",
    "my apologies",
    "i can't",
    "i cannot",
    "i can not",
    "i could not",
    "i'm unable",
    "i am unable",
    "i'm not able",
    "i am not able",
    "i won't",
    "unfortunately",
    "as an ai",
];

/// Returns the text of an answer as one paragraph of at most `longest` characters; `None` if the answer has no
/// usable text.
pub(crate) fn usable(answer: &str, longest: usize) -> Option<String> {
    let text = without_fences(answer);
    let paragraphs = text.split("\n\n").map(str::trim).filter(|paragraph| !paragraph.is_empty());
    // An introduction such as "Here is a prompt:" may be a paragraph of its own, which becomes empty.
    let paragraphs = paragraphs.map(without_label).map(without_exclamation);
    let text = paragraphs.map(str::trim).find(|paragraph| !paragraph.is_empty())?;
    let mut lines = text.lines().map(str::trim);
    let text = match lines.next() {
        // Only the first item of a list is used.
        Some(first) if without_marker(first) != first => without_label(without_marker(first)).to_owned(),
        _ => text.to_owned(),
    };
    let words = text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty());
    let text = words.collect::<Vec<_>>().join(" ");
    let text = unwrapped(text.trim());
    let lower = text.to_lowercase().replace('’', "'");
    if REFUSALS.iter().any(|refusal| begins_with(&lower, refusal)) {
        return None;
    }
    let text = shortened(text, longest);
    (text.chars().count() >= SHORTEST).then(|| text.to_owned())
}

/// The content of the first Markdown code block, or the whole answer if it has none.
pub(crate) fn without_fences(answer: &str) -> &str {
    let Some((_, inside)) = answer.split_once("```") else { return answer.trim() };
    let inside = inside.split_once("```").map_or(inside, |(inside, _)| inside);
    // The first line is the name of the language, or empty.
    inside.split_once('\n').map_or(inside, |(_, rest)| rest).trim()
}

/// Removes an introduction that ends with a colon, such as "Sure! Here is a prompt:".
fn without_label(text: &str) -> &str {
    let Some((before, after)) = text.split_once(':') else { return text };
    let before = before.trim_matches(['*', '_', '#', ' ']).to_lowercase();
    let last = before.rsplit([' ', '-']).next().unwrap_or_default();
    let introduces = INTRODUCTIONS.iter().any(|word| begins_with(&before, word));
    if before.len() <= 100 && (introduces || LABELS.contains(&last)) {
        after.trim_start_matches(['*', '_']).trim()
    } else {
        text
    }
}

/// Removes an exclamation on a line or in a paragraph of its own, such as "Certainly!".
fn without_exclamation(text: &str) -> &str {
    let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
    let lower = first.trim().to_lowercase();
    let exclaims = lower.ends_with(['!', '.', ':']) && INTRODUCTIONS.iter().any(|word| begins_with(&lower, word));
    // A prompt may begin with such a word too: "Here sleeps a fox."
    if exclaims && lower.split_whitespace().count() <= 8 && (!rest.is_empty() || lower.contains(['!', ':'])) {
        rest
    } else {
        text
    }
}

/// Whether a text begins with these words, as whole words.
fn begins_with(text: &str, words: &str) -> bool {
    text.strip_prefix(words).is_some_and(|rest| !rest.starts_with(|c: char| c.is_alphanumeric()))
}

/// Removes a marker of a list or a heading: `1.`, `2)`, `-`, `•`, `*` or `#`.
fn without_marker(line: &str) -> &str {
    let digits = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let numbered = digits.len() < line.len() && line.len() - digits.len() <= 2;
    let rest = match digits.strip_prefix(['.', ')']) {
        Some(rest) if numbered => rest,
        _ => line.trim_start_matches('#').strip_prefix(['-', '•', '*']).unwrap_or(line.trim_start_matches('#')),
    };
    if rest.starts_with(' ') { rest.trim_start() } else { line }
}

/// Removes quotation marks and Markdown emphasis that enclose the whole text.
fn unwrapped(mut text: &str) -> &str {
    let pairs = [
        ("\"", "\""),
        ("“", "”"),
        ("„", "“"),
        ("«", "»"),
        ("'", "'"),
        ("‘", "’"),
        ("**", "**"),
        ("*", "*"),
        ("`", "`"),
    ];
    while let Some(inside) = pairs.iter().find_map(|(open, close)| {
        let inside = text.strip_prefix(open)?.strip_suffix(close)?;
        // If the next mark inside closes a quotation, the outer marks are not a pair.
        let opens = |at: usize| inside[..at].ends_with([' ', '(']);
        inside.find(open).is_none_or(opens).then_some(inside)
    }) {
        text = inside.trim();
    }
    text
}

/// Cuts a text to at most `longest` characters: after a sentence, else after a word.
pub(crate) fn shortened(text: &str, longest: usize) -> &str {
    let Some((end, _)) = text.char_indices().nth(longest) else { return text };
    let kept = &text[..end];
    let sentence = kept.rfind(". ").map(|at| at + 1).filter(|at| *at >= end / 2);
    let word = || kept.rfind(' ').filter(|at| *at > 0);
    // A text without spaces (in Chinese, for example) is cut at the limit.
    let end = sentence.or_else(|| if text[end..].starts_with(' ') { None } else { word() }).unwrap_or(end);
    kept[..end].trim_end().trim_end_matches([',', ';', ':', '-']).trim_end()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_a_model_adds_around_a_text_is_removed() {
        const FOX: &str = "A red fox asleep in fresh snow, watercolour";
        for answer in [
            FOX,
            "\n\n  A red fox asleep\nin fresh   snow, watercolour \n",
            "\"A red fox asleep in fresh snow, watercolour\"",
            "“A red fox asleep in fresh snow, watercolour”",
            "'A red fox asleep in fresh snow, watercolour'",
            "**A red fox asleep in fresh snow, watercolour**",
            "*\"A red fox asleep in fresh snow, watercolour\"*",
            "`A red fox asleep in fresh snow, watercolour`",
            "```\nA red fox asleep in fresh snow, watercolour\n```",
            "```text\nA red fox asleep in fresh snow, watercolour\n```\nEnjoy!",
            "Prompt: A red fox asleep in fresh snow, watercolour",
            "**Prompt:** A red fox asleep in fresh snow, watercolour",
            "Here is a prompt: A red fox asleep in fresh snow, watercolour",
            "Here's one:\n\nA red fox asleep in fresh snow, watercolour",
            "Sure! Here is your image prompt:\n\n\"A red fox asleep in fresh snow, watercolour\"\n\nLet me know!",
            "Certainly!\n\nA red fox asleep in fresh snow, watercolour",
            "Sure!\nA red fox asleep in fresh snow, watercolour",
            "Of course! Here you go.\n\nA red fox asleep in fresh snow, watercolour",
            "Certainly: A red fox asleep in fresh snow, watercolour",
            "Text-to-image prompt: A red fox asleep in fresh snow, watercolour",
            "1. A red fox asleep in fresh snow, watercolour\n2. A whale above a harbour",
            "1) \"A red fox asleep in fresh snow, watercolour\"",
            "- A red fox asleep in fresh snow, watercolour\n- A whale",
            "# A red fox asleep in fresh snow, watercolour",
            "1. Prompt: A red fox asleep in fresh snow, watercolour",
            "A red fox asleep in fresh snow, watercolour\n\nA blue whale above a harbour",
            "A red fox \u{0}asleep in fresh snow, watercolour",
        ] {
            assert_eq!(usable(answer, 300).as_deref(), Some(FOX), "{answer:?}");
        }
    }

    #[test]
    fn quotation_marks_inside_a_quoted_text_stay() {
        for (answer, wanted) in [
            ("\"A sign that says \"OPEN\" in the rain\"", "A sign that says \"OPEN\" in the rain"),
            ("'A sign that says 'OPEN' in the rain'", "A sign that says 'OPEN' in the rain"),
        ] {
            assert_eq!(usable(answer, 300).as_deref(), Some(wanted));
        }
    }

    #[test]
    fn a_text_that_only_resembles_an_introduction_or_a_list_stays() {
        for text in [
            "Sherlock Holmes: a portrait in oil",
            "24 herons above a flooded field",
            "A sign that says \"OPEN\" in the rain",
            "\"Hello\" and \"goodbye\" as neon letters",
            "2.5 metres of snow on a red roof",
            "Here and there a light in the dark harbour",
            "Surely the oldest tree: black and white",
            "As an airship drifts over the city, lights come on",
            "Here sleeps a fox in the snow.",
        ] {
            assert_eq!(usable(text, 300).as_deref(), Some(text));
        }
    }

    #[test]
    fn apologies_refusals_and_empty_answers_are_not_usable() {
        for answer in [
            "",
            " \n ",
            "\"\"",
            "A fox.",
            "I'm sorry, but I can't help with that.",
            "I’m sorry, I cannot do that.",
            "Sorry, that is not possible for me.",
            "I cannot assist with this request.",
            "Apologies, but I can't help with that.",
            "I'm afraid I can't write this prompt.",
            "I don't feel comfortable with this one.",
            "I must decline to write such a prompt.",
            "Certainly!",
            "Of course!",
            "Absolutely!",
            "I'm unable to write such a prompt.",
            "Unfortunately, this goes against my rules.",
            "As an AI language model, I have no ideas.",
            "My apologies! Here is nothing at all.",
            "\"I apologize, but no prompt comes to mind.\"",
        ] {
            assert_eq!(usable(answer, 300), None, "{answer:?}");
        }
    }

    #[test]
    fn a_long_text_ends_with_a_sentence_or_a_word() {
        for (text, longest, wanted) in [
            ("A fox sleeps. A whale sings loudly.", 20, "A fox sleeps."),
            ("A fox, a whale, a heron", 16, "A fox, a whale"),
            ("A fox and a whale", 9, "A fox and"),
            ("A fox and a whale", 11, "A fox and a"),
            ("狐狸狐狸狐狸狐狸狐狸狐狸狐狸", 12, "狐狸狐狸狐狸狐狸狐狸狐狸"),
        ] {
            assert_eq!(shortened(text, longest), wanted);
        }
    }
}
