"""A model's features in mteb, which scores embeddings of videos by its tasks.

    encoder = VideoEncoder(timesformer.load("runs/a"))
    mteb.evaluate(encoder, mteb.get_tasks(["HMDB51Classification"]))

An embedding is what `timesformer extract` gives of a video: the mean over the test's views. Needs
`pip install 'timesformer[mteb]'`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from timesformer.clips.sampling import sampler_of
from timesformer.inference.encoder import Encoder
from timesformer.inference.predictor import BATCH, Predictor
from timesformer.integrations.described import Described
from timesformer.models.base import TakesClips, Testing
from timesformer.utils.errors import UserError
from timesformer.utils.tensors import digest_of


@dataclass(frozen=True)
class Clips:
    """Makes clips of a batch of videos: what mteb's loaders call, in their processes.

    Attributes:
        described: what is known of the model's input.
        testing: the clips and crops of a video.
    """

    described: TakesClips
    testing: Testing

    def __call__(self, rows: Sequence[dict[str, Any]]) -> Tensor:
        """Return the pixels of rows with a `video`, a decoder of torchcodec each.

        Frames are chosen by number and mean rate: where the rate varies, not by their times.

        Returns:
            Float RGB in [0, 255], (B, clips x crops, 3, T, H, W).

        Raises:
            UserError: a row has no video.
        """
        return torch.stack([self._views(row.get("video")) for row in rows])

    def _views(self, video: Any) -> Tensor:
        if video is None:
            raise UserError("mteb: a row has no video, and the model takes nothing else")
        length, fps = video.metadata.num_frames, video.metadata.average_fps
        sampler, count = sampler_of(**self.described.sampling), self.testing.num_clips
        views = []
        for i in range(count):
            numbers = sampler.place(length, fps, (i, count)).numbers(length)
            frames = video.get_frames_at(numbers).data.permute(0, 2, 3, 1)  # of (T, 3, H, W)
            views.append(self.described.crop(frames, self.testing.num_crops))
        return torch.cat(views)


class VideoEncoder:
    """A model as mteb's `EncoderProtocol`, for tasks of videos alone."""

    def __init__(self, model: Predictor, name: str = "timesformer/model", batch: int = BATCH):
        """Take a model.

        Args:
            model: as `load` gives it; its `testing` says the views of a video.
            name: OWNER/NAME under which mteb keeps results, beside the digest of the weights.
            batch: clips in a forward pass.

        Raises:
            UserError: it is an exported file.
        """
        self._encoder, self._name = Encoder(model, batch_size=batch), name
        self._clips = Clips(Described.of(model.model), model.testing)

    def encode(self, inputs: Any, **_: Any) -> Any:
        """Return embeddings, an array (N, D), of a loader of rows with a `video`.

        Raises:
            UserError: a row has no video, or the features aren't finite.
        """
        inputs.collate_fn = self._clips
        found = []
        for pixels in inputs:
            features = self._encoder(pixels.flatten(0, 1))
            found.append(features.unflatten(0, pixels.shape[:2]).mean(dim=1))
        return torch.cat(found).numpy()

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return the cosine of each of some embeddings with each of others: (N, M)."""
        return _unit(embeddings1) @ _unit(embeddings2).T

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Return the cosine of each embedding with that of its place: (N,)."""
        return (_unit(embeddings1) * _unit(embeddings2)).sum(dim=-1)

    @cached_property
    def mteb_model_meta(self) -> Any:
        """What mteb says of the model; results of other weights are never taken for its own."""
        from mteb.models.model_meta import ModelMeta, ScoringFunction

        weights = self._encoder.predictor.model.state_dict()
        return ModelMeta.create_empty({
            "name": self._name,
            "revision": digest_of(weights),
            "modalities": ["video"],
            "framework": ["PyTorch"],
            "n_parameters": sum(weight.numel() for weight in weights.values()),
            "similarity_fn_name": ScoringFunction.COSINE,
        })  # fmt: skip


def _unit(embeddings: Any) -> Tensor:
    """Return embeddings (N, D) or one (D,) as (N, D), each of length 1."""
    return F.normalize(torch.atleast_2d(torch.as_tensor(embeddings)), dim=-1)
