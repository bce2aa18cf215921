"""The schema: complete, commented, copied on every call, and disjoint from what is deprecated."""

from __future__ import annotations

import pickle
import re
from dataclasses import fields

import pytest
from fvcore.common.config import CfgNode as FvcoreNode

from timesformer.config.defaults import get_cfg, key_comments
from timesformer.config.deprecated import DEPRECATED
from timesformer.config.node import CfgNode
from timesformer.config.validate import check
from timesformer.models.architecture import Architecture


def test_the_defaults_pass_their_own_checks() -> None:
    check(get_cfg())


def test_paper_values() -> None:
    cfg = get_cfg()
    assert isinstance(cfg, FvcoreNode)
    assert (cfg.SOLVER.BASE_LR, cfg.SOLVER.MAX_EPOCH, cfg.SOLVER.WEIGHT_DECAY) == (0.005, 15, 1e-4)
    assert (cfg.SOLVER.STEPS, cfg.SOLVER.LRS) == ([0, 11, 14], [1, 0.1, 0.01])
    assert (cfg.DATA.NUM_FRAMES, cfg.DATA.SAMPLING_RATE, cfg.DATA.TARGET_FPS) == (8, 32, 30)
    model = cfg.TIMESFORMER
    assert (model.EMBED_DIM, model.DEPTH, model.NUM_HEADS, model.PATCH_SIZE) == (768, 12, 12, 16)


def test_each_call_returns_its_own_copy() -> None:
    get_cfg().SOLVER.STEPS.append(99)
    get_cfg().TRAIN.BATCH_SIZE = 1
    assert get_cfg().SOLVER.STEPS == [0, 11, 14]
    assert get_cfg().TRAIN.BATCH_SIZE == 64


def test_every_key_has_a_comment_above_it() -> None:
    comments = key_comments()
    assert list(comments) == [key for key, _ in get_cfg().leaves()]
    assert comments["DATA.NUM_FRAMES"] == "Frames T of a clip."
    bare = {key for key, comment in comments.items() if not comment}
    # Those of the architecture have their meaning there, in one place.
    assert bare <= {knob.metadata["key"] for knob in fields(Architecture)}
    assert "TIMESFORMER.CLS_IN_TIME" in bare


def test_a_group_whose_name_a_key_has_now_sends_there() -> None:
    keys = {key.partition(".")[2]: key for key, _ in get_cfg().leaves()}
    groups = [group for group in DEPRECATED if group in keys]
    assert "MULTIGRID" in groups
    for group in groups:
        assert f"use {keys[group]}" in DEPRECATED[group]


def test_deprecated_keys_are_not_in_the_schema() -> None:
    cfg = get_cfg()
    known = set(dict(cfg.leaves())) | set(cfg)
    assert known & set(DEPRECATED) == set()
    # A key belongs to a group of ours; a name without a dot is a whole group.
    assert {key.split(".")[0] for key in DEPRECATED if "." in key} <= set(cfg)


def test_a_replacement_that_is_named_exists() -> None:
    known = dict(get_cfg().leaves())
    for key, why in DEPRECATED.items():
        named = re.findall(r"[A-Z_]+\.[A-Z_]+", why)
        assert set(named) <= set(known), key


def test_clone_freeze_and_pickle() -> None:
    cfg = get_cfg()
    cfg.NUM_GPUS = 3
    clone = cfg.clone()
    clone.freeze()
    with pytest.raises(AttributeError):
        clone.TRAIN.BATCH_SIZE = 1
    with pytest.raises(AttributeError):
        clone.merge_from_list(["NUM_GPUS", 1])
    back = pickle.loads(pickle.dumps(clone))  # how spawned processes get it
    assert back == cfg
    assert isinstance(back.TRAIN, CfgNode)
    assert back.is_frozen()
    assert not cfg.is_frozen()
