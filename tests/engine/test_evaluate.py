"""Testing: scores by index, ensembles, result files, and weights that must be there."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from small_run import small_cfg, stats

from timesformer.clips.ensemble import ensemble
from timesformer.commands.convert import main as convert
from timesformer.config.defaults import get_cfg
from timesformer.datasets.decoder import load_clip
from timesformer.engine.broken import BrokenVideos
from timesformer.engine.evaluate import _rename_former_results, test
from timesformer.engine.scoring import Rows, score_videos
from timesformer.engine.train import train
from timesformer.models.build import build_model, meta_model, view_shape
from timesformer.models.create import from_pretrained
from timesformer.models.profiling import count_macs
from timesformer.utils.checkpoint import get_last_checkpoint, read_checkpoint, write_checkpoint
from timesformer.utils.errors import (
    AnnotationError,
    ConfigError,
    TrainingError,
    UserError,
    WeightsError,
)
from timesformer.utils.parser import load_config, parse_args
from timesformer.utils.torch_file import stored_digest

run_test = test  # pytest would collect a function called `test`
del test


@pytest.fixture(scope="module")
def checkpoint(synthetic_dir, tmp_path_factory):
    output = tmp_path_factory.mktemp("trained")
    train(small_cfg(synthetic_dir, output, SOLVER__MAX_EPOCH=1))
    return get_last_checkpoint(output)


def test_ensembles():
    per_view = torch.tensor([[[1.0, 3.0], [2.0, 0.0]]])
    assert ensemble(per_view, "sum").tolist() == [[3.0, 3.0]]
    assert ensemble(per_view, "max").tolist() == [[2.0, 3.0]]
    expected = (torch.tensor([1.0, 3.0]).softmax(0) + torch.tensor([2.0, 0.0]).softmax(0)) / 2
    torch.testing.assert_close(ensemble(per_view, "prob")[0], expected)
    with pytest.raises(ValueError, match="mean"):
        ensemble(per_view, "mean")


def test_result_files(synthetic_dir, tmp_path, checkpoint):
    cfg = small_cfg(
        synthetic_dir,
        tmp_path,
        LOG_MODEL_INFO=True,
        TEST__CHECKPOINT_FILE_PATH=checkpoint,
        TRAIN__ENABLE=False,
        TEST__NUM_ENSEMBLE_VIEWS=2,
        TEST__SAVE_RESULTS_PATH="scores.npz,scores.csv",
    )
    results = run_test(cfg)
    with np.load(tmp_path / "scores.npz") as saved:
        assert saved["scores"].shape == (12, 6)
        assert saved["per_view"].shape == (12, 6, 6)
        assert saved["labels"].tolist() == [r.label for r in _records(cfg)]
        assert saved["paths"].tolist() == [str(r.path) for r in _records(cfg)]
        np.testing.assert_allclose(saved["per_view"].sum(1), saved["scores"], atol=1e-6)
        top1 = 100 * (saved["scores"].argmax(1) == saved["labels"]).mean()
        best, best_score = saved["scores"].argmax(1), saved["scores"]
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = (synthetic_dir / "classes.txt").read_text().split("\n")
    assert [row["top1"] for row in rows] == [names[i] for i in best]
    assert rows[0]["label_name"] == names[int(rows[0]["label"])]
    probability = torch.tensor(best_score[0] / 6).softmax(0).max().item()
    assert float(rows[0]["prob1"]) == pytest.approx(probability, abs=1e-4)
    (line,) = stats(tmp_path, "test_final")
    assert line["views"] == "2x3"
    assert line["top1_acc"] == pytest.approx(top1, abs=1e-3)
    assert line["top1_acc"] == pytest.approx(results.accuracy(1), abs=1e-3)
    last_line = json.loads((tmp_path / "stats.jsonl").read_text().splitlines()[-1])
    assert last_line["split"] == "test_final"
    assert line["videos_per_s"] == pytest.approx(12 / line["seconds"], rel=1e-3)
    macs = count_macs(meta_model(cfg), view_shape(cfg))
    assert line["gmacs_per_video"] == pytest.approx(6 * macs / 1e9, abs=1e-6)


def test_scores_from_python_are_those_of_a_test(synthetic_dir, tmp_path, checkpoint):
    """As the README shows it, of a recipe that tests on the middle of a video."""
    options = {"TEST__NUM_ENSEMBLE_VIEWS": 1, "TEST__NUM_SPATIAL_CROPS": 1}
    options["DATA__TEST_CLIP_SAMPLING"] = "center"
    results = score(
        synthetic_dir, tmp_path, checkpoint, TEST__SAVE_RESULTS_PATH="scores.npz", **options
    )
    convert([str(checkpoint), str(tmp_path / "hf"), "--to", "hf"])
    for model in (from_pretrained(checkpoint), from_pretrained(tmp_path / "hf")):
        path = results.paths[4]
        with torch.no_grad():
            logits = model(model.transform(load_clip(path, **model.sampling)))
        torch.testing.assert_close(logits, results.per_view[4], atol=1e-6, rtol=0)


def _records(cfg):
    from timesformer.datasets.build import build_dataset

    return build_dataset("synthetic", cfg, "test").records


def score(data, output, checkpoint, **changes):
    options = {"TEST__CHECKPOINT_FILE_PATH": checkpoint, "TRAIN__ENABLE": False}
    return run_test(small_cfg(data, output, **options, **changes))


@pytest.mark.parametrize("batch_size", [1, 3, 5, 12])
def test_scores_do_not_depend_on_the_batch(synthetic_dir, tmp_path, checkpoint, batch_size):
    options = {"TEST__SAVE_RESULTS_PATH": "scores.npz"}  # for which views are kept
    reference = score(synthetic_dir, tmp_path, checkpoint, **options)
    other = score(synthetic_dir, tmp_path, checkpoint, TEST__BATCH_SIZE=batch_size, **options)
    assert reference.per_view.shape == (12, 3, 6)
    torch.testing.assert_close(other.scores, reference.scores, atol=1e-5, rtol=0)
    torch.testing.assert_close(other.per_view, reference.per_view, atol=1e-5, rtol=0)


def test_a_view_that_is_missing_is_an_error_that_names_it(synthetic_dir, tmp_path):
    from timesformer.datasets.loader import construct_loader

    cfg = small_cfg(synthetic_dir, tmp_path)
    loader = construct_loader(cfg, "test")
    loader.batch_sampler.starts = loader.batch_sampler.starts[:1]  # the rest is never read
    broken = BrokenVideos(tmp_path, "test", 12)
    with pytest.raises(TrainingError, match=r"\.mp4: view 0 was scored 0 times"):
        score_videos(build_model(cfg), loader, torch.device("cpu"), broken, num_classes=6, clips=6)


def test_no_weights_is_an_error(synthetic_dir, tmp_path):
    with pytest.raises(WeightsError, match=r"TEST\.CHECKPOINT_FILE_PATH"):
        run_test(small_cfg(synthetic_dir, tmp_path, TRAIN__ENABLE=False))


def test_image_weights_are_not_tested_as_a_video_model(synthetic_dir, tmp_path, checkpoint):
    state = read_checkpoint(checkpoint)["model_state"]
    image = {k: v for k, v in state.items() if "tempor" not in k and "time_embed" not in k}
    torch.save(image, tmp_path / "image.pth")
    with pytest.raises(WeightsError, match=r"image\.pth: not a checkpoint of this model.*lacks"):
        score(synthetic_dir, tmp_path, tmp_path / "image.pth")
    other_head = dict(state) | {"model.head.weight": torch.zeros(9, 24)}
    torch.save(other_head, tmp_path / "image.pth")
    with pytest.raises(WeightsError, match=r"head.*MODEL\.NUM_CLASSES"):
        score(synthetic_dir, tmp_path, tmp_path / "image.pth")


def test_other_preprocessing_than_in_training_is_refused(synthetic_dir, tmp_path, checkpoint):
    content = read_checkpoint(checkpoint)
    content["preprocessing"]["mean"] = [0.5, 0.5, 0.5]
    write_checkpoint(tmp_path / "other.pyth", content)
    weights = {"TEST__CHECKPOINT_FILE_PATH": tmp_path / "other.pyth", "TRAIN__ENABLE": False}
    with pytest.raises(ConfigError, match=r"DATA\.MEAN: .*0\.5.* → .*0\.45"):
        run_test(small_cfg(synthetic_dir, tmp_path, **weights))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("TIMESFORMER__NUM_HEADS", 6),
        ("TIMESFORMER__CLS_IN_TIME", True),
        ("TIMESFORMER__ATTENTION_TYPE", "space_then_time"),
    ],
)
def test_a_model_of_equal_shapes_is_refused_by_key(synthetic_dir, tmp_path, checkpoint, key, value):
    with pytest.raises(ConfigError, match=rf"{key.replace('__', '.')}: .* → {value}"):
        score(synthetic_dir, tmp_path, checkpoint, **{key: value})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda w: torch.full_like(w, torch.nan), "not finite"),
        (lambda w: w.to(torch.int8), "int8"),
        (lambda w: w > 0, "bool"),
        (lambda w: w.to(torch.complex64), "complex64"),
    ],
)
def test_weights_that_no_training_makes_are_refused(
    synthetic_dir, tmp_path, checkpoint, change, said
):
    content = read_checkpoint(checkpoint)
    content["model_state"]["model.head.weight"] = change(
        content["model_state"]["model.head.weight"]
    )
    write_checkpoint(tmp_path / "odd.pyth", content)
    with pytest.raises(WeightsError, match=rf"odd\.pyth: head\.weight .*{said}"):
        score(synthetic_dir, tmp_path, tmp_path / "odd.pyth")
    with pytest.raises(WeightsError, match=rf"odd\.pyth: head\.weight .*{said}"):
        from_pretrained(tmp_path / "odd.pyth")


def test_scores_that_overflow_are_no_result(synthetic_dir, tmp_path, checkpoint):
    """The weights are finite, what they make isn't: it would be a prediction of class 0."""
    content = read_checkpoint(checkpoint)
    content["model_state"]["model.head.weight"].fill_(3e38)
    write_checkpoint(tmp_path / "huge.pyth", content)
    with pytest.raises(TrainingError, match=r"huge\.pyth: the scores of 12 videos are not finite"):
        score(synthetic_dir, tmp_path, tmp_path / "huge.pyth")
    assert not list(tmp_path.rglob("scores.*"))
    assert not (tmp_path / "stats.jsonl").exists()


def test_result_files_name_their_weights_and_are_not_a_failed_tests(
    synthetic_dir, tmp_path, checkpoint, monkeypatch
):
    cfg = small_cfg(
        synthetic_dir, tmp_path, TEST__CHECKPOINT_FILE_PATH=checkpoint, TRAIN__ENABLE=False,
        TEST__SAVE_RESULTS_PATH="scores.npz,scores.csv",
    )  # fmt: skip
    run_test(cfg)
    digest = stored_digest(checkpoint)
    assert len(digest) == 64
    with np.load(tmp_path / "scores.npz") as saved:
        assert (str(saved["checkpoint"]), str(saved["checkpoint_sha256"])) == (
            str(checkpoint),
            digest,
        )
    with (tmp_path / "scores.csv").open() as file:
        assert {row["checkpoint_sha256"] for row in csv.DictReader(file)} == {digest}

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(UserError, match=r"scores\.npz: the scores can't be written \(No space"):
        run_test(cfg)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"scores.before.npz", "scores.before.csv"} <= names
    assert not {"scores.npz", "scores.csv"} & names
    assert not [name for name in names if name.endswith(".tmp")]


def test_no_former_tests_file_is_lost(tmp_path):
    path = tmp_path / "scores.npz"
    cfg = get_cfg()
    cfg.OUTPUT_DIR, cfg.TEST.SAVE_RESULTS_PATH = str(tmp_path), "scores.npz"
    for text in ("first", "second", "third"):
        path.write_text(text)
        _rename_former_results(cfg)
    names = ("scores.before.npz", "scores.before_2.npz", "scores.before_3.npz")
    assert [(tmp_path / name).read_text() for name in names] == ["first", "second", "third"]
    assert not path.exists()


@pytest.mark.parametrize("name", ["../scores.npz", "/tmp/scores.npz", "a/../../b.csv"])
def test_scores_stay_in_the_output_folder(synthetic_dir, tmp_path, name):
    with pytest.raises(ConfigError, match=r"SAVE_RESULTS_PATH .*must lie in OUTPUT_DIR"):
        small_cfg(synthetic_dir, tmp_path, TEST__SAVE_RESULTS_PATH=name)


def test_videos_that_cannot_be_read_are_never_substituted(synthetic_dir, tmp_path, checkpoint):
    options = {"TEST__CHECKPOINT_FILE_PATH": checkpoint, "TRAIN__ENABLE": False}
    whole = run_test(small_cfg(synthetic_dir, tmp_path / "whole", **options))
    data = shutil.copytree(synthetic_dir, tmp_path / "data")
    paths = [data / Path(path).relative_to(synthetic_dir) for path in whole.paths]
    paths[3].unlink()
    paths[8].write_bytes(b"no video")
    cfg = small_cfg(data, tmp_path, TEST__SAVE_RESULTS_PATH="scores.npz,scores.csv", **options)
    results = run_test(cfg)
    good = [i for i in range(12) if i not in (3, 8)]
    torch.testing.assert_close(results.per_view[good], whole.per_view[good], atol=1e-5, rtol=0)
    assert bool(results.per_view[[3, 8]].isnan().all())

    right = (whole.scores.argmax(1) == whole.labels)[good].sum().item()
    (line,) = stats(tmp_path, "test_final")
    assert (line["videos"], line["failed_videos"]) == (12, 2)
    assert line["top1_acc"] == pytest.approx(100 * right / 12, abs=1e-3)
    assert line["top1_acc_readable"] == pytest.approx(100 * right / 10, abs=1e-3)
    hits, labels = whole.scores.argmax(1) == whole.labels, whole.labels
    for name, counted in (("", range(12)), ("_readable", good)):
        found = [[bool(hits[i]) and i in good for i in counted if labels[i] == k] for k in range(6)]
        mean = 100 * np.mean([np.mean(of_class) for of_class in found if of_class])
        assert line[f"mean_class_acc{name}"] == pytest.approx(mean, abs=1e-3)
    assert line["classes"] == 6
    with np.load(tmp_path / "scores.npz") as saved:
        assert saved["failed"].nonzero()[0].tolist() == [3, 8]
    with (tmp_path / "scores.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [i for i, row in enumerate(rows) if not row["top1"]] == [3, 8]
    with (tmp_path / "broken_videos.csv").open() as file:
        listed = list(csv.DictReader(file))
    assert [row["path"] for row in listed] == sorted(map(str, (paths[3], paths[8])))
    assert {row["split"] for row in listed} == {"test"}
    assert {row["reason"] for row in listed} == {
        "no such file or directory",
        "damaged, or not a video (invalid data)",
    }


def test_nothing_to_read_is_an_error(synthetic_dir, tmp_path, checkpoint):
    for name in ("train.csv", "val.csv", "test.csv", "classes.txt"):
        (tmp_path / name).write_text((synthetic_dir / name).read_text())
    with pytest.raises(TrainingError, match=r"none of the 12 test videos.*00000\.mp4: no such"):
        score(tmp_path, tmp_path / "run", checkpoint)


def test_unknown_dataset_names_the_key(synthetic_dir, tmp_path):
    cfg = small_cfg(synthetic_dir, tmp_path, TEST__DATASET="kinetcs", TRAIN__ENABLE=False)
    with pytest.raises(ConfigError, match=r"TEST\.DATASET"):
        run_test(cfg)


@pytest.mark.parametrize("key", ["SAMPLING_RATE", "TARGET_FPS", "NUM_FRAMES"])
def test_other_frames_than_in_training_are_said(synthetic_dir, tmp_path, checkpoint, key):
    score(synthetic_dir, tmp_path, checkpoint, **{f"DATA__{key}": 8})
    text = (tmp_path / "run.log").read_text()
    assert f"as in training is DATA.{key} " in text


def test_a_run_is_tested_by_its_folder(synthetic_dir, tmp_path, checkpoint):
    """Its config comes from its checkpoint; no key of the architecture is asked for."""
    run = checkpoint.parents[1]
    for words in (["--cfg", str(run)], ["--cfg", str(checkpoint)]):
        cfg = load_config(parse_args([*words, "OUTPUT_DIR", str(tmp_path)]), only="test")
        assert cfg.TIMESFORMER.EMBED_DIM == 24
    assert str(run) == load_config(parse_args(["--cfg", str(run)])).OUTPUT_DIR
    assert str(run) == load_config(parse_args(["--cfg", str(checkpoint)])).OUTPUT_DIR
    score(synthetic_dir, tmp_path, run)
    assert stats(tmp_path, "test_final")[0]["checkpoint"] == str(checkpoint)
    (tmp_path / "empty" / "checkpoints").mkdir(parents=True)
    with pytest.raises(ConfigError, match="has no checkpoint that can be read"):
        load_config(parse_args(["--cfg", str(tmp_path / "empty")]))


def test_views_are_kept_only_for_a_file_that_has_them(synthetic_dir, tmp_path, checkpoint):
    both = {
        name: score(synthetic_dir, tmp_path / name, checkpoint, TEST__SAVE_RESULTS_PATH=name)
        for name in ("scores.csv", "scores.npz")
    }
    assert both["scores.csv"].per_view is None
    assert both["scores.csv"].scores.equal(both["scores.npz"].scores)


@pytest.mark.parametrize("method", ["sum", "max", "prob"])
def test_rows_of_any_batches_and_ranks_make_the_same_table(method):
    generator = torch.Generator().manual_seed(0)
    V, n, K = 7, 4, 3
    scores = torch.randn(V, n, K, generator=generator)
    whole = ensemble(scores, method)
    for ranks in (1, 2, 3):
        parts = [Rows((V, n, K), method, False, True) for _ in range(ranks)]
        for video in range(V):
            if video != 5:  # can't be read
                order = torch.randperm(n, generator=generator)
                index = torch.full((n,), video)
                parts[video % ranks].add(index, order, scores[video, order])
        table = parts[0].joined([p.found() for p in parts[1:]], [5])
        assert table.per_view.data_ptr() == parts[0].per_view.data_ptr()  # no second one in memory
        good = [v for v in range(V) if v != 5]
        assert table.per_view[good].equal(scores[good])
        torch.testing.assert_close(table.scores[good], whole[good], atol=1e-6, rtol=0)
        assert bool(table.scores[5].isnan().all())
    parts[0].add(torch.tensor([6] * n), torch.arange(n), scores[6])
    with pytest.raises(TrainingError, match="video 6: view 0 was scored 2 times"):
        parts[0].joined([p.found() for p in parts[1:]], [5])
    parts[0].add(torch.tensor([3] * n), torch.tensor([0, 1, 1, 3]), scores[3])
    with pytest.raises(TrainingError, match="video 3: view 1 was scored 2 times"):
        parts[0].joined([p.found() for p in parts[1:]], [5])


def test_more_failures_than_allowed_end_in_an_error_after_all_is_written(
    synthetic_dir, tmp_path, checkpoint
):
    data = shutil.copytree(synthetic_dir, tmp_path / "data")
    videos = sorted((data / "test").rglob("*.mp4"))
    for path in videos[:3]:
        path.unlink()
    with pytest.raises(AnnotationError, match=r"3 of 12 test videos .* DATA\.MAX_FAILED"):
        score(data, tmp_path / "out", checkpoint, TEST__SAVE_RESULTS_PATH="scores.csv")
    assert stats(tmp_path / "out", "test_final")[0]["failed_videos"] == 3
    assert (tmp_path / "out" / "scores.csv").is_file()
