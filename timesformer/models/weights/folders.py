"""Folders of weights: `save_pretrained`'s, ours or that of `transformers`, timm's hub's, a run's.

The content of a folder has `state_dict`, and where its config.json tells: `architecture` or, told
by other names than ours, `arguments` (some knobs of `Architecture`), `preprocessing`,
`class_names`.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from timesformer.models.weights.files import SAID, read_file, read_json
from timesformer.models.weights.formats import hf_processor, hugging_face
from timesformer.utils.checkpoint import (
    get_checkpoint_dir,
    get_last_checkpoint,
    read_checkpoint,
)
from timesformer.utils.errors import WeightsError
from timesformer.utils.files import RUN_HOLDS, is_in_parts

logger = logging.getLogger(__name__)

READ_OF_RUN = "read_of_run"
"""Key of the content of a run's folder: the checkpoint that was read."""

_FILES = ("model.safetensors", "pytorch_model.bin")


def read_folder(folder: Path) -> Mapping[str, Any]:
    """Read the weights in a folder, and what it says of them.

    Raises:
        WeightsError: it holds none, or can't be read, or says what its weights deny.
    """
    if is_in_parts(folder):
        return read_checkpoint(folder)
    path = next((folder / name for name in _FILES if (folder / name).is_file()), None)
    index = next((p for n in _FILES if (p := folder / f"{n}.index.json").is_file()), None)
    if path:
        content: dict[str, Any] = {"state_dict": read_file(path)}
    elif index:
        content = {"state_dict": _read_shards(index)}
    elif get_checkpoint_dir(folder).is_dir():
        return _read_run(folder)
    elif distributed := _of_torch_distributed(folder):
        raise WeightsError(f"{folder}: {distributed}")
    else:
        raise WeightsError(
            f"{folder}: holds no weights: neither {' nor '.join(_FILES)}, nor a run's checkpoints "
            f"({RUN_HOLDS})"
        )
    config = read_json(folder / "config.json")
    if config.get("model_type") == "timesformer":
        return content | _of_transformers(folder, content["state_dict"], config)
    if "pretrained_cfg" in config:  # a folder of timm's hub, whose "architecture" is a name
        return content | of_timm(config["pretrained_cfg"])
    return content | {key: config[key] for key in SAID if key in config}


def of_timm(said: Any) -> dict[str, Any]:
    """Return the preprocessing in what timm or torchvision says of a model; {} if it says none."""
    if not isinstance(said, Mapping) or not said.get("mean") or not said.get("std"):
        return {}
    statistics = {name: list(said[name]) for name in ("mean", "std")}
    return {"preprocessing": statistics | {"channel_order": "RGB"}}


def _read_run(folder: Path) -> Mapping[str, Any]:
    """Read the newest sound checkpoint of a run, which is what a test of it takes too."""
    newest = get_last_checkpoint(folder)
    if newest is None:
        raise WeightsError(f"{folder}: this run has no checkpoint that can be read")
    logger.info("%s: of this run the newest checkpoint is read, %s", folder, newest.name)
    return {**read_checkpoint(newest), READ_OF_RUN: str(newest)}


def _of_torch_distributed(folder: Path) -> str:
    """Say what to do with a folder of torch.distributed.checkpoint that isn't ours; "" of others.

    Its `.metadata` is a pickle, which isn't read here: it could run code.
    """
    if (folder / ".metadata").is_file() and next(folder.glob("*.distcp"), None):
        return (
            "a checkpoint of torch.distributed: if you trust where it is from, `python -m "
            f"torch.distributed.checkpoint.format_utils dcp_to_torch {folder} FILE` makes a file "
            "of it, which can be read"
        )
    if next(folder.glob("shard-*-model-*.safetensors"), None):
        return (
            "safetensors of torch.distributed, in parts: write it with `enable_consolidation`, or "
            "use torch.distributed.checkpoint's consolidate_safetensors_files"
        )
    return ""


def _read_shards(index: Path) -> dict[str, Any]:
    """Read weights that were cut into several files, as their index says."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise WeightsError(f"{index}: has no weight_map")
    state: dict[str, Any] = {}
    for name in sorted({str(place) for place in places.values()}):
        if name != Path(name).name or "\\" in name or name in ("", ".", ".."):
            raise WeightsError(f"{index}: names {name!r:.60}, which isn't a file of its folder")
        state |= read_file(index.parent / name)
    if missing := sorted(places.keys() - state.keys()):
        raise WeightsError(f"{index}: no file has {missing[0]}")
    return {key: state[key] for key in places}


def _of_transformers(
    folder: Path, state: Mapping[str, Any], config: Mapping[str, Any]
) -> dict[str, Any]:
    """Return what a folder of `transformers` says, and the weights that its model uses."""
    try:
        arguments = hugging_face.from_config(config)
        hugging_face.check(state, config)
    except ValueError as error:
        raise WeightsError(f"{folder}: {error}") from error
    if config.get("attention_type") == "space_only":
        logger.warning("%s: %s", folder, hugging_face.NOT_AVERAGED)
    if config.get("problem_type") == "regression":
        logger.warning("%s: its numbers are no scores of classes (problem_type regression), and "
                       "probabilities made of them mean nothing", folder)  # fmt: skip
    return {
        "arguments": arguments,
        "state_dict": hugging_face.without_unused(state, config),
        "preprocessing": _processor(folder, config),
        "class_names": hugging_face.class_names(config),
    }


def _processor(folder: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a folder of `transformers` says of its input, or log that it says nothing."""
    for name, key in hf_processor.PROCESSORS:
        file = read_json(folder / name)
        processor = file.get(key) if key else file
        if not isinstance(processor, Mapping) or not processor:
            continue
        try:
            found = hf_processor.from_processor(processor, config)
        except (TypeError, ValueError, ArithmeticError) as error:
            raise WeightsError(f"{folder / name}: its numbers make no sense ({error})") from error
        if found is None:
            break
        if told := hf_processor.otherwise(processor):
            logger.warning("%s: makes frames of %s: scores are other than theirs",
                           folder / name, told)  # fmt: skip
        if "timesformer" not in processor and found["channel_order"] == "BGR":
            logger.warning(
                "%s: a Something-Something V2 model that doesn't say the order of its channels: "
                "taken for BGR, as the published one is",
                folder,
            )
        return found
    names = ", ".join(dict.fromkeys(name for name, _ in hf_processor.PROCESSORS))
    logger.warning(
        "%s: none of %s says mean and std: how its frames are normalised is unknown", folder, names
    )
    return None
