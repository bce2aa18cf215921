"""Draws the twins of Synthetic: the same videos, to be told apart by looks or by order in time.

A video shows eight moments of a scene, one a frame. How a scene looks (one of 16:
shape × hue) and in which order its moments come (one of 16) are independent of each other. The
*static* twin asks for the looks, which any single frame shows; the *temporal* twin asks for the
order, which none does. So they stand for data sets like Kinetics and like Something-Something.

All orders of a `Group` show the very same frames. Who ignores their order can tell groups apart
and nothing more, which makes the ceiling of such a model on the temporal twin: groups / orders,
4 / 16.

What makes both hard: the camera jumps between moments, there is noise, and grey distractors of any
shape stand in the scene. The encoding knows no time either: see `synthetic_video`. A video has
eight frames at exactly 30 frames/s, so a clip of eight frames at rate 1 is the whole of it.

Shape letters: T frames, H×W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from timesformer.prepare.synthetic_video import (
    Floats,
    background,
    noise_like,
    object_coordinates,
    paint,
)

HEIGHT, WIDTH = 48, 64
MOMENTS = 8
FPS = Fraction(30)
CAMERA = 3  # pixels that it may jump to either side
MARGIN = 8  # of the picture that it is drawn from; the background needs a multiple of 8

# Of backgrounds: else finding the object is the hard part, and small models are at chance for long.
DARKER = np.float32(0.5)

SHAPES = ("disc", "cross")
HUES: Mapping[str, tuple[float, float, float]] = {
    "red": (225, 60, 60),
    "orange": (225, 140, 50),
    "yellow": (215, 215, 60),
    "green": (60, 200, 70),
    "cyan": (60, 205, 205),
    "blue": (90, 100, 230),
    "violet": (165, 80, 225),
    "pink": (230, 120, 180),
}
LOOKS = tuple(f"{hue} {shape}" for hue in HUES for shape in SHAPES)


@dataclass(frozen=True)
class Group:
    """Orders of the same moments.

    Attributes:
        name: what happens.
        orders: the class of each order, and which moment comes first, second, …
    """

    name: str
    orders: Mapping[str, tuple[int, ...]]


FORWARD = (0, 1, 2, 3, 4, 5, 6, 7)
AND_BACK = (0, 2, 4, 6, 7, 5, 3, 1)
TWICE = (0, 2, 4, 6, 1, 3, 5, 7)
SECOND_HALF_FIRST = (4, 5, 6, 7, 0, 1, 2, 3)
BY_TURNS = (0, 4, 1, 5, 2, 6, 3, 7)
GROUPS = (
    Group(
        "crosses the picture",  # moment 0 is at the left
        {
            "moving right": FORWARD,
            "moving left": FORWARD[::-1],
            "moving right and back": AND_BACK,
            "moving left and back": tuple(7 - m for m in AND_BACK),
            "moving right twice": TWICE,
            "moving left twice": tuple(7 - m for m in TWICE),
        },
    ),
    Group(
        "two objects come one at a time",  # 0 to 3 show the large one
        {
            "large before small": FORWARD,
            "small before large": SECOND_HALF_FIRST,
            "large and small by turns": BY_TURNS,
        },
    ),
    Group(
        "changes size",  # moment 0 is the smallest
        {"growing": FORWARD, "shrinking": FORWARD[::-1], "growing and shrinking": AND_BACK},
    ),
    Group(
        "is there half of the time",  # 0 to 3
        {
            "going": FORWARD,
            "coming": SECOND_HALF_FIRST,
            "coming and going": (4, 5, 0, 1, 2, 3, 6, 7),
            "blinking": BY_TURNS,
        },
    ),
)
ORDERS = tuple(name for group in GROUPS for name in group.orders)
CLASSES = len(ORDERS)
# Best that a model without a sense of order can reach on the temporal twin, as a share.
ORDER_FREE_CEILING = len(GROUPS) / CLASSES


def group_of(order: int) -> int:
    """Return the group of order number `order` of ORDERS."""
    return next(i for i, group in enumerate(GROUPS) if ORDERS[order] in group.orders)


def classes_of(index: int, whole_groups: bool) -> tuple[int, int]:
    """Return (look, order) of video `index`: 16 × 16 videos have every pair once.

    Args:
        index: of the video in its split.
        whole_groups: videos of a block of 16 that are of one group are one scene, so they look
            alike; 16 blocks have every pair of a look and an order once.
    """
    block, order = divmod(index, CLASSES)
    return (block + (5 * group_of(order) if whole_groups else order)) % len(LOOKS), order


def draw_scene(
    rng: np.random.Generator, look: int, order: int
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Draw a video.

    All that is random is drawn before the order matters: the same generator and another order of
    the group give the same frames otherwise arranged.

    Args:
        rng: of the scene.
        look: of LOOKS.
        order: of ORDERS.

    Returns:
        RGB (T, H, W, 3), and how much of an object each pixel shows, in [0, 1] (T, H, W).
    """
    group = group_of(order)
    moments, opacity = _moments(rng, look, group)
    noisy = np.clip(moments + noise_like(rng, opacity)[..., None], 0, 255).astype(np.uint8)
    arranged = list(GROUPS[group].orders[ORDERS[order]])
    return noisy[arranged], opacity[arranged]


def _moments(rng: np.random.Generator, look: int, group: int) -> tuple[Floats, Floats]:
    """Draw the eight moments without noise (8, H, W, 3), and their objects' opacity (8, H, W)."""
    size = (HEIGHT + 2 * MARGIN, WIDTH + 2 * MARGIN)
    rows, columns = np.mgrid[: size[0], : size[1]].astype(np.float32)
    still = DARKER * background(rng, rows, columns)[:, None]
    for _ in range(rng.integers(1, 4)):
        grey = rng.uniform(30, 110, (2, 1)).astype(np.float32)
        y, x = rng.uniform(0, size).astype(np.float32)
        radius = np.array([rng.uniform(3, 7)], np.float32)
        shape = SHAPES[rng.integers(len(SHAPES))]
        coordinates = object_coordinates(rng, rows, columns, x[None], y[None], radius)
        still, _ = paint(rng, still, shape, coordinates, radius, (grey[0], grey[1]))

    hue, number = divmod(look, len(SHAPES))
    colour = rng.uniform(-25, 25, 3) + [*HUES.values()][hue]
    both = np.stack([colour, colour * rng.uniform(0.55, 1)]).astype(np.float32)
    x, y, radius = _paths(rng, group)
    coordinates = object_coordinates(rng, rows, columns, x + MARGIN, y + MARGIN, radius)
    pictures, opacity = paint(rng, still, SHAPES[number], coordinates, radius, (both[0], both[1]))

    pictures = np.moveaxis(pictures, 0, -1)
    corners = rng.integers(MARGIN - CAMERA, MARGIN + CAMERA + 1, (MOMENTS, 2))
    seen = [(m, slice(y, y + HEIGHT), slice(x, x + WIDTH)) for m, (y, x) in enumerate(corners)]
    return np.stack([pictures[place] for place in seen]), np.stack([opacity[p] for p in seen])


def _paths(rng: np.random.Generator, group: int) -> tuple[Floats, Floats, Floats]:
    """Column and row of the centre, and radius, of the object in each moment: (8,) each, pixels."""
    number = np.arange(MOMENTS, dtype=np.float32) - (MOMENTS - 1) / 2  # symmetric about 0
    x = np.full(MOMENTS, WIDTH / 2 + rng.uniform(-11, 11), np.float32)
    y = np.full(MOMENTS, HEIGHT / 2 + rng.uniform(-11, 11), np.float32)
    radius = np.full(MOMENTS, rng.uniform(5.5, 8.5), np.float32)
    if group == 0:
        x = WIDTH / 2 + rng.uniform(-2, 2) + np.float32(rng.uniform(4.5, 5.5)) * number
    elif group == 1:
        side = rng.choice((-1, 1)) * rng.uniform(6, 11)
        x = np.where(number < 0, WIDTH / 2 + side, WIDTH / 2 - side)
        radius = np.where(number < 0, rng.uniform(8, 10), rng.uniform(4, 5.5))
    elif group == 2:
        radius = radius * np.exp(np.float32(0.13) * number)
    else:
        x = np.where(number < 0, x, -10 * WIDTH)  # out of every picture
    return x.astype(np.float32), y, radius.astype(np.float32)
