"""What the content of a file says by itself of the input its model takes, and in which words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from timesformer.clips.preprocessing import KEYS, OF_TESTS, Preprocessing
from timesformer.config.strict_yaml import parse
from timesformer.models.weights.formats import is_pyslowfasts, pyslowfast, said_by_layout
from timesformer.utils.errors import ConfigError

PREPROCESSING_KEYS = ("mean", "std", "channel_order")
"""What every source says that says anything of its input."""


def run_config(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config of a run's checkpoint by full keys; published ones have it as text too.

    There is none where the text can't be read; what it would have said, the weights tell.
    """
    text = content.get("cfg")
    found: dict[str, Any] = {}
    try:
        tree = parse(text, "its config") if isinstance(text, str) else None
    except ConfigError:
        return {}
    for group, keys in tree.items() if isinstance(tree, dict) else ():
        if isinstance(keys, dict):
            found |= {f"{group}.{key}": value for key, value in keys.items()}
        else:
            found[str(group)] = keys
    return found


def check_config(content: Mapping[str, Any], state: Mapping[str, Tensor]) -> None:
    """Make sure that a model here computes what the one does that wrote a file.

    Args:
        content: of the file.
        state: its weights, under native names.

    Raises:
        ValueError: none does; the message says what differs.
    """
    if pyslowfast.matches(state) and not isinstance(content.get("architecture"), Mapping):
        pyslowfast.check(state, run_config(content))


def preprocessing_of(content: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a file says of its input; None if it says nothing.

    It says it by itself, in its config, or by the layout of its weights.
    """
    said = content.get("preprocessing")  # `completed` has looked at it
    if said and {*OF_TESTS} - {"clip_sampling"} <= said.keys():  # segments have none of it
        return dict(said)  # without reading the config, which takes longer than all else here
    config = run_config(content)
    if said:
        return _tested(config, said) | dict(said)
    if "DATA.MEAN" not in config or "DATA.STD" not in config:
        return said_by_layout(content)
    if isinstance(content.get("architecture"), Mapping):  # a run of ours: its config was obeyed
        bgr = config.get("DATA.REVERSE_INPUT_CHANNEL") is True
    elif is_pyslowfasts(content):
        bgr = pyslowfast.takes_bgr(config)
    else:  # published SSv2 models take BGR whatever their config says (see docs/weights.md)
        bgr = str(config.get("TRAIN.DATASET", "")).lower() == "ssv2"
    found = {
        "mean": config["DATA.MEAN"],
        "std": config["DATA.STD"],
        "channel_order": "BGR" if bgr else "RGB",
    }
    try:
        Preprocessing.from_json(found)
    except ValueError:
        return None  # no run's config: the weights may still be of use
    return found | _tested(config, found)


def _tested(config: Mapping[str, Any], said: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a run's config says of its test, beside what is known of the model's input."""
    found = {name: config[KEYS[name]] for name in OF_TESTS if KEYS[name] in config}
    found = {name: value for name, value in found.items() if value is not None}
    if "sampling_rate" not in said:  # where clips lie says nothing without it
        found.pop("clip_sampling", None)
    try:
        Preprocessing.from_json({**said, **found})
    except ValueError:
        return {}
    return found


def completed(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the content with what it says of its input under `preprocessing`, and names checked.

    Raises:
        ValueError: what it calls class names or preprocessing is something else.
    """
    names, said = content.get("class_names"), content.get("preprocessing")
    texts = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if names is not None and not texts:
        raise ValueError(f"its class_names are {names!r:.60}, not a list of texts")
    if said is not None and not isinstance(said, Mapping):
        raise ValueError(f"its preprocessing is {said!r:.60}, not the fields of one")
    if said:
        Preprocessing.from_json(said)
    if not (complete := preprocessing_of(content)) or complete == said:
        return content
    inside = any(isinstance(value, Mapping) for value in content.values())
    return {**(content if inside else {"state_dict": content}), "preprocessing": complete}
