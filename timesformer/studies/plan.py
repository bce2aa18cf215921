"""From a study to its runs: what each is called, which it needs, and the words that start it.

A run is known by all its settings: two studies that need the same one share it.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from timesformer.config.defaults import get_cfg
from timesformer.config.node import CfgNode
from timesformer.config.recipes import find_recipe
from timesformer.config.validate import check
from timesformer.models.build import label, meta_model
from timesformer.studies.study import Data, Recipe, Study, Variant
from timesformer.utils.errors import UserError

RUNS = "runs"  # folder of the runs, in --out
NAME_LENGTH = 150
# Where a run happens, and how it is watched: not what it is.
_ELSEWHERE = re.compile(
    r"OUTPUT_DIR|RNG_SEED|NUM_GPUS|NUM_SHARDS|SHARD_ID|DIST_BACKEND|LOG_\w+|DATA_LOADER\..*|"
    r"TENSORBOARD\..*|TRAIN\.(AUTO_RESUME|KEEP_CHECKPOINTS|CHECKPOINT_\w+|ON_FAILED_SAVE)|"
    r"TEST\.SAVE_RESULTS_PATH|DATA\.(PATH_TO_DATA_DIR|PATH_PREFIX|DECODE_TIMEOUT)"
)
# How long and in what portions, which may be changed from outside though a study says it.
_FREE = re.compile(r"SOLVER\..*|GLOBAL_BATCH_SIZE|(TRAIN|TEST)\.BATCH_SIZE")
_OURS = {
    "OUTPUT_DIR": "each run has a folder in --out",
    "RNG_SEED": "--seeds says how many",
    "TRAIN.AUTO_RESUME": "--resume goes on with what there is",
    "TRAIN.ENABLE": "a figure is of models that its runs train",
    "TEST.ENABLE": "a figure is drawn from the tests of its runs",
    "TEST.CHECKPOINT_FILE_PATH": "a figure is drawn from tests of what its runs train",
    "DATA.MULTI_LABEL": "a figure shows top-1, which videos with several labels don't have",
}
_OF_MODELS = ("MODEL.", "TIMESFORMER.", "CNN.")  # keys that a model may not know
_ALWAYS = {"TRAIN.AUTO_RESUME": True, "TENSORBOARD.ENABLE": False}


@dataclass(frozen=True)
class Run:
    """A training and its test, or a test of another run's model.

    Attributes:
        name: of its folder: what it is, and a digest of all its settings.
        folder: its OUTPUT_DIR.
        words: after `timesformer run`.
        cfg: the config that they make.
        data: what it is trained on.
        needs: names of the runs whose models it starts from or tests.
    """

    name: str
    folder: Path
    words: tuple[str, ...]
    cfg: CfgNode = field(compare=False, repr=False)
    data: Data = field(compare=False, repr=False)
    needs: tuple[str, ...] = ()

    @property
    def command(self) -> str:
        """The command line."""
        return shlex.join(["timesformer", "run", *self.words])


@dataclass(frozen=True)
class Point:
    """A variant on some data, and its runs, one a seed."""

    data: Data
    variant: Variant
    runs: tuple[Run, ...]


@dataclass(frozen=True)
class Plan:
    """A study's points, and all runs by their names, each after those that it needs."""

    name: str
    study: Study
    points: tuple[Point, ...]
    runs: Mapping[str, Run]


def make_plan(
    name: str, study: Study, data: Sequence[Data], seeds: int, pairs: Sequence[str], out: Path
) -> Plan:
    """Work out the runs of a study.

    Args:
        name: of the study.
        study: what it declares.
        data: its panels.
        seeds: 0 to seeds - 1.
        pairs: KEY VALUE pairs for every run.
        out: the folder that has them in `runs`.

    Raises:
        UserError: a pair changes what the study sets, or makes two of its variants one.
        ConfigError: a config can't work, or a pair is nothing that a model knows.
    """
    planner = _Planner(out, tuple(pairs))
    variants = [(panel, variant) for panel in data for variant in study.variants(panel)]
    _refuse_pairs(name, data, [variant.recipe for _, variant in variants], pairs)
    found: dict[int, list[Run]] = {i: [] for i in range(len(variants))}
    for seed in range(seeds):  # all variants of a seed first, should it end before its time
        for i, (panel, variant) in enumerate(variants):
            found[i].append(planner.run(panel, variant.recipe, seed))
    points = tuple(Point(*variants[i], tuple(runs)) for i, runs in found.items())
    _refuse_equals(points)
    if any(key.startswith(_OF_MODELS) for key in pairs[::2]):
        for run in planner.runs.values():
            if run.cfg.RNG_SEED == 0:
                meta_model(run.cfg)
    return Plan(name, study, points, planner.runs)


class _Planner:
    def __init__(self, out: Path, pairs: tuple[str, ...]) -> None:
        self.out, self.pairs = out, pairs
        self.runs: dict[str, Run] = {}
        self._loaded: dict[tuple[str, tuple[str, ...]], CfgNode] = {}

    def run(self, data: Data, recipe: Recipe, seed: int) -> Run:
        """Return a run, which may be known already, after having noted those that it needs."""
        data = recipe.data or data
        seed = seed if recipe.seed is None else recipe.seed
        needs = {
            key: self.run(data, value, seed)
            for key, value in recipe.keys.items()
            if isinstance(value, Recipe)
        }
        keys = {**_ALWAYS, **recipe.keys} | {key: str(run.folder) for key, run in needs.items()}
        # A model that is yet to be made would be missed.
        cfg = self._load(recipe.cfg, {k: v for k, v in keys.items() if k not in needs})
        cfg.merge_from_list(_words({key: keys[key] for key in needs}))
        needed = {key: run.name for key, run in needs.items()}
        start = {
            key: self.run(data, value, seed).name if isinstance(value, Recipe) else value
            for key, value in data.start.items()
        }
        usual = dict(_shipped(data.recipe).leaves()) | start
        name = _name_of(data, cfg, usual, seed, needed)
        if name not in self.runs:
            folder = self.out / RUNS / name
            cfg.OUTPUT_DIR, cfg.RNG_SEED = str(folder), seed
            last = _words({"OUTPUT_DIR": folder, "RNG_SEED": seed})
            words = ("--cfg", recipe.cfg, *_words(keys), *self.pairs, *last)
            self.runs[name] = Run(name, folder, words, cfg, data, tuple(needed.values()))
        return self.runs[name]

    def _load(self, recipe: str, keys: Mapping[str, Any]) -> CfgNode:
        """Return a checked config with the keys and the pairs."""
        words = (*_words(keys), *self.pairs)
        if (recipe, words) not in self._loaded:  # seeds are many
            cfg = _shipped(recipe).clone()
            cfg.merge_from_list(words)
            check(cfg)
            self._loaded[recipe, words] = cfg
        return self._loaded[recipe, words].clone()


@cache
def _shipped(recipe: str) -> CfgNode:
    cfg = get_cfg()
    cfg.merge_from_file(find_recipe(recipe))
    return cfg


def _name_of(
    data: Data, cfg: CfgNode, usual: Mapping[str, Any], seed: int, needed: Mapping[str, str]
) -> str:
    """Say what a run is: data, model, what differs from the data's recipe, seed, digest.

    Args:
        data: what it is trained on.
        cfg: its config.
        usual: what studies of the data take if they say nothing else.
        seed: of the run.
        needed: names of other runs, by the keys that have their folders.
    """
    keys = {key: value for key, value in cfg.leaves() if not _ELSEWHERE.fullmatch(key)}
    keys.update(needed)
    default = dict(get_cfg().leaves())
    # Only what differs from the defaults: a key that the schema gets later changes nothing.
    settings = {key: value for key, value in keys.items() if value != default[key]}
    settings["data"] = [data.name, Path(cfg.DATA.PATH_TO_DATA_DIR).name]
    text = json.dumps(settings, sort_keys=True, default=str)
    digest = hashlib.sha256(text.encode()).hexdigest()[:8]
    said = {"TIMESFORMER.ATTENTION_TYPE", "MODEL.MODEL_NAME"}  # by the label
    differs = [
        f"{key.rpartition('.')[2].lower()}={_short(value)}"
        for key, value in keys.items()
        if key not in said and value != usual[key]
    ]
    what = re.sub(r"[^\w.=,-]+", "_", "-".join([data.name, label(cfg), *differs]))
    return f"{what[:NAME_LENGTH]}-seed{seed}-{digest}"


def _words(keys: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(str(word) for pair in keys.items() for word in pair)


def _short(value: Any) -> str:
    text = re.sub(r"[\s\[\]']+", "", str(value)) or "none"
    return text if len(text) <= 24 else f"{text[:8]}.{text[-8:]}"


def _all_keys(recipe: Recipe) -> Iterator[str]:
    for key, value in recipe.keys.items():
        yield key
        if isinstance(value, Recipe):
            yield from _all_keys(value)


def _refuse_pairs(
    name: str, data: Sequence[Data], recipes: Sequence[Recipe], pairs: Sequence[str]
) -> None:
    """Refuse pairs that would make of a study another one, with labels that lie."""
    ours = dict(_OURS)
    if any(panel.generated for panel in data):
        ours["DATA.PATH_TO_DATA_DIR"] = "each Synthetic set has a folder of its own"
    sets = {key for recipe in recipes for key in _all_keys(recipe) if not _FREE.fullmatch(key)}
    for key in pairs[::2]:
        if key in ours:
            raise UserError(f"{key}: leave it out: {ours[key]}")
        if key in sets:
            raise UserError(f"{key}: leave it out: it is what {name} sets for its variants")


def _refuse_equals(points: Sequence[Point]) -> None:
    seen: dict[tuple[str, str, int], str] = {}
    for point in points:
        name = point.variant.name
        key = (point.data.name, point.runs[0].name, point.variant.clips)
        if key in seen:
            raise UserError(f"the KEY VALUE pairs make {seen[key]} and {name} the same run")
        seen[key] = name
