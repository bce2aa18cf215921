"""Frames as people have them: tensors, arrays, images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor


def as_frames(given: Any) -> Tensor:
    """Return frames as one uint8 tensor (T, H, W, 3), RGB.

    Args:
        given: uint8 (T, H, W, 3), a tensor or an array; or one image for each frame, of PIL or
            uint8 (H, W, 3). A PIL image of another mode is converted.

    Raises:
        ValueError: they are something else; the message says what.
    """
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        images = [_as_image(image) for image in given]
        if not images:
            raise ValueError("there are no frames")
        if others := {image.dtype for image in images} - {torch.uint8}:
            raise _other_kind(others.pop())
        if shapes := {tuple(image.shape) for image in images[1:]} - {tuple(images[0].shape)}:
            raise ValueError(
                f"frames of a clip are of one size, not {tuple(images[0].shape)} and {min(shapes)}"
            )
        given = torch.stack(images)
    frames = _tensor(given) if isinstance(given, np.ndarray) else given
    if not isinstance(frames, Tensor):
        raise ValueError(
            f"frames are a tensor, an array or a list of images, not {type(given).__name__}"
        )
    if frames.ndim != 4 or frames.shape[3] != 3:
        hint = ""
        if frames.ndim == 4 and 3 in frames.shape[:2]:
            first = "(3, T, H, W)" if frames.shape[0] == 3 else "(T, 3, H, W)"
            order = (1, 2, 3, 0) if frames.shape[0] == 3 else (0, 2, 3, 1)
            hint = f"; if they are {first}, take .permute{order}"
        raise ValueError(f"frames are (T, H, W, 3), not {tuple(frames.shape)}{hint}")
    if frames.dtype != torch.uint8:
        raise _other_kind(frames.dtype)
    if not frames.numel():
        raise ValueError(f"there are no frames: {tuple(frames.shape)}")
    return frames


def upright_rgb(picture: Image.Image) -> np.ndarray:
    """Return an image of PIL as uint8 RGB (H, W, 3), turned as its EXIF data say.

    Sixteen bits a channel become eight, as 65535 becomes 255. Transparency is left out.

    Raises:
        ValueError: its pixels are floats, of which nobody says what is white.
    """
    picture = ImageOps.exif_transpose(picture)
    if picture.mode == "F":
        raise ValueError("an image of floats: make it one of whole numbers, 0 to 255")
    if picture.mode.startswith("I"):  # 16 bits, or 32 that hold 16; convert() would cut them
        deep = np.asarray(picture).astype(np.float64) / 65535
        levels = (deep.clip(0, 1) * 255).round().astype(np.uint8)
        return np.repeat(levels[..., None], 3, axis=2)
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")
    return np.array(picture.convert("RGB"))


def _as_image(image: Any) -> Tensor:
    if isinstance(image, Image.Image):
        return torch.from_numpy(upright_rgb(image))
    if isinstance(image, np.ndarray):
        return _tensor(image)
    if not isinstance(image, Tensor):
        raise ValueError(f"a frame is an image of PIL, an array or a tensor, not {type(image)}")
    return image


def _tensor(array: np.ndarray) -> Tensor:
    try:
        return torch.from_numpy(np.ascontiguousarray(array))  # [..., ::-1] of OpenCV's frames
    except TypeError:
        raise _other_kind(array.dtype) from None


def _other_kind(dtype: object) -> ValueError:
    return ValueError(f"frames are uint8 pixels, 0 to 255, not {dtype}: they are normalised here")
