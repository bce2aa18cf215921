"""Weights that are fetched: from the hubs of timm, torchvision and Hugging Face."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from timesformer.models.weights.folders import of_timm, read_folder
from timesformer.models.weights.formats.foreign import TORCHVISION
from timesformer.utils.errors import FetchError, WeightsError
from timesformer.utils.text import did_you_mean

logger = logging.getLogger(__name__)

_SHARDS = (
    ("model.safetensors", "model-*.safetensors"),
    ("pytorch_model.bin", "pytorch_model-*.bin"),
)
_TO_BRING = "copy it here, and name its path instead (TIMESFORMER.PRETRAINED_MODEL '' for none)"


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
        raise FetchError(
            f"can't fetch timm/{name} ({_first_line(error)}); on a machine with internet download "
            f"model.safetensors from https://huggingface.co/{repository}, copy it here, and set "
            "TIMESFORMER.PRETRAINED_MODEL to its path ('' trains from fresh weights)"
        ) from error
    content = {"state_dict": model.state_dict(), "arguments": _heads(model)}
    return content | of_timm(getattr(model, "pretrained_cfg", None))


def _heads(model: Any) -> dict[str, int]:
    """Return the number of heads of a ViT of timm, which its weights don't tell; {} of another."""
    heads = {
        getattr(getattr(b, "attn", None), "num_heads", 0) for b in getattr(model, "blocks", ())
    }
    return {"num_heads": heads.pop()} if len(heads) == 1 and 0 not in heads else {}


def _fetch_torchvision(name: str) -> Mapping[str, Any]:
    from torchvision import models  # takes a second, and few need it

    model, _, tag = name.partition(".")
    try:
        choices = models.get_model_weights(model)
    except ValueError as error:
        hint = _hint("torchvision", model, models.list_models())
        raise WeightsError(f"torchvision/{name}: torchvision has no model {model}{hint}") from error
    if model.startswith("vit_"):  # before hundreds of megabytes come for nothing
        raise WeightsError(f"torchvision/{name}: {TORCHVISION}")
    known = [weights.name for weights in choices]
    if (tag or "DEFAULT") not in choices.__members__:
        names = ", ".join(f"torchvision/{model}.{known_tag}" for known_tag in known)
        raise WeightsError(f"torchvision/{name}: no such weights; there are {names or 'none'}")
    weights = choices[tag or "DEFAULT"]
    logger.info("fetching torchvision/%s.%s", model, weights.name)
    try:
        state = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except Exception as error:  # network and cache failures have no common base class
        raise FetchError(
            f"can't fetch torchvision/{name} ({_first_line(error)}); on a machine with internet "
            f"download {weights.url}, {_TO_BRING}"
        ) from error
    return {"state_dict": state} | of_timm(vars(weights.transforms()))


def _fetch_hugging_face(name: str) -> Mapping[str, Any]:
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise FetchError(
            f"hf/{name}: fetching it needs huggingface_hub (pip install 'timesformer[hub]'); or "
            f"download its config.json and model.safetensors to a folder, {_TO_BRING}"
        ) from error
    logger.info("fetching hf/%s", name)
    try:
        folder = Path(snapshot_download(name, allow_patterns=["*.json", *_SHARDS[0]]))
        if not any(folder.glob("model*.safetensors")):
            folder = Path(snapshot_download(name, allow_patterns=["*.json", *_SHARDS[1]]))
    except Exception as error:  # network, cache and missing repositories: no common base class
        raise FetchError(
            f"can't fetch hf/{name} ({_first_line(error)}); on a machine with internet download "
            f"config.json and model.safetensors from https://huggingface.co/{name} to a folder, "
            f"{_TO_BRING}"
        ) from error
    return read_folder(folder)


HUBS: dict[str, Callable[[str], Mapping[str, Any]]] = {
    "timm": _fetch_timm,
    "torchvision": _fetch_torchvision,
    "hf": _fetch_hugging_face,
}
"""What fetches the rest of a name, by what stands before its first slash."""
