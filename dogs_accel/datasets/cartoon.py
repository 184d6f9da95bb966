"""Cartoon animals of invented breeds: what `synthetic` draws, one picture at a time.

A breed is a coat colour (the strong cue), a coat pattern and an ear shape (the medium cues), and leg, muzzle and
tail lengths (weak cues). Breeds that share a coat colour differ in the rest, so they are the ones confused. Pose,
place, size, light, background and blur vary from picture to picture and are independent of the breed.

Every part of an animal is the convex hull of a few discs, in units of about half a body length, x forward and
y down with the ground at y = 0. That one primitive gives bodies, tapered legs, ears and curled tails, and growing
its radii gives the outline.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

Disc = tuple[float, float, float]
"""x, y and radius."""
Part = tuple[Disc, ...]
"""Discs whose convex hull is one part of an animal."""
Colour = tuple[int, int, int]

COATS: dict[str, Colour] = {
    "amber": (236, 162, 36),
    "slate": (80, 114, 168),
    "cream": (240, 224, 190),
    "chocolate": (88, 54, 38),
    "sage": (122, 164, 88),
    "rosy": (224, 106, 112),
    "charcoal": (62, 62, 70),
    "lilac": (164, 128, 196),
}
PATTERNS = ("plain", "spots", "patches", "stripes", "saddle")
EARS = ("pointed", "floppy", "round")
MAX_BREEDS = len(COATS) * len(PATTERNS) * len(EARS)

_NAME_OF_PATTERN = {
    "plain": "{coat}_{noun}",
    "spots": "{coat}_spotted_{noun}",
    "patches": "{coat}-and-white_{noun}",
    "stripes": "{coat}_brindle_{noun}",
    "saddle": "saddle-backed_{coat}_{noun}",
}
_NOUN_OF_EARS = {"pointed": "quizzle", "floppy": "snorfle", "round": "wumpet"}
MAX_SIDE_PX = 1024

_SUPERSAMPLING = 2
_HULL_ANGLES = np.linspace(0.0, 2.0 * math.pi, 36, endpoint=False)
_HULL_DIRECTIONS = np.stack([np.cos(_HULL_ANGLES), np.sin(_HULL_ANGLES)])


@dataclass(frozen=True, kw_only=True)
class Breed:
    """What all pictures of one invented breed have in common; lengths are in animal units."""

    name: str
    coat: Colour
    pattern: str
    ears: str
    leg_length: float
    muzzle_length: float
    tail: str


def make_breeds(num_breeds: int) -> list[Breed]:
    """Give `num_breeds` distinct breeds, those of one coat colour next to each other.

    Up to 16 breeds come in pairs of one coat colour; beyond, the 8 colours are shared by ever larger groups.
    Raises ValueError where `num_breeds` is not in 1..120.
    """
    if not 1 <= num_breeds <= MAX_BREEDS:
        raise ValueError(f"num_breeds: got {num_breeds}, expected an integer in 1..{MAX_BREEDS}")
    num_coats = min(len(COATS), math.ceil(num_breeds / 2))
    sizes = [num_breeds // num_coats + (coat < num_breeds % num_coats) for coat in range(num_coats)]
    return [_breed(coat, variant) for coat, size in enumerate(sizes) for variant in range(size)]


def _breed(coat: int, variant: int) -> Breed:
    # 5 patterns and 3 ears share no factor, so stepping both at once runs through all 15 combinations.
    coat_name = list(COATS)[coat]
    pattern = PATTERNS[(coat + 2 * variant) % len(PATTERNS)]
    ears = EARS[(coat + variant) % len(EARS)]
    name = _NAME_OF_PATTERN[pattern].format(coat=coat_name, noun=_NOUN_OF_EARS[ears])
    return Breed(
        name=name[0].upper() + name[1:],
        coat=COATS[coat_name],
        pattern=pattern,
        ears=ears,
        leg_length=(0.85, 0.45)[(coat // 2 + variant) % 2],
        muzzle_length=(0.30, 0.52)[(coat + variant // 2) % 2],
        tail=("curled", "straight", "bushy")[(coat + variant // 3) % 3],
    )


def draw_animal(
    breed: Breed, size_px: tuple[int, int], rng: np.random.Generator
) -> tuple[Image.Image, tuple[int, int, int, int]]:
    """Draw one animal of a breed on a background of its own.

    `size_px` is (width, height). Returns an RGB picture of that size and the animal's box (xmin, ymin, xmax, ymax)
    in px, clipped to the picture, xmax and ymax exclusive. The same state of `rng` gives the same picture.
    """
    figure = _pose(breed, rng)
    place = _Placement.random(figure.all_parts(), size_px, rng)
    paint, alpha = _paint_figure(figure, breed, place, size_px, rng)
    box = alpha.point(lambda level: 255 if level > 127 else 0).getbbox() or (0, 0, *size_px)
    scene = Image.composite(paint, _background(size_px, place, rng), alpha)
    return _photograph(scene, alpha, rng), box


def draw_scene(size_px: tuple[int, int], rng: np.random.Generator) -> Image.Image:
    """Draw clutter alone: a background as animals have it, without one; RGB, `size_px` is (width, height)."""
    figure = _pose(make_breeds(1)[0], rng)
    place = _Placement.random(figure.all_parts(), size_px, rng)
    scene = _background(size_px, place, rng)
    count = int(rng.integers(3, 9))
    _draw_clutter(ImageDraw.Draw(scene), (int(size_px[1] * 0.2), size_px[1]), size_px, rng, count=count)
    return _photograph(scene, Image.new("L", size_px, 0), rng)


# --- geometry ---------------------------------------------------------------------------------------------------


@dataclass
class _Figure:
    """An animal's parts in painting order, and where its spine runs."""

    tail: list[Part]
    far: list[Part]
    coat: list[Part]
    near: list[Part]
    ears_far: Part
    ears_near: Part
    ears_hang: bool
    muzzle: Part
    collar: Part
    nose: Disc
    eye: Disc
    hip: Disc
    chest: Disc

    def all_parts(self) -> list[Part]:
        ears = [self.ears_far, self.ears_near]
        return [*self.tail, *self.far, *self.coat, *self.near, *ears, self.muzzle, (self.nose,)]


def _pose(breed: Breed, rng: np.random.Generator) -> _Figure:
    pose = rng.choice(["stand", "stand", "sit", "lie"])
    bulk = rng.uniform(0.88, 1.12)
    if pose == "stand":
        hip, chest, far, near = _standing(breed.leg_length * rng.uniform(0.9, 1.1), bulk, rng)
    elif pose == "sit":
        hip, chest, far, near = _sitting(breed.leg_length, bulk)
    else:
        hip, chest, far, near = _lying(bulk)
    return _with_head_and_tail(breed, hip, chest, far, near, rng)


def _standing(leg_length: float, bulk: float, rng: np.random.Generator) -> tuple[Disc, Disc, list[Part], list[Part]]:
    back = -(leg_length + 0.30)
    hip = (-0.72, back, 0.36 * bulk)
    chest = (0.62, back - 0.04, 0.43 * bulk)
    swing = rng.uniform(-0.3, 0.3, 4) * leg_length

    def leg(x: float, shift: float, radius: float) -> Part:
        return ((x, back + 0.1, radius), (x + shift, -0.09, 0.1), (x + shift + 0.1, -0.07, 0.08))

    far = [leg(-0.55, swing[0], 0.2), leg(0.80, swing[1], 0.17)]
    near = [leg(-0.80, swing[2], 0.24), leg(0.58, swing[3], 0.19)]
    return hip, chest, far, near


def _sitting(leg_length: float, bulk: float) -> tuple[Disc, Disc, list[Part], list[Part]]:
    hip = (-0.45, -0.40, 0.42 * bulk)
    chest = (0.28, -0.55 - 0.7 * leg_length, 0.42 * bulk)
    front = ((0.42, chest[1] + 0.2, 0.18), (0.50, -0.09, 0.1), (0.62, -0.07, 0.08))
    thigh = ((-0.32, -0.36, 0.34 * bulk),)
    foot = ((-0.30, -0.10, 0.11), (0.12, -0.08, 0.09))
    far = [tuple((x + 0.2, y, r) for x, y, r in front)]
    return hip, chest, far, [front, foot, thigh]


def _lying(bulk: float) -> tuple[Disc, Disc, list[Part], list[Part]]:
    hip = (-0.75, -0.38, 0.38 * bulk)
    chest = (0.55, -0.46, 0.42 * bulk)
    far: list[Part] = [((0.7, -0.16, 0.14), (1.35, -0.1, 0.1))]
    near: list[Part] = [((0.55, -0.2, 0.17), (1.2, -0.1, 0.1)), ((-0.62, -0.32, 0.3), (-0.2, -0.1, 0.1))]
    return hip, chest, far, near


def _with_head_and_tail(
    breed: Breed, hip: Disc, chest: Disc, far: list[Part], near: list[Part], rng: np.random.Generator
) -> _Figure:
    tilt = rng.uniform(-0.35, 0.35)
    head_x, head_y = chest[0] + rng.uniform(0.25, 0.45), chest[1] - rng.uniform(0.68, 0.85)

    def on_head(x: float, y: float, radius: float) -> Disc:
        cos, sin = math.cos(tilt), math.sin(tilt)
        return head_x + x * cos - y * sin, head_y + x * sin + y * cos, radius

    muzzle_end = 0.26 + breed.muzzle_length
    ear = {
        "pointed": ((-0.10, -0.22, 0.17), (-0.16, -0.68, 0.03)),
        "floppy": ((-0.10, -0.22, 0.13), (-0.26, 0.20, 0.20)),
        "round": ((-0.14, -0.36, 0.22),),
    }[breed.ears]
    head = on_head(0.0, 0.0, 0.38)
    return _Figure(
        tail=_tail(breed.tail, hip, rng),
        far=far,
        coat=[(hip, chest), ((chest[0] + 0.05, chest[1] - 0.1, 0.34), on_head(-0.05, 0.05, 0.28)), (head,)],
        near=near,
        ears_far=tuple(on_head(x + 0.30, y - 0.02, r * 0.9) for x, y, r in ear),
        ears_near=tuple(on_head(*disc) for disc in ear),
        ears_hang=breed.ears == "floppy",
        muzzle=(on_head(0.20, 0.09, 0.23), on_head(muzzle_end, 0.12, 0.14)),
        collar=(on_head(-0.36, 0.36, 0.05), on_head(0.16, 0.46, 0.05)),
        nose=on_head(muzzle_end + 0.10, 0.06, 0.085),
        eye=on_head(0.14, -0.10, 0.085),
        hip=hip,
        chest=chest,
    )


def _tail(kind: str, hip: Disc, rng: np.random.Generator) -> list[Part]:
    x, y = hip[0] - 0.8 * hip[2], hip[1] - 0.45 * hip[2]
    wag = rng.uniform(-0.25, 0.25)
    steps = np.linspace(0.0, 1.0, 7 if kind == "curled" else 3)
    bend = {"curled": 4.6, "straight": 0.3, "bushy": 0.9}[kind]
    length = {"curled": 1.0, "straight": 0.75, "bushy": 0.7}[kind]
    radii = {"curled": 0.10 - 0.03 * steps, "straight": 0.11 - 0.07 * steps, "bushy": 0.10 + 0.13 * steps}[kind]
    discs: list[Disc] = [(x, y, float(radii[0]))]
    for step, radius in zip(steps[1:], radii[1:], strict=True):
        angle = math.pi * 1.22 + wag + bend * (step - 0.2)
        x += math.cos(angle) * length / (len(steps) - 1)
        y += math.sin(angle) * length / (len(steps) - 1)
        discs.append((x, y, float(radius)))
    return list(itertools.pairwise(discs))


@dataclass(frozen=True)
class _Placement:
    """The similarity transform from animal units to px: matrix (2, 2), offset (2,), scale in px per unit."""

    matrix: np.ndarray
    offset: np.ndarray
    scale: float

    @classmethod
    def random(cls, parts: list[Part], size_px: tuple[int, int], rng: np.random.Generator) -> _Placement:
        discs = np.array([disc for part in parts for disc in part])
        low = (discs[:, :2] - discs[:, 2:]).min(0)
        high = (discs[:, :2] + discs[:, 2:]).max(0)
        size = np.array(size_px, float)
        fill = rng.uniform(0.72, 1.05) if rng.random() < 0.85 else rng.uniform(1.1, 1.35)
        scale = float(fill * (size / (high - low)).min())
        angle, mirror = rng.uniform(-0.16, 0.16), rng.choice([-1.0, 1.0])
        cos, sin = math.cos(angle), math.sin(angle)
        matrix = scale * np.array([[cos * mirror, -sin], [sin * mirror, cos]])
        room = np.maximum(size - scale * (high - low), 0.12 * size)
        centre = size / 2 + rng.uniform(-0.42, 0.42, 2) * room
        return cls(matrix, centre - matrix @ ((low + high) / 2), scale)

    def hull(self, part: Part, grow: float = 0.0) -> list[tuple[float, float]]:
        """Polygon of the convex hull of a part's discs on the supersampled canvas."""
        discs = np.array(part)
        centres = (discs[:, :2] @ self.matrix.T + self.offset) * _SUPERSAMPLING
        radii = (discs[:, 2] + grow) * self.scale * _SUPERSAMPLING
        # The hull's point in a direction is on the disc that reaches furthest that way.
        furthest = (centres @ _HULL_DIRECTIONS + radii[:, None]).argmax(0)
        points = centres[furthest] + radii[furthest, None] * _HULL_DIRECTIONS.T
        return list(map(tuple, points.tolist()))


# --- paint ------------------------------------------------------------------------------------------------------


def _shade(colour: Colour, factor: float) -> Colour:
    """Darken (factor < 1), or lighten towards white (factor > 1)."""
    if factor <= 1:
        return tuple(round(level * factor) for level in colour)  # type: ignore[return-value]
    return tuple(round(255 - (255 - level) * (2 - factor)) for level in colour)  # type: ignore[return-value]


def _luma(colour: Colour) -> float:
    return (0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]) / 255


def _vary(colour: Colour, rng: np.random.Generator) -> Colour:
    light, tint = rng.normal(0.0, 9.0), rng.normal(0.0, 6.0, 3)
    return tuple(int(level) for level in np.clip(np.array(colour) + light + tint, 12, 250))  # type: ignore[return-value]


def _paint_figure(
    figure: _Figure, breed: Breed, place: _Placement, size_px: tuple[int, int], rng: np.random.Generator
) -> tuple[Image.Image, Image.Image]:
    """Give the animal as (RGB, L alpha) at `size_px`, painted at twice that size for smooth edges."""
    canvas = (size_px[0] * _SUPERSAMPLING, size_px[1] * _SUPERSAMPLING)
    coat = _vary(breed.coat, rng)
    marking = coat if breed.pattern == "plain" else _vary(_marking_colour(breed), rng)
    # An outline of its own lets a coat stand out from a background of the same colour.
    paint = Image.new("RGB", canvas, _shade(coat, 0.35))
    alpha = Image.new("L", canvas, 0)
    draw_alpha = ImageDraw.Draw(alpha)
    for part in figure.all_parts():
        draw_alpha.polygon(place.hull(part, grow=0.035), fill=255)

    draw = ImageDraw.Draw(paint)
    for part in [*figure.tail, *figure.far, figure.ears_far]:
        draw.polygon(place.hull(part), fill=_shade(coat, 0.8))
    for part in [*figure.coat, *figure.near[:-1]]:
        draw.polygon(place.hull(part), fill=coat)
    _paint_pattern(paint, figure, _pattern_marks(breed.pattern, figure, rng), marking, place)
    draw.polygon(place.hull(figure.near[-1]), fill=_shade(coat, 1.08))
    _paint_face(draw, figure, coat, marking, place, rng)
    return paint.reduce(_SUPERSAMPLING), alpha.reduce(_SUPERSAMPLING)


def _marking_colour(breed: Breed) -> Colour:
    """What spots, patches, stripes or saddle are painted in: it stands out from the breed's coat."""
    light = _luma(breed.coat)
    if breed.pattern == "patches":
        return (120, 84, 58) if light > 0.8 else (246, 242, 234)
    if breed.pattern == "saddle":
        return (44, 38, 40) if light > 0.42 else (214, 176, 124)
    return _shade(breed.coat, 0.42 if light > 0.42 else 1.55)


def _paint_pattern(paint: Image.Image, figure: _Figure, marks: list[Part], marking: Colour, place: _Placement) -> None:
    if not marks:
        return
    inside, drawn = Image.new("L", paint.size, 0), Image.new("L", paint.size, 0)
    draw_inside, draw_marks = ImageDraw.Draw(inside), ImageDraw.Draw(drawn)
    for part in [*figure.coat, *figure.near[:-1]]:
        draw_inside.polygon(place.hull(part), fill=255)
    for mark in marks:
        draw_marks.polygon(place.hull(mark), fill=255)
    box = drawn.getbbox()
    if box is not None:
        paint.paste(marking, box, ImageChops.darker(inside.crop(box), drawn.crop(box)))


def _pattern_marks(pattern: str, figure: _Figure, rng: np.random.Generator) -> list[Part]:
    hip, chest = np.array(figure.hip), np.array(figure.chest)
    along = (chest - hip)[:2] / np.linalg.norm((chest - hip)[:2])
    across = np.array([along[1], -along[0]])  # towards the back

    def at(fraction: float, height: float, radius: float) -> Disc:
        # `fraction` 0..1 runs from behind the hip to before the chest, `height` -1..1 from belly to back.
        reach = hip[2] + (chest[2] - hip[2]) * fraction
        spot = hip[:2] + (chest - hip)[:2] * (fraction * 1.5 - 0.25) + across * height * reach
        return float(spot[0]), float(spot[1]), radius

    if pattern == "spots":
        grid = [(i / 7, j / 2 - 0.75) for i in range(8) for j in range(4)]
        return [
            (at(u + rng.uniform(-0.05, 0.05), v + rng.uniform(-0.15, 0.15), rng.uniform(0.075, 0.125)),)
            for u, v in grid
        ]
    if pattern == "patches":
        places = [(rng.uniform(0.05, 0.3), 0.5), (rng.uniform(0.45, 0.6), -0.5), (rng.uniform(0.75, 1.0), 0.4)]
        return [
            (at(u, v, rng.uniform(0.26, 0.36)), at(u + 0.1, v + rng.uniform(-0.3, 0.3), rng.uniform(0.2, 0.3)))
            for u, v in places
        ]
    if pattern == "stripes":
        starts = np.linspace(0.0, 1.0, 6) + rng.uniform(-0.03, 0.03, 6)
        return [(at(u, 1.1, 0.095), at(u - 0.05, rng.uniform(-0.9, -0.5), 0.035)) for u in starts.tolist()]
    if pattern == "saddle":
        depth = rng.uniform(0.6, 0.8)
        return [(at(0.08, depth, 0.34), at(0.5, depth - 0.2, 0.38), at(0.86, depth, 0.34))]
    return []


def _paint_face(
    draw: ImageDraw.ImageDraw,
    figure: _Figure,
    coat: Colour,
    marking: Colour,
    place: _Placement,
    rng: np.random.Generator,
) -> None:
    def fill(part: Part, colour: Colour) -> None:
        draw.polygon(place.hull(part), fill=colour)

    if rng.random() < 0.4:
        # A collar of any colour: a strong colour that says nothing about the breed.
        collar: Colour = tuple(rng.integers(30, 240, 3).tolist())
        fill(figure.collar, collar)
    fill(figure.muzzle, _shade(coat, 1.35))
    fill((figure.nose,), (34, 28, 30))
    ear = figure.ears_near
    draw.polygon(place.hull(ear, grow=0.025), fill=_shade(coat, 0.4))
    fill(ear, _shade(marking, 0.9))
    if not figure.ears_hang:
        fill(tuple((x, y + 0.02, radius * 0.5) for x, y, radius in ear), (226, 160, 150))
    x, y, radius = figure.eye
    fill((figure.eye,), (248, 246, 240))
    fill(((x + 0.02, y + 0.01, radius * 0.66),), (36, 26, 24))
    fill(((x + 0.045, y - 0.025, radius * 0.22),), (255, 255, 255))


# --- background, light and camera -------------------------------------------------------------------------------


def _random_colour(rng: np.random.Generator) -> np.ndarray:
    """Any hue, mostly of low saturation, as real backgrounds are."""
    grey = rng.uniform(50, 225)
    return np.clip(grey + rng.normal(0.0, 1.0, 3) * rng.uniform(3, 22), 8, 247)


def _smooth_field(size_px: tuple[int, int], cells: int, rng: np.random.Generator, spread: float) -> np.ndarray:
    """Slowly varying noise around 0, float32 (height, width)."""
    coarse = Image.fromarray(rng.normal(0.0, spread, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize(size_px, Image.Resampling.BICUBIC))


def _background(size_px: tuple[int, int], place: _Placement, rng: np.random.Generator) -> Image.Image:
    """A wall or sky, a floor, and clutter."""
    width, height = size_px
    top, middle, bottom = _random_colour(rng), _random_colour(rng), _random_colour(rng)
    picture = Image.fromarray(np.stack([top, (top + middle) / 2, middle])[:, None].astype(np.uint8))
    picture = picture.resize(size_px, Image.Resampling.BILINEAR)
    draw = ImageDraw.Draw(picture)
    _draw_clutter(draw, (0, int(height * 0.75)), size_px, rng, count=int(rng.integers(2, 9)))
    feet = float(place.offset[1])
    horizon = feet - rng.uniform(0.1, 0.9) * place.scale
    slope = rng.uniform(-0.06, 0.06) * width
    floor = [(0, horizon - slope), (width, horizon + slope), (width, height), (0, height)]
    draw.polygon(floor, fill=tuple(bottom.astype(int).tolist()))
    _draw_clutter(draw, (int(horizon), height), size_px, rng, count=int(rng.integers(0, 6)))
    _draw_shadow(draw, place, bottom)
    if rng.random() < 0.5:
        picture = picture.filter(ImageFilter.BoxBlur(rng.uniform(1, 4)))
    return picture


def _draw_shadow(draw: ImageDraw.ImageDraw, place: _Placement, floor: np.ndarray) -> None:
    x, y = place.offset
    reach, depth = 1.1 * place.scale, 0.14 * place.scale
    draw.ellipse((x - reach, y - depth, x + reach, y + depth), fill=tuple((floor * 0.62).astype(int).tolist()))


def _draw_clutter(
    draw: ImageDraw.ImageDraw,
    rows: tuple[int, int],
    size_px: tuple[int, int],
    rng: np.random.Generator,
    *,
    count: int,
) -> None:
    """Boxes, balls, posts and tufts of grass, in colours that have nothing to do with the breed."""
    unit = min(size_px)
    for _ in range(count):
        x, y = rng.uniform(0, size_px[0]), rng.uniform(min(rows), max(rows))
        colour = tuple(_random_colour(rng).astype(int).tolist())
        w, h = rng.uniform(0.04, 0.28, 2) * unit
        kind = rng.integers(4)
        if kind == 0:
            draw.rectangle((x - w, y - h, x + w, y + h), fill=colour)
        elif kind == 1:
            draw.ellipse((x - w / 2, y - w / 2, x + w / 2, y + w / 2), fill=colour)
        elif kind == 2:
            draw.line((x, y - 2 * h, x + w * 0.3, y + h), fill=colour, width=max(1, int(w * 0.2)))
        else:
            for blade in rng.uniform(-1, 1, 6).tolist():
                draw.line((x + blade * w, y, x + blade * w * 1.5, y - h * (1.2 - abs(blade))), fill=colour, width=2)


@lru_cache(maxsize=1)
def _noise_tile() -> np.ndarray:
    """Unit normal noise, float32: drawn once, since a fresh field would cost more than the drawing."""
    side_px = 3 * MAX_SIDE_PX // 2
    return np.random.default_rng(0).standard_normal((side_px, side_px), dtype=np.float32)


def _noise(shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    tile = _noise_tile()
    y, x = (int(rng.integers(0, room - side + 1)) for room, side in zip(tile.shape, shape, strict=True))
    return tile[y : y + shape[0], x : x + shape[1]]


def _photograph(scene: Image.Image, alpha: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Light the scene unevenly and add what surfaces and a camera add: texture, fur, sensor noise, blur."""
    size_px, shape = scene.size, (scene.height, scene.width)
    animal = np.asarray(alpha, dtype=np.float32) / 255
    rows = np.linspace(-0.5, 0.5, shape[0], dtype=np.float32)[:, None]
    columns = np.linspace(-0.5, 0.5, shape[1], dtype=np.float32)[None, :]
    light = rng.normal(1.0, 0.09) + rng.normal(0, 0.13) * rows + rng.normal(0, 0.13) * columns
    cast = rng.normal(1.0, 0.03, 3).astype(np.float32)
    texture = _smooth_field(size_px, int(rng.integers(4, 24)), rng, spread=rng.uniform(4, 14))
    grain = (rng.uniform(1, 6) + 6 * animal) * _noise(shape, rng)
    lit = np.asarray(scene) * (np.clip(light, 0.5, 1.5)[:, :, None] * cast)
    lit += (grain + (1 - animal) * texture)[:, :, None]
    picture = Image.fromarray(np.clip(lit, 0, 255, out=lit).astype(np.uint8))
    if rng.random() < 0.3:
        picture = picture.filter(ImageFilter.BoxBlur(rng.uniform(0.3, 1.0) * max(shape) / 300))
    return picture
