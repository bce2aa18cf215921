"""Exported files: the model's own numbers without the model, in whatever they are computed."""

from __future__ import annotations

import ast
import json
import re
import runpy
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden_recipe import fill_
from small_cnns import NAMES as NAMES_OF_CNNS
from small_cnns import scramble
from small_run import complaint_of
from video_fixtures import write_video

import timesformer
from timesformer.commands.export import main
from timesformer.commands.predict import main as predict
from timesformer.inference.export import about_of
from timesformer.inference.formats import About
from timesformer.inference.formats.base import need_products
from timesformer.inference.formats.onnx import Onnx
from timesformer.inference.formats.torch_export import TorchExport
from timesformer.inference.given import records_of
from timesformer.inference.predictor import Predictor
from timesformer.models.build import MODEL_REGISTRY
from timesformer.utils.errors import UserError, WeightsError

EXAMPLE = Path(__file__).parents[2] / "examples" / "onnx_predict.py"
SMALL = {"img_size": 16, "num_frames": 4, "num_classes": 7, "embed_dim": 12, "depth": 1}
SMALL |= {"num_heads": 2, "patch_size": 8}
SAID = {"mean": [0.4, 0.45, 0.5], "std": [0.2, 0.225, 0.25], "channel_order": "BGR"}
SAID |= {"num_frames": 4, "sampling": "rate", "sampling_rate": 3, "crop_size": 16, "short_side": 18}
SAID |= {"num_clips": 2, "num_crops": 3, "clip_sampling": "uniform"}
NAMES = tuple("abcdefg")


def made(name: str = "vit_base_patch16_224", **changes: object) -> Predictor:
    model = fill_(timesformer.create_model(name, **(SMALL | changes)).eval())
    with torch.no_grad():  # of logits that are alike, no difference would be seen
        model.get_classifier().weight.mul_(20)
    model.preprocessing, model.class_names = dict(SAID), NAMES
    return Predictor(model)


@pytest.fixture(scope="module")
def model() -> Predictor:
    return made()


@pytest.fixture(scope="module")
def folder(model: Predictor, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the model's weights, two videos, and the model as .onnx and .pt2."""
    folder = tmp_path_factory.mktemp("export")
    model.model.save_pretrained(folder / "weights")
    frames = np.random.default_rng(0).integers(0, 256, (2, 30, 20, 28, 3), np.uint8)
    (folder / "videos").mkdir()
    for i, video in enumerate(frames):
        write_video(folder / "videos" / f"{i}.mp4", video)
    need_onnx()
    for name, to in (("a.onnx", "onnx"), ("a.pt2", "torch-export")):
        main([*words(folder), "--to", to, "--out", str(folder / name)])
    return folder


def need_onnx() -> None:
    if missing := [n for n in Onnx.packages if not find_spec(n)]:
        pytest.skip(f"needs {', '.join(missing)}: pip install 'timesformer[onnx]'")


def need_openvino() -> None:
    if missing := [n for n in ("openvino", "nncf") if not find_spec(n)]:
        pytest.skip(f"needs {', '.join(missing)}: pip install 'timesformer[openvino]'")


def words(folder: Path) -> list[str]:
    return ["--checkpoint", str(folder / "weights")]


def scores(model: Predictor, folder: Path) -> torch.Tensor:
    videos = sorted(map(str, (folder / "videos").iterdir()))
    return torch.stack([found.scores for found in model.predict(videos)])


@pytest.mark.parametrize("name", ["a.onnx", "a.pt2"])
def test_a_file_predicts_as_its_model(name: str, model: Predictor, folder: Path) -> None:
    """Views, pixels, names and scores: nothing is said but the file."""
    exported = timesformer.load(folder / name)
    assert exported.testing == model.testing == (2, 3, "sum", False)
    assert exported.class_names == NAMES
    assert exported.model.sampling == model.model.sampling | {"target_fps": 30.0}
    torch.testing.assert_close(scores(exported, folder), scores(model, folder), atol=1e-5, rtol=0)
    frames = torch.randint(0, 256, (4, 20, 28, 3), dtype=torch.uint8)
    clip = exported.transform(frames)
    assert torch.equal(clip, model.model.crop(frames))
    with torch.no_grad():
        ours = model.model(model.transform(frames))
    torch.testing.assert_close(exported.model(clip), ours, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match=r"takes clips \(B, 3, 4, 16, 16\) of torch.float32, not"):
        exported.model(clip[:, :, :3])


def test_what_a_file_says(folder: Path) -> None:
    """All that somebody without this package needs; and no path of the machine."""
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "a.onnx")
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, taken.shape, taken.type) == (
        *("clips", ["batch", 3, 4, 16, 16]),
        "tensor(float)",
    )
    assert (given.name, given.shape) == ("logits", ["batch", 7])
    about = json.loads(session.get_modelmeta().custom_metadata_map["timesformer"])
    with zipfile.ZipFile(folder / "a.pt2") as archive:
        [extra] = (name for name in archive.namelist() if name.endswith("/extra/timesformer.json"))
        assert json.loads(archive.read(extra)) == about
    more = {"target_fps": 30.0, "ensemble": "sum", "multi_label": False}
    assert about["preprocessing"] == SAID | more
    assert about["class_names"] == [*NAMES]
    assert about["input"]["shape"] == ["batch", 3, 4, 16, 16]
    assert about["version"] == timesformer.__version__
    assert re.fullmatch("[0-9a-f]{64}", about["weights_sha256"])
    for name in ("a.onnx", "a.pt2"):
        assert str(EXAMPLE.parents[1]).encode() not in (folder / name).read_bytes()
    assert not [path for path in folder.iterdir() if "exported" in path.name]


def test_the_command_predicts_and_so_does_the_example(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    video = str(folder / "videos" / "0.mp4")
    predict([video, "--checkpoint", str(folder / "weights")])
    told = capsys.readouterr().out
    predict([video, "--checkpoint", str(folder / "a.onnx")])
    assert capsys.readouterr().out == told
    monkeypatch.setattr(sys, "argv", ["onnx_predict.py", str(folder / "a.onnx"), video])
    runpy.run_path(str(EXAMPLE))
    lines = [" ".join(line.split()) for line in told.splitlines()[1:]]
    assert [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()] == lines


@pytest.mark.parametrize(
    "changes",
    [
        {"multi_label": True},
        {"multi_label": True, "ensemble": "prob"},
        {"multi_label": True, "ensemble": "max"},
        {"clip_sampling": "tiled", "num_clips": 4},
        {"clip_sampling": "tiled", "num_clips": 1},
        {"clip_sampling": "legacy", "num_crops": 1, "ensemble": "prob"},
        {"sampling": "segments"},
    ],
    ids=str,
)
def test_the_example_tests_as_the_file_says(
    folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, object],
) -> None:
    import onnx

    exported, video = onnx.load(str(folder / "a.onnx")), str(folder / "videos" / "1.mp4")
    said, digest = exported.metadata_props
    assert (said.key, digest.key) == ("timesformer", "timesformer-sha256")
    about = json.loads(said.value)
    about["preprocessing"] |= changes
    said.value = json.dumps(about)
    exported.metadata_props.remove(digest)
    onnx.save(exported, str(tmp_path / "b.onnx"))
    predict([video, "--checkpoint", str(tmp_path / "b.onnx")])
    lines = capsys.readouterr().out.splitlines()[1:]
    monkeypatch.setattr(sys, "argv", ["onnx_predict.py", str(tmp_path / "b.onnx"), video])
    runpy.run_path(str(EXAMPLE))
    shown = capsys.readouterr().out.splitlines()
    assert [line.split() for line in shown] == [line.split() for line in lines]


def test_the_example_needs_three_packages() -> None:
    tree = ast.parse(EXAMPLE.read_text())
    names = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    assert names - sys.stdlib_module_names == {"av", "numpy", "onnxruntime"}
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))


@pytest.mark.parametrize("input", ["uint8", pytest.param("normalised", marks=pytest.mark.slow)])
def test_other_inputs(input: str, model: Predictor, tmp_path: Path) -> None:
    """Normalised clips are those of the model; uint8 are its pixels, rounded."""
    done = timesformer.export(model, tmp_path / "b.pt2", "torch-export", input=input)
    assert max(done.differences.values()) < 1e-5
    exported = timesformer.load(tmp_path / "b.pt2")
    pixels = model.model.crop(torch.randint(0, 256, (4, 20, 28, 3), dtype=torch.uint8))
    if input == "uint8":
        assert exported.model.normalize(pixels).dtype == torch.uint8
        pixels = pixels.round()
    else:
        assert torch.equal(exported.model.normalize(pixels), model.model.normalize(pixels))
    torch.testing.assert_close(exported.score(pixels), model.score(pixels), atol=1e-5, rtol=0)


def test_a_file_that_computes_something_else_is_not_left(
    model: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one before stays."""
    opened = TorchExport.open

    def wrong(self: TorchExport, path: Path):
        text, run = opened(self, path)
        return text, lambda clips: run(clips) + (2e-4 if len(clips) == 8 else 0)

    monkeypatch.setattr(TorchExport, "open", wrong)
    path = tmp_path / "b.pt2"
    path.write_text("earlier")
    with pytest.raises(UserError, match=r"something else than PyTorch: logits of 8 clips .*0.0002"):
        timesformer.export(model, path, "torch-export")
    assert path.read_text() == "earlier"
    assert [*tmp_path.iterdir()] == [path]


def test_what_torch_cannot_express_is_one_line(
    model: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def depends(clips: torch.Tensor) -> torch.Tensor:
        return clips[0, :, 0, 0, :3] if clips.sum() > 0 else clips[0, :, 0, 0, 1:4]

    monkeypatch.setattr(model.model, "forward", depends)
    with pytest.raises(UserError, match=r"torch.export can't express vit_base_patch16_224: "):
        timesformer.export(model, tmp_path / "b.pt2", "torch-export")


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["--to", "onnx", "--out", "b.pt2"], "b.pt2: a file of onnx must end in .onnx"),
        (["--to", "onnx", "--out", "{folder}/a.onnx"], "is there already; --force replaces it"),
        (["--to", "torch-export", "--out", "b.pt2", "--int8"], "take --to onnx or openvino"),
        (["--to", "onnx", "--out", "b.onnx", "--int8"], "name videos to see it, --compare"),
        (["--to", "onnx", "--out", "b.onnx", "--calibrate", "x"], "--calibrate: is for --int8"),
        (
            ["--to", "onnx", "--out", "b.onnx", "--int8", "--dtype", "fp16"],
            "--dtype: --int8 is a type of its own",
        ),
        (
            ["--to", "onnx", "--out", "b.onnx", "--checkpoint", "{folder}/a.onnx"],
            "a.onnx: is exported already",
        ),
        (["--to", "tflite", "--out", "b"], "'tflite'"),
    ],
)
def test_mistakes(more: list[str], complaint: str, folder: Path) -> None:
    told = complaint_of(main, *words(folder), *[word.format(folder=folder) for word in more])
    assert complaint in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        (["a.onnx", "--amp"], "--amp: {folder}/a.onnx is exported, and computes as it is"),
        (["a.onnx", "--device", "cuda"], "--device: "),
        (["a.onnx", "--sampling-rate", "2"], "--sampling-rate: "),
        (["nothing.onnx"], "nothing.onnx: can't read it (No such file or directory)"),
        (["cut.onnx"], "cut.onnx: onnxruntime can't read it (cut short, "),
        (["cut.pt2"], "cut.pt2: torch can't read it (cut short, "),
        (["other.pt2"], "other.pt2: doesn't say how clips are made for it"),
        (["objects.pt2"], "objects.pt2: refused: a/data/constants/custom_obj_0 isn't a tensor"),
    ],
)
def test_files_that_cannot_be_used(more: list[str], complaint: str, folder: Path) -> None:
    for name in ("a.onnx", "a.pt2"):
        (folder / name.replace("a", "cut", 1)).write_bytes((folder / name).read_bytes()[:5000])
    for name in ("other", "objects"):
        with zipfile.ZipFile(folder / f"{name}.pt2", "w") as copy:
            with zipfile.ZipFile(folder / "a.pt2") as archive:
                kept = [n for n in archive.namelist() if "extra" not in n]
                for inside in kept:
                    copy.writestr(inside, archive.read(inside))
            if name == "objects":
                copy.writestr("a/data/constants/custom_obj_0", b"")
    video, (name, *options) = folder / "videos" / "0.mp4", more
    told = complaint_of(predict, video, "--checkpoint", folder / name, *options)
    assert complaint.format(folder=folder) in told
    assert told.count("\n") == 1


@pytest.mark.parametrize("said", [{"output": {"shape": []}}, {"preprocessing": {"mean": 1}}, []])
def test_what_a_file_cannot_say_is_one_line(said: Any, model: Predictor) -> None:
    text = json.loads(about_of(model.model, "pixels", "fp32", "").to_text())
    changed = json.dumps(text | said if said else said)
    with pytest.raises(WeightsError, match=r"a\.onnx: what it says of itself can't be read"):
        About.from_text(Path("a.onnx"), changed)


@pytest.mark.parametrize("name", ["a.onnx", "a.pt2"])
def test_a_flipped_bit_is_noticed(name: str, folder: Path, tmp_path: Path) -> None:
    """None of what computes the files looks: a weight would be another one."""
    whole = (folder / name).read_bytes()
    weight = timesformer.load(folder / "weights").model.get_classifier().weight
    at = whole.index(weight.detach().numpy().tobytes()[:16])
    (tmp_path / name).write_bytes(whole)
    timesformer.load(tmp_path / name)
    (tmp_path / name).write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
    with pytest.raises(UserError, match=r"can't read it .*isn't what it was when it was written"):
        timesformer.load(tmp_path / name)


@pytest.mark.parametrize("to", ["onnx", "torch-export"])
def test_a_full_disk_is_told(to: str, model: Predictor, tmp_path: Path) -> None:
    """With the file's name, and nothing is left; a limit on sizes of files stands for it."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / ("a.onnx" if to == "onnx" else "a.pt2")
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, before[1]))
    try:
        with pytest.raises(UserError, match=rf"{path.name}: can't write this file: File too large"):
            timesformer.export(model, path, to)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not [*tmp_path.iterdir()]


def test_pickles_are_refused(folder: Path, tmp_path: Path) -> None:
    with (
        zipfile.ZipFile(folder / "a.pt2") as archive,
        zipfile.ZipFile(tmp_path / "a.pt2", "w") as copy,
    ):
        for name in archive.namelist():
            text = archive.read(name)
            if name.endswith("weights_config.json"):
                text = text.replace(b'"use_pickle": false', b'"use_pickle": true', 1)
            copy.writestr(name, text)
    with pytest.raises(UserError, match=r"weights_config.json isn't a tensor or text"):
        timesformer.load(tmp_path / "a.pt2")


@pytest.mark.parametrize("package", ["onnxruntime", "openvino"])
def test_a_missing_package_is_one_line(
    package: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    extra, suffix = {"onnxruntime": ("onnx", "onnx"), "openvino": ("openvino", "xml")}[package]
    (folder / "b.xml").touch()
    video = folder / "videos" / "0.mp4"
    file = folder / ("a.onnx" if suffix == "onnx" else "b.xml")
    told = complaint_of(predict, video, "--checkpoint", file)
    told += complaint_of(main, *words(folder), "--to", extra, "--out", folder / f"c.{suffix}")
    assert told.count(f"pip install 'timesformer[{extra}]'") == told.count("\n") == 2


def test_weights_alone_can_be_looked_into(folder: Path) -> None:
    from timesformer.inference.load import load_models

    with pytest.raises(UserError, match="an exported file gives scores and nothing else"):
        load_models([folder / "a.onnx"])


# ---------------------------------------------------------------------------- slow


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("to", ["onnx", "torch-export", "openvino"])
def test_half_precision(to: str, model: Predictor, folder: Path, tmp_path: Path) -> None:
    if to == "openvino":
        need_openvino()
    path = tmp_path / {"onnx": "b.onnx", "torch-export": "b.pt2", "openvino": "b.xml"}[to]
    done = timesformer.export(model, path, to, precision="fp16")
    assert 0 < max(done.differences.values()) < 0.05
    compare = torch.cosine_similarity(scores(timesformer.load(path), folder), scores(model, folder))
    assert compare.min() > 0.999


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("to", "calibrate"), [("onnx", False), ("openvino", False), ("openvino", True)]
)
def test_eight_bits(
    to: str, calibrate: bool, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if to == "openvino":
        need_openvino()
    more = ["--calibrate", str(folder / "videos")] if calibrate else []
    path = tmp_path / {"onnx": "b.onnx", "openvino": "b.xml"}[to]
    main([*words(folder), "--to", to, "--out", str(path), "--int8", *more,
          "--compare", str(folder / "videos")])  # fmt: skip
    told = capsys.readouterr().out
    found = re.search(r"2 videos: the same class for (.*) %, cosine of scores (\S+) ", told)
    assert found
    assert 0.9 < float(found[2]) < 1
    assert {p.name for p in tmp_path.iterdir()} == {path.name} | (
        {"b.bin"} if to == "openvino" else set()
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_openvino(model: Predictor, folder: Path, tmp_path: Path) -> None:
    need_openvino()
    timesformer.export(model, tmp_path / "b.xml", "openvino")
    assert {p.name for p in tmp_path.iterdir()} == {"b.xml", "b.bin"}
    found = scores(timesformer.load(tmp_path / "b.xml"), folder)
    torch.testing.assert_close(found, scores(model, folder), atol=1e-5, rtol=0)


@pytest.mark.slow
def test_weights_beside_an_onnx_file(
    model: Predictor, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where protobuf can't hold them: the file finds them under its final name."""
    need_onnx()
    monkeypatch.setattr("timesformer.inference.formats.onnx.LARGEST", 0)
    (tmp_path / "b.onnx").write_text("earlier")
    timesformer.export(model, tmp_path / "b.onnx", "onnx")
    assert {p.name for p in tmp_path.iterdir()} == {"b.onnx", "b.onnx.data"}
    found = scores(timesformer.load(tmp_path / "b.onnx"), folder)
    torch.testing.assert_close(found, scores(model, folder), atol=1e-5, rtol=0)


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name, _ in MODEL_REGISTRY])
def test_every_model_as_onnx(name: str, tmp_path: Path) -> None:
    """Narrow where a model can be; every weight is noise, and the largest logit 10."""
    need_onnx()
    sizes: dict[str, object] = {"num_frames": 8, "img_size": 32, "num_classes": 7}
    if name in NAMES_OF_CNNS:
        sizes |= {"width": 0.125, "img_size": 64}
    elif name in ("vit_base_patch16_224", "TimeSformer", "vtn"):
        sizes |= SMALL
    elif name == "vivit_factorised_encoder":
        sizes |= SMALL | {"tubelet_size": 2}
    frames, side = sizes["num_frames"], sizes["img_size"]
    model = scramble(timesformer.create_model(name, **sizes))
    with torch.no_grad():
        largest = model(torch.randn(2, 3, frames, side, side)).abs().max()
        for value in model.get_classifier().parameters():
            value.mul_(10 / largest)
    model.preprocessing = SAID | {"num_frames": frames, "crop_size": side, "short_side": side}
    done = timesformer.export(Predictor(model), tmp_path / "b.onnx", "onnx")
    assert {*done.differences} == {1, 3, 8}
    assert max(done.differences.values()) < 1e-4


@pytest.mark.slow
def test_convolutions_in_eight_bits_are_refused(folder: Path, tmp_path: Path) -> None:
    need_onnx()
    changes = {"width": 0.25, "num_frames": 4, "img_size": 32, "num_classes": 7}
    model = timesformer.create_model("x3d_m", **changes).eval()
    model.preprocessing = SAID | {"crop_size": 32, "short_side": 32}
    videos = records_of([folder / "videos" / "0.mp4"])
    with pytest.raises(UserError, match=r"for matrix products here, .* use --to openvino --cal"):
        timesformer.export(
            Predictor(model), tmp_path / "b.onnx", "onnx", precision="int8", compare=videos
        )
    assert not [*tmp_path.iterdir()]


def test_a_model_of_few_products_is_refused() -> None:
    """In 8 bits without calibration, which leaves the rest as it is."""
    need_products(25, 75, "say --calibrate")
    with pytest.raises(UserError, match="they have 24 % of this model's weights: say --calibrate"):
        need_products(24, 76, "say --calibrate")
