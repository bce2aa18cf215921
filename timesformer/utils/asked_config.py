"""The config that a command line asks for: defaults, recipe or run, KEY VALUE pairs; checked."""

from __future__ import annotations

import argparse
from pathlib import Path

from timesformer.config.allowed import PATHS
from timesformer.config.defaults import get_cfg
from timesformer.config.node import CfgNode
from timesformer.config.recipes import find_recipe
from timesformer.config.validate import check, check_devices
from timesformer.utils.errors import ConfigError
from timesformer.utils.files import expand_home, is_folder, is_in_parts


def load_recipe(args: argparse.Namespace, stored: tuple[str, str] = ("", "")) -> CfgNode:
    """Merge defaults, recipe and KEY VALUE pairs, in this order, and check them.

    Args:
        args: what a parser with `add_cfg` and `add_pairs` returned.
        stored: the YAML to take where there is no `--cfg`, and the file that it is from.

    Raises:
        ConfigError: in one line, what to change.
    """
    cfg = _merge(args, stored)
    check(cfg)
    return cfg


def load_config(args: argparse.Namespace, only: str | None = None) -> CfgNode:
    """Do what `load_recipe` does, with shard options, and check that this node has the GPUs.

    Args:
        args: what `parse_args` returned.
        only: "train" or "test" turns the other one off.

    Returns:
        The config, not frozen.

    Raises:
        ConfigError: in one line, what to change.
    """
    cfg = _merge(args, only=only)
    if args.num_shards is not None:
        cfg.NUM_SHARDS = args.num_shards
    if args.shard_id is not None:
        cfg.SHARD_ID = args.shard_id
    if only is not None:
        _restrict(cfg, only)
    check(cfg)
    check_devices(cfg)
    return cfg


def _merge(
    args: argparse.Namespace, stored: tuple[str, str] = ("", ""), only: str | None = None
) -> CfgNode:
    cfg, path = get_cfg(), Path(expand_home(args.cfg_file or ""))
    if args.cfg_file is None:
        cfg.merge_from_string(*stored)
    elif _is_checkpoint(path) or is_run(path):
        _merge_stored(cfg, path)
        if only:  # `timesformer train` stored that it doesn't test
            cfg[only.upper()].ENABLE = True
        if only == "test":  # this run, even if OUTPUT_DIR sends its scores elsewhere
            cfg.TEST.CHECKPOINT_FILE_PATH = str(path)
    else:
        cfg.merge_from_file(find_recipe(args.cfg_file))
    cfg.merge_from_list(args.opts or [])
    for key in PATHS:
        group, _, name = key.rpartition(".")
        node = cfg[group] if group else cfg
        node[name] = expand_home(node[name])  # text, perhaps timm/NAME
    return cfg


def _merge_stored(cfg: CfgNode, path: Path) -> None:
    """Merge the config that a checkpoint was trained with; of a run's folder, the newest has it.

    What the run is called is where it lies now: OUTPUT_DIR is its folder. A file is what is tested.

    Raises:
        ConfigError: there is no checkpoint, or it says no config.
    """
    # A recipe doesn't wait for torch.
    from timesformer.utils.checkpoint import get_last_checkpoint, read_checkpoint

    file = path if _is_checkpoint(path) else get_last_checkpoint(path)
    if file is None:
        raise ConfigError(f"--cfg {path}: this run has no checkpoint that can be read")
    text = read_checkpoint(file).get("cfg")
    if not isinstance(text, str):
        raise ConfigError(f"--cfg {file}: it doesn't say what config it was trained with")
    cfg.merge_from_string(text, str(file))
    if file is path:
        cfg.TEST.CHECKPOINT_FILE_PATH = str(path)
        if path.parent.name == "checkpoints":
            cfg.OUTPUT_DIR = str(path.parent.parent)
    else:
        cfg.OUTPUT_DIR, cfg.TEST.CHECKPOINT_FILE_PATH = str(path), ""


def _restrict(cfg: CfgNode, only: str) -> None:
    other = {"train": "test", "test": "train"}[only]
    key = f"{only.upper()}.ENABLE"
    if not cfg[only.upper()].ENABLE:
        raise ConfigError(f"{key} is False: use `timesformer {other}`, or set {key} True")
    cfg[other.upper()].ENABLE = False


def is_run(path: str | Path) -> bool:
    """Whether a path is the folder of a run."""
    return is_folder(Path(expand_home(path)) / "checkpoints")


def _is_checkpoint(path: Path) -> bool:
    return path.suffix == ".pyth" or is_in_parts(path)
