//! Draws the images of the OpenAI stand-in: mountains, the sea or circles, in colours that depend on the prompt.

use anyhow::Context as _;
use tiny_skia::{
    Color, FillRule, GradientStop, LinearGradient, Paint, PathBuilder, Pixmap, Point, RadialGradient, Rect, Shader,
    SpreadMode, Transform,
};

/// RGB colours that fit together: upper sky, lower sky, light, nearest hills.
const PALETTES: [[u32; 4]; 12] = [
    [0x1b2a49, 0xf2a65a, 0xffe8c2, 0x14213d],
    [0x355c7d, 0xf8b195, 0xfff1e0, 0x2a3652],
    [0x0f2027, 0x5fb0b7, 0xe8fff8, 0x0b1a20],
    [0x41295a, 0xf0a6ca, 0xffe9f3, 0x241434],
    [0x7fb7be, 0xfbe9c6, 0xfffdf5, 0x2f4f4f],
    [0x2c3e50, 0xe0907c, 0xfdebd0, 0x1c2833],
    [0x134e5e, 0xa8d5a2, 0xf6ffe8, 0x0d2f38],
    [0x4b6cb7, 0xf7d9c4, 0xfffaf0, 0x182848],
    [0xe96443, 0xffd9a0, 0xfff6e0, 0x5c2a3a],
    [0x5b86e5, 0xc9f0e4, 0xfdfff8, 0x1f3b57],
    [0x2b1055, 0x8f7bd6, 0xf3e9ff, 0x160a33],
    [0xd76d77, 0xffc9a3, 0xfff3e2, 0x3a1c48],
];
/// Words of a prompt that ask for the sea.
const SEA: [&str; 9] = ["boat", "harbour", "lighthouse", "ocean", "river", "sea", "ship", "water", "whale"];
/// Words of a prompt that ask for circles.
const SHAPES: [&str; 6] = ["abstract", "bubbles", "circles", "geometric", "modern", "shapes"];

/// Draws a PNG of the given size in pixels. The same prompt and size give the same bytes.
///
/// # Errors
/// Fails if the size is zero or the image cannot be encoded.
pub fn draw(prompt: &str, width: u32, height: u32) -> anyhow::Result<Vec<u8>> {
    let mut canvas = Pixmap::new(width, height).context("an image needs a width and a height")?;
    let mut dice = Dice::new(prompt);
    let palette = PALETTES[usize::try_from(dice.below(12)).unwrap_or(0)];
    let prompt = prompt.to_lowercase();
    let asks_for = |wanted: &[&str]| prompt.split(|c: char| !c.is_alphabetic()).any(|word| wanted.contains(&word));
    if asks_for(&SHAPES) {
        circles(&mut canvas, &mut dice, palette)?;
    } else if asks_for(&SEA) {
        sea(&mut canvas, &mut dice, palette)?;
    } else {
        mountains(&mut canvas, &mut dice, palette)?;
    }
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

/// Ranges of hills, the nearest with trees.
fn mountains(canvas: &mut Pixmap, dice: &mut Dice, palette: [u32; 4]) -> anyhow::Result<()> {
    const RANGES: u8 = 5;
    let [_, below, _, near] = palette;
    let (width, height) = (size(canvas.width()), size(canvas.height()));
    sky(canvas, dice, palette)?;
    for range in 0..RANGES {
        let depth = f32::from(range) / f32::from(RANGES - 1);
        let shade = mix(color(below, 1.0), color(near, 1.0), 0.25 + 0.75 * depth);
        let base = height * (0.5 + 0.32 * depth);
        let (waves, phase, swing) = (1.5 + 3.0 * dice.unit(), dice.unit() * 6.3, height * (0.1 - 0.06 * depth));
        let ridge = |along: f32| {
            let slope = (along * waves * 3.1 + phase).sin() + 0.4 * (along * waves * 8.3 + 2.0 * phase).sin();
            base - slope * swing
        };
        let mut hills = PathBuilder::new();
        hills.move_to(0.0, height);
        for step in 0..=96_u8 {
            let along = f32::from(step) / 96.0;
            hills.line_to(along * width, ridge(along));
        }
        hills.line_to(width, height);
        // The trees are part of the shape, so all of it has one colour.
        let trees = if range == RANGES - 1 { 50 } else { 0 };
        for _ in 0..trees {
            let along = dice.unit();
            let (x, foot, tall) = (along * width, ridge(along) + height * 0.01, height * (0.02 + 0.05 * dice.unit()));
            hills.move_to(x - tall * 0.17, foot);
            hills.line_to(x, foot - tall);
            hills.line_to(x + tall * 0.17, foot);
            hills.close();
        }
        // Mist lies below each range.
        let foot = base + height * 0.22;
        let mist = mix(shade, color(below, 1.0), 0.6 * (1.0 - depth));
        fill(canvas, hills, &vertical(base - swing, shade, foot, mist)?)?;
    }
    Ok(())
}

/// Water below a sun that it reflects, an island and a boat.
fn sea(canvas: &mut Pixmap, dice: &mut Dice, palette: [u32; 4]) -> anyhow::Result<()> {
    const STRIPES: u8 = 42;
    let [above, below, light, near] = palette;
    let (width, height) = (size(canvas.width()), size(canvas.height()));
    let horizon = height * 0.6;
    let sun = sky(canvas, dice, palette)?;

    let (start, long, tall) = (dice.unit() * width * 0.8, width * (0.15 + 0.25 * dice.unit()), height * 0.07);
    let mut island = PathBuilder::new();
    island.move_to(start, horizon);
    island.cubic_to(
        start + long * 0.3,
        horizon - tall * 1.6,
        start + long * 0.5,
        horizon - tall * 0.2,
        start + long,
        horizon,
    );
    island.close();
    fill(canvas, island, &Shader::SolidColor(mix(color(below, 1.0), color(near, 1.0), 0.55)))?;

    let water = Rect::from_xywh(0.0, horizon, width, height - horizon).context("the water")?;
    let deep = mix(color(above, 1.0), color(near, 1.0), 0.7);
    let surface = vertical(horizon, mix(color(below, 1.0), color(above, 1.0), 0.45), height, deep)?;
    canvas.fill_rect(water, &paint(surface), Transform::identity(), None);
    for stripe in 0..STRIPES {
        let nearness = f32::from(stripe) / f32::from(STRIPES);
        let y = horizon + (height - horizon) * nearness.powf(1.5) + 1.0;
        let wide = width * (0.03 + 0.16 * nearness) * (0.3 + dice.unit());
        let x = sun.x - wide / 2.0 + (dice.unit() - 0.5) * width * 0.12 * nearness;
        let glint = Rect::from_xywh(x, y, wide, height * (0.0015 + 0.005 * nearness)).context("a glint")?;
        let shine = Shader::SolidColor(color(light, 0.7 - 0.55 * nearness));
        canvas.fill_rect(glint, &paint(shine), Transform::identity(), None);
    }

    let (x, y, tall) = (width * (0.15 + 0.7 * dice.unit()), horizon + height * 0.09, height * 0.09);
    let mut boat = PathBuilder::new();
    boat.move_to(x - tall * 0.45, y);
    boat.quad_to(x, y + tall * 0.32, x + tall * 0.5, y);
    boat.close();
    boat.move_to(x, y - tall * 0.06);
    boat.line_to(x, y - tall);
    boat.line_to(x + tall * 0.42, y - tall * 0.06);
    boat.close();
    fill(canvas, boat, &Shader::SolidColor(color(near, 1.0)))
}

/// Circles that overlap.
fn circles(canvas: &mut Pixmap, dice: &mut Dice, [above, below, light, near]: [u32; 4]) -> anyhow::Result<()> {
    let (width, height) = (size(canvas.width()), size(canvas.height()));
    let whole = Rect::from_xywh(0.0, 0.0, width, height).context("the ground")?;
    let ground = vertical(0.0, mix(color(light, 1.0), color(below, 1.0), 0.25), height, color(below, 1.0))?;
    canvas.fill_rect(whole, &paint(ground), Transform::identity(), None);
    for at in 0..9_u8 {
        let radius = width.min(height) * (0.36 - 0.03 * f32::from(at)) * (0.6 + 0.5 * dice.unit());
        let (x, y) = (width * (0.1 + 0.8 * dice.unit()), height * (0.1 + 0.8 * dice.unit()));
        let tone = [above, near, below, light][usize::from(at % 4)];
        let shade = vertical(y - radius, color(tone, 0.95), y + radius, color(tone, 0.35))?;
        let mut circle = PathBuilder::new();
        circle.push_circle(x, y, radius);
        fill(canvas, circle, &shade)?;
    }
    Ok(())
}

/// Draws the sky over the whole canvas, and returns the place of the sun.
fn sky(canvas: &mut Pixmap, dice: &mut Dice, [above, below, light, _]: [u32; 4]) -> anyhow::Result<Point> {
    let (width, height) = (size(canvas.width()), size(canvas.height()));
    let whole = Rect::from_xywh(0.0, 0.0, width, height).context("the sky")?;
    let sky = vertical(0.0, color(above, 1.0), height * 0.7, color(below, 1.0))?;
    canvas.fill_rect(whole, &paint(sky), Transform::identity(), None);
    let top = color(above, 1.0);
    let is_night = top.red() + top.green() + top.blue() < 0.7;
    for _ in 0..if is_night { 90 } else { 0 } {
        let (x, y, radius) = (dice.unit() * width, dice.unit() * height * 0.4, 0.5 + dice.unit() * width / 1100.0);
        let mut star = PathBuilder::new();
        star.push_circle(x, y, radius);
        fill(canvas, star, &Shader::SolidColor(color(light, 0.2 + 0.6 * dice.unit())))?;
    }
    let sun = Point::from_xy(width * (0.2 + 0.6 * dice.unit()), height * (0.2 + 0.22 * dice.unit()));
    let radius = width.min(height) * (0.05 + 0.05 * dice.unit());
    let glow = RadialGradient::new(
        sun,
        0.0,
        sun,
        radius * 6.0,
        [(0.0, 0.7), (0.3, 0.3), (0.6, 0.1), (1.0, 0.0)]
            .map(|(at, share)| GradientStop::new(at, color(light, share)))
            .to_vec(),
        SpreadMode::Pad,
        Transform::identity(),
    );
    canvas.fill_rect(whole, &paint(glow.context("the glow")?), Transform::identity(), None);
    let mut disc = PathBuilder::new();
    disc.push_circle(sun.x, sun.y, radius);
    fill(canvas, disc, &Shader::SolidColor(color(light, 0.95)))?;
    Ok(sun)
}

fn fill(canvas: &mut Pixmap, shape: PathBuilder, shader: &Shader<'_>) -> anyhow::Result<()> {
    let shape = shape.finish().context("a shape")?;
    canvas.fill_path(&shape, &paint(shader.clone()), FillRule::Winding, Transform::identity(), None);
    Ok(())
}

/// A gradient from one colour at height `top` to another at height `bottom`.
fn vertical(top: f32, first: Color, bottom: f32, last: Color) -> anyhow::Result<Shader<'static>> {
    let stops = vec![GradientStop::new(0.0, first), GradientStop::new(1.0, last)];
    let (from, to) = (Point::from_xy(0.0, top), Point::from_xy(0.0, bottom));
    LinearGradient::new(from, to, stops, SpreadMode::Pad, Transform::identity()).context("a gradient")
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

fn mix(from: Color, to: Color, share: f32) -> Color {
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
