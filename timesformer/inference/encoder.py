"""Clips to features, before the head: of a clip, of each of its frames, or of each patch.

Letters: B clips, T frames of features (of tubelets, where a model has such), h×w patches, D width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from timesformer.inference.passes import DecodedPass, ReadPiece
from timesformer.inference.predictor import BATCH, Predictor, evaluating
from timesformer.models.base import VideoModel
from timesformer.models.vit import TimeSformer
from timesformer.utils.errors import UserError
from timesformer.utils.precision import autocast

LEVELS = ("clip", "frame", "patch")
LAST = -1


class Encoder:
    """A model without its head.

    Attributes:
        predictor: the model, and the precision of its passes.
        level: what has a row: clip (D,), frame (T, D) or patch (T, h, w, D).
        layer: the block after which it is read, from 0. The last one is followed by the model's
            norm, as the head sees it; others come as they are. None of a model without blocks.
        batch_size: clips in a forward pass.
    """

    def __init__(
        self, predictor: Predictor, level: str = "clip", layer: int = LAST, batch_size: int = BATCH
    ) -> None:
        """Take a model.

        Args:
            predictor: as `load` gives it.
            level: one of LEVELS.
            layer: number of a block, from 0; negative from the end.
            batch_size: clips in a forward pass.

        Raises:
            UserError: the model has no such layer, or no frames or patches at all; or it is an
                exported file.
        """
        if level not in LEVELS:
            raise UserError(f"level {level!r:.60}: one of {', '.join(LEVELS)}")
        self.predictor, self.level, self.batch_size = predictor, level, batch_size
        model: Any = predictor.model
        if not isinstance(model, VideoModel):
            raise UserError("an exported file gives scores alone: take the weights for features")
        if isinstance(model, TimeSformer):
            depth = len(model.model.blocks)
            if not -depth <= layer < depth:
                raise UserError(f"layer {layer}: the model has {depth} blocks, 0 to {depth - 1}")
            self.layer: int | None = range(depth)[layer]
            self.at_the_end = self.layer == depth - 1
        elif level == "clip" and layer == LAST:
            self.layer, self.at_the_end = None, True
        else:
            built = model.architecture
            name = built.model if built else type(model).__name__
            asked = f"level {level}" if level != "clip" else f"layer {layer}"
            raise UserError(
                f"{asked}: {name} has no tokens of frames and patches after each block, as "
                "TimeSformers have: level clip, of the last layer, is what it gives"
            )

    @torch.no_grad()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Make features of clips, `batch_size` at a time.

        Args:
            pixels: as `model.crop` cuts them, RGB 0..255, (B, 3, T, H, W).

        Returns:
            Float32 on the CPU: (B, D), (B, T, D) or (B, T, h, w, D).

        Raises:
            UserError: they aren't finite.
        """
        of, device = self.predictor, self.predictor.device
        found = []
        with evaluating(of.model), autocast(device, of.amp):
            for some in pixels.split(self.batch_size):
                clips = of.model.normalize(some.to(device, non_blocking=True))
                found.append(self._features(clips).float().cpu())
        features = torch.cat(found)
        if not features.isfinite().all():
            advice = f", or {of.amp} can't hold what they make" if of.amp != "none" else ""
            raise UserError(f"the features aren't finite: the weights are no good{advice}")
        return features

    def _features(self, clips: Tensor) -> Tensor:
        model = self.predictor.model
        if self.level == "clip" and self.at_the_end:
            return model.clip_features(clips)
        cls = self.level == "clip" and bool(model.model.num_prefix_tokens)
        [tokens] = model.get_intermediate_layers(clips, [self.layer], self.at_the_end, cls)
        if cls:
            return tokens[1]
        if self.level == "patch":
            return tokens
        return tokens.mean(dim=(2, 3) if self.level == "frame" else (1, 2, 3))


def features_of(
    encoder: Encoder, decoded: DecodedPass, crops: int, sliding: bool
) -> list[tuple[ReadPiece, NDArray[np.float32], NDArray[np.float64]]]:
    """Make features of a pass: those of each of its pieces, with their times in seconds.

    Crops are averaged. Of a clip there is one row: at the middle of each window (n, D), or, where
    the clips are the test's, one of all of them (1, D). Of frames and patches there are those of
    all clips in a row: (n·T, D), (n·T, h, w, D), at the times of the frames.

    Args:
        encoder: the model.
        decoded: a pass; pieces that couldn't be read have no rows.
        crops: S, of each clip.
        sliding: clips are windows.
    """
    rows = iter(encoder(decoded.pixels).split(crops) if len(decoded.pixels) else ())
    found = []
    for read in decoded.pieces:
        if read.error:
            found.append((read, np.empty((0, 0), np.float32), np.empty(0)))
            continue
        clips = torch.stack([next(rows).mean(dim=0) for _ in range(read.piece.count)])
        if encoder.level != "clip":
            frames = clips.shape[1]
            times = read.times.reshape(len(clips) * frames, -1).mean(axis=1)
            clips = clips.flatten(0, 1)
        elif sliding:
            times = read.middles
        else:
            times = read.middles.mean(keepdims=True)
            clips = clips.mean(dim=0, keepdim=True)
        found.append((read, clips.numpy(), times))
    return found
