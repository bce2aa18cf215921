"""Videos asked about: the scores of a test, whatever the neighbours, workers and order."""

from __future__ import annotations

import csv
import json
import os
import shutil
import sys
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from small_run import complaint_of, read_npz, small_cfg, small_model

import timesformer
from timesformer.commands.predict import main, tell
from timesformer.datasets.decoder import probe
from timesformer.engine.evaluate import test
from timesformer.engine.train import train
from timesformer.inference.filling import filled
from timesformer.inference.given import find
from timesformer.inference.predictor import Predictor
from timesformer.models.vit import TimeSformer
from timesformer.utils.errors import ConfigError, TrainingError, UserError

run_test = test  # pytest would collect a function called `test`
del test


@pytest.fixture(scope="module")
def run(synthetic_dir, tmp_path_factory):
    """The folder of a run, its config, and the scores of its test (2×3 views, sums)."""
    folder = tmp_path_factory.mktemp("run") / "a"
    options = {"TEST__NUM_ENSEMBLE_VIEWS": 2, "TEST__SAVE_RESULTS_PATH": "scores.npz"}
    cfg = small_cfg(synthetic_dir, folder, SOLVER__MAX_EPOCH=1, **options)
    train(cfg)
    run_test(cfg)
    return folder, read_npz(folder / "scores.npz")


@pytest.fixture(scope="module")
def model(run):
    return timesformer.load(run[0], device="cpu")


def scores_of(predictions):
    return torch.stack([prediction.scores for prediction in predictions]).numpy()


def test_scores_are_those_of_the_test(run, model):
    """Bit for bit: its own views, its batch of 6 clips, nothing said but the run's folder."""
    tested = run[1]
    assert model.testing == (2, 3, "sum", False)
    found = [*timesformer.predict(model, tested["paths"].tolist(), batch_size=6)]
    assert [p.path for p in found] == tested["paths"].tolist()
    assert np.array_equal(scores_of(found), tested["scores"])
    other = [*model.stream(tested["paths"].tolist(), batch_size=5)]
    np.testing.assert_allclose(scores_of(other), tested["scores"], atol=2e-6)


def test_neighbours_workers_and_order_change_nothing(run, model):
    paths = run[1]["paths"].tolist()
    alone = {path: model.predict(path, batch_size=6).scores for path in paths[:4]}
    for batch, workers, order in ((6, 2, paths[:4]), (6, 0, paths[3::-1])):
        found = [*model.stream(order, batch_size=batch, workers=workers)]
        assert [p.path for p in found] == order
        assert all(torch.equal(p.scores, alone[p.path]) for p in found)


def test_every_clip_is_scored_once_in_its_place():
    """Passes of 4 clips, of videos with 3, 0, 7, 1 of them."""
    passes = []

    def score(clips):
        passes.append(len(clips))
        return clips[:, :1] * 10

    counts = [3, 0, 7, 1, 0]
    clips = torch.arange(11.0).view(11, 1).expand(11, 2)
    videos = [*enumerate(clips.split(counts))]
    found = [*filled(score, videos, 4)]
    assert passes == [4, 4, 3]
    assert [key for key, _ in found] == [0, 1, 2, 3, 4]
    assert [len(scores) for _, scores in found] == counts
    assert torch.cat([s.view(-1) for _, s in found]).tolist() == [10.0 * i for i in range(11)]


def test_frames_in_every_form(run, model):
    """A whole video's frames with their rate are the file; a clip's frames are the clip."""
    path = run[1]["paths"][0]
    frames = all_frames(path)
    expected = model.predict(path)
    assert torch.equal(model.predict(frames, fps=probe(path).fps).scores, expected.scores)
    clip = frames[:4]
    one = model.predict(clip, topk=2)
    assert (one.testing.views, len(one.top), one.path) == ("1x3", 2, "")
    for given in (clip.numpy(), [Image.fromarray(frame) for frame in clip.numpy()]):
        assert torch.equal(model.predict(given).scores, one.scores)
    with pytest.raises(ValueError, match=r"5 frames, and a clip has 4: .* say its fps"):
        model.predict(frames[:5])
    with pytest.raises(TypeError, match="workers: for paths"):
        model.predict(clip, workers=1)


def all_frames(path):
    import av

    with av.open(path) as file:
        return torch.stack(
            [torch.from_numpy(f.to_ndarray(format="rgb24")) for f in file.decode(video=0)]
        )


def test_few_videos_start_no_processes_unless_they_are_asked_for(run, monkeypatch):
    asked = []
    monkeypatch.setattr(Predictor, "stream", lambda *_, workers, **__: asked.append(workers) or ())
    words = [*run[1]["paths"][:2], "--checkpoint", str(run[0]), "--device", "cpu"]
    main(words)
    main([*words, "--workers", "2"])
    assert asked == [0, 2]


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are text there")
def test_lists_have_names_that_are_not_utf8(tmp_path, monkeypatch):
    """As folders of videos may; other bytes that aren't UTF-8 are of a list in another encoding."""
    name = os.fsdecode(b"caf\xe9.mp4")
    (tmp_path / name).touch()
    (tmp_path / "frames\udce9").mkdir()
    (tmp_path / "frames\udce9" / "0.png").touch()
    (tmp_path / "other").mkdir()
    header = "original_vido_id video_id frame_id path labels\n"
    forms = {"a.txt": f"{name}\n", "b.csv": f"{name} 3\n", "c.csv": f"{name},my class\n"}
    forms["d.csv"] = f"{header}0 0 0 frames\udce9/0.png 3\n"
    for folder in (tmp_path, tmp_path / "other"):  # the list's is as good as the current one
        monkeypatch.chdir(folder)
        for form, text in forms.items():
            path = tmp_path / form
            path.write_text(text, errors="surrogateescape")
            [found] = find([path])
            assert os.path.lexists(found.path), form
            path.write_text(text.replace("\udce9", "\udce8"), errors="surrogateescape")
            with pytest.raises(UserError, match=rf"{form}, line [12]: not UTF-8 text"):
                find([path])


@pytest.mark.parametrize("suffix", [".csv", ".npz"])
def test_what_is_done_is_kept_when_a_worker_dies(run, tmp_path, monkeypatch, capsys, suffix):
    """Under another name: what has all videos, of an earlier run, stays."""
    words = [*run[1]["paths"][:4].tolist(), "--checkpoint", str(run[0]), "--device", "cpu"]
    out, partial = tmp_path / f"a{suffix}", tmp_path / f"a.incomplete{suffix}"
    out.write_text("earlier")
    stream = Predictor.stream

    def dying(self, *videos, **options):
        yield from islice(stream(self, *videos, **options), 3)
        raise TrainingError("a process that decodes has ended")

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "stream", dying)
        with pytest.raises(TrainingError):
            main([*words, "--out", str(out)])
    told = capsys.readouterr().err
    assert f"ended after 3 of 4 videos: {partial} has what was predicted before" in told
    assert out.read_text() == "earlier"
    if suffix == ".csv":
        assert len(partial.read_text().splitlines()) == 1 + 3
    else:
        np.testing.assert_allclose(read_npz(partial)["scores"], run[1]["scores"][:3], atol=1e-5)
    main([*words, "--out", str(out)])
    assert "a.incomplete" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_a_broken_file_is_a_row(run, model, tmp_path, capsys):
    good, other = run[1]["paths"][:2]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video at all")
    words = [good, str(broken), other, "--checkpoint", str(run[0]), "--device", "cpu"]
    with pytest.raises(SystemExit) as end:
        main([*words, "--json", "--out", str(tmp_path / "a.csv")])
    assert end.value.code == 1
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["path"] for line in lines] == [good, str(broken), other]
    assert [line["error"] is None for line in lines] == [True, False, True]
    assert lines[0].keys() == {"path", "topk", "views", "damage", "error"}
    assert lines[1]["topk"] == []
    top = lines[0]["topk"]
    assert top[0]["name"] == model.class_names[top[0]["label"]]
    assert sum(guess["prob"] for guess in top) <= 1
    with (tmp_path / "a.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert rows[1]["error"] == lines[1]["error"]
    assert rows[0]["top1"] == top[0]["name"]
    with pytest.raises(SystemExit):
        main([*words, "--out", str(tmp_path / "a.npz")])
    told = capsys.readouterr()
    assert f"error: {broken}: " in told.err
    assert "1 video couldn't be read" in told.err
    assert "3 videos in" in told.out
    arrays = read_npz(tmp_path / "a.npz")
    assert np.isnan(arrays["scores"][1]).all()
    assert np.array_equal(arrays["scores"][0], model.predict(good).scores.numpy())
    with pytest.raises(SystemExit):
        main([*words, "--json", "--out", str(tmp_path / "a.json")])
    assert json.loads((tmp_path / "a.json").read_text()) == lines


def test_what_words_mean(run, tmp_path, monkeypatch):
    """Folders, frames, plain lists, and lists of training; each video once."""
    video = run[1]["paths"][0]
    (tmp_path / "v" / "in").mkdir(parents=True)
    for name in ("a.mp4", "in/b b 3.MP4", "in/.hidden.mp4"):
        shutil.copy(video, tmp_path / "v" / name)
    (tmp_path / "v" / "frames").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "v" / "frames" / "1.png")
    names = ["a.mp4", "frames", "in/b b 3.MP4"]
    folder = sorted(r.path for r in find([tmp_path / "v"]))
    assert folder == [str(tmp_path / "v" / name) for name in names]
    (tmp_path / "v" / "list.txt").write_text("path\nin/b b 3.MP4\n\nframes\n")
    found = [r.path for r in find([tmp_path / "v" / "list.txt"])]
    assert found == [str(tmp_path / "v" / name) for name in (names[2], names[1])]
    (tmp_path / "v" / "train.csv").write_text("a.mp4 3\nframes 7\n")
    monkeypatch.chdir(tmp_path / "v")
    assert [r.path for r in find(["train.csv", "a.mp4"])] == ["a.mp4", "frames"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="there are no videos in it"):
        find([tmp_path / "empty"])
    with pytest.raises(UserError, match="no such video, folder or list"):
        find(["nothing.mp4"])


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["a.mp4"], "--checkpoint"),
        (["nothing.mp4", "--checkpoint", "x"], "nothing.mp4: there is no such video"),
        (["{video}", "--checkpoint", "nothing"], "nothing"),
        # Before weights are looked for, which may take minutes.
        (["{video}", "--checkpoint", "nothing", "--views", "2x2"], "views '2x2': clips x crops"),
        (["{video}", "--checkpoint", "{run}", "--topk", "0"], "--topk 0: must be 1 or more"),
        (["{video}", "--checkpoint", "{run}", "--out", "a.txt"], "must end in .csv, .json, .npz"),
        (["{video}", "--checkpoint", "{run}", "--device", "tpu7"], "device 'tpu7'"),
        (["{video}", "--checkpoint", "{run}", "--sampling-rate", "2"], "leave it out"),
    ],
)  # fmt: skip
def test_mistakes(run, words, complaint):
    places = {"video": run[1]["paths"][0], "run": run[0]}
    told = complaint_of(main, *[word.format(**places) for word in words])
    assert complaint in told
    assert told.count("\n") == 1


def test_a_short_video_is_said_once(run, caplog):
    """Two of 16 frames, for clips that span 4 × 30; and nothing of what is long enough."""
    model = timesformer.load(run[0], device="cpu")
    paths = run[1]["paths"][:2].tolist()
    model.predict(paths)
    assert not caplog.records
    model.model.preprocessing["sampling_rate"] = 30
    model.predict(paths)
    (record,) = caplog.records
    assert "s, and a clip spans 4.0 s: its last frame was repeated (said once)" in record.message


def test_weights_travel_whole(run, model, tmp_path):
    """What a folder of `save_pretrained` says of the test is what the run's checkpoint said."""
    model.model.save_pretrained(tmp_path / "saved")
    again = timesformer.load(tmp_path / "saved", device="cpu")
    assert again.testing == model.testing
    path = run[1]["paths"][0]
    assert torch.equal(again.predict(path).scores, model.predict(path).scores)


def test_several_labels_have_a_probability_each(synthetic_dir, tmp_path, run):
    model = small_model(synthetic_dir, tmp_path)
    model.preprocessing |= {"multi_label": True, "ensemble": "prob"}
    found = Predictor(model).predict(run[1]["paths"][0], topk=99)
    assert torch.equal(found.probabilities, found.scores)


def test_a_model_that_trains_goes_on_training(synthetic_dir, tmp_path, run):
    model = small_model(synthetic_dir, tmp_path).train()
    Predictor(model).predict(run[1]["paths"][0])
    assert model.training


def test_what_nothing_is_known_of_is_refused():
    with pytest.raises(ConfigError, match="nothing says how the model's input is normalised"):
        Predictor(TimeSformer(img_size=32, embed_dim=24, depth=1, num_heads=3))
    with pytest.raises(ConfigError, match="not Linear"):
        Predictor(torch.nn.Linear(1, 1))


def test_parts_of_a_folder_are_videos_of_their_own(run, model, tmp_path):
    """As mmaction2 lists them: each is what it would be in a folder of its own."""
    frames = [Image.fromarray(f.numpy()) for path in run[1]["paths"][:2] for f in all_frames(path)]
    half = len(frames) // 2
    for folder, some in (("all", frames), ("one", frames[:half]), ("two", frames[half:])):
        (tmp_path / folder).mkdir()
        for i, frame in enumerate(some, 1):
            frame.save(tmp_path / folder / f"{i:05d}.png")
    (tmp_path / "list.txt").write_text(f"all 0 {half} 0\nall {half} {half} 4\n")
    found = [*model.stream(find([tmp_path / "list.txt"]), batch_size=6)]
    alone = [*model.stream([tmp_path / "one", tmp_path / "two"], batch_size=6)]
    assert np.array_equal(scores_of(found), scores_of(alone))
    assert not torch.equal(found[0].scores, found[1].scores)


def test_a_video_shorter_than_a_clip_says_so_in_its_row(run, capsys):
    """Every one, whatever the log said of the first."""
    model = timesformer.load(run[0], device="cpu")
    model.model.preprocessing["sampling_rate"] = 30
    found = model.predict(run[1]["paths"][:2].tolist())
    for prediction in found:
        assert "a clip spans 4.0 s: its last frame was repeated" in prediction.to_json()["damage"]
    tell(found[0], as_json=False, alone=False)
    assert "(used as decoded: " in capsys.readouterr().out


def test_images_have_the_rate_that_is_said(run, model, tmp_path, capsys):
    """Frames of a video at its own rate are the video; at others its clips lie elsewhere."""
    video = run[1]["paths"][0]
    (tmp_path / "frames").mkdir()
    for i, frame in enumerate(all_frames(video)):
        Image.fromarray(frame.numpy()).save(tmp_path / "frames" / f"{i}.png")
    fps = probe(video).fps
    said = []
    for words in (["--frames-fps", str(fps)], ["--frames-fps", str(4 * fps)]):
        main([str(tmp_path / "frames"), "--checkpoint", str(run[0]), "--json", *words])
        said.append(json.loads(capsys.readouterr().out)["topk"])
    expected = [guess._asdict() for guess in model.predict(video).top]
    assert said[0] == expected != said[1]
