"""Draws and writes the Synthetic videos: classes that differ only in the order of time.

Classes come in pairs, and a clip of the second class *is* a clip of the first one played
backwards. Nothing but the order of frames tells the two apart, because

* trajectories are symmetric about the middle of the video (position c ± s·(t − mid), size
  m·exp(±g·(t − mid))), the background stands still and the noise is drawn anew for every frame;
* the encoding doesn't know time either: every frame is an IDR frame of the same quantiser
  (constant QP, keyint 1, one thread), so a frame decodes to the same pixels wherever it stands.
  With P- or B-frames or rate control, quality would follow a pattern that only runs forwards, and
  a network would read that instead of the motion;
* a video has an odd number of frames at 30000/1001 frames/s. "8 frames, sampling rate 2, target
  30 fps" then spans just under 16 frames, so selection takes every second frame exactly
  (0, 2, …, 14), lands on the exact middle in a centre view, and never favours an end in training.

Shape letters: T frames, H×W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from timesformer.utils.files import written_whole

HEIGHT, WIDTH = 64, 80  # wider than high, so that the three test crops differ
LENGTHS = (17, 19, 21)
FPS = Fraction(30000, 1001)
QP = 26

MOTIONS = (
    ("moving left", "moving right"),
    ("moving up", "moving down"),
    ("growing", "shrinking"),
    ("turning clockwise", "turning counter-clockwise"),
)

SHAPES = ("disc", "square", "triangle", "star", "ring", "cross")
TEXTURES = ("plain", "stripes", "checks", "rings")

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Trajectory:
    """Where the object is in every frame.

    Attributes:
        x: column of its centre in pixels (T,).
        y: row of its centre in pixels (T,), downwards.
        radius: its size in pixels (T,).
    """

    x: Floats
    y: Floats
    radius: Floats


def draw_trajectory(rng: np.random.Generator, motion: int) -> Trajectory:
    """Draw a random path of `MOTIONS[motion]`, running as its first class does.

    Moving objects cross most of the frame and may leave it at the ends of a long video. Of the
    others, the centre stays close to the 48×64 pixels that all three crops share.
    """
    length = int(rng.choice(LENGTHS))
    time = np.arange(length, dtype=np.float32) - (length - 1) / 2
    reach = time[-1]
    x, y = np.full_like(time, WIDTH / 2), np.full_like(time, HEIGHT / 2)
    x += rng.uniform(-18, 18)
    y += rng.uniform(-18, 18)
    radius = np.full_like(time, np.exp(rng.uniform(np.log(7), np.log(15))))
    if motion in (0, 1):
        speed = rng.uniform(2.0, 3.4)
        middle = rng.uniform(-1, 1) * max(28 - speed * reach, 5)
        if motion == 0:
            x = (WIDTH / 2 + middle - speed * time).astype(np.float32)
        else:
            y = (HEIGHT / 2 + middle - speed * time).astype(np.float32)
    elif motion == 2:
        middle = rng.uniform(8, 13)
        radius = (middle * np.exp(rng.uniform(0.045, 0.08) * time)).astype(np.float32)
    else:
        orbit = rng.uniform(9, 16)
        angle = rng.uniform(0, 2 * np.pi) + rng.uniform(0.11, 0.22) * time
        # Rows run downwards, so a growing angle turns clockwise on the screen.
        x = ((x + WIDTH / 2) / 2 + orbit * np.cos(angle)).astype(np.float32)
        y = ((y + HEIGHT / 2) / 2 + orbit * np.sin(angle)).astype(np.float32)
    return Trajectory(x, y, radius)


@dataclass(frozen=True)
class Scene:
    """Frames, and what can be seen in each of them.

    Attributes:
        frames: RGB (T, H, W, 3).
        shape: of the object, one of SHAPES.
        colour: mean of the object's two colours, RGB in [0, 255].
        opacity: how much of the object each pixel shows, in [0, 1] (T, H, W).
    """

    frames: NDArray[np.uint8]
    shape: str
    colour: Floats
    opacity: Floats


def render(rng: np.random.Generator, trajectory: Trajectory) -> Scene:
    """Draw an object of random look on a random still background."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    still = background(rng, rows, columns)
    place = trajectory.x, trajectory.y, trajectory.radius
    coordinates = object_coordinates(rng, rows, columns, *place)
    shape = str(rng.choice(SHAPES))
    colours = _object_colours(rng, still.mean(axis=(1, 2)))
    drawn, opacity = paint(rng, still[:, None], shape, coordinates, trajectory.radius, colours)
    noise = noise_like(rng, opacity)

    frames = np.empty((*opacity.shape, 3), np.uint8)
    for channel, picture in enumerate(drawn):
        frames[..., channel] = np.clip(picture + noise, 0, 255)
    colour = ((colours[0] + colours[1]) / 2).astype(np.float32)
    return Scene(frames, shape, colour, opacity.astype(np.float32))


def object_coordinates(
    rng: np.random.Generator, rows: Floats, columns: Floats, x: Floats, y: Floats, radius: Floats
) -> tuple[Floats, Floats]:
    """Return where every pixel lies as an object of unit size, randomly turned, sees it.

    Args:
        rng: draws the angle.
        rows: of the pixels (H, W).
        columns: of the pixels (H, W).
        x: column of the object's centre in every frame, in pixels (T,).
        y: its row (T,).
        radius: its size in pixels (T,).

    Returns:
        Right and down of the centre, (T, H, W) each.
    """
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    radius = radius[:, None, None]
    right, down = (columns - x[:, None, None]) / radius, (rows - y[:, None, None]) / radius
    return right * cos + down * sin, down * cos - right * sin


def paint(
    rng: np.random.Generator,
    still: Floats,
    shape: str,
    coordinates: tuple[Floats, Floats],
    radius: Floats,
    colours: tuple[Floats, Floats],
) -> tuple[Floats, Floats]:
    """Paint an object of random texture into pictures.

    Args:
        rng: draws the texture.
        still: what is behind it (3, 1, H, W).
        shape: one of SHAPES.
        coordinates: see `object_coordinates`.
        radius: in pixels (T,).
        colours: its two, RGB or grey, in [0, 255].

    Returns:
        The pictures (3, T, H, W), and how much of the object each pixel shows (T, H, W).
    """
    u, v = coordinates
    # One pixel wide ramp at the edge: motion below a pixel shows, too.
    opacity = np.clip(0.5 - distance(shape, u, v) * radius[:, None, None], 0, 1)
    pattern = _pattern(rng, str(rng.choice(TEXTURES)), u, v)
    first, second = (np.broadcast_to(colour, 3)[:, None, None, None] for colour in colours)
    drawn = first + (second - first) * pattern
    return still + (drawn - still) * opacity, opacity


def noise_like(rng: np.random.Generator, frames: Floats) -> Floats:
    """Draw noise of a random strength, grey and anew for every pixel of every frame (T, H, W)."""
    return rng.standard_normal(frames.shape, dtype=np.float32) * np.float32(rng.uniform(2, 8))


def background(rng: np.random.Generator, rows: Floats, columns: Floats) -> Floats:
    """Two colours blended by a slope, a wave and blotches: (3, H, W) in [0, 255]."""
    direction, wave = rng.uniform(0, 2 * np.pi, 2)
    slope = (columns - WIDTH / 2) * np.cos(direction) + (rows - HEIGHT / 2) * np.sin(direction)
    along = columns * np.cos(wave) + rows * np.sin(wave)
    ripple = np.sin(along * rng.uniform(0.15, 0.8) + rng.uniform(0, 2 * np.pi))
    coarse = rng.uniform(-1, 1, (rows.shape[0] // 8, rows.shape[1] // 8))
    blotches = np.kron(coarse, np.ones((8, 8)))
    weights = rng.uniform(0, 1, 3) * (0.012, 0.25, 0.25)
    blend = np.clip(0.5 + weights[0] * slope + weights[1] * ripple + weights[2] * blotches, 0, 1)
    start = rng.uniform(20, 100, 3)
    end = np.clip(start + rng.uniform(-24, 24, 3), 0, 255)
    return (start[:, None, None] + (end - start)[:, None, None] * blend).astype(np.float32)


def _object_colours(rng: np.random.Generator, background: Floats) -> tuple[Floats, Floats]:
    """Two colours of an object, both brighter than the mean colour of the background.

    Were brighter and darker equally likely, a network as small as the demo's wouldn't find the
    object at all within its few epochs: see docs/synthetic.md.
    """
    while True:
        first, second = rng.uniform(60, 255, (2, 3)).astype(np.float32)
        contrasts = first.mean() - background.mean(), second.mean() - background.mean()
        if min(contrasts) > 40 and sum(contrasts) / 2 > 70:
            return first, second


def distance(shape: str, u: Floats, v: Floats) -> Floats:
    """Signed distance to the edge of a shape of unit size, negative inside."""
    if shape == "square":
        return np.maximum(np.abs(u), np.abs(v)) - np.float32(0.85)
    if shape == "triangle":
        return np.maximum(np.abs(u) * np.float32(0.866) - v / 2, v) - np.float32(0.6)
    if shape == "cross":
        long, short = np.float32(1), np.float32(0.36)
        across = np.maximum(np.abs(u) - long, np.abs(v) - short)
        return np.minimum(across, np.maximum(np.abs(u) - short, np.abs(v) - long))
    r = np.hypot(u, v)
    if shape == "star":
        return (r - np.float32(0.72) - np.float32(0.28) * np.cos(5 * np.arctan2(v, u))) / 2
    if shape == "ring":
        return np.abs(r - np.float32(0.7)) - np.float32(0.3)
    return r - np.float32(0.95)  # disc


def _pattern(rng: np.random.Generator, texture: str, u: Floats, v: Floats) -> Floats:
    """How much of the second colour each point of the object has, in [0, 1]."""
    frequency, phase = np.float32(rng.uniform(4, 8)), np.float32(rng.uniform(0, 2 * np.pi))
    if texture == "stripes":
        wave = np.sin(u * frequency + phase)
    elif texture == "checks":
        wave = np.sin(u * frequency + phase) * np.sin(v * frequency)
    elif texture == "rings":
        wave = np.sin(np.hypot(u, v) * frequency + phase)
    else:
        return np.full_like(u, 0.5)
    return np.clip(0.5 + 2 * wave, 0, 1)


def write_video(path: Path, frames: NDArray[np.uint8], fps: Fraction = FPS) -> None:
    """Write RGB frames (T, H, W, 3) as H.264; `path` appears only when it is complete."""
    # bitexact leaves out time and versions: equal frames give equal files.
    options = {"fflags": "+bitexact"}
    with (
        written_whole(path) as partial,
        av.open(str(partial), "w", format="mp4", options=options) as container,
    ):
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.thread_count = 1
        stream.options = {"preset": "ultrafast", "qp": str(QP), "x264-params": "keyint=1"}
        for planes in _yuv420(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuv420p")))
        container.mux(stream.encode())


def _yuv420(frames: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB (T, H, W, 3) -> BT.601 planes (T, H·3/2, W): Y, then U and V at half the size.

    All frames at once in numpy take a fifth of the time of FFmpeg's scaler on one frame at a time.
    """
    T, H, W, _ = frames.shape
    r, g, b = np.moveaxis(frames.astype(np.float32), -1, 0)
    planes = np.empty((T, H * 3 // 2, W), np.uint8)
    planes[:, :H] = 16.5 + 0.25679 * r + 0.50413 * g + 0.09791 * b
    r, g, b = (
        (c[:, ::2, ::2] + c[:, ::2, 1::2] + c[:, 1::2, ::2] + c[:, 1::2, 1::2]) / 4
        for c in (r, g, b)
    )
    u = 128.5 - 0.14822 * r - 0.29099 * g + 0.43922 * b
    v = 128.5 + 0.43922 * r - 0.36779 * g - 0.07143 * b
    planes[:, H:] = np.concatenate([u.reshape(T, -1), v.reshape(T, -1)], axis=1).reshape(T, -1, W)
    return planes
