"""Where weights come from: files, folders, and the hubs of timm, torchvision and Hugging Face.

Whatever the source, the content comes back as one mapping. That of a folder, or of a model of
Hugging Face's hub, has `state_dict`, and where its config.json tells: `architecture` or, told by
other names than ours, `arguments` (some knobs of `Architecture`), `preprocessing`, `class_names`.
"""

from __future__ import annotations

import json
import logging
import math
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from timesformer.models.weights.formats import google_npz, hugging_face
from timesformer.models.weights.said import completed
from timesformer.utils.checkpoint import read_checkpoint
from timesformer.utils.errors import WeightsError
from timesformer.utils.text import did_you_mean

logger = logging.getLogger(__name__)

HEADER = "timesformer"
"""Key of a .safetensors file's header that has what config.json has in a folder."""

_MOST_PACKED = 200
"""How many times as large as its file an .npz may become; weights hardly pack, zeros do."""

_header_2 = np.lib.format.read_array_header_2_0

_SAID = ("architecture", "arguments", "preprocessing", "class_names")
_FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
_SHARDS = (
    ("model.safetensors", "model-*.safetensors"),
    ("pytorch_model.bin", "pytorch_model-*.bin"),
)
_TO_BRING = "copy it here, and name its path instead (TIMESFORMER.PRETRAINED_MODEL '' for none)"


def read_weights(source: str | Path) -> Mapping[str, Any]:
    """Read or fetch weights onto the CPU; nothing in them is ever run.

    Args:
        source: a .pyth, .pth, .pt, .bin, .safetensors or .npz file (what is in it decides, not
            its name); a folder of `save_pretrained`, ours or Hugging Face's; `timm/NAME`;
            `torchvision/NAME`, with the default weights, or `torchvision/NAME.WEIGHTS`; or
            `hf/ORG/NAME`.

    Raises:
        WeightsError: if there are no such weights, or they can't be read or fetched.
    """
    if not isinstance(source, str | Path):
        raise WeightsError(f"weights are the name of a file, a folder, …, not {source!r:.60}")
    content = _read(str(source))
    try:
        return completed(content)
    except ValueError as error:
        raise WeightsError(f"{source}: {error}") from error


def _read(name: str) -> Mapping[str, Any]:
    path = Path(name)
    if path.is_dir():
        return _read_folder(path)
    if path.is_file():
        return _read_file(path)
    hub, _, rest = name.partition("/")
    if hub in _HUBS and rest:
        return _HUBS[hub](rest)
    if path.exists():
        raise WeightsError(f"{name}: not a regular file")
    raise WeightsError(
        f"{name}: no such weights file; weights are a file, a folder, timm/NAME, torchvision/NAME, "
        "hf/ORG/NAME, or '' for none (TIMESFORMER.PRETRAINED_MODEL)"
    )


def _read_file(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except OSError as error:
        raise WeightsError(f"{path}: can't read it ({error.strerror})") from error
    # A safetensors file begins with the length of its header, 8 bytes, and the header's "{".
    if path.suffix == ".safetensors" or head[8:] == b"{":
        try:
            return _read_safetensors(path)
        except (SafetensorError, OSError, ValueError, RecursionError) as error:
            raise WeightsError(f"{path}: not a readable safetensors file ({error})") from error
    if path.suffix == ".npz" or _is_npz(path):
        return _read_npz(path)
    return read_checkpoint(path)


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    with safe_open(path, "pt") as file:
        header = (file.metadata() or {}).get(HEADER)
    state = load_file(path)
    if header is None:
        return state
    said = json.loads(header)
    if not isinstance(said, dict):
        raise ValueError(f"its header says {said!r:.60}, not an object")
    return {"state_dict": state} | {key: said[key] for key in _SAID if key in said}


def _is_npz(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError):
        return False
    return bool(names) and all(name.endswith(".npy") for name in names)


def _read_npz(path: Path) -> dict[str, Any]:
    try:
        _check_sizes(path)
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            state = {name: _tensor(archive[name]) for name in archive.files}
    except (OSError, ValueError, TypeError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise WeightsError(
            f"{path}: not a readable .npz file of plain arrays "
            f"({reason[0].split('allow_pickle')[0].strip()})"
        ) from error

    heads = google_npz.num_heads(state)
    return {"state_dict": state, "arguments": {"num_heads": heads}} if heads else state


def _check_sizes(path: Path) -> None:
    """Compare the size that each array's header asks for with what is stored, before it is read.

    Raises:
        ValueError: an array isn't as large as it says, or is packed beyond what weights can be.
    """
    budget = path.stat().st_size * _MOST_PACKED
    with zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            budget -= member.file_size
            if budget < 0:
                raise ValueError(f"unpacked it is over {_MOST_PACKED} times as large")
            with archive.open(member) as file:
                version = np.lib.format.read_magic(file)
                old = version == (1, 0)
                header = np.lib.format.read_array_header_1_0 if old else _header_2
                shape, _, dtype = header(file)
                size = math.prod(shape) * dtype.itemsize
                if min(shape, default=0) < 0 or size != member.file_size - file.tell():
                    raise ValueError(f"{member.filename} isn't as large as it says")


def _tensor(array: np.ndarray) -> Tensor:
    if array.dtype == np.dtype("V2"):  # how numpy stores JAX's bfloat16
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).float()
    return torch.from_numpy(array)


def _read_folder(folder: Path) -> dict[str, Any]:
    path = next((folder / name for name in _FOLDER_FILES if (folder / name).is_file()), None)
    state = _read_file(path) if path else _read_shards(folder)
    content: dict[str, Any] = {"state_dict": state}
    config = read_json(folder / "config.json")
    if config.get("model_type") != "timesformer":
        content |= _of_timm(config.get("pretrained_cfg"))  # a folder of timm's hub
        return content | {key: config[key] for key in _SAID if key in config}
    try:
        content["arguments"] = hugging_face.from_config(config)
        hugging_face.check(content["state_dict"], config)
    except ValueError as error:
        raise WeightsError(f"{folder}: {error}") from error
    content["state_dict"] = hugging_face.without_unused(content["state_dict"], config)
    if config.get("attention_type") == "space_only":
        logger.warning(
            "%s: space_only of transformers doesn't average over frames; here it does, as "
            "published: scores are other than theirs",
            folder,
        )
    content["preprocessing"] = _processor(folder, config)
    content["class_names"] = hugging_face.class_names(config)
    return content


def _read_shards(folder: Path) -> dict[str, Any]:
    """Read weights that were cut into several files, as their index says."""
    indices = [folder / f"{name}.index.json" for name in _FOLDER_FILES]
    index = next((path for path in indices if path.is_file()), None)
    if index is None:
        raise WeightsError(f"{folder}: holds no weights: neither {' nor '.join(_FOLDER_FILES)}")
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise WeightsError(f"{index}: has no weight_map")
    state: dict[str, Any] = {}
    for name in sorted({str(place) for place in places.values()}):
        if name != Path(name).name or "\\" in name or name in ("", ".", ".."):
            raise WeightsError(f"{index}: names {name!r:.60}, which isn't a file of its folder")
        state |= _read_file(folder / name)
    if missing := sorted(places.keys() - state.keys()):
        raise WeightsError(f"{index}: no file has {missing[0]}")
    return {key: state[key] for key in places}


def _processor(folder: Path, config: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a folder of `transformers` says of its input, or log that it says nothing."""
    for name, key in hugging_face.PROCESSORS:
        file = read_json(folder / name)
        processor = file.get(key) if key else file
        if not isinstance(processor, Mapping) or not processor:
            continue
        if (found := hugging_face.from_processor(processor, config)) is None:
            break
        if "timesformer" not in processor and found["channel_order"] == "BGR":
            logger.warning(
                "%s: a Something-Something V2 model that doesn't say the order of its channels: "
                "taken for BGR, as the published one is",
                folder,
            )
        return found
    names = ", ".join(dict.fromkeys(name for name, _ in hugging_face.PROCESSORS))
    logger.warning(
        "%s: none of %s says mean and std: how its frames are normalised is unknown", folder, names
    )
    return None


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one where there is no file.

    Raises:
        WeightsError: if the file isn't JSON, or holds no object.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path}: not readable JSON ({error})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not an object")
    return content


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _hint(hub: str, name: str, names: Iterable[str]) -> str:
    return did_you_mean(f"{hub}/{name}", [f"{hub}/{known}" for known in names])


def _fetch_timm(name: str) -> dict[str, Any]:
    import timm  # takes seconds, and few need it

    if not timm.is_model_pretrained(name):
        hint = _hint("timm", name, timm.list_pretrained())
        raise WeightsError(f"timm/{name}: timm has no weights of that name{hint}")
    logger.info("fetching timm/%s", name)
    try:
        # timm draws initial weights first; the run's own random numbers mustn't depend on that.
        with torch.random.fork_rng(devices=[]):
            model = timm.create_model(name, pretrained=True)
    except Exception as error:  # hub, network and cache failures have no common base class
        # The repository's name has the tag that timm adds to a NAME without one.
        repository = getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None) or f"timm/{name}"
        raise WeightsError(
            f"can't fetch timm/{name} ({_first_line(error)}); on a machine with internet download "
            f"model.safetensors from https://huggingface.co/{repository}, copy it here, and set "
            "TIMESFORMER.PRETRAINED_MODEL to its path ('' trains from fresh weights)"
        ) from error
    return {"state_dict": model.state_dict()} | _of_timm(getattr(model, "pretrained_cfg", None))


def _of_timm(said: Any) -> dict[str, Any]:
    """Return the preprocessing in what timm says of a model; {} if it says none."""
    if not isinstance(said, Mapping) or not said.get("mean") or not said.get("std"):
        return {}
    statistics = {name: list(said[name]) for name in ("mean", "std")}
    return {"preprocessing": statistics | {"channel_order": "RGB"}}


def _fetch_torchvision(name: str) -> Mapping[str, Any]:
    from torchvision import models  # takes a second, and few need it

    model, _, tag = name.partition(".")
    try:
        choices = models.get_model_weights(model)
    except ValueError as error:
        hint = _hint("torchvision", model, models.list_models())
        raise WeightsError(f"torchvision/{name}: torchvision has no model {model}{hint}") from error
    known = [weights.name for weights in choices]
    if (tag or "DEFAULT") not in choices.__members__:
        names = ", ".join(f"torchvision/{model}.{known_tag}" for known_tag in known)
        raise WeightsError(f"torchvision/{name}: no such weights; there are {names or 'none'}")
    weights = choices[tag or "DEFAULT"]
    logger.info("fetching torchvision/%s.%s", model, weights.name)
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # network and cache failures have no common base class
        raise WeightsError(
            f"can't fetch torchvision/{name} ({_first_line(error)}); on a machine with internet "
            f"download {weights.url}, {_TO_BRING}"
        ) from error
    return {"state_dict": state} | _of_timm(vars(weights.transforms()))


def _fetch_hugging_face(name: str) -> dict[str, Any]:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise WeightsError(
            f"hf/{name}: fetching it needs huggingface_hub (pip install 'timesformer[hub]'); or "
            f"download its config.json and model.safetensors to a folder, {_TO_BRING}"
        ) from error
    logger.info("fetching hf/%s", name)
    try:
        folder = Path(snapshot_download(name, allow_patterns=["*.json", *_SHARDS[0]]))
        if not any(folder.glob("model*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=["*.json", *_SHARDS[1]]))
    except Exception as error:  # network, cache and missing repositories: no common base class
        raise WeightsError(
            f"can't fetch hf/{name} ({_first_line(error)}); on a machine with internet download "
            f"config.json and model.safetensors from https://huggingface.co/{name} to a folder, "
            f"{_TO_BRING}"
        ) from error
    return _read_folder(folder)


_HUBS: dict[str, Callable[[str], Mapping[str, Any]]] = {
    "timm": _fetch_timm,
    "torchvision": _fetch_torchvision,
    "hf": _fetch_hugging_face,
}
