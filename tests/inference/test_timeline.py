"""`timesformer timeline`: what it writes, prints and refuses."""

from __future__ import annotations

import csv
import io
import json

import av
import numpy as np
import pytest
import torch
from small_run import complaint_of, read_npz, small_model
from video_fixtures import numbered_frames, write_video

import timesformer
from timesformer.commands.timeline import main
from timesformer.datasets.video.whole import WholeVideo
from timesformer.inference.segments import Rules, Segment
from timesformer.inference.timeline import timeline
from timesformer.inference.timeline_files import subtitles
from timesformer.inference.windows import places_in
from timesformer.visualization.annotated import Caption, annotated
from timesformer.visualization.timeline import Shown, _rows_of, _thinned, _tick, clock

NAMES = ("up", "down", "left", "right & <b>", "in", "out")


@pytest.fixture(scope="module")
def place(synthetic_dir, tmp_path_factory):
    """A folder with a video, weights whose head says much, and true segments."""
    folder = tmp_path_factory.mktemp("timeline")
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)  # this comes before the guard of a test
        model = small_model(synthetic_dir, folder / "run")
        model.get_classifier().weight.normal_(0, 3)
    model.class_names = NAMES
    model.save_pretrained(folder / "weights")
    frames = numbered_frames(75, 64, 80)
    frames[25:50] = frames[25:50, ::-1] // 2
    write_video(folder / "a.mp4", frames, fps=25)
    (folder / "truth.csv").write_text("video,start,end,label\na,0,1,up\na.mp4,1,2,1\nb,0,1,in\n")
    return folder


def words_of(place, out, *more):
    given = [place / "a.mp4", "--checkpoint", place / "weights", "--device", "cpu", "--out", out]
    return [str(word) for word in (*given, "--stride", "200ms", "--enter", "0.3", *more)]


def test_what_is_written(place, tmp_path, capsys):
    truth = ["--truth", str(place / "truth.csv")]
    main(words_of(place, tmp_path / "out", "--annotate", "--json", *truth))
    said = json.loads(capsys.readouterr().out)
    segments = said["segments"]
    assert segments
    assert {*segments[0]} == {"start", "end", "label", "name", "confidence"}
    assert said["detection"]["true_segments"] == 2
    names = {"segments.csv", "segments.json", "scores.npz", "segments.srt", "segments.vtt"}
    names |= {"timeline.png", "annotated.mp4", "detection.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    assert json.loads((tmp_path / "out/detection.json").read_text()) == said.pop("detection")
    assert json.loads((tmp_path / "out/segments.json").read_text()) == said
    with (tmp_path / "out/segments.csv").open() as file:
        rows = [*csv.DictReader(file)]
    assert [(row["label"], float(row["end"])) for row in rows] == [
        (s["name"], s["end"]) for s in segments
    ]
    arrays = read_npz(tmp_path / "out/scores.npz")
    assert arrays["scores"].shape == (said["windows"], 6)
    np.testing.assert_allclose(arrays["start"], np.arange(said["windows"]) * 0.2)
    assert arrays["class_names"].tolist() == [*NAMES]
    for name in ("segments.srt", "segments.vtt"):  # read by FFmpeg, as players do
        with av.open(str(tmp_path / "out" / name)) as file:
            packets = [p for p in file.demux(file.streams[0]) if p.size]
            times = [float(p.pts * p.time_base) for p in packets]
            assert times == pytest.approx([s["start"] for s in segments], abs=1e-3)
    with av.open(str(tmp_path / "out/annotated.mp4")) as film:
        stream = film.streams.video[0]
        times = [float(frame.pts * frame.time_base) for frame in film.decode(stream)]
        assert (stream.width, stream.height) == (320, 256)
    assert times == pytest.approx([i / 25 for i in range(75)], abs=1e-4)
    main(words_of(place, tmp_path / "out"))  # what it doesn't write isn't left of the one before
    assert "detection.json, of an earlier timeline" in capsys.readouterr().err
    assert {path.name for path in (tmp_path / "out").iterdir()} == names - {
        "annotated.mp4",
        "detection.json",
    }


def test_what_is_written_are_true_segments(place, tmp_path, capsys):
    """Its own segments.csv as truth: all is right."""
    main(words_of(place, tmp_path / "one"))
    capsys.readouterr()
    main(words_of(place, tmp_path / "two", "--truth", str(tmp_path / "one/segments.csv")))
    told = capsys.readouterr().out
    assert "@0.1 100.0" in told
    assert "@0.7 100.0" in told
    assert "frame accuracy: 100.0 %" in told
    assert "75 frames" in told


def test_a_file_that_cannot_be_read_is_status_1(place, tmp_path, capsys):
    (tmp_path / "broken.mp4").write_bytes(b"no video at all")
    with pytest.raises(SystemExit) as end:
        main([str(tmp_path / "broken.mp4"), *words_of(place, tmp_path / "out")[1:]])
    assert end.value.code == 1
    assert capsys.readouterr().err.startswith(f"error: {tmp_path / 'broken.mp4'}: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--stride", "0"], "--stride 0: must be above 0"),
        (["--window", "2s"], "leave --window out"),
        (["--background", "upp"], "--background: class 'upp' is not known; did you mean up?"),
        (["--enter", "1.5"], "--enter 1.5: a probability"),
        (["--truth", "{place}/none.csv"], "none.csv: there is no such file\n"),
        (["--min-length", "x"], "'x': seconds, as 0.5, 1s or 500ms"),
    ],
)
def test_mistakes(place, tmp_path, words, said):
    words = [word.format(place=place) for word in words]
    told = complaint_of(main, *words_of(place, tmp_path / "out", *words))
    assert said in told
    assert told.count("\n") == 1


def test_other_rules_need_no_other_scores(place):
    model = timesformer.load(place / "weights", device="cpu")
    found = timeline(model, place / "a.mp4", stride=0.2, multi_label=True)
    assert found.testing.multi_label
    assert not np.allclose(found.probabilities.sum(1), 1)
    strict = found.with_rules(Rules(enter=1.0, leave=1.0, smooth=0))
    free = found.with_rules(Rules(enter=1e-30, leave=1e-30, smooth=0))
    assert len(free.segments) == 6  # every class, all the time
    assert {(s.start, round(s.end, 6)) for s in free.segments} == {(0.0, 3.0)}
    assert len(strict.segments) < 6
    three = timeline(model, place / "a.mp4", stride=0.2, num_crops=3)
    np.testing.assert_allclose(three.probabilities.sum(1), 1, atol=1e-5)
    assert len([*places_in(WholeVideo(place / "a.mp4"), model.model.sampling, 0.2)]) == len(
        three.starts
    )


def test_subtitles():
    segments = [Segment(3725.0014, 3726.5, 3, NAMES[3], 0.876)]
    assert subtitles(segments, ",", "") == (
        "1\n01:02:05,001 --> 01:02:06,500\nright & <\u2060b> 88 %\n"
    )
    assert subtitles(segments, ".", "WEBVTT\n\n") == (
        "WEBVTT\n\n1\n01:02:05.001 --> 01:02:06.500\nright &amp; &lt;b&gt; 88 %\n"
    )


@pytest.mark.parametrize(
    ("name", "subrip"),
    [("<i>", "<i>"), ("& <b>é</b>", "& <b>é</b>"), ("a --> b", "a -> b"), ("{i}in", "(i)in")],
)
def test_what_players_read_of_a_name(name, subrip):
    """FFmpeg's readers make commands of what they take for markup: then a name isn't seen."""
    segments = [Segment(1.5, 2.5, 0, name, 0.876)]
    webvtt = name.replace("{", r"\{{}")  # how the reader says a brace that is none of its own
    for form, point, head, expected in (
        ("srt", ",", "", subrip),
        ("webvtt", ".", "WEBVTT\n\n", webvtt),
    ):
        told = io.BytesIO(subtitles(segments, point, head).encode())
        with av.open(told, format=form) as file:
            [packet] = [packet for packet in file.demux() if packet.size]
            [shown] = packet.decode()
        text = shown.ass.decode().split(",,", 2)[2].replace("\u2060", "")
        assert text == f"{expected} 88 %"


def test_captions_are_below_and_leave_the_rest():
    image = np.full((120, 160, 3), 90, np.uint8)
    assert (annotated(image, ()) == 90).all()
    drawn = annotated(image, (Caption(0, 1, "up 60 %", 0.6, "#ff0000"),))
    assert drawn.shape == (240, 320, 3)
    assert (drawn[:200] == 90).all()
    line = drawn[-10]
    assert (line[180] > line[200]).tolist() == [True, False, False]  # the bar ends at 60 %


def test_what_a_picture_shows():
    chances = np.tile([0.1, 0.2, 0.3, 0.4], (5000, 1))
    shown = Shown("a", "b", 100.0, np.arange(5000.0), chances, NAMES[:4], [(0, 9, 0)], 0.5)
    assert _rows_of(shown) == [0, 2, 3]
    moments, curves = _thinned(shown.moments, chances)
    assert len(moments) == len(curves) == 1000
    assert (moments[0], moments[-1]) == (2.0, 4997.0)
    assert [_tick(seconds) for seconds in (3, 62, 1801, 7200, 1e6)] == [0.5, 10, 300, 600, 1e6 / 12]
    assert (clock(2.5, 9), clock(65, 99), clock(3723, 4000)) == ("2.5 s", "1:05", "1:02:03")


def test_a_video_shorter_than_a_window(place, tmp_path):
    """It is one segment, as long as the video, and what was done is said."""
    write_video(tmp_path / "a.mp4", numbered_frames(3, 64, 80), fps=25)
    found = timeline(timesformer.load(place / "weights", device="cpu"), tmp_path / "a.mp4")
    assert found.duration == pytest.approx(0.12)
    assert found.ends[0] > 2 * found.duration
    assert found.damage.startswith("0.12 s, and a window spans ")
    chance = float(found.probabilities.max())
    (segment,) = found.with_rules(Rules(enter=chance / 2, leave=chance / 4)).segments
    assert (segment.start, segment.end) == (0, found.duration)


def test_a_stride_below_a_frame_is_refused(place, tmp_path):
    """It would make billions of windows that show the same frames."""
    told = complaint_of(main, *words_of(place, tmp_path, "--stride", "1e-9"))
    assert "--stride 1e-09: " in told
    assert "has a frame every 0.04 s" in told
