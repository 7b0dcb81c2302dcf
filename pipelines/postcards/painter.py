"""Paints a scene as a small postcard, with the true mask of its subject.

Positions are in units of 1/128 of the picture's side; the light comes from the upper left.
The background is drawn first and spends the same random numbers whatever the subject,
so two scenes that differ only in their subject share everything around it.
"""

from __future__ import annotations

from functools import cache
from math import cos, pi, sin
from random import Random

import numpy as np
from PIL import Image, ImageChops, ImageDraw

from pipelines.postcards.vocabulary import Scene

Colour = tuple[int, int, int]
Points = list[tuple[float, float]]

UNITS = 128
OVERSAMPLING = 4
FLYING = {"balloon", "rocket", "bird"}
SUBJECT_HEIGHT = {"small": 48, "medium": 66, "large": 82}
PAINTS: dict[str, Colour] = {
    "red": (222, 52, 48),
    "orange": (246, 140, 34),
    "yellow": (252, 216, 60),
    "green": (62, 172, 78),
    "blue": (52, 112, 224),
    "purple": (142, 78, 200),
    "pink": (248, 146, 190),
    "white": (250, 250, 246),
}
SKY: dict[str, tuple[Colour, Colour]] = {
    "day": ((84, 166, 240), (214, 238, 252)),
    "sunset": ((108, 74, 156), (255, 184, 104)),
    "night": ((14, 20, 60), (56, 68, 128)),
}
GROUND: dict[str, tuple[Colour, Colour]] = {
    "meadow": ((146, 206, 98), (76, 152, 66)),
    "road": ((150, 200, 104), (92, 156, 72)),
    "snow": ((250, 252, 255), (206, 222, 242)),
    "desert": ((246, 218, 150), (222, 174, 98)),
    "sea": ((96, 178, 224), (28, 92, 166)),
    "forest": ((104, 162, 82), (56, 106, 56)),
}
AMBIENT: dict[str, tuple[Colour, float]] = {
    "day": ((255, 255, 255), 0.0),
    "sunset": ((224, 112, 84), 0.26),
    "night": ((18, 24, 74), 0.52),
}
SUBJECT_AMBIENT = {"day": 0.0, "sunset": 0.06, "night": 0.16}
GLASS, LAMPLIGHT = (180, 222, 246), (255, 240, 140)
WOOD, INK, CREAM = (128, 86, 58), (28, 26, 38), (252, 246, 232)


def paint(scene: Scene, rng: Random, size: int = 64) -> Image.Image:
    """The scene as an RGB picture of `size` x `size` pixels."""
    return paint_with_mask(scene, rng, size)[0]


def paint_with_mask(scene: Scene, rng: Random, size: int = 64) -> tuple[Image.Image, Image.Image]:
    """The picture, and an L mask of the same size: white where its subject is, grey at edges."""
    picture = _background(scene, rng, size)
    mask = Image.new("L", picture.size)
    for x, y, height in _placements(scene, rng):
        _paint_subject(picture, mask, scene, rng, x, y, height)
    return picture.reduce(OVERSAMPLING), mask.reduce(OVERSAMPLING)


def paint_background(scene: Scene, rng: Random, size: int = 64) -> Image.Image:
    """What lies behind the subject of the picture that the same `rng` gives."""
    return _background(scene, rng, size).reduce(OVERSAMPLING)


def _background(scene: Scene, rng: Random, size: int) -> Image.Image:
    picture = Image.new("RGB", (size * OVERSAMPLING,) * 2)
    _paint_background(picture, scene, rng, horizon=rng.uniform(72, 79))
    return picture


def _placements(scene: Scene, rng: Random) -> list[tuple[float, float, float]]:
    """Base point and height of each subject."""
    centres = {"left": (38,), "center": (64,), "right": (90,)}[scene.position]
    height = SUBJECT_HEIGHT[scene.size]
    if scene.count == 2:
        centres, height = (34, 94), 50
    flying = scene.subject in FLYING
    return [
        (x + rng.uniform(-3, 3), (98 if flying else 116) + rng.uniform(-3, 3), height)
        for x in centres
    ]


class Brush:
    """Draws in local units: the origin at (x, y) of the picture, `scale` units long, y down."""

    def __init__(
        self,
        image: Image.Image,
        x: float = 0,
        y: float = 0,
        scale: float = 1,
        ambient: tuple[Colour, float] = AMBIENT["day"],
        pixels_per_unit: float | None = None,
    ):
        pixels = pixels_per_unit or image.width / UNITS
        self.draw = ImageDraw.Draw(image)
        self.left, self.top, self.scale = x * pixels, y * pixels, scale * pixels
        self.ambient = ambient
        self.outline_width = max(2, round(pixels * 1.5))

    def polygon(self, points: Points, fill: Colour, outline: Colour | None = None) -> None:
        corners = [self._at(*point) for point in points]
        self.draw.polygon(corners, fill=self._lit(fill))
        if outline:
            line = [*corners, *corners[:2]]
            self.draw.line(line, fill=self._lit(outline), width=self.outline_width, joint="curve")

    def ellipse(
        self,
        x: float,
        y: float,
        radius_x: float,
        radius_y: float,
        fill: Colour,
        outline: Colour | None = None,
        arc: tuple[int, int] | None = None,
    ) -> None:
        """An ellipse around (x, y), or its sector between two angles in degrees."""
        left, top = self._at(x - radius_x, y - radius_y)
        right, bottom = self._at(x + radius_x, y + radius_y)
        style = {
            "fill": self._lit(fill),
            "outline": self._lit(outline) if outline else None,
            "width": self.outline_width if outline else 0,
        }
        if arc:
            self.draw.pieslice([left, top, right, bottom], *arc, **style)
        else:
            self.draw.ellipse([left, top, right, bottom], **style)

    def box(
        self,
        left: float,
        top: float,
        right: float,
        bottom: float,
        fill: Colour,
        outline: Colour | None = None,
        radius: float = 0,
    ) -> None:
        self.draw.rounded_rectangle(
            [self._at(left, top), self._at(right, bottom)],
            radius * self.scale,
            fill=self._lit(fill),
            outline=self._lit(outline) if outline else None,
            width=self.outline_width if outline else 0,
        )

    def line(self, points: Points, fill: Colour, width: float) -> None:
        self.draw.line(
            [self._at(*point) for point in points],
            fill=self._lit(fill),
            width=max(1, round(width * self.scale)),
            joint="curve",
        )

    def _at(self, x: float, y: float) -> tuple[float, float]:
        return self.left + x * self.scale, self.top + y * self.scale

    def _lit(self, colour: Colour) -> Colour:
        return mix(colour, *self.ambient)


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The colour at `share` of the way from the first to the second."""
    return tuple(round(a + (b - a) * share) for a, b in zip(first, second, strict=True))


def dark(colour: Colour, share: float = 0.5) -> Colour:
    return mix(colour, (26, 20, 48), share)


def light(colour: Colour, share: float = 0.45) -> Colour:
    return mix(colour, (255, 255, 255), share)


def _jitter(colour: Colour, rng: Random, spread: float = 6) -> Colour:
    return tuple(max(0, min(255, round(value + rng.uniform(-spread, spread)))) for value in colour)


# Background


def _paint_background(picture: Image.Image, scene: Scene, rng: Random, horizon: float) -> None:
    ambient = AMBIENT[scene.time]
    sky = tuple(_jitter(colour, rng) for colour in SKY[scene.time])
    ground = tuple(mix(_jitter(c, rng), *ambient) for c in GROUND[scene.place])
    air = sky[1]
    picture.paste(mix(ground[0], air, 0.3), (0, 0, *picture.size))
    _gradient(picture, 0, horizon, *sky)
    brush = Brush(picture)
    if scene.time == "night":
        for _ in range(9):
            x, y, radius = rng.uniform(4, 124), rng.uniform(4, 56), rng.choice((0.8, 1.1))
            brush.ellipse(x, y, radius, radius, (244, 242, 214))
    if "sun" in scene.extras:
        _paint_sun(brush, rng, sky, scene.time, horizon)
    if "moon" in scene.extras:
        x, y = rng.uniform(18, 40), rng.uniform(18, 26)
        _glow(brush, x, y, 15, mix(sky[0], sky[1], 0.3), (196, 200, 220))
        brush.ellipse(x, y, 10, 10, (254, 246, 208))
        for dx, dy, radius in ((-3, -2, 2.4), (3.5, 2.5, 2), (1.5, -5, 1.4)):
            brush.ellipse(x + dx, y + dy, radius, radius, (228, 218, 184))
    if "clouds" in scene.extras:
        _paint_clouds(brush, rng, scene.time)
    if "mountains" in scene.extras:
        _paint_mountains(brush, rng, ambient, air, horizon)
    {
        "meadow": _paint_meadow,
        "road": _paint_road,
        "snow": _paint_snow,
        "desert": _paint_desert,
        "sea": _paint_sea,
        "forest": _paint_forest,
    }[scene.place](picture, Brush(picture, ambient=ambient), rng, horizon, ground, air)


def _gradient(
    picture: Image.Image, top: float, bottom: float, first: Colour, last: Colour
) -> None:
    pixels = picture.width / UNITS
    start, end = round(top * pixels), round(bottom * pixels)
    share = np.linspace(0, 1, max(1, end - start))[:, None, None]
    column = np.array(first) * (1 - share) + np.array(last) * share
    strip = Image.fromarray(column.round().astype(np.uint8))
    picture.paste(strip.resize((picture.width, strip.height)), (0, start))


def _glow(brush: Brush, x: float, y: float, radius: float, sky: Colour, colour: Colour) -> None:
    for share in (0.16, 0.32):
        reach = radius * (1.3 - share)
        brush.ellipse(x, y, reach, reach, mix(sky, colour, share))


def _paint_sun(brush: Brush, rng: Random, sky: tuple, time: str, horizon: float) -> None:
    x = rng.uniform(18, 42)
    if time == "day":
        y, disc = rng.uniform(18, 26), (255, 228, 92)
        _glow(brush, x, y, 20, mix(*sky, 0.3), (255, 246, 200))
    else:
        y, disc = horizon - rng.uniform(6, 12), (255, 132, 70)
        _glow(brush, x, y, 22, mix(*sky, 0.85), (255, 220, 130))
    brush.ellipse(x, y, 11.5, 11.5, disc)


def _paint_clouds(brush: Brush, rng: Random, time: str) -> None:
    top = {"day": (255, 255, 255), "sunset": (255, 196, 172), "night": (104, 114, 162)}[time]
    for x in (rng.uniform(50, 72), rng.uniform(94, 116)):
        y, radius = rng.uniform(13, 27), rng.uniform(7, 9)
        for shift, colour in ((1.4, dark(top, 0.14)), (0, top)):
            for dx, dy, share in ((-1.3, 0.3, 0.7), (0, -0.2, 1), (1.3, 0.25, 0.8), (0, 0.4, 0.8)):
                puff = (share * radius * 1.1, share * radius * 0.75)
                brush.ellipse(x + dx * radius, y + dy * radius + shift, *puff, colour)


def _paint_mountains(
    brush: Brush, rng: Random, ambient: tuple, air: Colour, horizon: float
) -> None:
    for centre in (22, 104, 64):
        x, height = centre + rng.uniform(-8, 8), rng.uniform(26, 36)
        stone = mix(mix((112, 126, 168), *ambient), air, 0.2)
        snow = mix((250, 252, 255), *ambient)
        foot, peak, width = horizon + 2, horizon - height, height * 1.05
        brush.polygon([(x - width, foot), (x, peak), (x + width, foot)], stone)
        brush.polygon([(x, peak), (x + width, foot), (x + width * 0.15, foot)], dark(stone, 0.2))
        slope = 0.34
        left, right, low = x - width * slope, x + width * slope, peak + height * slope
        cap = [(left, low), (x, peak), (right, low), (x + 3, low - 3), (x - 2, low + 2)]
        brush.polygon(cap, snow)


def _hill(brush: Brush, x: float, y: float, width: float, height: float, fill: Colour) -> None:
    brush.ellipse(x, y + height, width, height * 2, fill)


def _paint_meadow(picture, brush, rng, horizon, ground, air):
    plain = Brush(picture)
    _hill(plain, rng.uniform(14, 34), horizon - 3, 58, 12, mix(ground[0], air, 0.35))
    _hill(plain, rng.uniform(92, 112), horizon, 62, 12, mix(ground[0], air, 0.12))
    _gradient(picture, horizon + 6, UNITS, *ground)
    for column in range(5):
        x, y = 14 + column * 25 + rng.uniform(-7, 7), rng.uniform(horizon + 14, 124)
        blades = [(x - 2.5, y - 5), (x, y), (x + 2.5, y - 5)]
        brush.line(blades, (64, 138, 56), 1.6)
        brush.ellipse(x + 5, y - 1, 1.6, 1.6, rng.choice(((255, 250, 240), (255, 224, 120))))


def _paint_road(picture, brush, rng, horizon, ground, air):
    plain = Brush(picture)
    _hill(plain, rng.uniform(80, 110), horizon - 2, 66, 10, mix(ground[0], air, 0.3))
    _gradient(picture, horizon + 3, UNITS, *ground)
    brush.box(-4, 96, 132, 124, (222, 216, 204))
    brush.box(-4, 98, 132, 122, (104, 106, 120))
    start = rng.uniform(-18, 6)
    for dash in range(6):
        brush.box(start + dash * 26, 108.5, start + dash * 26 + 13, 111.5, (252, 240, 196))


def _paint_snow(picture, brush, rng, horizon, ground, air):
    plain = Brush(picture)
    _hill(plain, rng.uniform(20, 40), horizon - 2, 60, 10, mix(ground[1], air, 0.3))
    _hill(plain, rng.uniform(96, 112), horizon - 1, 56, 11, mix(ground[0], ground[1], 0.4))
    for x, height in ((rng.uniform(6, 16), 34), (rng.uniform(112, 122), 40)):
        _fir(brush, x, horizon + 9, height, (74, 128, 112), (246, 250, 255))
    _gradient(picture, horizon + 8, UNITS, *ground)


def _paint_desert(picture, brush, rng, horizon, ground, air):
    plain = Brush(picture)
    _hill(plain, rng.uniform(18, 40), horizon - 4, 58, 11, mix(ground[0], air, 0.25))
    _hill(plain, rng.uniform(88, 110), horizon - 1, 62, 11, mix(ground[0], ground[1], 0.5))
    _gradient(picture, horizon + 7, UNITS, *ground)
    x = rng.choice((rng.uniform(10, 18), rng.uniform(110, 118)))
    y, green = horizon + 16, (84, 160, 92)
    for dx, low, high in ((-7, 11, 20), (7, 9, 16)):
        brush.line([(x, y - low), (x + dx, y - low), (x + dx, y - high)], green, 4)
        brush.ellipse(x + dx, y - high, 2, 2, green)
    brush.box(x - 3, y - 28, x + 3, y, green, radius=3)
    brush.line([(x - 1.5, y - 25), (x - 1.5, y - 2)], light(green, 0.3), 1.4)


def _paint_sea(picture, brush, rng, horizon, ground, air):
    _gradient(picture, horizon, UNITS, mix(ground[0], air, 0.25), ground[1])
    plain = Brush(picture)
    for row in range(6):
        share = row / 5
        y = horizon + 5 + row * (118 - horizon) / 5.5
        crest = mix(mix(ground[0], air, 0.5), ground[1], share * 0.45)
        reach = 5 + 5 * share
        for x in (rng.uniform(0, 60), rng.uniform(68, 128)):
            wave = [(x - reach, y), (x - reach / 2, y - 1.8), (x, y)]
            wave += [(x + reach / 2, y - 1.8), (x + reach, y)]
            plain.line(wave, crest, 1.3 + share)


def _paint_forest(picture, brush, rng, horizon, ground, air):
    far = mix(mix((70, 124, 92), *brush.ambient), air, 0.3)
    plain = Brush(picture)
    for column in range(9):
        x, height = column * 16 + rng.uniform(-3, 3), rng.uniform(36, 44)
        _fir(plain, x, horizon + 3, height, far)
    for column in range(6):
        x, height = column * 25 + 2 + rng.uniform(-4, 4), rng.uniform(34, 46)
        _fir(brush, x, horizon + 9, height, _jitter((48, 112, 68), rng, 8))
    _gradient(picture, horizon + 6, UNITS, *ground)


def _fir(
    brush: Brush, x: float, y: float, height: float, green: Colour, snow: Colour | None = None
) -> None:
    brush.box(x - 1.8, y - height * 0.25, x + 1.8, y, (104, 74, 52))
    for low, width in ((0.14, 0.33), (0.38, 0.26), (0.6, 0.18)):
        foot, peak, reach = y - height * low, y - height * (low + 0.4), width * height
        brush.polygon([(x - reach, foot), (x, peak), (x + reach, foot)], green)
        brush.polygon([(x + reach * 0.1, foot), (x, peak), (x + reach, foot)], dark(green, 0.22))
        if snow:
            middle = (foot + peak) / 2
            brush.polygon([(x - reach / 2, middle), (x, peak), (x + reach / 2, middle)], snow)


# Subjects


def _paint_subject(
    picture: Image.Image,
    mask: Image.Image,
    scene: Scene,
    rng: Random,
    x: float,
    y: float,
    height: float,
) -> None:
    colour, night = _jitter(PAINTS[scene.colour], rng), scene.time == "night"
    ambient = AMBIENT[scene.time]
    _paint_footing(Brush(picture, x, y, height, ambient), scene)
    # The subject has a tile of its own, 1.6 heights wide, so that its alpha is its mask.
    pixels = picture.width / UNITS
    side = round(1.6 * height * pixels)
    tile = Image.new("RGBA", (side, side))
    subject_ambient = (ambient[0], SUBJECT_AMBIENT[scene.time])
    brush = Brush(tile, 0.8 * height, 1.25 * height, height, subject_ambient, pixels)
    DRAW[scene.subject](brush, colour, night)
    alpha = tile.getchannel("A")
    shaded = ImageChops.multiply(tile.convert("RGB"), _shade().resize((side, side)))
    corner = (round((x - 0.8 * height) * pixels), round((y - 1.25 * height) * pixels))
    picture.paste(shaded, corner, alpha)
    mask.paste(255, (*corner, corner[0] + side, corner[1] + side), alpha)
    if scene.subject == "boat" and scene.place == "sea":
        _foam(Brush(picture, x, y, height, ambient))


@cache
def _shade() -> Image.Image:
    """White at the upper left, a cool grey at the lower right."""
    ramp = np.add.outer(np.linspace(-0.5, 1, 64), np.linspace(-0.5, 1, 64)).clip(0, 1.5) / 1.5
    grey = 255 - ramp[..., None] * np.array([92, 88, 66])
    return Image.fromarray(grey.astype(np.uint8))


def _paint_footing(brush: Brush, scene: Scene) -> None:
    """Shadow, island or pond under a subject that stands on the ground."""
    swimming = scene.subject in {"boat", "fish"}
    if scene.subject in FLYING:
        return
    if scene.place == "sea" and not swimming:
        brush.ellipse(0.02, 0.06, 0.66, 0.15, (198, 158, 98))
        brush.ellipse(0, 0.03, 0.64, 0.13, (244, 216, 150))
    elif scene.place != "sea" and swimming:
        brush.ellipse(0, 0.02, 0.72, 0.14, (58, 118, 190))
        brush.ellipse(0.02, 0.03, 0.66, 0.11, (98, 168, 226))
    if scene.place != "sea" or not swimming:
        shadow = (66, 66, 82) if scene.place == "road" else dark(GROUND[scene.place][1], 0.38)
        shadow = shadow if not swimming else (58, 118, 190)
        shadow = (206, 164, 100) if scene.place == "sea" else shadow
        brush.ellipse(0.08, 0.0, 0.46, 0.06, shadow)


def _foam(brush: Brush) -> None:
    points = [(k * 0.13 - 0.52, 0.05 if k % 2 else 0.01) for k in range(9)]
    brush.line(points, (224, 240, 250), 0.045)


def _car(brush: Brush, colour: Colour, night: bool) -> None:
    edge, glass = dark(colour), LAMPLIGHT if night else GLASS
    brush.polygon([(-0.42, -0.4), (-0.28, -0.72), (0.18, -0.72), (0.4, -0.4)], colour, edge)
    brush.polygon([(-0.31, -0.42), (-0.22, -0.64), (-0.07, -0.64), (-0.07, -0.42)], glass)
    brush.polygon([(0.0, -0.42), (0.0, -0.64), (0.13, -0.64), (0.28, -0.42)], glass)
    brush.box(-0.66, -0.44, 0.66, -0.12, colour, edge, 0.11)
    brush.line([(-0.56, -0.36), (0.44, -0.36)], light(colour), 0.045)
    brush.box(-0.64, -0.2, 0.64, -0.13, dark(colour, 0.28), None, 0.03)
    brush.ellipse(0.57, -0.31, 0.07, 0.07, (255, 246, 180))
    for x in (-0.36, 0.36):
        brush.ellipse(x, -0.12, 0.17, 0.17, (42, 42, 52))
        brush.ellipse(x, -0.12, 0.08, 0.08, (214, 214, 220))


def _house(brush: Brush, colour: Colour, night: bool) -> None:
    edge, glass = dark(colour), LAMPLIGHT if night else GLASS
    brush.box(0.2, -1.0, 0.34, -0.66, (160, 102, 84), dark((160, 102, 84)))
    brush.box(-0.46, -0.58, 0.46, 0, colour, edge)
    roof = (178, 84, 70) if min(colour) > 200 else dark(colour, 0.4)
    brush.polygon([(-0.6, -0.54), (0, -1.04), (0.6, -0.54)], roof, dark(roof))
    brush.box(-0.46, -0.55, 0.46, -0.49, dark(colour, 0.25))
    for x in (-0.28, 0.28):
        brush.box(x - 0.11, -0.42, x + 0.11, -0.2, glass, edge)
    brush.box(-0.1, -0.34, 0.1, 0, WOOD, dark(WOOD), 0.04)


def _boat(brush: Brush, colour: Colour, night: bool) -> None:
    edge = dark(colour)
    brush.line([(0, -0.2), (0, -1.06)], WOOD, 0.05)
    brush.polygon([(0.05, -1.04), (0.05, -0.3), (0.5, -0.3)], CREAM, dark(CREAM, 0.4))
    sail = light(colour, 0.45) if min(colour) < 200 else (236, 226, 208)
    brush.polygon([(-0.05, -0.9), (-0.05, -0.3), (-0.42, -0.3)], sail, dark(sail, 0.4))
    brush.polygon([(-0.62, -0.24), (0.66, -0.24), (0.44, 0.06), (-0.42, 0.06)], colour, edge)
    brush.line([(-0.54, -0.19), (0.58, -0.19)], light(colour), 0.06)


def _tree(brush: Brush, colour: Colour, night: bool) -> None:
    edge = dark(colour)
    trunk = [(-0.09, -0.46), (0.09, -0.46), (0.13, 0), (-0.13, 0)]
    brush.polygon(trunk, WOOD, dark(WOOD))
    crown = ((-0.25, -0.53, 0.24), (0.25, -0.53, 0.24), (0, -0.76, 0.3))
    for x, y, radius in crown:
        brush.ellipse(x, y, radius, radius, colour, edge)
    for x, y, radius in crown:
        brush.ellipse(x, y, radius - 0.025, radius - 0.025, colour)
    brush.ellipse(0, -0.5, 0.2, 0.14, colour)
    brush.ellipse(-0.1, -0.84, 0.12, 0.09, light(colour))
    brush.ellipse(-0.3, -0.58, 0.08, 0.06, light(colour, 0.3))


def _balloon(brush: Brush, colour: Colour, night: bool) -> None:
    edge, rope = dark(colour), (110, 80, 60)
    brush.line([(-0.24, -0.42), (-0.09, -0.12)], rope, 0.03)
    brush.line([(0.24, -0.42), (0.09, -0.12)], rope, 0.03)
    brush.polygon([(-0.35, -0.48), (0.35, -0.48), (0.11, -0.26), (-0.11, -0.26)], colour, edge)
    brush.ellipse(0, -0.68, 0.42, 0.4, colour, edge)
    brush.ellipse(0, -0.67, 0.24, 0.385, light(colour, 0.55))
    brush.ellipse(0, -0.67, 0.1, 0.385, colour)
    brush.polygon([(-0.18, -0.44), (0.18, -0.44), (0.06, -0.27), (-0.06, -0.27)], colour)
    brush.ellipse(-0.24, -0.82, 0.07, 0.1, light(colour, 0.65))
    brush.box(-0.13, -0.14, 0.13, 0.05, (176, 120, 70), dark((176, 120, 70)), 0.03)


def _fish(brush: Brush, colour: Colour, night: bool) -> None:
    edge, y = dark(colour), -0.44
    tail = [(-0.32, y), (-0.7, y - 0.3), (-0.6, y), (-0.7, y + 0.3)]
    brush.polygon(tail, dark(colour, 0.15), edge)
    brush.polygon([(-0.16, y - 0.26), (0.02, y - 0.52), (0.24, y - 0.24)], dark(colour, 0.15), edge)
    brush.ellipse(0.06, y, 0.48, 0.34, colour, edge)
    brush.ellipse(0.02, y + 0.12, 0.3, 0.15, light(colour, 0.4))
    brush.polygon([(-0.1, y), (-0.28, y + 0.17), (0.04, y + 0.12)], dark(colour, 0.15), edge)
    brush.ellipse(0.31, y - 0.08, 0.105, 0.105, (255, 255, 255), INK)
    brush.ellipse(0.335, y - 0.08, 0.055, 0.055, INK)
    brush.line([(0.48, y + 0.1), (0.36, y + 0.14)], edge, 0.04)


def _cat(brush: Brush, colour: Colour, night: bool) -> None:
    edge = dark(colour)
    tail = [(0.26, -0.06), (0.5, -0.1), (0.57, -0.3), (0.5, -0.46)]
    brush.line(tail, edge, 0.16)
    brush.line(tail, colour, 0.11)
    brush.ellipse(0.5, -0.46, 0.055, 0.055, colour)
    brush.ellipse(0, -0.22, 0.34, 0.26, colour, edge)
    brush.ellipse(0, -0.17, 0.17, 0.16, light(colour, 0.5))
    for side in (-1, 1):
        ear = [(side * 0.38, -0.68), (side * 0.36, -1.08), (side * 0.08, -0.88)]
        brush.polygon(ear, colour, edge)
        inner = [(side * 0.32, -0.78), (side * 0.31, -0.97), (side * 0.17, -0.87)]
        brush.polygon(inner, (248, 176, 186))
        brush.ellipse(side * 0.15, -0.03, 0.11, 0.06, light(colour, 0.3), edge)
    brush.ellipse(0, -0.65, 0.41, 0.32, colour, edge)
    eye = (254, 236, 120) if night else (255, 255, 255)
    for side in (-1, 1):
        brush.ellipse(side * 0.18, -0.68, 0.1, 0.11, eye, INK)
        brush.ellipse(side * 0.17, -0.68, 0.045, 0.085, INK)
        brush.line([(side * 0.16, -0.5), (side * 0.4, -0.53)], edge, 0.025)
        brush.line([(side * 0.16, -0.46), (side * 0.39, -0.43)], edge, 0.025)
    brush.polygon([(-0.06, -0.56), (0.06, -0.56), (0, -0.49)], (236, 110, 132))


def _flower(brush: Brush, colour: Colour, night: bool) -> None:
    edge, stem = dark(colour), (62, 150, 66)
    brush.line([(0, 0), (0.03, -0.3), (0, -0.6)], stem, 0.09)
    brush.ellipse(0.19, -0.17, 0.18, 0.075, stem, dark(stem))
    brush.ellipse(-0.18, -0.25, 0.17, 0.075, stem, dark(stem))
    for turn in range(6):
        angle = turn * pi / 3 + pi / 6
        petal = (0.26 * cos(angle), -0.68 + 0.26 * sin(angle))
        brush.ellipse(*petal, 0.18, 0.18, colour, edge)
        brush.ellipse(petal[0] - 0.03, petal[1] - 0.04, 0.08, 0.08, light(colour, 0.3))
    yellow = colour[0] > 230 and colour[2] < 120 and colour[1] > 190
    heart = (150, 92, 46) if yellow else (255, 214, 70)
    brush.ellipse(0, -0.68, 0.17, 0.17, heart, dark(heart, 0.4))


def _rocket(brush: Brush, colour: Colour, night: bool) -> None:
    edge = dark(colour)
    brush.polygon([(-0.14, -0.2), (0, 0.18), (0.14, -0.2)], (252, 152, 40))
    brush.polygon([(-0.07, -0.2), (0, 0.04), (0.07, -0.2)], (255, 238, 130))
    for side in (-1, 1):
        fin = [(side * 0.2, -0.52), (side * 0.44, -0.1), (side * 0.18, -0.2)]
        brush.polygon(fin, dark(colour, 0.3), edge)
    hull = [(-0.2, -0.18), (-0.25, -0.5), (-0.19, -0.8), (0, -1.1)]
    hull += [(-x, y) for x, y in reversed(hull[:-1])]
    brush.polygon(hull, colour, edge)
    nose = [(-0.185, -0.82), (0, -1.09), (0.185, -0.82)]
    brush.polygon(nose, dark(colour, 0.3))
    brush.line([(-0.13, -0.28), (-0.16, -0.5), (-0.12, -0.74)], light(colour), 0.05)
    brush.ellipse(0.02, -0.6, 0.12, 0.12, LAMPLIGHT if night else GLASS, edge)
    brush.polygon([(-0.2, -0.29), (0.21, -0.29), (0.2, -0.2), (-0.19, -0.2)], light(colour, 0.5))


def _bird(brush: Brush, colour: Colour, night: bool) -> None:
    edge, y = dark(colour), -0.46
    tail = [(-0.26, y - 0.02), (-0.7, y - 0.14), (-0.66, y + 0.16), (-0.24, y + 0.14)]
    brush.polygon(tail, dark(colour, 0.2), edge)
    beak = [(0.42, y - 0.3), (0.74, y - 0.18), (0.42, y - 0.08)]
    brush.polygon(beak, (250, 172, 44), (150, 90, 20))
    brush.ellipse(0, y, 0.4, 0.3, colour, edge)
    brush.ellipse(0.28, y - 0.2, 0.25, 0.23, colour, edge)
    brush.ellipse(0.16, y - 0.02, 0.22, 0.2, colour)
    brush.ellipse(0.06, y + 0.13, 0.24, 0.13, light(colour, 0.5))
    wing = [(0.14, y - 0.04), (-0.1, y + 0.1), (-0.28, y - 0.06)]
    wing += [(-0.5, y - 0.58), (-0.12, y - 0.46)]
    brush.polygon(wing, dark(colour, 0.2), edge)
    brush.line([(-0.34, y - 0.42), (-0.08, y - 0.12)], light(colour, 0.3), 0.05)
    brush.ellipse(0.35, y - 0.24, 0.075, 0.075, (255, 255, 255), INK)
    brush.ellipse(0.365, y - 0.24, 0.04, 0.04, INK)


def _umbrella(brush: Brush, colour: Colour, night: bool) -> None:
    edge = dark(colour)
    handle = [(0, -0.95), (0, -0.08), (0.05, 0.0), (0.14, 0.0), (0.18, -0.09)]
    brush.line(handle, WOOD, 0.065)
    brush.ellipse(0, -0.48, 0.6, 0.52, colour, edge, arc=(180, 360))
    brush.ellipse(0, -0.48, 0.34, 0.5, light(colour, 0.5), arc=(180, 360))
    brush.ellipse(0, -0.48, 0.13, 0.5, colour, arc=(180, 360))
    for x in (-0.45, -0.15, 0.15, 0.45):
        brush.ellipse(x, -0.48, 0.15, 0.065, dark(colour, 0.3))
    brush.ellipse(0, -1.01, 0.04, 0.05, edge)


def _mushroom(brush: Brush, colour: Colour, night: bool) -> None:
    edge, stem = dark(colour), (248, 234, 208)
    stalk = [(-0.17, -0.46), (0.17, -0.46), (0.24, -0.03), (-0.24, -0.03)]
    brush.polygon(stalk, stem, dark(stem, 0.4))
    brush.ellipse(0, -0.04, 0.23, 0.07, stem)
    brush.ellipse(0, -0.42, 0.58, 0.58, colour, edge, arc=(180, 360))
    brush.ellipse(0, -0.42, 0.58, 0.1, dark(colour, 0.28), edge)
    dot = (255, 255, 250) if min(colour) < 225 else (236, 150, 142)
    for x, y, radius in ((-0.31, -0.6, 0.09), (0.02, -0.78, 0.11), (0.32, -0.62, 0.085)):
        brush.ellipse(x, y, radius, radius * 0.9, dot)


def _teapot(brush: Brush, colour: Colour, night: bool) -> None:
    edge = dark(colour)
    brush.ellipse(-0.44, -0.4, 0.2, 0.22, edge)  # the handle, a ring
    brush.ellipse(-0.44, -0.4, 0.11, 0.13, mix(colour, (255, 255, 255), 0.75))
    spout = [(0.3, -0.2), (0.46, -0.3), (0.56, -0.6), (0.7, -0.62), (0.6, -0.22), (0.36, -0.06)]
    brush.polygon(spout, colour, edge)
    brush.ellipse(0, -0.34, 0.46, 0.34, colour, edge)
    brush.ellipse(0, -0.64, 0.27, 0.08, light(colour, 0.3), edge)
    brush.ellipse(0, -0.76, 0.07, 0.07, colour, edge)
    brush.box(-0.24, -0.05, 0.24, 0.0, dark(colour, 0.3))
    brush.line([(-0.3, -0.46), (-0.2, -0.56)], light(colour, 0.7), 0.05)


DRAW = {
    "car": _car,
    "house": _house,
    "boat": _boat,
    "tree": _tree,
    "balloon": _balloon,
    "fish": _fish,
    "cat": _cat,
    "flower": _flower,
    "rocket": _rocket,
    "bird": _bird,
    "umbrella": _umbrella,
    "mushroom": _mushroom,
    "teapot": _teapot,  # no subject of the captions: an adapter learns it
}
