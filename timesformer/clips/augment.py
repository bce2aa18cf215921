"""What happens to a batch of clips on the device: augmentation while training, normalisation.

Letters: B clips, T frames, H×W pixels.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from timesformer.clips.training import seeded
from timesformer.clips.transform import Normalize
from timesformer.utils.rng import keyed_rng


class ClipAugment:
    """Photometric augmentation, normalisation, then random erasing, each clip by its own key.

    The transforms are torchvision's; all frames of a clip share their parameters.

    Args:
        normalize: pixels to numbers.
        rand_augment: (operations for each clip, magnitude 0..30); no operations for none.
        color_jitter: strength of changes of brightness, contrast and saturation; 0 for none.
        erasing: probability that a box of all frames is set to the mean.
        seed: of the run.
    """

    def __init__(
        self,
        normalize: Normalize,
        rand_augment: tuple[int, int] = (0, 9),
        color_jitter: float = 0.0,
        erasing: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.normalize = normalize
        self.seed = seed
        operations, magnitude = rand_augment
        self.photometric: list[Callable[[Tensor], Tensor]] = []
        self.erasing: Callable[[Tensor], Tensor] | None = None
        if not (operations or color_jitter or erasing):
            return
        from torchvision.transforms import v2  # takes seconds, and few need it

        if operations:
            self.photometric.append(v2.RandAugment(operations, magnitude))
        if color_jitter:
            self.photometric.append(v2.ColorJitter(color_jitter, color_jitter, color_jitter))
        if erasing:
            self.erasing = v2.RandomErasing(erasing)

    def __call__(self, clips: Tensor, index: Tensor, view: Tensor, epoch: int) -> Tensor:
        """Augment and normalise clips (B, 3, T, H, W).

        Args:
            clips: uint8 pixels, on any device.
            index: of each clip's video (B,).
            view: which of the video's clips it is (B,).
            epoch: with index and view it is the key of a clip's randomness.
        """
        if not (self.photometric or self.erasing):
            return self.normalize(clips)
        out = []
        keys = zip(index.tolist(), view.tolist(), strict=True)
        for clip, (video, sample) in zip(clips, keys, strict=True):
            rng = keyed_rng("augment", self.seed, epoch, video, sample)
            with seeded(int(rng.integers(2**63))):
                out.append(self._one(clip))
        return torch.stack(out)

    def _one(self, clip: Tensor) -> Tensor:
        frames = clip.transpose(0, 1)  # (T, 3, H, W), as torchvision takes videos
        for transform in self.photometric:
            frames = transform(frames)
        clip = self.normalize(frames.transpose(0, 1))
        return self.erasing(clip.transpose(0, 1)).transpose(0, 1) if self.erasing else clip
