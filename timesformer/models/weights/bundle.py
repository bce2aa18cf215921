"""Weights together with what they need to be of use: arguments, preprocessing, class names.

`read_bundle` makes one from any source; the `write_*` functions store it in the layouts of others.
Files are written beside their place and renamed, so a reader never sees half of one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from safetensors import SafetensorError
from safetensors.torch import save_file

from timesformer.models.weights.adapt import StateDict
from timesformer.models.weights.describe import PATCH, infer_arguments
from timesformer.models.weights.formats import IGNORED, hugging_face, mmaction2
from timesformer.models.weights.load import native_state
from timesformer.models.weights.sources import read_weights
from timesformer.utils.errors import WeightsError
from timesformer.utils.torch_file import write_checkpoint

PREPROCESSING_KEYS = ("mean", "std", "channel_order")
"""What a run's checkpoint says of its input; a bundle may say more (short_side, sampling_rate)."""

_FROM_CONFIG = {
    "img_size": "DATA.TRAIN_CROP_SIZE",
    "num_frames": "DATA.NUM_FRAMES",
    "attention_type": "TIMESFORMER.ATTENTION_TYPE",
    "num_heads": "TIMESFORMER.NUM_HEADS",
    "drop_path_rate": "TIMESFORMER.DROP_PATH_RATE",
    "cls_in_time": "TIMESFORMER.CLS_IN_TIME",
}


@dataclass(frozen=True)
class Bundle:
    """A model's weights and what belongs to them.

    Attributes:
        state: weights under the native names, those of `VisionTransformer`.
        arguments: keyword arguments of `TimeSformer`, plain values.
        preprocessing: mean and std of each channel for pixels in [0, 1], in the order of
            `channel_order` ("RGB" or "BGR"); perhaps short_side and sampling_rate. None: unknown.
        class_names: in label order, or ().
    """

    state: StateDict
    arguments: dict[str, Any]
    preprocessing: dict[str, Any] | None = None
    class_names: tuple[str, ...] = ()


def read_bundle(source: str | Path, **known: Any) -> Bundle:
    """Reads weights of a ViT or TimeSformer, and all that the source says about them.

    Args:
        source: whatever `read_weights` takes.
        **known: arguments of `TimeSformer` that hold whatever the source says, e.g. num_heads,
            which weights don't tell (see `infer_arguments`).

    Raises:
        WeightsError: if it can't be read, or is no model that could be built here.
    """
    content = read_weights(source)
    try:
        state = native_state(content)
        state = {key: value for key, value in state.items() if not key.startswith(IGNORED)}
        arguments = infer_arguments(state)
        arguments |= _config_arguments(content) | dict(content.get("arguments") or {}) | known
        if "pos_embed" in state and "img_size" not in arguments:
            raise ValueError("pos_embed isn't of square frames, and nothing says their img_size")
        if arguments["embed_dim"] % arguments["num_heads"]:
            raise ValueError(
                f"num_heads {arguments['num_heads']} doesn't divide the width "
                f"{arguments['embed_dim']}; say how many heads it has"
            )
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"{source}: {error}") from error
    names = tuple(map(str, content.get("class_names") or ()))
    return Bundle(state, arguments, _preprocessing(content), names)


def _run_config(content: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a run's checkpoint, by full keys; published ones have it as YAML text too."""
    try:
        tree = yaml.safe_load(content["cfg"]) if isinstance(content.get("cfg"), str) else None
    except yaml.YAMLError:
        return {}  # told by the weights, then
    groups = tree if isinstance(tree, dict) else {}
    return {
        f"{group}.{key}": value
        for group, keys in groups.items()
        if isinstance(keys, dict)
        for key, value in keys.items()
    }


def _config_arguments(content: Mapping[str, Any]) -> dict[str, Any]:
    config = _run_config(content)
    return {name: config[key] for name, key in _FROM_CONFIG.items() if key in config}


def _preprocessing(content: Mapping[str, Any]) -> dict[str, Any] | None:
    said = content.get("preprocessing")
    if isinstance(said, Mapping) and said.keys() >= {*PREPROCESSING_KEYS}:
        return dict(said)
    config = _run_config(content)
    if "DATA.MEAN" not in config or "DATA.STD" not in config:
        return None
    # Published SSv2 models take BGR whatever their config says (see docs/weights.md).
    bgr = str(config.get("TRAIN.DATASET", "")).lower() == "ssv2"
    return {
        "mean": list(config["DATA.MEAN"]),
        "std": list(config["DATA.STD"]),
        "channel_order": "BGR" if bgr else "RGB",
    }


def write_native(path: Path, bundle: Bundle) -> None:
    """A .pyth file as a run of ours writes, without the run: names prefixed `model.`."""
    preprocessing = bundle.preprocessing
    payload = {
        "model_state": {f"model.{key}": value for key, value in bundle.state.items()},
        "arguments": bundle.arguments,
        "preprocessing": preprocessing and {key: preprocessing[key] for key in PREPROCESSING_KEYS},
        "class_names": list(bundle.class_names),
    }
    write_checkpoint(path, payload)


def write_mmaction2(path: Path, bundle: Bundle) -> None:
    """A .pth file as mmaction2 loads; its config has to be written by hand.

    Raises:
        WeightsError: if theirs can't compute the same.
    """
    try:
        mmaction2.check(bundle.arguments)
        state = mmaction2.from_native(bundle.state)
    except ValueError as error:
        raise WeightsError(f"{path}: {error}") from error
    write_checkpoint(path, {"meta": {}, "state_dict": state})


def write_safetensors(path: Path, bundle: Bundle) -> None:
    """One .safetensors file with native names, or a folder that `from_pretrained` reads."""
    if path.suffix == ".safetensors":
        _write_files(path.parent, {path.name: bundle.state})
        return
    config = {
        "format": "timesformer",
        "arguments": bundle.arguments,
        "preprocessing": bundle.preprocessing,
        "class_names": list(bundle.class_names),
    }
    _write_files(path, {"model.safetensors": bundle.state, "config.json": config})


def write_hugging_face(folder: Path, bundle: Bundle) -> None:
    """A folder for `transformers`: weights, config, and the image processor's config.

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
        config = hugging_face.to_config(bundle.arguments, bundle.class_names)
        state = hugging_face.from_native(bundle.state)
    except ValueError as error:
        raise WeightsError(f"{folder}: {error}") from error
    processor = hugging_face.to_processor(preprocessing, bundle.arguments["img_size"])
    files = {"model.safetensors": state, "preprocessor_config.json": processor}
    _write_files(folder, files | {"config.json": config})


def _rgb(bundle: Bundle) -> Bundle:
    """The same model for RGB frames."""
    preprocessing = dict(bundle.preprocessing or {})
    preprocessing["channel_order"] = "RGB"
    for key in ("mean", "std"):
        preprocessing[key] = preprocessing[key][::-1]
    state = bundle.state | {PATCH: bundle.state[PATCH].flip(1)}
    return replace(bundle, state=state, preprocessing=preprocessing)


def _write_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Writes all files aside, then renames the new folder, or in an old one each file in order."""
    folder = folder.absolute()
    home = next(path for path in (folder, *folder.parents) if path.is_dir())
    staging = home / f".{folder.name}.{os.getpid()}.tmp"
    try:
        staging.mkdir()
        for name, content in files.items():
            if name.endswith(".safetensors"):
                # clone: tensors of a torch file may share memory, which safetensors refuses.
                state = {k: v.detach().cpu().contiguous().clone() for k, v in content.items()}
                save_file(state, staging / name, metadata={"format": "pt"})
            else:
                text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
                (staging / name).write_text(text, encoding="utf-8")
            _sync(staging / name)
        if folder.is_dir():
            for name in files:
                (staging / name).replace(folder / name)
        else:
            folder.parent.mkdir(parents=True, exist_ok=True)
            staging.replace(folder)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{folder}: can't write it ({error})") from error
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
