//! Draws the images of the OpenAI stand-in: a random landscape with the prompt as its caption.

use ab_glyph::{Font as _, FontRef, Glyph, OutlineCurve, PxScale, ScaleFont as _};
use anyhow::Context as _;
use tiny_skia::{
    Color, FillRule, GradientStop, LinearGradient, Paint, PathBuilder, Pixmap, Point, RadialGradient, Rect, Shader,
    SpreadMode, Transform,
};

/// RGB colours that fit together: upper sky, lower sky, light, nearest hills.
const PALETTES: [[u32; 4]; 8] = [
    [0x1b2a49, 0xf2a65a, 0xffe8c2, 0x14213d],
    [0x355c7d, 0xf8b195, 0xfff1e0, 0x2a3652],
    [0x0f2027, 0x5fb0b7, 0xe8fff8, 0x0b1a20],
    [0x41295a, 0xf0a6ca, 0xffe9f3, 0x241434],
    [0x7fb7be, 0xfbe9c6, 0xfffdf5, 0x2f4f4f],
    [0x2c3e50, 0xd98880, 0xfdebd0, 0x1c2833],
    [0x134e5e, 0xa8d5a2, 0xf6ffe8, 0x0d2f38],
    [0x283048, 0x9fb3c8, 0xf7fbff, 0x171d2b],
];

/// Draws a PNG of the given size in pixels. The same prompt and size give the same bytes.
///
/// # Errors
/// Fails if the size is zero or the image cannot be encoded.
pub fn draw(prompt: &str, width: u32, height: u32) -> anyhow::Result<Vec<u8>> {
    let mut canvas = Pixmap::new(width, height).context("an image needs a width and a height")?;
    let mut dice = Dice::new(prompt);
    let palette = PALETTES[usize::try_from(dice.below(8)).unwrap_or(0)];
    landscape(&mut canvas, &mut dice, palette)?;
    caption(&mut canvas, prompt)?;
    canvas.encode_png().context("the image cannot be encoded")
}

/// Draws a PNG of 32 × 32 pixels in a colour that depends on `number`.
///
/// # Errors
/// Fails if the image cannot be encoded.
pub fn sketch(number: u64) -> anyhow::Result<Vec<u8>> {
    let mut canvas = Pixmap::new(32, 32).context("a sketch has a size")?;
    let [red, green, blue, ..] = number.to_le_bytes();
    canvas.fill(Color::from_rgba8(red, green, blue, 255));
    canvas.encode_png().context("the sketch cannot be encoded")
}

fn landscape(canvas: &mut Pixmap, dice: &mut Dice, [above, below, light, near]: [u32; 4]) -> anyhow::Result<()> {
    let (width, height) = (size(canvas.width()), size(canvas.height()));
    let whole = Rect::from_xywh(0.0, 0.0, width, height).context("the sky")?;
    let sky = LinearGradient::new(
        Point::from_xy(0.0, 0.0),
        Point::from_xy(width * 0.1, height * 0.8),
        vec![GradientStop::new(0.0, color(above, 1.0)), GradientStop::new(1.0, color(below, 1.0))],
        SpreadMode::Pad,
        Transform::identity(),
    );
    canvas.fill_rect(whole, &paint(sky.context("the sky")?), Transform::identity(), None);
    for _ in 0..60 {
        let (x, y, radius) = (dice.unit() * width, dice.unit() * height * 0.5, 0.6 + dice.unit() * width / 700.0);
        let star = PathBuilder::from_circle(x, y, radius).context("a star")?;
        let shine = paint(Shader::SolidColor(color(light, 0.15 + 0.4 * dice.unit())));
        canvas.fill_path(&star, &shine, FillRule::Winding, Transform::identity(), None);
    }
    let sun = Point::from_xy(width * (0.2 + 0.6 * dice.unit()), height * (0.2 + 0.25 * dice.unit()));
    let radius = width.min(height) * (0.06 + 0.06 * dice.unit());
    let glow = RadialGradient::new(
        sun,
        0.0,
        sun,
        radius * 6.0,
        vec![GradientStop::new(0.0, color(light, 0.7)), GradientStop::new(1.0, color(light, 0.0))],
        SpreadMode::Pad,
        Transform::identity(),
    );
    canvas.fill_rect(whole, &paint(glow.context("the glow")?), Transform::identity(), None);
    let disc = PathBuilder::from_circle(sun.x, sun.y, radius).context("the sun")?;
    canvas.fill_path(
        &disc,
        &paint(Shader::SolidColor(color(light, 0.95))),
        FillRule::Winding,
        Transform::identity(),
        None,
    );
    const RANGES: u8 = 5;
    for range in 0..RANGES {
        let depth = f32::from(range) / f32::from(RANGES - 1);
        let base = height * (0.5 + 0.32 * depth);
        let (waves, phase, swing) = (1.5 + 3.0 * dice.unit(), dice.unit() * 6.3, height * (0.09 - 0.05 * depth));
        let mut hills = PathBuilder::new();
        hills.move_to(0.0, height);
        for step in 0..=96_u8 {
            let along = f32::from(step) / 96.0;
            let slope = (along * waves * 3.1 + phase).sin() + 0.4 * (along * waves * 8.3 + 2.0 * phase).sin();
            hills.line_to(along * width, base - slope * swing);
        }
        hills.line_to(width, height);
        hills.close();
        let shade = paint(Shader::SolidColor(mix(below, near, 0.25 + 0.75 * depth)));
        let hills = hills.finish().context("the hills")?;
        canvas.fill_path(&hills, &shade, FillRule::Winding, Transform::identity(), None);
    }
    Ok(())
}

/// Writes the prompt on a dark panel at the lower edge, in at most five lines.
fn caption(canvas: &mut Pixmap, prompt: &str) -> anyhow::Result<()> {
    const MAX_LINES: usize = 5;
    let font = FontRef::try_from_slice(epaint_default_fonts::UBUNTU_LIGHT).context("the font")?;
    let (width, height) = (size(canvas.width()), size(canvas.height()));
    let margin = width * 0.05;
    let em = width.min(height) * 0.042;
    let mut lines = wrap(&font, em, prompt, width - 4.0 * margin);
    if lines.len() > MAX_LINES {
        lines.truncate(MAX_LINES);
        if let Some(last) = lines.last_mut() {
            last.push('…');
        }
    }
    let line_height = em * 1.35;
    let panel_height = line_height * f32::from(u8::try_from(lines.len()).unwrap_or(1)) + 2.0 * em;
    let top = height - margin - panel_height;
    let panel = Rect::from_xywh(margin, top, width - 2.0 * margin, panel_height).context("the panel")?;
    canvas.fill_rect(panel, &paint(Shader::SolidColor(color(0x0b0e14, 0.55))), Transform::identity(), None);
    let mut baseline = top + em + em * 0.85;
    for line in lines {
        write_line(canvas, &font, em, &line, 2.0 * margin, baseline);
        baseline += line_height;
    }
    Ok(())
}

fn wrap(font: &FontRef<'_>, em: f32, text: &str, width: f32) -> Vec<String> {
    let scaled = font.as_scaled(PxScale::from(em));
    let advance = |text: &str| text.chars().map(|c| scaled.h_advance(font.glyph_id(c))).sum::<f32>();
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        // A word that is wider than the panel is split between any two characters.
        let mut piece = String::new();
        for character in word.chars() {
            if advance(&piece) > width * 0.95 {
                lines.push(std::mem::take(&mut piece));
            }
            piece.push(character);
        }
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(&piece),
            Some(line) if advance(line) + advance(" ") + advance(&piece) <= width => {
                line.push(' ');
                line.push_str(&piece);
            }
            _ => lines.push(piece),
        }
    }
    lines.retain(|line| !line.is_empty());
    lines
}

fn write_line(canvas: &mut Pixmap, font: &FontRef<'_>, em: f32, line: &str, left: f32, baseline: f32) {
    let scaled = font.as_scaled(PxScale::from(em));
    let ink = paint(Shader::SolidColor(Color::WHITE));
    let mut x = left;
    for character in line.chars() {
        let glyph: Glyph = scaled.scaled_glyph(character);
        let (h, v) = (scaled.h_scale_factor(), scaled.v_scale_factor());
        let place = |point: ab_glyph::Point, x: f32| (x + point.x * h, baseline - point.y * v);
        if let Some(outline) = font.outline(glyph.id) {
            let mut path = PathBuilder::new();
            let mut at = None;
            for curve in &outline.curves {
                let (start, end) = match curve {
                    OutlineCurve::Line(a, b) | OutlineCurve::Quad(a, _, b) | OutlineCurve::Cubic(a, _, _, b) => {
                        (place(*a, x), place(*b, x))
                    }
                };
                if at != Some(start) {
                    path.move_to(start.0, start.1);
                }
                match curve {
                    OutlineCurve::Line(..) => path.line_to(end.0, end.1),
                    OutlineCurve::Quad(_, control, _) => {
                        let control = place(*control, x);
                        path.quad_to(control.0, control.1, end.0, end.1);
                    }
                    OutlineCurve::Cubic(_, first, second, _) => {
                        let (first, second) = (place(*first, x), place(*second, x));
                        path.cubic_to(first.0, first.1, second.0, second.1, end.0, end.1);
                    }
                }
                at = Some(end);
            }
            if let Some(path) = path.finish() {
                canvas.fill_path(&path, &ink, FillRule::Winding, Transform::identity(), None);
            }
        }
        x += scaled.h_advance(glyph.id);
    }
}

fn paint(shader: Shader<'_>) -> Paint<'_> {
    Paint { shader, anti_alias: true, ..Paint::default() }
}

fn color(rgb: u32, alpha: f32) -> Color {
    let [_, red, green, blue] = rgb.to_be_bytes();
    let mut color = Color::from_rgba8(red, green, blue, 255);
    color.set_alpha(alpha);
    color
}

fn mix(from: u32, to: u32, share: f32) -> Color {
    let (from, to) = (color(from, 1.0), color(to, 1.0));
    let between = |a: f32, b: f32| a + (b - a) * share;
    let (red, green) = (between(from.red(), to.red()), between(from.green(), to.green()));
    Color::from_rgba(red, green, between(from.blue(), to.blue()), 1.0).unwrap_or(to)
}

/// Converts a side length without loss: it fits in 16 bits, and an `f32` holds those exactly.
fn size(pixels: u32) -> f32 {
    f32::from(u16::try_from(pixels).unwrap_or(u16::MAX))
}

/// A pseudo-random generator with the text as its seed.
struct Dice(u64);

impl Dice {
    fn new(words: &str) -> Self {
        Self(words.bytes().fold(0x9e37_79b9_7f4a_7c15, |seed, byte| {
            (seed ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(17)
        }))
    }

    /// The SplitMix64 algorithm (<https://prng.di.unimi.it/splitmix64.c>).
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 up to `limit`, without `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A number from 0 to 1.
    fn unit(&mut self) -> f32 {
        f32::from(u16::try_from(self.below(65_536)).unwrap_or(0)) / 65_535.0
    }
}
