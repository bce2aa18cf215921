"""Every study's runs: their configs can work, their names say what they are and are shared."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

import pytest

import timesformer.studies.catalogue  # noqa: F401  (registers studies)
from timesformer.commands import reproduce
from timesformer.models.architecture import Architecture
from timesformer.models.build import meta_model
from timesformer.studies.plan import Plan, make_plan
from timesformer.studies.registry import STUDY_REGISTRY, TABLE_REGISTRY, find, names
from timesformer.studies.study import DATA
from timesformer.utils.errors import UserError
from timesformer.utils.parser import load_config, parse_args

ROOT = Path(__file__).resolve().parents[2]
OUT = Path("out")
NONE = {("test-clips", "ssv2")}
CASES = [(n, d) for n in names(STUDY_REGISTRY) for d in DATA if (n, d) not in NONE]
_built: set[Architecture] = set()


def plan_of(name: str, data: str = "synthetic", seeds: int = 1, *pairs: str) -> Plan:
    return make_plan(name, find(STUDY_REGISTRY, "", name)(), DATA[data], seeds, pairs, OUT)


@pytest.mark.parametrize(("name", "data"), CASES)
def test_every_run_can_work(name: str, data: str) -> None:
    plan = plan_of(name, data)
    assert {point.data.name for point in plan.points} == {panel.name for panel in DATA[data]}
    for run in plan.runs.values():
        architecture = Architecture.from_cfg(run.cfg)
        if architecture not in _built:
            meta_model(run.cfg)
            _built.add(architecture)
        assert run.cfg.TEST.ENABLE
        assert len(run.name.encode()) < 250


def test_words_make_the_config_that_was_planned() -> None:
    (run, *_) = plan_of("frames", "synthetic", 1, "SOLVER.MAX_EPOCH", "2").runs.values()
    cfg = load_config(parse_args([*run.words]))
    assert dict(cfg.leaves()) == dict(run.cfg.leaves())
    assert cfg.SOLVER.MAX_EPOCH == 2


def defaults(name: str) -> set[str]:
    return {run for run in plan_of(name).runs if run.split("-seed")[0] in USUAL}


USUAL = {"static-divided_space_time", "temporal-divided_space_time"}


def test_studies_share_the_runs_that_both_need() -> None:
    shared = defaults("schemes")
    assert len(shared) == 2
    others = ("positions", "order", "frames", "resolution", "parameters", "pretraining")
    assert all(defaults(name) == shared for name in (*others, "data-scale", "test-clips"))


@pytest.mark.parametrize(("data", "number"), [("synthetic", 5), ("kinetics", 2)])
def test_a_shipped_recipe_is_the_same_run_as_its_keys(data: str, number: int) -> None:
    models, layers = plan_of("vivit", data).runs, plan_of("temporal-layers", data).runs
    # Without blocks over time and with four; what they start from.
    assert len(models.keys() & layers.keys()) == number


def test_every_figure_and_table_is_on_the_page() -> None:
    page = (ROOT / "docs" / "paper.md").read_text()
    assert {*re.findall(r"--figure ([\w-]+)", page)} == {*names(STUDY_REGISTRY)}
    assert {*re.findall(r"--table ([\w-]+)", page)} >= {*names(TABLE_REGISTRY)}


def test_names_are_the_same_in_every_folder() -> None:
    study = find(STUDY_REGISTRY, "", "pretraining")()
    there = make_plan("pretraining", study, DATA["synthetic"], 1, [], Path("elsewhere"))
    assert [*there.runs] == [*plan_of("pretraining").runs]


def test_names_are_of_settings() -> None:
    before = {*plan_of("positions").runs}
    assert {*plan_of("positions", "synthetic", 1, "DATA_LOADER.NUM_WORKERS", "0").runs} == before
    after = {*plan_of("positions", "synthetic", 1, "SOLVER.MAX_EPOCH", "3").runs}
    assert not before & after
    assert all("max_epoch=3" in name for name in after)


def test_what_a_run_needs_comes_before_it() -> None:
    plan = plan_of("pretraining", seeds=3)
    order = list(plan.runs)
    needy = [run for run in plan.runs.values() if run.needs]
    assert len(needy) == 12
    for run in needy:
        (need,) = run.needs
        assert order.index(need) < order.index(run.name)
        assert str(plan.runs[need].folder) in run.words
    assert len({need for run in needy for need in run.needs}) == 1  # one image model for all seeds


def test_a_test_is_of_the_model_of_its_seed() -> None:
    plan = plan_of("test-clips", seeds=2)
    tests = [run for run in plan.runs.values() if not run.cfg.TRAIN.ENABLE]
    assert len(tests) == 2 * 3 * 2
    for run in tests:
        (tested,) = [plan.runs[n] for n in run.needs if not n.startswith("images")]
        assert str(tested.folder) == run.cfg.TEST.CHECKPOINT_FILE_PATH
        assert tested.cfg.RNG_SEED == run.cfg.RNG_SEED
        assert tested.cfg.DATA.NUM_FRAMES == run.cfg.DATA.NUM_FRAMES


@pytest.mark.parametrize(
    ("pairs", "said"),
    [
        (("OUTPUT_DIR", "x"), "OUTPUT_DIR: leave it out: each run has a folder in --out"),
        (("RNG_SEED", "1"), "--seeds"),
        (("DATA.PATH_TO_DATA_DIR", "x"), "a folder of its own"),
        (("DATA.NUM_FRAMES", "4"), "it is what frames sets for its variants"),
        (("TRAIN.ENABLE", "False"), "its runs train"),
        (("TEST.ENABLE", "False"), "the tests of its runs"),
        (("TEST.CHECKPOINT_FILE_PATH", "x.pyth"), "what its runs train"),
        (("DATA.MULTI_LABEL", "True"), "a figure shows top-1"),
        (("MODEL.MODEL_NAME", "vit_bace"), "MODEL.MODEL_NAME 'vit_bace' is not known"),
        (("MODEL.MODEL_NAME", "slowfast_r50"), "^slowfast_r50: "),
    ],
)
def test_pairs_that_a_study_cannot_take(pairs: Sequence[str], said: str) -> None:
    with pytest.raises(UserError, match=said):
        plan_of("frames", "synthetic", 1, *pairs)


def test_variants_that_would_be_one_are_refused() -> None:
    study = find(STUDY_REGISTRY, "", "positions")()
    twice = type(study)(study.title, lambda data: [study.variants(data)[0]] * 2)
    with pytest.raises(UserError, match="make none and none the same run"):
        make_plan("positions", twice, DATA["kinetics"], 1, [], OUT)


def test_dry_run_prints_commands(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    words = ["--figure", "order", "--data", "kinetics", "--seeds", "2", "--dry-run"]
    reproduce.main([*words, "--out", str(tmp_path / "x"), "NUM_GPUS", "0"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    for line in lines:
        program, command, *rest = shlex.split(line)
        assert (program, command) == ("timesformer", "run")
        assert load_config(parse_args(rest)).NUM_GPUS == 0
    assert not (tmp_path / "x").exists()
