#!/usr/bin/env python3
"""Draw characters of many scripts in simulated handwriting: data for one-shot learning without people.

    apt-get install --no-install-recommends fonts-noto-core fonts-freefont-ttf fonts-dejavu-core   # as root
    python3 -m venv .venv && .venv/bin/pip install -r scripts/draw_characters.txt
    .venv/bin/python scripts/draw_characters.py --out out/characters

writes grey pictures, white ink on black, into OUT/train/SCRIPT-CODEPOINT/NN.png and OUT/held-out/SCRIPT-CODEPOINT/NN.png:
scripts are either for training or held out, never both (the protocol of Koch et al. 2015 on the alphabets of Omniglot). With
`--digits` also OUT/digits/N/NNNN.png, the 1,797 handwritten digits of scikit-learn's load_digits at the same size and
polarity. Only letters are drawn, no digits of any script; letters that look like a digit (O, l) or like a letter already
drawn are skipped. The same seed, fonts and versions give the same pictures.

A glyph is thinned to its skeleton, whose points are moved (slant, shear, rotation, stretch, a smooth random field) and traced
with a pen of random, varying width; some pictures keep the outline of the font. Then strokes are interrupted, the
resolution is lowered, and blur and noise are added.
"""
import argparse
import pathlib
import unicodedata

import numpy as np
from PIL import Image, ImageDraw, ImageFilter, ImageFont
from scipy import ndimage

FONTS = pathlib.Path("/usr/share/fonts/truetype")
GENERAL = ["freefont/FreeSans.ttf", "freefont/FreeSerif.ttf", "freefont/FreeMono.ttf", "dejavu/DejaVuSans.ttf", "dejavu/DejaVuSerif.ttf"]
# Blocks of letters, first and last code point. The name is that of the script's Noto fonts.
TRAIN = {
    "Adlam": [(0x1E900, 0x1E943)], "Arabic": [(0x621, 0x64A)], "Avestan": [(0x10B00, 0x10B35)], "Balinese": [(0x1B05, 0x1B33)],
    "Bamum": [(0xA6A0, 0xA6E5)], "BassaVah": [(0x16AD0, 0x16AED)], "Batak": [(0x1BC0, 0x1BE5)], "Bengali": [(0x985, 0x9B9)],
    "Brahmi": [(0x11005, 0x11037)], "Buginese": [(0x1A00, 0x1A16)], "CanadianAboriginal": [(0x1401, 0x15F0)], "Carian": [(0x102A0, 0x102D0)],
    "CaucasianAlbanian": [(0x10530, 0x10563)], "Chakma": [(0x11107, 0x11126)], "Cham": [(0xAA00, 0xAA28)], "Coptic": [(0x2C80, 0x2CB1)],
    "Cypriot": [(0x10800, 0x10838)], "Cyrillic": [(0x410, 0x44F)], "Deseret": [(0x10400, 0x1044F)], "Devanagari": [(0x905, 0x939)],
    "Elbasan": [(0x10500, 0x10527)], "Gothic": [(0x10330, 0x10349)], "Greek": [(0x391, 0x3C9)], "Gujarati": [(0xA85, 0xAB9)],
    "Hanunoo": [(0x1720, 0x1731)], "ImperialAramaic": [(0x10840, 0x10855)], "Javanese": [(0xA984, 0xA9B2)], "Kaithi": [(0x11083, 0x110AF)],
    "Kannada": [(0xC85, 0xCB9)], "KayahLi": [(0xA90A, 0xA925)], "Kharoshthi": [(0x10A10, 0x10A33)], "Khmer": [(0x1780, 0x17A2)],
    "Lao": [(0xE81, 0xEAE)], "Latin": [(0x41, 0x5A), (0x61, 0x7A), (0xDE, 0xDF), (0x180, 0x24F), (0x250, 0x2AF)], "Lepcha": [(0x1C00, 0x1C23)],
    "Limbu": [(0x1900, 0x191E)], "LinearB": [(0x10000, 0x1004D)], "Lisu": [(0xA4D0, 0xA4F7)], "Lycian": [(0x10280, 0x1029C)],
    "Lydian": [(0x10920, 0x10939)], "Malayalam": [(0xD05, 0xD39)], "Mandaic": [(0x840, 0x858)], "MeeteiMayek": [(0xABC0, 0xABDA)],
    "Mongolian": [(0x1820, 0x1842)], "Myanmar": [(0x1000, 0x1021)], "NewTaiLue": [(0x1980, 0x19AB)], "NKo": [(0x7CA, 0x7EA)],
    "Ogham": [(0x1681, 0x169A)], "OldItalic": [(0x10300, 0x1031F)], "OldPermic": [(0x10350, 0x10375)], "OldPersian": [(0x103A0, 0x103C3)],
    "OldSouthArabian": [(0x10A60, 0x10A7C)], "OldTurkic": [(0x10C00, 0x10C48)], "Oriya": [(0xB05, 0xB39)], "Osage": [(0x104B0, 0x104D3)],
    "Osmanya": [(0x10480, 0x1049D)], "PahawhHmong": [(0x16B00, 0x16B2F)], "PhagsPa": [(0xA840, 0xA871)], "Phoenician": [(0x10900, 0x10915)],
    "Rejang": [(0xA930, 0xA946)], "Samaritan": [(0x800, 0x815)], "Saurashtra": [(0xA882, 0xA8B3)], "Sharada": [(0x11183, 0x111B2)],
    "Shavian": [(0x10450, 0x1047F)], "Sinhala": [(0xD85, 0xDC6)], "SoraSompeng": [(0x110D0, 0x110E8)], "Sundanese": [(0x1B83, 0x1BA0)],
    "SylotiNagri": [(0xA800, 0xA822)], "Syriac": [(0x710, 0x72F)], "Tagalog": [(0x1700, 0x1711)], "TaiLe": [(0x1950, 0x1974)],
    "TaiTham": [(0x1A20, 0x1A54)], "TaiViet": [(0xAA80, 0xAAAF)], "Takri": [(0x11680, 0x116AA)], "Telugu": [(0xC05, 0xC39)],
    "Thaana": [(0x780, 0x7A5)], "Tibetan": [(0xF40, 0xF6C)], "Tirhuta": [(0x11481, 0x114AF)], "Ugaritic": [(0x10380, 0x1039D)],
    "Vai": [(0xA500, 0xA60B)], "WarangCiti": [(0x118A0, 0x118DF)], "Yi": [(0xA000, 0xA48C)],
}
HELD_OUT = {
    "Armenian": [(0x531, 0x556), (0x561, 0x586)], "Cherokee": [(0x13A0, 0x13F4)], "Ethiopic": [(0x1200, 0x1357)],
    "Georgian": [(0x10A0, 0x10C5), (0x10D0, 0x10F6)], "Glagolitic": [(0x2C00, 0x2C5E)], "Gurmukhi": [(0xA05, 0xA39)],
    "Hebrew": [(0x5D0, 0x5EA)], "OlChiki": [(0x1C5A, 0x1C77)], "Runic": [(0x16A0, 0x16EA)], "Tamil": [(0xB85, 0xBB9)],
    "Thai": [(0xE01, 0xE2E)], "Tifinagh": [(0x2D30, 0x2D67)],
}
LETTERS = {"Lu", "Ll", "Lt", "Lo"}
# Maximum number of letters of a script, evenly spaced over its block.
MOST = 48
# Number of pictures of a held-out character.
HELD_OUT_PICTURES = 10
# Side of the square in which strokes are moved and traced, and of the picture for comparing glyphs, pixels.
WORK, TWIN = 64, 24
# Cosine from which two glyphs count as the same shape.
ALIKE = 0.97


def glyph(font, char):
    """The ink of a character in [0, 1], its longer side WORK pixels, cut to its box; None for an empty or missing one."""
    box = font.getbbox(char)
    if box[2] - box[0] < 4 or box[3] - box[1] < 4:
        return None
    image = Image.new("L", (box[2] - box[0], box[3] - box[1]))
    ImageDraw.Draw(image).text((-box[0], -box[1]), char, font=font, fill=255)
    box = image.getbbox()
    if box is None:
        return None
    image = image.crop(box)
    scale = WORK / max(image.size)
    image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BOX)
    return np.asarray(image, np.float32) / 255


def fonts_of(script):
    """The script's fonts (regular weight), and fonts of many scripts."""
    own = [f for kind in ("Sans", "Serif") for f in (FONTS / "noto").glob(f"Noto{kind}{script}-Regular.ttf")]
    if script in ("Latin", "Greek", "Cyrillic"):
        own = [FONTS / f"noto/Noto{kind}-{style}.ttf" for kind in ("Sans", "Serif") for style in ("Regular", "Italic")]
    files = [f for f in own + [FONTS / g for g in GENERAL] if f.exists()]
    return [ImageFont.truetype(str(f), 128, layout_engine=ImageFont.Layout.BASIC) for f in files]


def drawn_by(font, char, missing):
    """The glyph, unless the font draws its placeholder for missing characters."""
    ink = glyph(font, char)
    return None if ink is None or missing is not None and ink.shape == missing.shape and np.array_equal(ink, missing) else ink


def neighbours(a):
    """The eight neighbours of every pixel, clockwise from above."""
    p = np.pad(a, 1)
    h, w = a.shape
    return [p[1 + y : 1 + y + h, 1 + x : 1 + x + w] for y, x in ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))]


def skeleton(ink):
    """Thinning after Zhang and Suen (1984): the points [n, 2] (x, y) of lines one pixel wide."""
    a = np.pad(ink > 0.5, 1).astype(np.uint8)
    while True:
        before = a.sum()
        for first in (True, False):
            n = neighbours(a)
            count = sum(n)
            turns = sum((n[i] == 0) & (n[(i + 1) % 8] == 1) for i in range(8))
            up, right, down, left = n[0], n[2], n[4], n[6]
            open_side = (up * right * down == 0) & (right * down * left == 0) if first else (up * right * left == 0) & (up * down * left == 0)
            a = np.where((a == 1) & (count >= 2) & (count <= 6) & (turns == 1) & open_side, 0, a)
        if a.sum() == before:
            ys, xs = np.nonzero(a)
            return np.stack([xs, ys], 1).astype(np.float32)


def outline(ink):
    """The points [n, 2] (x, y) of the filled glyph."""
    ys, xs = np.nonzero(ink > 0.5)
    return np.stack([xs, ys], 1).astype(np.float32)


def field(rng, knots):
    """A smooth random field over the working square, deviation about 1, drawn at `knots` by `knots` points."""
    coarse = rng.standard_normal((knots, knots)).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize((WORK, WORK), Image.Resampling.BICUBIC))


def moved(rng, points):
    """The points moved as by another handwriting, inside the working square."""
    p = points - (points.min(0) + points.max(0)) / 2
    p *= 0.75 * WORK / max(np.ptp(p, axis=0).max(), 1)
    angle, slant = np.deg2rad(rng.normal(0, 7)), rng.normal(0, 0.16)
    stretch = np.exp(rng.normal(0, 0.14))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    p = p @ (turn @ np.array([[stretch, slant], [0, 1 / stretch]])).T
    x, y = np.clip(np.rint(p + WORK / 2), 0, WORK - 1).astype(int).T
    for knots, most in ((4, 0.06), (7, 0.022)):
        amount = rng.uniform(0.2, 1) * most * WORK
        p = p + amount * np.stack([field(rng, knots)[y, x], field(rng, knots)[y, x]], 1)
    # Cropped as by a scanner: the character fills the height or the width.
    side = np.maximum(np.ptp(p, axis=0), 1)
    room = WORK * rng.uniform(0.68, 0.88)
    scales = room / side.max() * np.minimum((side.max() / side) ** rng.uniform(0, 0.4), 1.6)
    p = (p - (p.min(0) + p.max(0)) / 2) * scales
    slack = np.maximum(0.94 * WORK - np.ptp(p, axis=0), 0) / 2
    return p + WORK / 2 + rng.uniform(-0.6, 0.6, 2) * slack


def inked(rng, points, traced, complexity):
    """The strokes through the points, [WORK, WORK] in [0, 1]. `complexity` is the length of all lines, in sides of the box."""
    xs, ys = np.clip(np.rint(points), 0, WORK - 1).astype(int).T
    away = np.ones((WORK, WORK), bool)
    away[ys, xs] = False
    # Radius of the pen: thinner for more lines, which would merge otherwise.
    widest = np.clip(0.22 / complexity, 0.032, 0.062)
    pen = WORK * (rng.uniform(0.022, widest) * (1 + rng.uniform(0, 0.3) * field(rng, 5)) if traced else rng.uniform(0.01, 0.02))
    if rng.random() < 0.2:
        # Interrupts a stroke.
        x, y = points[rng.integers(len(points))]
        yy, xx = np.mgrid[:WORK, :WORK]
        pen = np.where((xx - x) ** 2 + (yy - y) ** 2 < (WORK * rng.uniform(0.03, 0.08)) ** 2, -1, pen)
    return np.clip(pen - ndimage.distance_transform_edt(away) + 0.5, 0, 1)


def picture(rng, ink, bones, size):
    """One picture of a character, [size, size] bytes."""
    traced = rng.random() < 0.8
    points = moved(rng, bones if traced else outline(ink))
    complexity = len(bones) / max(ink.shape)
    canvas = inked(rng, points, traced, complexity)
    image = Image.fromarray((255 * canvas).astype(np.uint8))
    if rng.random() < 0.35:
        # Low resolution, limited by the detail of the character.
        small = int(rng.integers(np.clip(3 * complexity, 8, 16), 18))
        image = image.resize((small, small), Image.Resampling.BOX)
        image = image.resize((size, size), Image.Resampling.BICUBIC)
    else:
        image = image.resize((size, size), Image.Resampling.BOX)
    a = np.asarray(image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.9))), np.float32)
    a = a * rng.uniform(0.75, 1.15) + rng.uniform(0, 14) + rng.normal(0, rng.uniform(0, 14), a.shape)
    return np.clip(a, 0, 255).astype(np.uint8)


def shape_of(ink):
    """A unit vector that identifies a shape."""
    image = Image.fromarray((255 * ink).astype(np.uint8)).resize((TWIN, TWIN), Image.Resampling.BOX)
    v = ndimage.gaussian_filter(np.asarray(image, np.float32), 0.7).ravel()
    # Includes the aspect ratio, so that a dash differs from a square.
    return np.append(v / np.linalg.norm(v), np.log(ink.shape[0] / ink.shape[1])).astype(np.float32)


class Shapes:
    """The shapes already drawn."""

    def __init__(self):
        self.known = []

    def add(self, shape):
        """Adds a shape; False if it was there already."""
        if self.known:
            known = np.array(self.known)
            if np.any((known[:, :-1] @ shape[:-1] > ALIKE) & (np.abs(known[:, -1] - shape[-1]) < 0.35)):
                return False
        self.known.append(shape)
        return True


def letters(script, blocks, shapes):
    """The letters of a script with the glyphs that fonts have for them, and the number skipped as duplicates."""
    fonts = fonts_of(script)
    missing = [glyph(f, "\U0010fffd") for f in fonts]
    found, twins = [], 0
    for char in (chr(c) for first, last in blocks for c in range(first, last + 1)):
        if unicodedata.category(char) not in LETTERS:
            continue
        inks = [i for f, m in zip(fonts, missing) if (i := drawn_by(f, char, m)) is not None]
        if not inks:
            continue
        if shapes.add(shape_of(inks[0])):
            found.append((char, inks))
        else:
            twins += 1
    step = max(1.0, len(found) / MOST)
    return [found[int(i * step)] for i in range(min(len(found), MOST))], twins


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def draw(out, scripts, shapes, pictures, size, seed):
    """Draws all scripts into a folder and prints the numbers of scripts, characters and pictures."""
    characters, with_any, dropped = 0, 0, 0
    for script, blocks in scripts.items():
        found, twins = letters(script, blocks, shapes)
        dropped += twins
        with_any += bool(found)
        for char, inks in found:
            # Each character has its own seed, so that more scripts or pictures do not change the others.
            rng = np.random.default_rng([seed, ord(char)])
            bones = [skeleton(ink) for ink in inks]
            for number in range(pictures):
                which = rng.integers(len(inks))
                save(out / f"{script}-{ord(char):05X}" / f"{number:02}.png", picture(rng, inks[which], bones[which], size))
        characters += len(found)
    print(f"{out}: {characters} characters of {with_any} scripts, {pictures} pictures each; {dropped} skipped as duplicates", flush=True)


def write_digits(out, size):
    """The digits of scikit-learn, 8x8 pixels of 0 to 16, enlarged smoothly."""
    from sklearn.datasets import load_digits

    data = load_digits()
    for number, (pixels, digit) in enumerate(zip(data.images, data.target)):
        image = Image.fromarray((pixels * 255 / 16).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
        save(out / str(digit) / f"{number:04}.png", np.asarray(image))
    print(f"{out}: {len(data.images)} pictures of {len(data.target_names)} digits")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to write into")
    parser.add_argument("--pictures", type=int, default=24, help="pictures per training character; held-out ones have 10")
    parser.add_argument("--size", type=int, default=32, help="side of a picture, pixels")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same pictures")
    parser.add_argument("--digits", action="store_true", help="only write the handwritten digits of scikit-learn, into OUT/digits")
    args = parser.parse_args()
    if args.digits:
        return write_digits(args.out / "digits", args.size)
    if not (FONTS / "noto").is_dir():
        parser.error(f"{FONTS}/noto is not there: install the Debian packages fonts-noto-core fonts-freefont-ttf fonts-dejavu-core")
    shapes = Shapes()
    for font in fonts_of("Latin"):
        for digit in "0123456789":
            shapes.add(shape_of(glyph(font, digit)))
    draw(args.out / "train", TRAIN, shapes, args.pictures, args.size, args.seed)
    draw(args.out / "held-out", HELD_OUT, shapes, HELD_OUT_PICTURES, args.size, args.seed)


if __name__ == "__main__":
    main()
