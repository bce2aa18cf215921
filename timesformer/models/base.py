"""What every registered model knows beside its weights: its knobs, its input, its classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, NamedTuple

from torch import Tensor, nn

from timesformer.clips.ensemble import ensemble, probabilities
from timesformer.clips.frames import as_frames
from timesformer.clips.preprocessing import Preprocessing
from timesformer.clips.transform import EvalTransform, Normalize
from timesformer.clips.tubes import PatchGrid
from timesformer.models.architecture import KNOBS, Architecture
from timesformer.models.explain.relevance import Explanation, explain
from timesformer.utils.errors import ConfigError


class Testing(NamedTuple):
    """How a test makes one score of a video: its views, and how their scores are joined.

    Attributes:
        num_clips: clips along time.
        num_crops: crops of each clip, 1 or 3.
        ensemble: see `clips.ensemble`.
        multi_label: a video may have several of the classes.
    """

    num_clips: int = 1
    num_crops: int = 3
    ensemble: str = "sum"
    multi_label: bool = False

    @property
    def views(self) -> str:
        """Clips × crops, as people write it: "1x3"."""
        return f"{self.num_clips}x{self.num_crops}"

    def joined(self, per_view: Tensor) -> Tensor:
        """Join the scores of one video's views: (n, K) -> (K,)."""
        return ensemble(per_view[None], self.ensemble, self.multi_label)[0]

    def probabilities(self, scores: Tensor) -> Tensor:
        """Return the probabilities of joined scores, ranked as these: (V, K) -> (V, K)."""
        views = self.num_clips * self.num_crops
        return probabilities(scores, self.ensemble, views, self.multi_label)


_SAID = ("normalize", "sampling", "testing")  # properties that `preprocessing` says


class TakesClips:
    """What is known of the clips that a model takes, and of what its scores stand for.

    Attributes:
        preprocessing: what the weights expect of their input, as `Preprocessing.to_json` has it,
            where that is known, else {}.
        class_names: in label order, or ().
        architecture: knobs of the model, where it has such; they tell sizes that `preprocessing`
            doesn't.
    """

    preprocessing: dict[str, Any]
    class_names: tuple[str, ...]
    architecture: Architecture | None = None

    def transform(self, frames: Any, num_crops: int = 1) -> Tensor:
        """Make of a clip's frames what the model takes, exactly as testing does.

        These are the pixels of `crop`, normalised.

        Args:
            frames: T frames, RGB, not resized: uint8 (T, H, W, 3), a tensor or an array, or a list
                of images.
            num_crops: S, 1 (the centre) or 3 along the longer side.

        Returns:
            Float clips (S, 3, T, crop, crop), a batch for the model, on the frames' device.

        Raises:
            ConfigError: `preprocessing` doesn't say mean and std.
            ValueError: the frames aren't what they should be, or too few or too many.
        """
        normalize = self.normalize
        return normalize(self.crop(frames, num_crops))

    @property
    def normalize(self) -> Normalize:
        """What makes of pixels what the model takes, a batch at a time.

        Raises:
            ConfigError: `preprocessing` doesn't say mean and std.
        """
        said = self._expected()
        return Normalize(said.mean, said.std, said.channel_order == "BGR")

    def crop(self, frames: Any, num_crops: int = 1) -> Tensor:
        """Return the pixels that the model sees of a clip: the arguments are those of `transform`.

        Returns:
            Float RGB in [0, 255], (S, 3, T, crop, crop), on the frames' device.

        Raises:
            ConfigError: `preprocessing` doesn't say how large they are.
            ValueError: the frames aren't what they should be, or too few or too many.
        """
        if num_crops not in (1, 3):
            raise ValueError(f"num_crops is 1 or 3, not {num_crops}")
        said, pixels = self._expected(), as_frames(frames)
        if said.num_frames not in (None, len(pixels)):
            raise ValueError(
                f"the model takes clips of {said.num_frames} frames, not {len(pixels)}: choose as "
                "many (load_clip with **model.sampling does), or make the model with "
                f"num_frames={len(pixels)}"
            )
        return self.crops(num_crops)(pixels)

    def crops(self, num_crops: int = 1) -> EvalTransform:
        """Return what cuts the pixels that the model sees, 1 or 3 crops, from a clip's frames.

        Raises:
            ConfigError: `preprocessing` doesn't say how large they are.
        """
        said = self._expected()
        if said.crop_size is None or said.short_side is None:
            raise ConfigError(
                "the model's frames aren't square, so they can't be cut: say crop_size and "
                "short_side in model.preprocessing"
            )
        return EvalTransform(said.short_side, said.crop_size, num_crops)

    @property
    def sampling(self) -> dict[str, Any]:
        """How to choose a clip's frames from a video: arguments of `datasets.decoder.load_clip`.

        The clip is that of a test with one view, where it is known how a test places clips.

        Raises:
            ConfigError: `preprocessing` doesn't say it.
        """
        said = self._expected()
        if said.sampling == "segments":
            return {"num_frames": said.num_frames, "sampling_rate": None}
        if said.sampling_rate is None:
            raise ConfigError(
                "nothing says which frames of a video the model takes: set "
                "model.preprocessing['sampling_rate'], the distance of frames at 30 frames/s, or "
                "model.preprocessing['sampling'] = 'segments'"
            )
        rate = {"num_frames": said.num_frames, "sampling_rate": said.sampling_rate}
        known = {"target_fps": said.target_fps, "clip_sampling": said.clip_sampling}
        return rate | {name: value for name, value in known.items() if value is not None}

    @property
    def testing(self) -> Testing:
        """How a test makes a score of a video with it; one clip of three crops if nothing says it.

        Raises:
            ConfigError: `preprocessing` doesn't say mean and std.
        """
        said = self._expected()
        known = {name: getattr(said, name) for name in Testing._fields}
        return Testing(**{name: value for name, value in known.items() if value is not None})

    def __dir__(self) -> list[str]:
        """Name the attributes, without properties that would raise since nobody said them.

        Else what goes through all attributes would fail, as torch.jit.trace and inspect do.
        """
        return [name for name in super().__dir__() if name not in _SAID or self._says(name)]

    def _says(self, name: str) -> bool:
        try:
            getattr(self, name)
        except ConfigError:
            return False
        return True

    def _expected(self) -> Preprocessing:
        """Return `preprocessing` whole; the architecture says sizes that it doesn't."""
        if not self.preprocessing:
            raise ConfigError(
                "nothing says how the model's input is normalised: set model.preprocessing = "
                "{'mean': […], 'std': […], 'channel_order': 'RGB'}, for pixels in [0, 1] and in "
                "the order that the model takes the channels"
            )
        try:
            said = Preprocessing.from_json(self.preprocessing)
        except ValueError as error:
            raise ConfigError(f"model.preprocessing: {error}") from error
        built, crop = self.architecture, said.crop_size
        if built is None:
            return said
        if crop is None and isinstance(built.img_size, int):
            crop = built.img_size
        return replace(
            said,
            num_frames=said.num_frames or built.num_frames,
            crop_size=crop,
            short_side=said.short_side or crop,
        )


class VideoModel(TakesClips, nn.Module):
    """A model with its architecture, the input that its weights expect, and its classes.

    Its `architecture` is what checkpoints carry; None until a builder says it.
    """

    knobs: ClassVar[frozenset[str]] = KNOBS
    """The fields of `Architecture` that the model is made from; others mean nothing to it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.preprocessing: dict[str, Any] = {}
        self.class_names: tuple[str, ...] = ()

    def reset_classifier(self, num_classes: int, class_names: Sequence[str] = ()) -> None:
        """Replace the head by a fresh one; 0 classes leave features as output.

        Args:
            num_classes: K.
            class_names: of the new classes, in label order; those of the old head go with it.

        Raises:
            ConfigError: K is no number of classes; or there are names, but not K.
        """
        # Before anything changes: a model that is changed by half can't be saved.
        Architecture().changed("reset_classifier", {"num_classes": num_classes})
        if class_names and len(class_names) != num_classes:
            raise ConfigError(f"{len(class_names)} class names for {num_classes} classes")
        self._reset_head(num_classes)
        self.class_names = tuple(class_names)
        if self.architecture:
            self.architecture = replace(self.architecture, num_classes=num_classes)

    def _reset_head(self, num_classes: int) -> None:
        raise NotImplementedError

    def patch_grid(self, height: int, width: int) -> PatchGrid | None:
        """Return the patches of frames of so many pixels, of which `forward` takes a choice.

        That is `clips.tubes.Tubes`, after the clips. None: the model can't leave any out.
        """
        return None

    def get_classifier(self) -> nn.Module:
        """Return the last layer, from features to K logits."""
        raise NotImplementedError

    def clip_features(self, clips: Tensor) -> Tensor:
        """Return what the last layer gets of clips (B, 3, T, H, W): features (B, D).

        They are averaged over the places of a clip where that layer is applied at several. A model
        without classes gives them as they come out.

        Raises:
            ValueError: the clips aren't what the model takes.
        """
        head, seen = self.get_classifier(), []
        if isinstance(head, nn.Identity):  # which a model may leave out
            return self(clips)
        with head.register_forward_pre_hook(lambda _, given: seen.append(given[0])):
            self(clips)
        features: Tensor = seen[-1]
        places = (
            range(1, features.ndim - 1) if isinstance(head, nn.Linear) else range(2, features.ndim)
        )
        return features.mean([*places]) if places else features

    def explain(
        self, clips: Tensor, method: str = "rollout", classes: Tensor | None = None
    ) -> Explanation:
        """Say which patches of clips (B, 3, T, H, W) matter; see `models.explain.relevance`.

        Raises:
            ValueError: there is no such method, or the model has no attention that it could read.
        """
        return explain(self, clips, method, classes)
