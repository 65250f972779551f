//! Composes a person from several figures: other legs, clothes, hair and skin, a bag, another
//! background.

use fastrand::Rng;

use crate::frame::Image;
use crate::geometry::BBox;
use crate::train::probe::cloth::{chance, cloth, hair, pattern, plain, recolour, skin, uniform};
use crate::train::probe::figure::{BodyPart, Figure, parts_by_height};
use crate::train::probe::grid::{Grid, Mask, Picture, Rgb, luma, mix, noise, normal};

/// Sources of figures, and scenes for backgrounds. A source is drawn with a probability
/// proportional to the square root of its number of figures, so that large sources are used more
/// often but do not dominate.
#[derive(Debug, Clone)]
pub struct FigureSources {
    /// Figures by source; none is empty.
    pub figures: Vec<Vec<Figure>>,
    /// Pictures of scenes; may be empty.
    pub scenes: Vec<Image>,
    /// Width and height of a probe in pixels.
    pub size: (usize, usize),
}

/// A person being composed.
struct ComposedBody {
    picture: Picture,
    coverage: Mask,
    parts: Vec<BodyPart>,
    /// Whether the figure is a rendered body, which has no colours, so that every part needs one.
    bare: bool,
    /// Whether the figure comes from footage without colour.
    grey: bool,
}

impl FigureSources {
    /// Composes a person on a background.
    pub fn person(&self, rng: &mut Rng) -> Picture {
        let mut body = self.body(rng);
        if chance(rng, 0.35) {
            let other = self.body(rng);
            exchange_legs(&mut body, other, rng);
        }
        let original = body.picture.clone();
        if body.bare || body.grey || chance(rng, 0.85) {
            self.dress(&mut body, rng);
        } else if chance(rng, 0.5) {
            body.picture = recolour(&body.picture, rng);
        }
        let coverage = &body.coverage;
        let behind = if body.bare || chance(rng, if body.grey { 0.8 } else { 0.65 }) {
            self.background(rng)
        } else if chance(rng, 0.5) {
            recolour(&original, rng)
        } else {
            return body.picture;
        };
        let mut out = behind;
        out.cover(&body.picture, coverage);
        out
    }

    /// A figure as it is, on its own background. If a rendered body is drawn, which has neither
    /// colours nor a background, the result is that of [`FigureSources::person`].
    pub fn unchanged(&self, rng: &mut Rng) -> Picture {
        let figure = self.figure(rng);
        if figure.parts().is_some() {
            self.person(rng)
        } else {
            figure.picture()
        }
    }

    fn figure(&self, rng: &mut Rng) -> &Figure {
        let roots =
            |sources: &[Vec<Figure>]| sources.iter().map(|f| (f.len() as f32).sqrt()).sum::<f32>();
        let drawn = rng.f32() * roots(&self.figures);
        let which = (1..self.figures.len())
            .find(|i| roots(&self.figures[..*i]) > drawn)
            .unwrap_or(self.figures.len())
            - 1;
        let source = &self.figures[which];
        &source[rng.usize(..source.len())]
    }

    fn body(&self, rng: &mut Rng) -> ComposedBody {
        let figure = self.figure(rng);
        let (picture, coverage, bare) = (
            figure.picture(),
            figure.coverage(),
            figure.parts().is_some(),
        );
        let parts = figure
            .parts()
            .map_or_else(|| parts_by_height(self.size, rng), <[BodyPart]>::to_vec);
        let grey = !bare
            && picture
                .values
                .iter()
                .all(|c| (c[0] - c[1]).abs() + (c[1] - c[2]).abs() < 0.04);
        if chance(rng, 0.5) {
            let parts = parts
                .chunks_exact(self.size.0)
                .flat_map(|row| row.iter().rev().copied())
                .collect();
            return ComposedBody {
                picture: picture.mirrored(),
                coverage: coverage.mirrored(),
                parts,
                bare,
                grey,
            };
        }
        ComposedBody {
            picture,
            coverage,
            parts,
            bare,
            grey,
        }
    }

    /// A random part of a scene.
    fn piece(&self, rng: &mut Rng) -> Option<Picture> {
        let scene = self.scenes.get(rng.usize(..self.scenes.len().max(1)))?;
        let (w, h) = (scene.width as f32, scene.height as f32);
        let height = uniform(rng, 40.0f32.min(h * 0.5), h.min(260.0));
        let width = (height * uniform(rng, 0.35, 0.8)).min(w);
        let region = BBox::new(
            rng.f32() * (w - width),
            rng.f32() * (h - height),
            width,
            height,
        );
        Some(Picture::cut(scene, &region, self.size))
    }

    /// A random background: part of a scene, sometimes recoloured, or a synthetic one.
    pub fn background(&self, rng: &mut Rng) -> Picture {
        let Some(mut piece) = self.piece(rng).filter(|_| chance(rng, 0.8)) else {
            return synthetic_background(self.size, rng);
        };
        if chance(rng, 0.15) {
            piece = recolour(&piece, rng);
        }
        if chance(rng, 0.2) {
            // Replaces what is below a random horizon by another part of a scene, or by one colour.
            let ground = if chance(rng, 0.5) {
                self.piece(rng)
            } else {
                None
            }
            .unwrap_or_else(|| plain(self.size, cloth(rng)));
            let horizon = uniform(rng, 0.2, 0.9);
            piece.cover(
                &ground,
                &Mask::from_fn(self.size, |_, y| f32::from(u8::from(y > horizon))),
            );
        }
        piece
    }

    fn pattern(&self, rng: &mut Rng) -> Picture {
        pattern(self.size, rng, |rng| {
            self.piece(rng)
                .unwrap_or_else(|| synthetic_background(self.size, rng))
        })
    }

    /// Fine structure of cloth: the high frequencies of a part of a scene; `None` in some cases.
    fn weave(&self, rng: &mut Rng) -> Option<Mask> {
        let piece = self
            .piece(rng)
            .filter(|_| chance(rng, 0.8))?
            .map(|c| luma(*c));
        let fine = piece.join(&piece.blurred((2.5, 2.5)), |p, b| p - b);
        let deviation =
            (fine.values.iter().map(|v| v * v).sum::<f32>() / fine.values.len() as f32).sqrt();
        let amplitude = uniform(rng, 0.05, 0.3) / (deviation + 1e-3);
        Some(fine.map(|v| (v * amplitude).clamp(-0.6, 0.6)))
    }

    /// Replaces clothes, hair and skin.
    fn dress(&self, body: &mut ComposedBody, rng: &mut Rng) {
        let (size, bare, grey, skin_color) = (self.size, body.bare, body.grey, skin(rng));
        let strength = uniform(rng, 0.6, 1.5);
        let weave = self.weave(rng);
        let mut painter = ClothPainter {
            original: body.picture.clone(),
            body,
            strength,
            weave,
        };
        // Rendered bodies and grey figures need colours; other figures sometimes keep their
        // colours.
        let often = |rng: &mut Rng, p: f32| bare || grey || chance(rng, p);
        let top = self.pattern(rng);
        if often(rng, 0.8) {
            painter.put(&[BodyPart::Top, BodyPart::Panel], &top, |_, _| true);
            // Long sleeves of the top's colour or another, or short sleeves.
            match rng.f32() {
                k if k < 0.65 => painter.put(&[BodyPart::Sleeves], &top, |_, _| true),
                k if k < 0.80 => {
                    painter.put(&[BodyPart::Sleeves], &plain(size, cloth(rng)), |_, _| true)
                }
                _ => {
                    let elbow = uniform(rng, 0.2, 0.45);
                    painter.put(&[BodyPart::Sleeves], &top, |_, y| y < elbow);
                    painter.put(&[BodyPart::Sleeves], &plain(size, skin_color), |_, y| {
                        y >= elbow
                    });
                }
            }
        }
        if chance(rng, if bare { 0.5 } else { 0.0 }) {
            painter.put(&[BodyPart::Panel], &self.pattern(rng), |_, _| true);
        }
        if chance(rng, 0.2) {
            // An open jacket, a tie or a scarf.
            let (middle, half) = (uniform(rng, 0.4, 0.6), uniform(rng, 0.03, 0.09));
            painter.put(&[BodyPart::Top], &self.pattern(rng), |x, _| {
                (x - middle).abs() < half
            });
        }
        let legs = if chance(rng, 0.3) {
            self.pattern(rng)
        } else {
            plain(size, cloth(rng))
        };
        if often(rng, 0.8) {
            painter.put(&[BodyPart::Thighs], &legs, |_, _| true);
            let calves = match rng.f32() {
                k if k < 0.7 => legs,
                k if k < 0.9 => plain(size, skin_color),
                _ => plain(size, cloth(rng)),
            };
            painter.put(&[BodyPart::Calves], &calves, |_, _| true);
        }
        if chance(rng, 0.15) {
            let (hem, coat) = (
                uniform(rng, 0.55, 0.75),
                if chance(rng, 0.6) {
                    top
                } else {
                    self.pattern(rng)
                },
            );
            painter.put(
                &[BodyPart::Thighs, BodyPart::Calves, BodyPart::Top],
                &coat,
                |_, y| y < hem,
            );
        }
        if often(rng, 0.6) {
            painter.put(&[BodyPart::Shoes], &plain(size, cloth(rng)), |_, _| true);
        }
        let hair_color = plain(size, hair(rng));
        if bare {
            painter.put(
                &[BodyPart::Face, BodyPart::Skin],
                &plain(size, skin_color),
                |_, _| true,
            );
            painter.put(&[BodyPart::Hair], &hair_color, |_, _| true);
            painter.put(&[BodyPart::Hat], &self.pattern(rng), |_, _| true);
            painter.put(&[BodyPart::Bag], &self.pattern(rng), |_, _| true);
        } else if often(rng, 0.7) {
            let (line, from_behind, long, half) = (
                uniform(rng, 0.05, 0.11),
                chance(rng, 0.4),
                chance(rng, 0.2),
                uniform(rng, 0.1, 0.2),
            );
            painter.put(&[BodyPart::Head], &plain(size, skin_color), |_, _| true);
            painter.put(&[BodyPart::Head], &hair_color, |_, y| {
                y < line || from_behind
            });
            if long {
                let end = uniform(rng, 0.1, 0.3);
                painter.put(&[BodyPart::Head, BodyPart::Top], &hair_color, |x, y| {
                    let off = (x - 0.5).abs();
                    y < end && off < half && (off > 0.07 || from_behind)
                });
            }
        }
        if chance(rng, if bare { 0.15 } else { 0.3 }) {
            bag(&mut body.picture, rng);
        }
    }
}

/// Paints cloth on a body, with the light and the folds of the original picture.
struct ClothPainter<'a> {
    body: &'a mut ComposedBody,
    original: Picture,
    /// Visibility of the original's folds: 0 invisible, 1 unchanged.
    strength: f32,
    /// Fine structure of all cloth, relative to its brightness.
    weave: Option<Mask>,
}

impl ClothPainter<'_> {
    /// Paints cloth on the given parts where `place` (x, y in [0, 1]) holds, with the light and
    /// folds of the original.
    fn put(&mut self, parts: &[BodyPart], cloth: &Picture, place: impl Fn(f32, f32) -> bool) {
        let size = self.original.size();
        let mut pixel = 0;
        let raw = Mask::from_fn(size, |x, y| {
            pixel += 1;
            if parts.contains(&self.body.parts[pixel - 1]) && place(x, y) {
                self.body.coverage.values[pixel - 1]
            } else {
                0.0
            }
        });
        let sum: f32 = raw.values.iter().sum();
        if sum < 4.0 {
            return;
        }
        let mean = self
            .original
            .values
            .iter()
            .zip(&raw.values)
            .map(|(c, m)| luma(*c) * m)
            .sum::<f32>()
            / sum;
        // The brightness of a rendered body is linear in light; the brightness of a picture is not.
        let gamma = if self.body.bare { 0.45 } else { 1.0 };
        let lit = cloth.join(&self.original, |c, p| {
            let shade = (1.0 + ((luma(p) + 0.04) / (mean + 0.04) - 1.0) * self.strength)
                .clamp(0.15, 2.2)
                .powf(gamma);
            c.map(|v| (v * shade).clamp(0.0, 1.0))
        });
        let lit = match &self.weave {
            None => lit,
            Some(weave) => lit.join(weave, |c, w| c.map(|v| (v * (1.0 + w)).clamp(0.0, 1.0))),
        };
        self.body.picture.cover(&lit, &raw.blurred((0.7, 0.7)));
    }
}

fn exchange_legs(body: &mut ComposedBody, other: ComposedBody, rng: &mut Rng) {
    let size = body.picture.size();
    let waist = uniform(rng, 0.45, 0.58);
    let share = Mask::from_fn(size, |_, y| ((y - waist) * 30.0).clamp(0.0, 1.0));
    body.picture.cover(&other.picture, &share);
    body.coverage.cover(&other.coverage, &share);
    let lower = share
        .values
        .iter()
        .zip(body.parts.iter_mut())
        .zip(other.parts);
    lower
        .filter(|((s, _), _)| **s > 0.5)
        .for_each(|((_, part), new)| *part = new);
    body.bare |= other.bare;
}

/// Adds a backpack, a shoulder bag or a strap.
fn bag(picture: &mut Picture, rng: &mut Rng) {
    let size = picture.size();
    let (color, strap) = (cloth(rng), cloth(rng));
    let (shoulder, waist) = (uniform(rng, 0.14, 0.18), uniform(rng, 0.42, 0.6));
    let side = uniform(rng, 0.2, 0.8);
    let kind = rng.f32();
    let shape = if kind < 0.4 {
        let (x0, y0, rx, ry) = (
            uniform(rng, 0.3, 0.7),
            shoulder + uniform(rng, 0.08, 0.25),
            uniform(rng, 0.1, 0.22),
            uniform(rng, 0.07, 0.15),
        );
        Mask::from_fn(size, |x, y| {
            f32::from(u8::from(
                ((x - x0) / rx).powi(2) + ((y - y0) / ry).powi(2) < 1.0,
            ))
        })
    } else if kind < 0.7 {
        let (y0, bw, bh) = (
            waist + uniform(rng, -0.15, 0.15),
            uniform(rng, 0.12, 0.35),
            uniform(rng, 0.06, 0.18),
        );
        Mask::from_fn(size, |x, y| {
            f32::from(u8::from(
                (side..side + bw).contains(&x) && (y0..y0 + bh).contains(&y),
            ))
        })
    } else {
        line(
            size,
            (uniform(rng, 0.3, 0.45), shoulder),
            (uniform(rng, 0.55, 0.75), waist),
            uniform(rng, 1.0, 5.0),
        )
    };
    let cloudy = noise(size, 12, 0.15, rng).map(|v| (1.0 + v).clamp(0.5, 1.5));
    let lit = |c: Rgb| cloudy.map(|v| c.map(|k| (k * v).clamp(0.0, 1.0)));
    picture.cover(&lit(color), &shape.blurred((0.6, 0.6)));
    if chance(rng, 0.4) {
        let strap_line = line(
            size,
            (uniform(rng, 0.35, 0.65), shoulder),
            (side, waist),
            uniform(rng, 1.0, 2.0),
        );
        picture.cover(&lit(strap), &strap_line.blurred((0.6, 0.6)));
    }
}

/// A line between two points (relative to width and height). `width`: width of the line in pixels.
fn line(size: (usize, usize), from: (f32, f32), to: (f32, f32), width: f32) -> Mask {
    let (w, h) = (size.0 as f32, size.1 as f32);
    let (dx, dy) = ((to.0 - from.0) * w, (to.1 - from.1) * h);
    let square = (dx * dx + dy * dy).max(1e-6);
    Mask::from_fn(size, |x, y| {
        let (px, py) = ((x - from.0) * w, (y - from.1) * h);
        let along = ((px * dx + py * dy) / square).clamp(0.0, 1.0);
        let off = (px - along * dx).hypot(py - along * dy);
        (width / 2.0 - off + 0.5).clamp(0.0, 1.0)
    })
}

/// A synthetic background: a few flat shapes with uneven light and noise.
fn synthetic_background(size: (usize, usize), rng: &mut Rng) -> Picture {
    let mut out = plain(size, cloth(rng));
    for _ in 0..rng.usize(0..7) {
        let color = plain(size, cloth(rng));
        let shape = if chance(rng, 0.6) {
            let (x0, y0, w, h) = (
                uniform(rng, -0.3, 1.0),
                uniform(rng, -0.2, 1.0),
                uniform(rng, 0.05, 1.0),
                uniform(rng, 0.03, 0.8),
            );
            Mask::from_fn(size, |x, y| {
                f32::from(u8::from(
                    (x0..x0 + w).contains(&x) && (y0..y0 + h).contains(&y),
                ))
            })
        } else {
            line(
                size,
                (rng.f32(), rng.f32()),
                (rng.f32(), rng.f32()),
                uniform(rng, 1.0, 8.0),
            )
        };
        out.cover(&color, &shape);
    }
    let (light, grain) = (noise(size, 8, 0.12, rng), uniform(rng, 0.0, 0.06));
    out.join(&light, |c, l| {
        let n = grain * normal(rng);
        c.map(|v| (v * (1.0 + l) + n).clamp(0.0, 1.0))
    })
}

/// Blends two pictures, as in a reflection or a box with two people; `share` is the weight of the
/// second.
pub fn blend(a: &Picture, b: &Picture, share: f32) -> Picture {
    Grid {
        width: a.width,
        height: a.height,
        values: a
            .values
            .iter()
            .zip(&b.values)
            .map(|(a, b)| mix(*a, *b, share))
            .collect(),
    }
}

#[cfg(test)]
mod tests;
