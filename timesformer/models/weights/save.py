"""Writing models: as folders that `from_pretrained` reads, and in the layouts of others.

Files are written beside their place and renamed, so a reader never sees half of one, nor weights
beside what an earlier model's files say of it.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from timesformer.clips.preprocessing import Preprocessing
from timesformer.models.architecture import Architecture
from timesformer.models.lora import merged
from timesformer.models.weights.bundle import Bundle
from timesformer.models.weights.describe import PATCH
from timesformer.models.weights.files import HEADER
from timesformer.models.weights.formats import hf_processor, hugging_face, mmaction2
from timesformer.utils.checkpoint import bare
from timesformer.utils.errors import ConfigError, WeightsError
from timesformer.utils.files import require_place, sweep, temporary_of
from timesformer.utils.torch_file import write_checkpoint

_STAGED = ".staged"  # ends the name of a folder that is being written, for `sweep`


def save_pretrained(
    model: nn.Module,
    folder: str | Path,
    *,
    preprocessing: Mapping[str, Any] | None = None,
    class_names: Sequence[str] | None = None,
) -> None:
    """Write model.safetensors and config.json, which `from_pretrained` reads.

    Args:
        model: a model of the registry, wrapped or not.
        folder: made when missing; files of these names in it are replaced.
        preprocessing: what `Preprocessing.to_json` gives: mean, std and channel_order of its input,
            and how clips are made, as far as known; what the model knows of it when None; {} says
            that nothing is known.
        class_names: in label order; those that the model knows when None.

    Raises:
        WeightsError: if it can't be written.
        ConfigError: if preprocessing or names don't make sense for the model.
    """
    target: Any = bare(model)
    architecture = getattr(target, "architecture", None)
    if not isinstance(architecture, Architecture):
        raise ConfigError(
            "save_pretrained: a TimeSformer, or another model of the registry, is needed, not "
            f"{type(target).__name__}"
        )
    if preprocessing is None:
        preprocessing = getattr(target, "preprocessing", None)
    names = getattr(target, "class_names", ()) if class_names is None else class_names
    if names and len(names) != architecture.num_classes:
        raise ConfigError(f"{len(names)} class names for {architecture.num_classes} classes")
    try:
        plain = Preprocessing.from_json(preprocessing).to_json() if preprocessing else None
    except ValueError as error:
        raise ConfigError(f"save_pretrained: {error}") from error
    inner = getattr(target, "model", target)
    classes = getattr(inner, "num_classes", architecture.num_classes)
    if classes != architecture.num_classes:
        raise ConfigError(
            f"its head has {classes} classes, its architecture {architecture.num_classes}: replace "
            "the head by the model's own reset_classifier"
        )
    state = {key.replace("_orig_mod.", ""): value for key, value in inner.state_dict().items()}
    state = dict(merged(state))
    write_safetensors(Path(folder), Bundle(state, architecture, plain, tuple(names)))


def write_native(path: Path, bundle: Bundle) -> None:
    """Write a .pyth file as a run of ours writes, without the run: names prefixed `model.`."""
    payload = {
        "model_state": {f"model.{key}": value for key, value in bundle.state.items()},
        "architecture": bundle.architecture.to_json(),
        "preprocessing": bundle.preprocessing,
        "class_names": list(bundle.class_names),
    }
    write_checkpoint(path, payload)


def write_mmaction2(path: Path, bundle: Bundle) -> None:
    """Write a .pth file as mmaction2 loads; its config has to be written by hand.

    What mmaction2 has in its config instead, architecture, statistics and class names, stands
    beside the weights, where it looks for nothing; our readers find it.

    Raises:
        WeightsError: if theirs can't compute the same.
    """
    try:
        mmaction2.check(bundle.architecture)
        state = mmaction2.from_native(bundle.state)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error
    ours = {
        "architecture": bundle.architecture.to_json(),
        "preprocessing": bundle.preprocessing,
        "class_names": list(bundle.class_names),
    }
    write_checkpoint(path, {"meta": {}, "state_dict": state, **ours})


def write_safetensors(path: Path, bundle: Bundle) -> None:
    """Write one .safetensors file with native names, or a folder; `from_pretrained` reads both."""
    config = {
        "format": "timesformer",
        "architecture": bundle.architecture.to_json(),
        "preprocessing": bundle.preprocessing,
        "class_names": list(bundle.class_names),
    }
    if path.suffix == ".safetensors":
        _write_files(path.parent, {path.name: bundle.state}, {HEADER: json.dumps(config)})
        return
    _write_files(path, {"model.safetensors": bundle.state, "config.json": config})


def write_hugging_face(folder: Path, bundle: Bundle) -> None:
    """Write a folder for `transformers`: weights, config, and the image processor's config.

    Their processor gives RGB. A model that takes BGR gets its patch kernels turned round, which
    changes no number.

    Raises:
        WeightsError: if theirs can't compute the same, or the preprocessing is unknown.
    """
    preprocessing = bundle.preprocessing
    if preprocessing is None:
        raise WeightsError(
            f"{folder}: the source doesn't say how its frames are normalised, and transformers "
            "would take ImageNet's numbers; say them (--mean, --std)"
        )
    if preprocessing["channel_order"] == "BGR":
        bundle = _rgb(bundle)
        preprocessing = bundle.preprocessing
        assert preprocessing is not None
    try:
        several = preprocessing.get("multi_label")
        config = hugging_face.to_config(bundle.architecture, bundle.class_names, several)
        state = hugging_face.from_native(bundle.state)
    except ValueError as error:
        raise WeightsError(f"{folder}: {error}") from error
    processor = hf_processor.to_processor(preprocessing, config["image_size"])
    files = {"model.safetensors": state, "preprocessor_config.json": processor}
    _write_files(folder, files | {"config.json": config})


def _rgb(bundle: Bundle) -> Bundle:
    """Return the same model for RGB frames."""
    preprocessing = dict(bundle.preprocessing or {})
    preprocessing["channel_order"] = "RGB"
    for key in ("mean", "std"):
        preprocessing[key] = preprocessing[key][::-1]
    state = bundle.state | {PATCH: bundle.state[PATCH].flip(1)}
    return replace(bundle, state=state, preprocessing=preprocessing)


def _write_files(
    folder: Path, files: Mapping[str, Mapping[str, Any]], header: Mapping[str, str] | None = None
) -> None:
    """Write all files aside, then rename the new folder, or in an old one its files.

    Raises:
        WeightsError: they can't be written; an earlier model is as it was.
        UserError: a folder or a device has the name of one of them.
    """
    folder = folder.absolute()
    home = next(path for path in (folder, *folder.parents) if path.is_dir())
    staging = temporary_of(home / f"{folder.name}{_STAGED}")
    try:
        for name in files:
            require_place(folder / name)
        sweep(home, _STAGED)
        staging.mkdir()
        for name, content in files.items():
            if name.endswith(".safetensors"):
                # clone: tensors of a torch file may share memory, which safetensors refuses.
                state = {k: v.detach().cpu().contiguous().clone() for k, v in content.items()}
                save_file(state, staging / name, metadata={"format": "pt", **(header or {})})
            else:
                text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
                (staging / name).write_text(text, encoding="utf-8")
            _sync(staging / name)
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            staging.replace(folder)
        elif len(files) == 1:
            (name,) = files
            (staging / name).replace(folder / name)
        else:
            _swap(staging, folder, files)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{folder}: can't write it ({error})") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _swap(staging: Path, folder: Path, names: Iterable[str]) -> None:
    """Put files in the places of earlier ones, so that weights never are beside another's config.

    The earlier weights go first and the new ones come last: who is killed in between leaves a
    folder without weights, which nobody loads, and not one that loads as another model.
    """
    weights_first = sorted(names, key=lambda name: not name.endswith(".safetensors"))
    former = staging / "former"
    former.mkdir()
    try:
        for name in weights_first:
            with contextlib.suppress(FileNotFoundError):
                (folder / name).replace(former / name)
        for name in reversed(weights_first):
            (staging / name).replace(folder / name)
    except BaseException:
        for name in reversed(weights_first):
            if os.path.lexists(former / name):
                (former / name).replace(folder / name)
            elif not (staging / name).exists():  # it is in the folder, where there was none
                (folder / name).unlink()
        raise


def _sync(path: Path) -> None:
    with path.open("r+b") as file:  # Windows syncs what may be written only
        os.fsync(file.fileno())
