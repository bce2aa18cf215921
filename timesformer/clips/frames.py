"""Frames as people have them: tensors, arrays, images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
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
        if shapes := {tuple(image.shape) for image in images[1:]} - {tuple(images[0].shape)}:
            raise ValueError(
                f"frames of a clip are of one size, not {tuple(images[0].shape)} and {min(shapes)}"
            )
        given = torch.stack(images)
    frames = torch.from_numpy(given) if isinstance(given, np.ndarray) else given
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
        raise ValueError(
            f"frames are uint8 pixels, 0 to 255, not {frames.dtype}: they are normalised here"
        )
    if not frames.numel():
        raise ValueError(f"there are no frames: {tuple(frames.shape)}")
    return frames


def _as_image(image: Any) -> Tensor:
    if hasattr(image, "convert"):  # PIL's
        image = np.array(image.convert("RGB"))
    elif not isinstance(image, np.ndarray | Tensor):
        raise ValueError(f"a frame is an image of PIL, an array or a tensor, not {type(image)}")
    return torch.as_tensor(image)
