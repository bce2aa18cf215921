"""What computes a model on the CPU: files made once and kept, and the fastest of them."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_recipe import fill_
from small_run import complaint_of
from video_fixtures import write_video

import timesformer
from timesformer.commands.predict import main as predict
from timesformer.inference.backends import KINDS, cache, choose
from timesformer.inference.exported import ExportedModel, open_exported
from timesformer.inference.formats import About, compiled
from timesformer.inference.predictor import Predictor
from timesformer.utils.errors import UserError, WeightsError

SMALL = {"img_size": 16, "num_frames": 4, "num_classes": 7, "embed_dim": 12, "depth": 1}
SMALL |= {"num_heads": 2, "patch_size": 8}
SAID = {"mean": [0.4, 0.45, 0.5], "std": [0.2, 0.225, 0.25], "channel_order": "BGR"}
SAID |= {"num_frames": 4, "sampling": "rate", "sampling_rate": 3, "crop_size": 16, "short_side": 18}
SAID |= {"num_clips": 2, "num_crops": 3, "clip_sampling": "uniform"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with weights, a video, and the cache of this file's tests."""
    folder = tmp_path_factory.mktemp("backends")
    model = fill_(timesformer.create_model("vit_base_patch16_224", **SMALL).eval())
    with torch.no_grad():  # of logits that are alike, no difference would be seen
        model.get_classifier().weight.mul_(20)
    model.preprocessing, model.class_names = dict(SAID), tuple("abcdefg")
    model.save_pretrained(folder / "weights")
    frames = np.random.default_rng(0).integers(0, 256, (30, 20, 28, 3), np.uint8)
    write_video(folder / "a.mp4", frames)
    return folder


@pytest.fixture(autouse=True)
def own_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIMESFORMER_CACHE", str(folder / "cache"))


def need(name: str) -> None:
    if why := KINDS[name].missing():
        pytest.skip(f"{name}: {why}")


def load(folder: Path, backend: str, **options: object) -> tuple[Predictor, list[str]]:
    told: list[str] = []
    model = timesformer.load(folder / "weights", backend=backend, tell=told.append, **options)
    return model, told


@pytest.mark.parametrize(
    "name",
    ["onnxruntime", *(pytest.param(n, marks=pytest.mark.slow) for n in ("openvino", "compiled"))],
)
@pytest.mark.filterwarnings("ignore")
def test_a_backend_gives_the_scores_of_torch_and_is_made_once(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need(name)
    plain, _ = load(folder, "torch", sampling_rate=None)
    model, told = load(folder, name)
    assert len(told) == 1
    assert (model.backend, model.with_views("1x1").backend, plain.backend) == (name, name, "torch")
    assert f"backend {name}: made of {folder / 'weights'} once" in told[0]
    ours, theirs = (m.predict(str(folder / "a.mp4")) for m in (model, plain))
    torch.testing.assert_close(ours.scores, theirs.scores, atol=1e-5, rtol=0)
    assert (model.testing, model.class_names) == (plain.testing, plain.class_names)
    assert model.model.sampling == plain.model.sampling | {"target_fps": 30.0}
    monkeypatch.setattr(cache, "checked", None)  # nothing is made any more
    again, told = load(folder, name)
    assert told == []
    assert torch.equal(again.predict(str(folder / "a.mp4")).scores, ours.scores)


def test_compiled_code_is_of_one_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has all instructions of the one that made it; a home may be shared with others."""
    versions = []
    for name in ("a processor", "another, with as long vectors"):
        monkeypatch.setattr(compiled, "processor_name", lambda name=name: name)
        versions.append(KINDS["compiled"].versions())
    assert versions[0] != versions[1]


@pytest.mark.skipif(os.name == "nt", reason="torch looks for a compiler in another way there")
def test_a_compiler_that_is_there_is_found_without_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every start with `auto` asks, and the compiler of torch takes seconds to import."""
    monkeypatch.setitem(sys.modules, "torch._inductor.cpp_builder", None)
    monkeypatch.setenv("CXX", sys.executable)
    assert KINDS["compiled"].missing() == ""
    for compiler in ("no-such-compiler", "false", f"{sys.executable} -I", ""):
        monkeypatch.setenv("CXX", compiler)
        with pytest.raises(ImportError):  # torch is asked
            KINDS["compiled"].missing()


def _archive(target: Any) -> None:
    with zipfile.ZipFile(target, "w") as archive:
        archive.writestr("model/extra/timesformer.json", "{}")


def test_compiled_code_that_is_whole_and_cant_be_loaded_stays(tmp_path, monkeypatch) -> None:
    """As it is unpacked into a full folder for temporary files."""

    def full(_: str) -> None:
        raise RuntimeError("Failed to extract\nbacktrace")

    monkeypatch.setattr(torch._inductor, "aoti_load_package", full)
    _archive(tmp_path / "model.compiled.pt2")
    with pytest.raises(UserError, match=r"is whole, .*\(Failed to extract\).* TMPDIR") as found:
        open_exported(tmp_path / "model.compiled.pt2", KINDS["compiled"])
    assert not isinstance(found.value, WeightsError)  # for which it would be made again


def test_compiled_code_is_written_without_torch(tmp_path, monkeypatch) -> None:
    """Which ends the process where the disk is full."""

    def make(_: object, package_path: Any, **__: object) -> None:
        assert package_path.writable()
        _archive(package_path)

    monkeypatch.setattr(torch._inductor, "aoti_compile_and_package", make)
    monkeypatch.setattr(Path, "write_bytes", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(OSError, match="full"):
        KINDS["compiled"].write(None, tmp_path / "model.compiled.pt2", None, [])


def test_files_that_nobody_used_for_long_are_deleted(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When another one is made; what is used, or is nobody's, stays."""
    need("onnxruntime")
    monkeypatch.setenv("TIMESFORMER_CACHE", str(tmp_path))
    load(folder, "onnxruntime")
    [used] = tmp_path.glob("backends/*/onnx-*")
    own = tmp_path / "backends" / "own" / "old"
    old = used.parents[1] / f"{'0' * 20}-8x224" / f"openvino-{'f' * 20}"
    for path in (own, old):
        path.mkdir(parents=True)
        (path / "model").write_bytes(b"0" * 3_000_000)
    long_ago = time.time() - (cache.UNUSED + 1) * 86_400
    for path in (own, old, used):
        os.utime(path, (long_ago, long_ago))
    _, told = load(folder, "onnxruntime")
    assert old.exists()
    assert not told
    (used / "model.onnx").write_bytes(b"")
    _, told = load(folder, "onnxruntime")
    assert told[-1].endswith(f"nobody used for 30 days from {tmp_path / 'backends'}: 3 MB")
    assert [path.exists() for path in (own, old, used)] == [True, False, True]


def test_without_a_home_folder_there_is_no_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be a folder named ~ where somebody works."""
    monkeypatch.setattr("os.path.expanduser", lambda path: path)
    for name in ("TIMESFORMER_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(UserError, match=r"~/\.cache/timesformer: no such home.*TIMESFORMER_CACHE"):
        cache.cache_folder()


def test_a_damaged_file_is_made_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    need("onnxruntime")
    load(folder, "onnxruntime")
    [path] = (folder / "cache").rglob("model.onnx")
    whole = path.read_bytes()
    path.write_bytes(whole[:-500])

    def made(_: Predictor, place: Path, *__: object) -> None:
        assert not place.parent.exists()
        place.parent.mkdir()
        place.write_bytes(whole)

    monkeypatch.setattr(cache, "_make", made)
    model, told = load(folder, "onnxruntime")
    assert "cut short" in told[0]
    assert "made again" in told[0]
    assert model.predict(str(folder / "a.mp4")).error is None
    assert not [p for p in (folder / "cache").rglob("*") if p.name.endswith(".tmp")]


def _without_file(path: Path) -> None:
    (path.parent / "model.onnx.data").touch()  # what is left of it
    path.unlink()


def _loop(path: Path) -> None:
    path.unlink()
    path.symlink_to(path)


def _no_folder(path: Path) -> None:
    shutil.rmtree(path.parent)
    path.parent.touch()


def _link_to_a_folder(path: Path) -> None:
    elsewhere = path.parents[2] / "elsewhere"
    shutil.rmtree(path.parent)
    elsewhere.mkdir()
    path.parent.symlink_to(elsewhere)


@pytest.mark.parametrize("damage", [_without_file, _loop, _no_folder, _link_to_a_folder])
def test_what_is_left_of_a_file_is_in_nobodys_way(
    damage: Callable[[Path], None], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else it was made, for minutes, and couldn't get its name, at every start."""
    need("onnxruntime")
    load(folder, "onnxruntime")
    [path] = (folder / "cache").rglob("model.onnx")
    whole = path.read_bytes()
    damage(path)

    def made(_: Predictor, place: Path, *__: object) -> None:
        assert not os.path.lexists(place.parent)
        place.parent.mkdir()
        place.write_bytes(whole)

    monkeypatch.setattr(cache, "_make", made)
    model, told = load(folder, "onnxruntime")
    assert "made again" in told[0]
    assert model.backend == "onnxruntime"
    shutil.rmtree(folder / "cache" / "backends" / "elsewhere", ignore_errors=True)


def test_a_choice_that_is_rubbish_is_made_again(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TIMESFORMER_CACHE", str(tmp_path))
    monkeypatch.setattr(choose, "SECONDS", 0.01)
    monkeypatch.setattr(choose, "KINDS", {})
    load(folder, "auto")
    [path] = tmp_path.rglob("choice-*.json")
    sound = json.loads(path.read_text())
    changes = (
        {"backend": "quick"},
        {"backend": []},
        {"milliseconds": [1]},
        {"milliseconds": {"": ""}},
    )
    changes += {"without": None}, {"threads": "x"}
    wrong = [json.dumps(sound | {"choice": sound["choice"] | change}) for change in changes]
    for text in (*wrong, "", "null", "[" * 100_000):
        path.write_text(text)
        model, (told,) = load(folder, "auto")
        assert model.backend == "torch"
        assert "measured before" not in told
    path.unlink()
    os.mkfifo(path)
    assert load(folder, "auto")[0].backend == "torch"


def test_auto_does_without_a_choice_that_cannot_be_made_again(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TIMESFORMER_CACHE", str(tmp_path))
    monkeypatch.setattr(choose, "SECONDS", 0.01)
    monkeypatch.setattr(choose, "KINDS", {"compiled": KINDS["compiled"]})
    monkeypatch.setattr(type(KINDS["compiled"]), "missing", lambda self: "")
    monkeypatch.setattr(choose, "of_backend", lambda model, *_: model)
    load(folder, "auto")
    [path] = tmp_path.rglob("choice-*.json")
    said = json.loads(path.read_text())
    said["choice"]["backend"] = "compiled"
    path.write_text(json.dumps(said))

    def fails(*_: object) -> Predictor:
        raise UserError("no space left")

    monkeypatch.setattr(choose, "of_backend", fails)
    model, told = load(folder, "auto")
    assert model.backend == "torch"
    assert "no compiled: no space left" in told[-1]


def test_auto_takes_the_fastest_and_remembers_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("onnxruntime")
    for name, kind in KINDS.items():  # the others take longer to make than a test may
        if name != "onnxruntime":
            monkeypatch.setattr(kind, "missing", lambda: "isn't looked at")
    monkeypatch.setattr(choose, "timed", lambda computes, *_: [[9.0], [2.0]][: len(computes)])
    model, told = load(folder, "auto")
    assert type(model.model).__name__ == "ExportedModel"
    assert told[-1].startswith("backend onnxruntime, by the time of a clip (")
    assert ": onnxruntime 2 ms, torch 9 ms; no compiled: isn't looked at" in told[-1]
    monkeypatch.setattr(choose, "timed", None)
    again, told = load(folder, "auto")
    assert type(again.model).__name__ == "ExportedModel"
    assert [line for line in told if "onnxruntime 2 ms, torch 9 ms" in line and "before" in line]
    monkeypatch.setattr(choose, "timed", lambda computes, *_: [[9.0], [3.0], [8.0]])
    model, told = load(folder, "auto", amp="bf16")  # another question
    assert (model.amp, model.model.architecture.depth) == ("none", 1)
    assert ": torch 3 ms, onnxruntime 8 ms, torch in bf16 9 ms" in told[-1]
    [path] = [p for p in (folder / "cache").rglob("choice-*") if "bf16" in p.read_text()]
    path.write_text(path.read_text()[:99])
    monkeypatch.setattr(choose, "timed", lambda computes, *_: [[1.0], [3.0], [8.0]])
    assert load(folder, "auto", amp="bf16")[0].amp == "bf16"


def test_what_cannot_be_made_is_not_chosen(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Alone it is an error; `export` says when a file computes something else than its model."""
    need("onnxruntime")
    monkeypatch.setenv("TIMESFORMER_CACHE", str(tmp_path))

    def refuses(*_: object, **__: object) -> None:
        raise UserError("onnxruntime computes something else than PyTorch")

    monkeypatch.setattr(cache, "checked", refuses)
    with pytest.raises(UserError, match="onnxruntime computes something else than PyTorch"):
        load(folder, "onnxruntime")
    for name, other in KINDS.items():
        if name != "onnxruntime":
            monkeypatch.setattr(other, "missing", lambda: "isn't looked at")
    model, told = load(folder, "auto")
    assert model.model.architecture is not None
    assert "no onnxruntime: onnxruntime computes something else" in told[-1]
    assert not [p for p in tmp_path.rglob("*") if p.name.startswith((".", "model"))]


def test_the_command(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line of JSON a video is all that stdout has."""
    need("onnxruntime")
    words = [str(folder / "a.mp4"), "--checkpoint", str(folder / "weights"), "--json"]
    before = torch.get_num_threads()
    try:
        predict([*words, "--threads", "2"])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    plain = json.loads(capsys.readouterr().out)
    predict([*words, "--backend", "onnxruntime"])
    found = json.loads(capsys.readouterr().out)
    assert [guess["name"] for guess in found["topk"]] == [g["name"] for g in plain["topk"]]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--backend", "onnxruntime", "--amp"], "--amp: onnxruntime computes in float32"),
        (["--backend", "tensorrt"], "invalid choice: 'tensorrt'"),
        (["--threads", "0"], "--threads 0: must be 1 or more"),
    ],
)
def test_mistakes(more: list[str], complaint: str, folder: Path) -> None:
    words = folder / "a.mp4", "--checkpoint", folder / "weights"
    told = complaint_of(predict, *words, *more)
    assert complaint in told
    assert told.count("\n") == 1


def test_a_folder_that_cannot_be_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("onnxruntime")
    (tmp_path / "file").touch()
    monkeypatch.setenv("TIMESFORMER_CACHE", str(tmp_path / "file"))
    words = folder / "a.mp4", "--checkpoint", folder / "weights", "--backend", "onnxruntime"
    assert f"{tmp_path / 'file'} is no folder" in complaint_of(predict, *words).splitlines()[-1]


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_a_missing_package_is_one_line(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TIMESFORMER_CACHE", str(tmp_path))
    if find_spec(name):
        monkeypatch.setitem(sys.modules, name, None)
    words = folder / "a.mp4", "--checkpoint", folder / "weights", "--backend", name
    extra = KINDS[name].name
    assert complaint_of(predict, *words).endswith(f"pip install 'timesformer[{extra}]'\n")


def test_a_package_that_cant_be_imported_is_one_line_and_costs_no_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    need("onnxruntime")
    kept = tmp_path / "model.onnx"
    kept.touch()
    (tmp_path / "onnxruntime.py").write_text("raise ImportError('libonnx.so: no such file')\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "onnxruntime", raising=False)
    monkeypatch.setattr(cache, "place_of", lambda *_: kept)
    words = folder / "a.mp4", "--checkpoint", folder / "weights", "--backend", "onnxruntime"
    [line] = complaint_of(predict, *words).splitlines()
    assert "onnxruntime: is installed, and can't be imported (libonnx.so: no such file)" in line
    assert kept.exists()


def test_auto_takes_none_that_cant_compute(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TIMESFORMER_CACHE", str(tmp_path))

    def fails(_: object) -> torch.Tensor:
        raise RuntimeError("std::bad_alloc\nbacktrace")

    def made(model: Predictor, about: About, *_: object) -> Predictor:
        return Predictor(ExportedModel(folder / "model.x", about, fails), model.testing)

    monkeypatch.setattr(choose, "of_backend", made)
    monkeypatch.setattr(choose, "SECONDS", 0.01)
    monkeypatch.setattr(choose, "KINDS", {"compiled": KINDS["compiled"]})
    monkeypatch.setattr(type(KINDS["compiled"]), "missing", lambda self: "")
    model, (told,) = load(folder, "auto")
    assert model.backend == "torch"
    assert told.endswith("model.x: 1 clip can't be computed (std::bad_alloc)")


def test_a_choice_without_a_backend_that_fails_is_remembered(folder, monkeypatch):
    """Else it would be made, and fail, at every start."""

    def fails(*_: object) -> Predictor:
        tried.append(1)
        raise UserError("can't express it")

    tried: list[int] = []
    monkeypatch.setattr(choose, "of_backend", fails)
    monkeypatch.setattr(choose, "SECONDS", 0.01)
    monkeypatch.setattr(choose, "KINDS", {"compiled": KINDS["compiled"]})
    monkeypatch.setattr(type(KINDS["compiled"]), "missing", lambda self: "")
    load(folder, "auto")
    model, (told,) = load(folder, "auto")
    assert (len(tried), model.backend) == (1, "torch")
    assert "measured before" in told
    assert "can't express it" in told


def test_auto_computes_where_nothing_can_be_kept(folder, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TIMESFORMER_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(choose, "SECONDS", 0.01)
    monkeypatch.setattr(choose, "KINDS", {})
    model, told = load(folder, "auto")
    assert model.backend == "torch"
    assert "measured again" in told[-1]
    assert "TIMESFORMER_CACHE" in told[-1]
