//! The style presets.

use serde::Serialize;

/// A style preset: keywords for the look of an image.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Style {
    /// The value of a request's `style`.
    pub name: &'static str,
    /// The name that a front end shows.
    pub title: &'static str,
    /// The keywords that are appended to a prompt, separated by commas.
    pub keywords: &'static str,
}

const fn style(name: &'static str, title: &'static str, keywords: &'static str) -> Style {
    Style { name, title, keywords }
}

/// All style presets. The first is the default.
pub const STYLES: [Style; 13] = [
    style("cinematic", "Cinematic", "4k, hyper-realistic, studio lighting, cinematic"),
    style("oil-painting", "Oil painting", "oil painting, visible brush strokes, rich colours, canvas texture"),
    style("watercolor", "Watercolor", "watercolor, soft washes, paper texture, gentle edges"),
    style("photo-realistic", "Photo-realistic", "photo-realistic, 4k, natural light, sharp focus, 50mm lens"),
    style("abstract", "Abstract", "abstract, bold shapes, strong colours, no recognisable objects"),
    style("modern", "Modern", "modern art, clean lines, flat colours, generous space"),
    style("black-and-white", "Black and white", "black and white photograph, high contrast, film grain"),
    style("anime", "Anime", "anime, cel shading, clear outlines, vivid colours"),
    style("pixel-art", "Pixel art", "pixel art, 16-bit, limited palette, crisp edges"),
    style("isometric", "Isometric", "isometric view, miniature, soft shadows, clean geometry"),
    style("line-art", "Line art", "line art, black ink on white, fine lines, no shading"),
    style("low-poly", "Low poly", "low poly, faceted surfaces, simple shapes, soft light"),
    style("fantasy", "Fantasy", "fantasy art, epic scale, dramatic light, intricate detail"),
];

/// Finds a style preset by its name or its title, in any case.
pub fn named(name: &str) -> Option<&'static Style> {
    let name = name.trim().to_lowercase().replace([' ', '_'], "-");
    STYLES.iter().find(|style| style.name == name)
}

/// Appends the keywords of a style that the prompt does not contain, in order, while they fit into `limit`
/// characters.
pub(super) fn apply(style: &Style, prompt: &str, limit: usize) -> String {
    let mut styled = prompt.to_owned();
    let lower = prompt.to_lowercase();
    for keyword in style.keywords.split(", ").filter(|keyword| !has(&lower, &keyword.to_lowercase())) {
        // The typed prompt stays unchanged, including its last punctuation mark.
        let separator = if styled.ends_with(['.', ',', ';', ':', '!', '?']) { " " } else { ", " };
        if styled.chars().count() + separator.len() + keyword.chars().count() > limit {
            break;
        }
        styled.push_str(separator);
        styled.push_str(keyword);
    }
    styled
}

/// Whether a text contains these words as whole words.
pub(super) fn has(text: &str, words: &str) -> bool {
    text.match_indices(words).any(|(at, _)| {
        let apart = |c: Option<char>| !c.is_some_and(char::is_alphanumeric);
        apart(text[..at].chars().next_back()) && apart(text[at + words.len()..].chars().next())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keywords_of_each_preset_are_appended_to_a_prompt() {
        for style in &STYLES {
            assert_eq!(apply(style, "A car", 4_000), format!("A car, {}", style.keywords));
            assert_eq!(named(style.title), Some(style));
        }
        assert_eq!(apply(&STYLES[0], "A car", 4_000), "A car, 4k, hyper-realistic, studio lighting, cinematic");
    }

    #[test]
    fn keywords_are_not_repeated_and_the_typed_prompt_is_never_cut() {
        for (prompt, limit, wanted) in [
            ("A cinematic car in 4K", 4_000, "A cinematic car in 4K, hyper-realistic, studio lighting"),
            ("A car with Studio Lighting.", 4_000, "A car with Studio Lighting. 4k, hyper-realistic, cinematic"),
            ("A 14km road", 4_000, "A 14km road, 4k, hyper-realistic, studio lighting, cinematic"),
            ("A car,", 4_000, "A car, 4k, hyper-realistic, studio lighting, cinematic"),
            ("A car", 30, "A car, 4k, hyper-realistic"),
            ("A car", 8, "A car"),
            ("A car", 5, "A car"),
            (
                "4k, hyper-realistic, studio lighting, cinematic",
                4_000,
                "4k, hyper-realistic, studio lighting, cinematic",
            ),
        ] {
            assert_eq!(apply(&STYLES[0], prompt, limit), wanted);
        }
    }
}
