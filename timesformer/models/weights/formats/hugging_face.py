"""Hugging Face's TimeSformer: names of weights, and config.json."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from timesformer.models.architecture import Architecture
from timesformer.models.attention.layers import hidden_width
from timesformer.models.weights.formats.names import put

_PREFIX = "timesformer."
_BLOCK = re.compile(r"encoder\.layer\.(\d+)\.(.+)\.(weight|bias)")
_BLOCK_NAMES = {
    "temporal_layernorm": "temporal_norm1",
    "temporal_attention.attention.qkv": "temporal_attn.qkv",
    "temporal_attention.output.dense": "temporal_attn.proj",
    "temporal_dense": "temporal_fc",
    "layernorm_before": "norm1",
    "attention.attention.qkv": "attn.qkv",
    "attention.output.dense": "attn.proj",
    "layernorm_after": "norm2",
    "intermediate.dense": "mlp.fc1",
    "output.dense": "mlp.fc2",
}
_STEM = {
    "embeddings.cls_token": "cls_token",
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.time_embeddings": "time_embed",
    "embeddings.patch_embeddings.projection.weight": "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.bias": "patch_embed.proj.bias",
    "layernorm.weight": "norm.weight",
    "layernorm.bias": "norm.bias",
}
_DEFAULTS = {
    "image_size": 224,
    "patch_size": 16,
    "num_frames": 8,
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
}
"""Sizes of theirs where config.json doesn't say them."""

_HEAD = {"classifier.weight": "head.weight", "classifier.bias": "head.bias"}

_PROBLEMS = {False: "single_label_classification", True: "multi_label_classification"}
"""What their pipeline and loss call it, by whether a video may have several of the classes."""

NOT_AVERAGED = (
    "space_only of transformers doesn't average over frames; here it does, as published: scores "
    "are other than theirs"
)


def matches(state: Mapping[str, Tensor]) -> bool:
    """Whether these are names of theirs, with or without the head."""
    return any(
        key.removeprefix(_PREFIX).startswith("embeddings.patch_embeddings.projection.")
        for key in state
    ) and any(".attention.attention.qkv." in key for key in state)


def is_space_only(state: Mapping[str, Tensor]) -> bool:
    """Whether these are weights of their space-only model, the only one without time embeddings."""
    return matches(state) and not any("embeddings.time_embeddings" in key for key in state)


def to_native(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our names; a name that isn't known stays, and loading will report it.

    Raises:
        ValueError: two entries have one name.
    """
    native: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key.removeprefix(_PREFIX)
        match = _BLOCK.fullmatch(name)
        if match and match[2] in _BLOCK_NAMES:
            ours = f"blocks.{match[1]}.{_BLOCK_NAMES[match[2]]}.{match[3]}"
        else:
            ours = _STEM.get(name) or _HEAD.get(name) or key
        put(native, ours, value, key)
    return native


def without_unused(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Tensor]:
    """Leave out the temporal layers that earlier `transformers` stored for every scheme."""
    if config.get("attention_type", "divided_space_time") == "divided_space_time":
        return dict(state)
    return {key: value for key, value in state.items() if ".temporal_" not in key}


def from_native(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names of their TimesformerForVideoClassification.

    Raises:
        ValueError: if the model has parts that theirs lacks.
    """
    blocks = {ours: theirs for theirs, ours in _BLOCK_NAMES.items()}
    stem = {ours: _PREFIX + theirs for theirs, ours in _STEM.items()}
    stem |= {ours: theirs for theirs, ours in _HEAD.items()}
    renamed = {}
    for key, value in state.items():
        match = re.fullmatch(r"blocks\.(\d+)\.(.+)\.(weight|bias)", key)
        if key in stem:
            renamed[stem[key]] = value
        elif match and match[2] in blocks:
            name = f"{_PREFIX}encoder.layer.{match[1]}.{blocks[match[2]]}.{match[3]}"
            renamed[name] = value
        else:
            raise ValueError(f"Hugging Face's TimeSformer has no {key}")
    if missing := stem.keys() - state.keys():
        raise ValueError(f"Hugging Face's TimeSformer needs {', '.join(sorted(missing))}")
    return renamed


def to_config(
    architecture: Architecture, class_names: Sequence[str], multi_label: bool | None = None
) -> dict[str, Any]:
    """Their config.json of a model.

    Args:
        architecture: of the model.
        class_names: in label order, or ().
        multi_label: a video may have several of the classes; None where that isn't known.

    Raises:
        ValueError: if their model can't compute the same.
    """
    scheme = architecture.attention_type
    # Their space_only takes the CLS of the first frame where ours averages over frames.
    if scheme not in ("divided_space_time", "joint_space_time") or architecture.cls_in_time:
        raise ValueError(
            "Hugging Face's TimeSformer computes divided_space_time (without CLS in time) and "
            f"joint_space_time as ours does, but not {scheme}"
        )
    if architecture.tubelet_size != 1:
        raise ValueError("Hugging Face's TimeSformer has patches of one frame, no tubelets")
    if not isinstance(architecture.img_size, int):
        raise ValueError(f"Hugging Face's frames are square, not {architecture.img_size}")
    classes = architecture.num_classes
    labels = list(class_names) or [f"LABEL_{i}" for i in range(classes)]
    if len(labels) != classes:
        raise ValueError(f"{len(labels)} class names for {classes} classes")
    problem = {} if multi_label is None else {"problem_type": _PROBLEMS[multi_label]}
    return {
        "model_type": "timesformer",
        "architectures": ["TimesformerForVideoClassification"],
        "attention_type": scheme,
        "image_size": architecture.img_size,
        "patch_size": architecture.patch_size,
        "num_channels": 3,
        "num_frames": architecture.num_frames,
        "hidden_size": architecture.embed_dim,
        "num_hidden_layers": architecture.depth,
        "num_attention_heads": architecture.num_heads,
        "intermediate_size": hidden_width(architecture.embed_dim, architecture.mlp_ratio),
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
        "drop_path_rate": 0,  # theirs has to be whole; it only matters for training
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
        **problem,
    }


def from_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Knobs of `Architecture` for a config.json of theirs, whose own defaults fill gaps.

    Raises:
        ValueError: if our model can't compute the same.
    """
    for key, ours in (("layer_norm_eps", 1e-6), ("qkv_bias", True), ("hidden_act", "gelu")):
        if config.get(key, ours) != ours:
            raise ValueError(f"config.json: {key} is {config[key]}, and the model here has {ours}")
    sizes = {key: config.get(key, theirs) for key, theirs in _DEFAULTS.items()}
    for key, size in sizes.items():
        if not isinstance(size, int) or size < 1:
            raise ValueError(f"config.json: {key} is {size!r:.60}, not a whole number above 0")
    return {
        "img_size": sizes["image_size"],
        "patch_size": sizes["patch_size"],
        "num_frames": sizes["num_frames"],
        "attention_type": config.get("attention_type", "divided_space_time"),
        "embed_dim": sizes["hidden_size"],
        "depth": sizes["num_hidden_layers"],
        "num_heads": sizes["num_attention_heads"],
        "mlp_ratio": sizes["intermediate_size"] / sizes["hidden_size"],
        "drop_path_rate": float(config.get("drop_path_rate", 0.0)),
    }


# Keys of config.json that say sizes of weights: the weight and dimension that tell, and of what.
_SIZES = {
    "hidden_size": ("embeddings.cls_token", -1, "numbers in a token"),
    "patch_size": ("embeddings.patch_embeddings.projection.weight", -1, "pixels"),
    "num_frames": ("embeddings.time_embeddings", 1, "frames"),
    "image_size": ("embeddings.position_embeddings", 1, "positions"),
    "intermediate_size": ("encoder.layer.0.intermediate.dense.weight", 0, "hidden numbers"),
    "id2label": ("classifier.weight", 0, "classes"),
    "num_labels": ("classifier.weight", 0, "classes"),
}


def check(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> None:
    """Make sure that weights are of the sizes that config.json says, as `transformers` does.

    Raises:
        ValueError: naming the key that differs.
    """
    ours = from_config(config)
    asked = {
        "hidden_size": ours["embed_dim"],
        "patch_size": ours["patch_size"],
        "num_frames": ours["num_frames"],
        "image_size": 1 + (ours["img_size"] // ours["patch_size"]) ** 2,
        "intermediate_size": config.get("intermediate_size", _DEFAULTS["intermediate_size"]),
    }
    # Labels needn't be said; theirs has two then, and the weights know better.
    if config.get("id2label"):
        asked["id2label"] = len(config["id2label"])
    elif config.get("num_labels"):
        asked["num_labels"] = config["num_labels"]
    for key, number in asked.items():
        weight, dimension, what = _SIZES[key]
        stored = state.get(weight, state.get(_PREFIX + weight))
        if isinstance(stored, Tensor) and stored.ndim > max(dimension, 0):
            _compare(config, key, number, stored.shape[dimension], what)
    layers = {m[1] for key in state if (m := _BLOCK.fullmatch(key.removeprefix(_PREFIX)))}
    _compare(config, "num_hidden_layers", ours["depth"], len(layers), "layers")


def _compare(config: Mapping[str, Any], key: str, asked: int, stored: int, what: str) -> None:
    if asked != stored:
        said = asked if key == "id2label" else config.get(key, "not said")
        raise ValueError(
            f"config.json: {key} is {said}, which asks for {asked} {what}, and the weights have "
            f"{stored}: set it to what they were trained with"
        )


def class_names(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Class names in label order; () where there are only placeholders."""
    labels = config.get("id2label") or {}
    names = tuple(str(labels[key]) for key in sorted(labels, key=int))
    return () if all(name == f"LABEL_{i}" for i, name in enumerate(names)) else names


def multi_label(config: Mapping[str, Any]) -> bool | None:
    """Tell whether a video may have several of the classes; None where config.json doesn't say."""
    said = {name: several for several, name in _PROBLEMS.items()}
    return said.get(config.get("problem_type", ""))
