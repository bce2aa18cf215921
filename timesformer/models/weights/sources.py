"""Where weights come from: files, folders, and the hubs of timm, torchvision and Hugging Face.

Whatever the source, the content comes back as one mapping. That of a folder, or of a model of
Hugging Face's hub, has `state_dict`, and where its config.json tells: `architecture` or, told by
other names than ours, `arguments` (some knobs of `Architecture`), `preprocessing`, `class_names`.
"""

from __future__ import annotations

import json
import logging
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
from timesformer.utils.checkpoint import read_checkpoint
from timesformer.utils.errors import WeightsError
from timesformer.utils.text import did_you_mean

logger = logging.getLogger(__name__)

HEADER = "timesformer"
"""Key of a .safetensors file's header that has what config.json has in a folder."""

_SAID = ("architecture", "arguments", "preprocessing", "class_names")
_FOLDER_FILES = ("model.safetensors", "pytorch_model.bin")
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
    name = str(source)
    path = Path(name)
    if path.is_dir():
        return _read_folder(path)
    if path.is_file():
        return _read_file(path)
    hub, _, rest = name.partition("/")
    if hub in _HUBS and rest:
        return _HUBS[hub](rest)
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
        except (SafetensorError, OSError, ValueError) as error:
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


def _tensor(array: np.ndarray) -> Tensor:
    if array.dtype == np.dtype("V2"):  # how numpy stores JAX's bfloat16
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16).float()
    return torch.from_numpy(array)


def _read_folder(folder: Path) -> dict[str, Any]:
    path = next((folder / name for name in _FOLDER_FILES if (folder / name).is_file()), None)
    if path is None:
        raise WeightsError(f"{folder}: holds no weights: neither {' nor '.join(_FOLDER_FILES)}")
    content: dict[str, Any] = {"state_dict": _read_file(path)}
    config = read_json(folder / "config.json")
    if config.get("model_type") != "timesformer":
        return content | {key: config[key] for key in _SAID if key in config}
    processor = read_json(folder / "preprocessor_config.json")
    try:
        content["arguments"] = hugging_face.from_config(config)
    except ValueError as error:
        raise WeightsError(f"{folder}: {error}") from error
    content["state_dict"] = hugging_face.without_unused(content["state_dict"], config)
    content["preprocessing"] = hugging_face.from_processor(processor)
    content["class_names"] = hugging_face.class_names(config)
    return content


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; an empty one where there is no file.

    Raises:
        WeightsError: if the file isn't JSON, or holds no object.
    """
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path}: not readable JSON ({error})") from error
    if not isinstance(content, dict):
        raise WeightsError(f"{path}: holds a {type(content).__name__}, not an object")
    return content


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _hint(hub: str, name: str, names: Iterable[str]) -> str:
    return did_you_mean(f"{hub}/{name}", [f"{hub}/{known}" for known in names])


def _fetch_timm(name: str) -> dict[str, Tensor]:
    import timm  # takes seconds, and few need it

    if not timm.is_model_pretrained(name):
        hint = _hint("timm", name, timm.list_pretrained())
        raise WeightsError(f"timm/{name}: timm has no weights of that name{hint}")
    logger.info("fetching timm/%s", name)
    try:
        # timm draws initial weights first; the run's own random numbers mustn't depend on that.
        with torch.random.fork_rng(devices=[]):
            return timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # hub, network and cache failures have no common base class
        # The repository's name has the tag that timm adds to a NAME without one.
        repository = getattr(timm.get_pretrained_cfg(name), "hf_hub_id", None) or f"timm/{name}"
        raise WeightsError(
            f"can't fetch timm/{name} ({_first_line(error)}); on a machine with internet download "
            f"model.safetensors from https://huggingface.co/{repository}, copy it here, and set "
            "TIMESFORMER.PRETRAINED_MODEL to its path ('' trains from fresh weights)"
        ) from error


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
        return weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # network and cache failures have no common base class
        raise WeightsError(
            f"can't fetch torchvision/{name} ({_first_line(error)}); on a machine with internet "
            f"download {weights.url}, {_TO_BRING}"
        ) from error


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
        folder = Path(snapshot_download(name, allow_patterns=["*.json", _FOLDER_FILES[0]]))
        if not (folder / _FOLDER_FILES[0]).is_file():
            folder = Path(snapshot_download(name, allow_patterns=["*.json", _FOLDER_FILES[1]]))
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
