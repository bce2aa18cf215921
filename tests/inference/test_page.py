"""The page to try a model on, without Gradio: what it answers, shows and refuses."""

from __future__ import annotations

import os
import re
import shutil
import socket
import sys
from html import unescape
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from small_run import complaint_of, small_model
from video_fixtures import numbered_frames, write_video

from timesformer.clips.sampling import sampler_of
from timesformer.clips.transform import to_pictures
from timesformer.commands.serve import EXAMPLES, main
from timesformer.datasets.decoder import load_clip
from timesformer.inference.page import EMPTY, EMPTY_TABLE, Answers
from timesformer.inference.page_html import hint
from timesformer.inference.page_server import listen, own_folder, where
from timesformer.inference.predictor import Predictor
from timesformer.inference.shown import WINDOWS, Limits, _stride, is_long, look_at, timeline_of
from timesformer.utils.errors import UserError

NAMES = ("up", "down", "left", "<b>${1+1} {{x}}", "in", "out")
FPS = 25
LIMITS = Limits(megabytes=5, seconds=30)


@pytest.fixture(scope="module")
def model(synthetic_dir, tmp_path_factory):
    """Fresh weights that know the names of their classes; frames of a clip are 40 ms apart."""
    made = small_model(synthetic_dir, tmp_path_factory.mktemp("page"))
    made.class_names = NAMES
    made.preprocessing |= {"sampling": "rate", "sampling_rate": 1, "target_fps": float(FPS)}
    return made


@pytest.fixture(scope="module")
def answers(model, videos):
    return Answers(Predictor(model).with_views("3x3"), LIMITS, 4, uploads=str(videos))


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """One of 40 frames, one of 2 and a broken one."""
    folder = tmp_path_factory.mktemp("videos")
    write_video(folder / "long.mp4", numbered_frames(40, 64, 80), fps=FPS)
    write_video(folder / "short.mp4", numbered_frames(2, 64, 80), fps=FPS)
    (folder / "broken & <i>.mp4").write_bytes(b"no video at all")
    return folder


def text_of(html):
    return " ".join(unescape(re.sub("<[^>]*>", " ", html)).split())


def test_the_answer_is_the_prediction_and_the_clip_what_the_model_saw(answers, videos):
    predictor, path = answers.predictor, videos / "long.mp4"
    look = look_at(predictor, path, LIMITS, 3)
    assert torch.equal(look.prediction.scores, predictor.predict(path).scores)
    assert len(look.prediction.top) == 3
    assert look.seconds == pytest.approx(40 / FPS)
    frames = load_clip(path, **predictor.model.sampling, view=(1, 3))
    seen = to_pictures(predictor.model.crop(frames, 3)[1])
    assert np.array_equal(look.clip.frames, seen)
    place = sampler_of(**predictor.model.sampling).place(40, FPS, (1, 3))
    assert look.clip.moments == [n / FPS for n in place.numbers(40)]
    assert look.clip.number == 2


def test_a_long_video_gets_a_timeline_after_the_answer(answers, videos):
    waiting, done = answers.one(str(videos / "long.mp4"))
    assert waiting[:2] == done[:2]
    bars, clip, timeline = done
    chances = re.findall(r"width: ([\d.]+)%", bars)
    assert len(chances) == 4
    assert sorted(map(float, chances), reverse=True) == [float(chance) for chance in chances]
    assert clip.count("<img") == 4
    assert "clip 2 of 3, 4 frames, 0.72 to 0.84 s; the middle one of 3 crops" in text_of(clip)
    assert "repeated" not in text_of(bars)
    assert (waiting[2].count("<img"), timeline.count("<img")) == (0, 1)


def test_windows_of_a_timeline_have_an_end(answers, videos):
    found = timeline_of(answers.predictor, str(videos / "long.mp4"), 40 / FPS)
    assert np.diff(found.starts) == pytest.approx(0.08)
    far = 1000.0
    assert is_long(answers.predictor, far)
    assert far / WINDOWS < _stride(answers.predictor, far) < far / (WINDOWS - 2)


def test_equal_parts_of_a_video_have_no_timeline(answers, model, videos, monkeypatch):
    told = {k: v for k, v in model.preprocessing.items() if k not in ("sampling_rate",)}
    monkeypatch.setattr(model, "preprocessing", told | {"sampling": "segments"})
    assert not is_long(answers.predictor, 1e6)
    assert "from equal parts of the video" in answers.about()[0]
    [(bars, clip, timeline)] = answers.one(str(videos / "long.mp4"))
    assert (bars.count("%"), clip.count("<img"), timeline) == (8, 4, "")


def test_a_short_video_says_so(answers, videos):
    [(bars, _, timeline)] = answers.one(str(videos / "short.mp4"))
    assert "s, and a clip spans 0.2 s: its last frame was repeated" in text_of(bars)
    assert timeline == ""


@pytest.mark.parametrize(
    ("limits", "name", "said"),
    [
        (LIMITS, "broken & <i>.mp4", "damaged, or not a video (invalid data)"),
        (Limits(0.001, 30), "long.mp4", "MB, and 0.001 MB is the limit"),
        (Limits(5, 1.5), "long.mp4", "1.6 s long, and 1.5 s is the limit"),
    ],
)
def test_what_is_wrong_is_told_in_a_line(answers, videos, limits, name, said):
    [(note, clip, timeline)] = Answers(answers.predictor, limits, 4, str(videos)).one(
        str(videos / name)
    )
    assert text_of(note).startswith("No answer: ")
    assert text_of(note).endswith(said)
    assert str(videos) not in note
    assert (clip, timeline) == ("", "")
    assert f"{limits.megabytes:g} MB" in answers.about()[1] or limits is not LIMITS


def test_weights_that_are_no_good_are_told(answers, videos, monkeypatch):
    def score(_):
        raise UserError("the model's scores aren't finite")

    monkeypatch.setattr(answers.predictor, "score", score)
    path = str(videos / "long.mp4")
    assert [text_of(html) for html in [*answers.one(path)][-1]] == [
        "No answer: the model's scores aren't finite", "", ""
    ]  # fmt: skip
    assert text_of([*answers.several([path])][-1]) == "No answer: the model's scores aren't finite"


def test_other_files_of_the_computer_are_not_looked_at(answers, videos, tmp_path):
    """A request can name any path: what a file of ours is, even that it is there, isn't told."""
    shutil.copy(videos / "long.mp4", tmp_path / "ours.mp4")
    (videos / "link.mp4").symlink_to(tmp_path / "ours.mp4")
    climbing = f"{videos}/../{tmp_path.name}/ours.mp4"
    told = set()
    for path in (tmp_path / "ours.mp4", tmp_path / "nothing.mp4", climbing, videos / "link.mp4"):
        [(note, clip, timeline)] = answers.one(str(path))
        assert (clip, timeline) == ("", "")
        told.add(text_of(note))
        assert "only files that are brought" in text_of([*answers.several([str(path)])][-1])
    (videos / "link.mp4").unlink()
    assert len(told) == 1


def test_several_videos_are_rows_of_a_table(answers, videos):
    paths = [str(videos / name) for name in ("long.mp4", "broken & <i>.mp4", "short.mp4")]
    tables = [*answers.several(paths)]
    assert [table.count("waiting") for table in tables] == [3, 2, 1, 0]
    assert "<i>" not in tables[-1]
    rows = [text_of(row) for row in tables[-1].split("<tr>")[2:]]
    assert rows[0].startswith("long.mp4 ")
    assert rows[0].count(" %") == 2
    assert rows[1] == "broken & <i>.mp4 damaged, or not a video (invalid data)"
    assert rows[2].endswith("3 of 3 videos")


def test_nothing_is_asked(answers):
    assert [*answers.one(None)] == [(hint(EMPTY), "", "")]
    assert [*answers.several([])] == [hint(EMPTY_TABLE)]


def test_names_are_text_whatever_is_in_them():
    """Neither HTML, nor a template of Gradio's, which would evaluate it."""
    html = hint(NAMES[3])
    assert text_of(html) == NAMES[3]
    assert not re.search(r"<b>|\$|[{}]", html)


def test_what_the_page_says_of_itself(answers):
    model, limits = answers.about()
    assert (
        model
        == "4 frames of 64 × 64 pixels, 0.04 s apart; 3 clips × 3 crops of each video, 6 classes."
    )
    assert limits.startswith("Up to 5 MB and 30 s a video. ")


def test_addresses(monkeypatch):
    with listen("127.0.0.1", 0) as sock:
        port = sock.getsockname()[1]
        assert where(sock).startswith(f"http://127.0.0.1:{port}: for this computer alone")
        with pytest.raises(UserError, match=rf"--port {port}: address already in use; another"):
            listen("127.0.0.1", port)
    monkeypatch.setattr(socket, "gethostname", lambda: "me")
    with listen("0.0.0.0", 0) as sock:
        assert "http://me:" in where(sock)
        assert where(sock).endswith("can use it, without a password")
    with pytest.raises(
        UserError, match=r"--host no\.such\.host\.invalid: there is no such address"
    ):
        listen("no.such.host.invalid", 0)


def test_the_folder_of_uploads_goes(monkeypatch):
    monkeypatch.delenv("GRADIO_TEMP_DIR", raising=False)
    monkeypatch.setenv("GRADIO_ANALYTICS_ENABLED", "True")
    with own_folder() as folder:
        assert os.environ["GRADIO_TEMP_DIR"] == folder
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        assert Path(folder).is_dir()
    assert not Path(folder).exists()


def test_what_keeps_it_from_starting_is_one_line(tmp_path, monkeypatch, capsys):
    words = ["--checkpoint", tmp_path / "none", "--port", "0"]
    monkeypatch.setitem(sys.modules, "gradio", None)
    said = complaint_of(main, *words)
    assert said.endswith("pip install 'timesformer[serve]'\n")
    assert said.count("\n") == 1
    monkeypatch.setitem(sys.modules, "gradio", ModuleType("gradio"))
    assert "none: " in complaint_of(main, *words)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert f"--port {port}: address already in use" in complaint_of(main, *words[:3], port)
    assert "there are no videos in it" in complaint_of(main, *words, "--examples", tmp_path)
    assert "--max-mb 0: must be above 0" in complaint_of(main, *words, "--max-mb", "0")
    assert "--port 70000: must be 0 to 65535" in complaint_of(main, *words[:3], "70000")
    for i in range(EXAMPLES + 1):
        (tmp_path / f"{i}.mp4").touch()
    capsys.readouterr()
    assert "none: " in complaint_of(main, *words, "--examples", tmp_path)
    assert f"the first {EXAMPLES} of {EXAMPLES + 1} videos" in capsys.readouterr().out
