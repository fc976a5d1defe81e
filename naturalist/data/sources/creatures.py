"""How the sample's ten classes look: stylised creatures and plants, drawn with smooth shapes.

A creature is a function of a pen, a generator for its variations and its colours, in coordinates of its own:
about -1 to 1, x right and y down, facing right or towards the viewer.
"""

import colorsys
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import ImageDraw

Colour = tuple[int, ...]
"""RGB, 0 to 255."""
Point = tuple[float, float]
Points = NDArray[np.float64]
"""``[N, 2]``."""

WHITE, BLACK = (245, 245, 240), (15, 15, 20)
CIRCLE = np.stack((np.cos(np.linspace(0, 2 * np.pi, 28)), np.sin(np.linspace(0, 2 * np.pi, 28))), axis=1)
DIAMOND = np.array(((0.9, 0), (0, 0.8), (-0.9, 0), (0, -0.8)))


def some_colour(rng: np.random.Generator, lightness: float, hue: float | None = None) -> Colour:
    """Pick an RGB colour of about ``lightness`` (0 to 1), of any hue unless it is given."""
    hue = rng.random() if hue is None else hue
    rgb = colorsys.hls_to_rgb(hue, min(max(lightness, 0.04), 0.96), rng.uniform(0.1, 0.6))
    return tuple(round(255 * channel) for channel in rgb)


class Colours(NamedTuple):
    """What a creature is painted with."""

    body: Colour
    pattern: Colour
    limb: Colour
    line: Colour

    @classmethod
    def pick(cls, rng: np.random.Generator, lightness: float) -> "Colours":
        """Pick colours of any hue around ``lightness`` (0 to 1), told apart by their own lightness."""
        hue = rng.random()
        other = lightness + (0.22 if lightness < 0.5 else -0.22)
        line = 0.06 if lightness > 0.35 else 0.94
        return cls(
            body=some_colour(rng, lightness, hue),
            pattern=some_colour(rng, other),
            limb=some_colour(rng, 0.8 * lightness, hue),
            line=some_colour(rng, line),
        )


class Pen:
    """Draws smooth shapes given in the creature's own coordinates, about -1 to 1, x right and y down.

    ``matrix`` (2×2) and ``origin`` (2) take them to pixels of the image that ``draw`` draws on.
    """

    def __init__(self, draw: ImageDraw.ImageDraw, matrix: NDArray[np.float64], origin: NDArray[np.float64]):
        self._draw, self._matrix, self._origin = draw, matrix, origin

    def polygon(self, points: Points, fill: Colour) -> None:
        """Fill the outline ``points`` [N, 2]."""
        self._draw.polygon((points @ self._matrix.T + self._origin).ravel().tolist(), fill)

    def ellipse(self, x: float, y: float, rx: float, ry: float, fill: Colour, tilt: float = 0.0) -> None:
        """Fill an ellipse around (x, y) turned by ``tilt`` radians."""
        self.polygon(CIRCLE * (rx, ry) @ rotation(tilt).T + (x, y), fill)

    def limb(self, path: ArrayLike, start: float, end: float, fill: Colour) -> None:
        """Draw a band along ``path`` [N, 2], ``start`` wide at its first point and ``end`` at its last."""
        points = np.asarray(path, np.float64)
        self.band(points, np.linspace(start, end, len(points)), fill)

    def band(self, path: Points, widths: NDArray[np.float64], fill: Colour) -> None:
        """Draw a band along ``path`` [N, 2] of ``widths`` [N], with a round start."""
        along = np.gradient(path, axis=0)
        normal = along[:, ::-1] * (-0.5, 0.5) / np.maximum(np.hypot(*along.T), 1e-6)[:, None]
        edge = normal * widths[:, None]
        self.polygon(np.concatenate((path + edge, (path - edge)[::-1])), fill)
        self.ellipse(path[0, 0], path[0, 1], widths[0] / 2, widths[0] / 2, fill)

    def leaf(self, start: Point, angle: float, length: float, width: float, fill: Colour) -> None:
        """Draw a pointed leaf that grows from ``start`` towards ``angle`` (radians)."""
        along = np.linspace(0, 1, 9)
        path = np.array(start) + along[:, None] * length * np.array((np.cos(angle), np.sin(angle)))
        self.band(path, width * np.sin(np.pi * along**0.8), fill)


def bend(start: Point, knee: Point, end: Point) -> Points:
    """Return a curve [9, 2] from ``start`` to ``end`` drawn towards ``knee`` (a quadratic Bézier curve)."""
    t = np.linspace(0, 1, 9)[:, None]
    curve: Points = (1 - t) ** 2 * np.array(start) + 2 * t * (1 - t) * np.array(knee) + t**2 * np.array(end)
    return curve


def rotation(angle: float) -> NDArray[np.float64]:
    """Return the 2×2 matrix that turns by ``angle`` radians."""
    return np.array(((np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))))


def frog(pen: Pen, rng: np.random.Generator, c: Colours) -> None:
    """Sitting and seen from the front: bulging eyes above a wide mouth, folded hind legs."""
    spread = rng.uniform(0.85, 1.0)
    for side in (-1, 1):
        pen.ellipse(side * 0.55 * spread, 0.45, 0.4, 0.28, c.limb, side * -0.5)
        for toe in (-0.15, 0.05, 0.25):
            pen.limb(((side * 0.6, 0.7), (side * (0.75 + toe), 0.88)), 0.12, 0.07, c.limb)
    pen.ellipse(0, 0.35, 0.52, 0.55, c.body)
    pen.ellipse(0, 0.5, 0.34, 0.36, c.pattern)
    for side in (-1, 1):
        pen.limb(bend((side * 0.3, 0.3), (side * 0.5, 0.6), (side * 0.25, 0.85)), 0.2, 0.12, c.limb)
        pen.ellipse(side * 0.25, 0.88, 0.18, 0.07, c.limb)
    pen.ellipse(0, -0.25, 0.7, 0.42, c.body)
    for side in (-1, 1):
        pen.ellipse(side * 0.42, -0.62, 0.26, 0.26, c.body)
        pen.ellipse(side * 0.42, -0.64, 0.19, 0.19, WHITE)
        pen.ellipse(side * 0.42, -0.64, 0.08, 0.14, BLACK)
    pen.limb(bend((-0.55, -0.25), (0, rng.uniform(0.05, 0.2)), (0.55, -0.25)), 0.06, 0.06, c.line)


def jellyfish(pen: Pen, rng: np.random.Generator, c: Colours) -> None:
    """A bell with a scalloped rim over long wavy tentacles."""
    down = np.linspace(0, 1, 14)
    phase = rng.uniform(0, 2 * np.pi)
    for x in np.linspace(-0.5, 0.5, rng.integers(5, 8)):
        sway = 0.09 * np.sin(7 * down + phase + 3 * x)
        path = np.stack((x * (1 + 0.25 * down) + sway, down * rng.uniform(0.85, 1.1) - 0.1), axis=1)
        pen.limb(path, 0.12, 0.03, c.limb)
    theta = np.linspace(np.pi, 2 * np.pi, 20)
    pen.polygon(np.stack((0.78 * np.cos(theta), 0.85 * np.sin(theta)), axis=1), c.body)
    for x in np.linspace(-0.62, 0.62, 5):
        pen.ellipse(x, 0, 0.165, 0.13, c.body)
    for x, y in ((-0.32, -0.38), (0.32, -0.38), (0, -0.55), (0, -0.22)):
        pen.ellipse(x, y, 0.13, 0.1, c.pattern)


def starfish(pen: Pen, rng: np.random.Generator, c: Colours) -> None:
    """Five arms with rows of knobs."""
    waist = rng.uniform(0.34, 0.44)
    theta = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    radius = waist + (0.98 - waist) * np.abs(np.cos(2.5 * theta)) ** 1.6
    pen.polygon(radius[:, None] * np.stack((np.cos(theta), np.sin(theta)), axis=1), c.body)
    for arm in np.arange(5) * 0.4 * np.pi:
        for distance, size in ((0.25, 0.075), (0.45, 0.065), (0.62, 0.05), (0.78, 0.04)):
            pen.ellipse(distance * np.cos(arm), distance * np.sin(arm), size, size, c.pattern)
    pen.ellipse(0, 0, 0.1, 0.1, c.pattern)


def mixed_bag(pen: Pen, rng: np.random.Generator, c: Colours) -> None:
    """Draw a jellyfish or a starfish: nature_12K keeps every animal of no other class under Animalia."""
    (jellyfish if rng.random() < 0.5 else starfish)(pen, rng, c)


def spider(pen: Pen, rng: np.random.Generator, c: Colours) -> None:
    """From above: eight bent legs around a small front and a large hind part."""
    for side in (-1, 1):
        for angle in (-1.05, -0.4, 0.3, 0.95):
            angle += rng.uniform(-0.1, 0.1)
            reach = rng.uniform(0.9, 1.05)
            knee = (side * 0.62 * np.cos(angle), 0.85 * np.sin(angle) - 0.25)
            foot = (side * reach * np.cos(angle * 0.95), reach * np.sin(angle * 1.1))
            pen.limb(((side * 0.1, -0.15), knee), 0.1, 0.085, c.limb)
            pen.limb((knee, foot), 0.085, 0.03, c.limb)
        pen.limb(((side * 0.08, -0.35), (side * 0.14, -0.62)), 0.08, 0.05, c.limb)
    pen.ellipse(0, 0.33, rng.uniform(0.3, 0.38), 0.42, c.body)
    pen.ellipse(0, -0.22, 0.22, 0.26, c.body)
    for y, size in ((0.12, 0.09), (0.33, 0.13), (0.55, 0.08)):
        pen.ellipse(0, y, size, size * 0.75, c.pattern)
    for x in (-0.08, 0.08):
        pen.ellipse(x, -0.38, 0.045, 0.045, c.line)


def bird(pen: Pen, rng: np.random.Generator, c: Colours) -> None:
    """From the side: round head with a beak, folded or raised wing, tail, two thin legs."""
    for x in (-0.05, 0.15):
        pen.limb(((x, 0.4), (x + 0.04, 0.85)), 0.05, 0.04, c.line)
        pen.limb(((x - 0.04, 0.86), (x + 0.2, 0.86)), 0.04, 0.04, c.line)
    for lift in (-0.12, 0.0, 0.12):
        pen.leaf((-0.35, 0.15), np.pi - 0.25 + lift, 0.72, 0.2, c.limb)
    pen.ellipse(0, 0.1, 0.55, 0.37, c.body, -0.25)
    pen.limb(((0.3, 0.0), (0.5, -0.38)), 0.5, 0.36, c.body)
    pen.polygon(np.array(((0.66, -0.54), (1.0, -0.4), (0.66, -0.3))), c.line)
    pen.ellipse(0.5, -0.42, 0.25, 0.25, c.body)
    pen.ellipse(0.56, -0.48, 0.08, 0.08, WHITE)
    pen.ellipse(0.58, -0.48, 0.045, 0.045, BLACK)
    raised = rng.random() < 0.4
    for feather in range(4):
        angle = (-1.9 - 0.22 * feather) if raised else (np.pi - 0.25 - 0.17 * feather)
        pen.leaf(
            (0.22, 0.02),
            angle,
            (0.95 if raised else 0.8) - 0.08 * feather,
            0.27,
            c.pattern if feather % 2 == 0 else c.limb,
        )


def mushroom(pen: Pen, rng: np.random.Generator, c: Colours) -> None:
    """A spotted cap over gills and a thick stem."""
    height, width = rng.uniform(0.65, 0.85), rng.uniform(0.8, 0.95)
    pen.limb(bend((rng.uniform(-0.15, 0.15), 0.85), (0, 0.4), (0, -0.1)), 0.44, 0.28, c.pattern)
    pen.ellipse(0, 0.28, 0.24, 0.07, c.limb)
    pen.ellipse(0, -0.02, width, 0.17, c.limb)
    for x in np.linspace(-0.7, 0.7, 9):
        pen.limb(((0.3 * x, 0.1), (x * width, -0.03)), 0.02, 0.02, c.line)
    theta = np.linspace(np.pi, 2 * np.pi, 20)
    pen.polygon(np.stack((width * np.cos(theta), -0.02 + height * np.sin(theta)), axis=1), c.body)
    for x, y, size in (
        (-0.5, -0.25, 0.1),
        (-0.12, -0.2, 0.12),
        (0.35, -0.22, 0.11),
        (-0.25, -0.48, 0.1),
        (0.15, -0.52, 0.12),
        (0.62, -0.12, 0.07),
    ):
        size *= rng.uniform(0.8, 1.2)
        pen.ellipse(x * width, y * height / 0.75, size, 0.8 * size, c.pattern)


def insect(pen: Pen, rng: np.random.Generator, c: Colours) -> None:
    """From above: four wings, a body in three parts, six legs, feelers."""
    breadth = rng.uniform(0.38, 0.6)
    sweep = rng.uniform(-0.1, 0.15)
    for side in (-1, 1):
        for y, lift in ((-0.3, -0.75), (0.05, 0.1), (0.25, 0.8)):
            pen.limb(((0, y), (side * 0.38, y + 0.4 * lift)), 0.05, 0.05, c.line)
            pen.limb(((side * 0.38, y + 0.4 * lift), (side * 0.5, y + 0.75 * lift)), 0.05, 0.03, c.line)
        for tilt, x, y, length in ((0.42, 0.5, 0.3, 0.42), (-0.38 + sweep, 0.55, -0.25, 0.5)):
            pen.ellipse(side * x, y, length, 0.62 * breadth, c.body, side * tilt)
            pen.ellipse(side * (x + 0.12), y, 0.5 * length, 0.34 * breadth, c.pattern, side * tilt)
        pen.limb(bend((0, -0.6), (side * 0.1, -0.8), (side * 0.32, -0.95)), 0.04, 0.03, c.line)
    pen.ellipse(0, 0.32, 0.13, 0.5, c.limb)
    pen.ellipse(0, -0.25, 0.16, 0.24, c.limb)
    pen.ellipse(0, -0.57, 0.15, 0.15, c.line)
    for y in (0.25, 0.42, 0.58):
        pen.limb(((-0.11, y), (0.11, y)), 0.05, 0.05, c.pattern)


def mammal(pen: Pen, rng: np.random.Generator, c: Colours) -> None:
    """From the side: four legs, a head with ears and snout, a tail, spots or stripes."""
    stride = rng.uniform(-0.12, 0.12)
    for x, swing, colour in ((-0.42, -1, c.limb), (0.4, 1, c.limb), (-0.55, 1, c.body), (0.26, -1, c.body)):
        pen.limb(((x, 0.15), (x + swing * stride, 0.86)), 0.22, 0.15, colour)
    pen.limb(bend((-0.6, -0.05), (-0.95, 0.0), (-0.95, rng.uniform(-0.75, -0.3))), 0.13, 0.06, c.body)
    pen.ellipse(-0.12, 0.05, 0.62, 0.33, c.body)
    striped = rng.random() < 0.5
    for x in (-0.5, -0.28, -0.06, 0.16):
        if striped:
            pen.limb(bend((x, -0.22), (x + 0.07, 0), (x, 0.22)), 0.09, 0.04, c.pattern)
        else:
            pen.ellipse(x, rng.uniform(-0.15, 0.15), 0.09, 0.08, c.pattern)
    pen.limb(((0.3, 0.0), (0.58, -0.35)), 0.4, 0.34, c.body)
    for x in (0.44, 0.7):
        pen.leaf((x, -0.45), -np.pi / 2 + 1.2 * (x - 0.57), rng.uniform(0.38, 0.5), 0.24, c.limb)
    pen.ellipse(0.58, -0.38, 0.26, 0.24, c.body)
    pen.ellipse(0.79, -0.3, 0.18, 0.13, c.pattern)
    pen.ellipse(0.93, -0.34, 0.06, 0.055, c.line)
    pen.ellipse(0.63, -0.45, 0.05, 0.05, c.line)


def snail(pen: Pen, rng: np.random.Generator, c: Colours) -> None:
    """A spiral shell on a long foot, eyes on stalks."""
    pen.limb(bend((0.62, 0.35), (0.5, 0.75), (-0.95, 0.68)), 0.34, 0.08, c.limb)
    pen.limb(((0.45, 0.6), (0.72, 0.12)), 0.36, 0.3, c.limb)
    for x in (0.66, 0.9):
        tip = (x + 0.08, rng.uniform(-0.4, -0.3))
        pen.limb(((x - 0.04, 0.1), tip), 0.07, 0.05, c.limb)
        pen.ellipse(*tip, 0.075, 0.075, c.line)
    pen.ellipse(-0.2, 0.0, 0.64, 0.62, c.body)
    theta = np.linspace(0, rng.uniform(2.2, 2.8) * 2 * np.pi, 60)
    radius = 0.55 * (1 - theta / theta[-1]) ** 0.85
    spiral = np.stack((-0.2 + radius * np.cos(theta + 0.7), radius * np.sin(theta + 0.7)), axis=1)
    pen.limb(spiral, 0.13, 0.05, c.pattern)
    pen.limb(spiral, 0.035, 0.03, c.line)


def plant(pen: Pen, rng: np.random.Generator, c: Colours) -> None:
    """A stem with leaves in pairs, smaller towards the top."""
    lean = rng.uniform(-0.2, 0.2)
    stem = bend((0, 0.98), (lean, 0.3), (0, -0.6))
    pen.limb(stem, 0.1, 0.05, c.limb)
    pairs = rng.integers(3, 5)
    for place in range(pairs):
        x, y = stem[1 + round(6 * place / (pairs - 1))]
        length = 0.72 - 0.36 * place / pairs
        for side in (-1, 1):
            angle = -np.pi / 2 + side * rng.uniform(0.85, 1.15)
            colour = c.body if side < 0 else c.pattern
            pen.leaf((x, y), angle, length, 0.42 * length, colour)
            vein = np.array(((x, y), (x + 0.8 * length * np.cos(angle), y + 0.8 * length * np.sin(angle))))
            pen.limb(vein, 0.025, 0.015, c.line)
    pen.leaf((0, -0.5), -np.pi / 2 + rng.uniform(-0.2, 0.2), 0.48, 0.24, c.body)


def reptile(pen: Pen, rng: np.random.Generator, c: Colours) -> None:
    """From above: a long wavy body with a row of scales, with short legs (lizard) or without (snake)."""
    along = np.linspace(0, 1, 40)
    lizard = rng.random() < 0.4
    waves, swing = (rng.uniform(0.8, 1.1), 0.2) if lizard else (rng.uniform(1.3, 1.8), 0.42)
    y = swing * np.sin(2 * np.pi * waves * along) * np.minimum(1, 4 * along)
    path = np.stack((0.72 - 1.7 * along, y), axis=1)
    widths = 0.34 * np.clip(np.minimum(0.7 + 3 * along, 1.45 * (1 - along)), 0.05, 1)
    if lizard:
        for joint, lead in ((6, 0.15), (18, -0.15)):
            x, y = path[joint]
            for side in (-1, 1):
                pen.limb(bend((x, y), (x + lead, y + side * 0.35), (x + 2 * lead, y + side * 0.45)), 0.15, 0.09, c.limb)
    pen.limb(((0.9, 0), (1.08, rng.uniform(-0.06, 0.06))), 0.03, 0.02, c.line)
    pen.band(path, widths, c.body)
    for joint in range(3, 34, 3):
        turn = np.arctan2(*(path[joint + 1] - path[joint - 1])[::-1])
        pen.polygon(path[joint] + 0.5 * widths[joint] * DIAMOND @ rotation(turn).T, c.pattern)
    pen.ellipse(0.78, 0, 0.22, 0.17, c.body)
    for side in (-1, 1):
        pen.ellipse(0.82, side * 0.08, 0.04, 0.04, c.line)


CREATURES = {
    "Amphibia": frog,
    "Animalia": mixed_bag,
    "Arachnida": spider,
    "Aves": bird,
    "Fungi": mushroom,
    "Insecta": insect,
    "Mammalia": mammal,
    "Mollusca": snail,
    "Plantae": plant,
    "Reptilia": reptile,
}
"""What is drawn for each class of nature_12K."""

SEEN_FROM_ABOVE = ("Arachnida", "Insecta", "Reptilia")
"""Classes that may lie at any angle; the others stand upright."""
