"""What every model takes: a batch of clips. Asked of shapes alone, so it costs nothing."""

from __future__ import annotations

from typing import Any

from torch import Tensor


def check_clips(x: Any, channels: int = 3, least_frames: int = 1, least_side: int = 1) -> None:
    """Make sure that a model can read its input, a float tensor (B, C, T, H, W).

    Args:
        x: the input.
        channels: C.
        least_frames: that the model needs.
        least_side: of a frame in pixels, likewise.

    Raises:
        ValueError: it is something else; the message says what, and what was likely meant.
    """
    if not isinstance(x, Tensor):
        raise ValueError(f"clips are a tensor (B, {channels}, T, H, W), not {type(x).__name__}")
    if x.ndim != 5 or x.shape[1] != channels:
        raise ValueError(
            f"clips are (B, {channels}, T, H, W), not {tuple(x.shape)}{_hint(x, channels)}"
        )
    if x.shape[0] == 0 or x.shape[2] == 0:
        raise ValueError(f"there are no clips, or no frames, in {tuple(x.shape)}")
    if not x.is_floating_point():
        raise ValueError(
            f"clips are floats, resized and normalised, not {x.dtype}: model.transform(frames) "
            "makes them of uint8 frames"
        )
    if x.shape[2] < least_frames or x.shape[3] < least_side or x.shape[4] < least_side:
        raise ValueError(
            f"the model needs {least_frames} frames of {least_side}×{least_side} pixels or more, "
            f"not {tuple(x.shape[2:])}"
        )


def _hint(x: Tensor, channels: int) -> str:
    """Say what likely was meant: the axes in another order, or one left out."""
    if x.ndim == 5 and x.shape[2] == channels:
        return ": if they are (B, T, C, H, W), take x.transpose(1, 2)"
    if x.ndim == 5 and x.shape[4] == channels:
        return ": if they are (B, T, H, W, C), take x.permute(0, 4, 1, 2, 3)"
    if x.ndim == 4 and x.shape[0] == channels:
        return ": if it is one clip, take x[None]"
    if x.ndim == 4 and x.shape[1] == channels:
        return ": if they are images, take x[:, :, None]"
    return ""
