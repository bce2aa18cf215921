"""Windows of long videos: the reader's clips, of frames that are decoded once and not kept."""

from __future__ import annotations

import weakref

import numpy as np
import pytest
import torch
from small_run import small_model
from video_fixtures import numbered_frames, write_video

from timesformer.clips.sampling import ClipPosition, RateSampler
from timesformer.datasets.video import whole
from timesformer.datasets.video.reader import VideoReader
from timesformer.datasets.video.whole import WholeVideo
from timesformer.inference.predictor import Predictor
from timesformer.inference.timeline import timeline
from timesformer.inference.windows import Windows, moments_of, places_from, places_in
from timesformer.utils.errors import UserError, VideoError

RATE = {"num_frames": 4, "sampling_rate": 2, "target_fps": 30.0}
UNEVEN = [i + i // 3 * 2 for i in range(60)]  # every third frame stays three times as long
VARYING = [*range(30), *range(30, 120, 3)]  # the second half has a third of the rate


@pytest.fixture(scope="module")
def predictor(synthetic_dir, tmp_path_factory):
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)  # this comes before the guard of a test
        model = small_model(synthetic_dir, tmp_path_factory.mktemp("model"))
        model.get_classifier().weight.normal_()  # a fresh head says the same of everything
    return Predictor(model)


def starting_at(path, seconds):
    """What places a clip of RATE at so many seconds, for the ordinary reader."""
    sampler, frame_seconds = RateSampler(**RATE), WholeVideo(path).frame_seconds

    def place(length, fps):
        span = 8 * fps / 30
        exact = tuple(np.linspace(0, span - 1, 4, dtype=np.float32).tolist())
        position = ClipPosition(seconds / frame_seconds, span, tuple(map(int, exact)), exact=exact)
        assert position.offsets == sampler.place(length, fps, (0, 1)).offsets
        return [position]

    return place


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {}),
        ("a.mp4", {"fps": 25, "options": {"bf": "2"}}),
        ("a.mkv", {"times": UNEVEN, "first_pts": 7}),
        ("a.mkv", {"times": VARYING, "first_pts": 7}),
        ("a.h264", {}),
        ("a.avi", {}),
    ],
    ids=["constant", "25 fps, B-frames", "uneven", "variable", "no timestamps", "avi"],
)
def test_a_window_is_the_readers_clip(predictor, tmp_path, name, options):
    """Bit for bit, in passes of one clip."""
    path = write_video(tmp_path / name, numbered_frames(60, 64, 80), **options)
    found = timeline(predictor, path, stride=0.3, batch_size=1)
    assert found.frames == 60
    assert len(found.starts) > 4
    cut = predictor.model.crops()
    for start, scores in zip(found.starts, found.scores, strict=True):
        clips = VideoReader()(str(path), starting_at(path, start))
        expected = predictor.score(cut(clips.frames[0]))[0].numpy()
        assert np.array_equal(scores, expected), start
    assert len(np.unique(found.scores[:, 0])) > 4  # else anything would be equal


def test_frames_of_equal_parts(tmp_path):
    """Of frames 15 to 45, at 0.5 s, those of SSv2's clip of so many; known by their red."""
    path = write_video(tmp_path / "a.mp4", numbered_frames(60))
    sampling = {"num_frames": 3, "sampling_rate": None}
    found = reds(path, sampling, 0.5, 1.0)
    assert found[0.5] == [20, 29, 39]
    assert [*found] == [0.0, 0.5, 1.0]
    with pytest.raises(UserError, match="say --window SECONDS"):
        reds(path, sampling, 0.5)
    with pytest.raises(UserError, match=r"spans 0\.267 s: leave --window out"):
        reds(path, RATE, 0.5, 1.0)


def reds(path, sampling, stride, window=None):
    """Numbers of the frames of each window, by its start."""
    video = WholeVideo(path)
    windows = Windows(places_in(video, sampling, stride, window), lambda frame: frame[0, 0, :1])
    found = [w for f in video for w in windows.feed(f.number, f.pts, f.image)]
    return {w.start: w.frames.flatten().tolist() for w in [*found, *windows.finish()]}


@pytest.mark.parametrize("stride", [1 / 30, 0.1, 1.0])
def test_frames_are_decoded_once_and_not_kept(tmp_path, monkeypatch, stride):
    """However windows overlap; each is resized at most once, and kept while a window needs it."""
    path = write_video(tmp_path / "a.mp4", numbered_frames(120))
    decoded, kept, most = [], weakref.WeakSet(), 0
    original = whole._frames

    def counting(*words):
        for frame in original(*words):
            decoded.append(frame.pts)
            yield frame

    def cut(frame):
        nonlocal most
        made = frame[:4, :4].clone()
        kept.add(made)
        most = max(most, len(kept))
        cuts.append(int(made[0, 0, 0]))
        return made

    cuts: list[int] = []
    monkeypatch.setattr(whole, "_frames", counting)
    video = WholeVideo(path)
    windows = Windows(places_in(video, RATE, stride), cut)
    count = sum(len(windows.feed(f.number, f.pts, f.image)) for f in video)
    assert count == len(range(0, 113, round(stride * 30)))
    assert len(decoded) == len({*decoded}) == video.decoded == 120
    assert len(cuts) == len({*cuts})
    if stride == 1.0:
        assert cuts == [k + offset for k in (0, 30, 60, 90) for offset in (0, 2, 4, 7)]
    assert most <= 9  # a window spans eight frames


def test_a_damaged_file_is_used_as_far_as_it_goes(predictor, tmp_path):
    """Broken in its middle: all of the rest. Cut off: up to there. Of both it is said."""
    path = write_video(tmp_path / "a.mkv", noise(90), options={"g": "15"})
    whole_file = path.read_bytes()
    middle = len(whole_file) // 2
    broken = tmp_path / "broken.mkv"
    rubbish = np.random.default_rng(1).bytes(9000)
    broken.write_bytes(whole_file[:middle] + rubbish + whole_file[middle + len(rubbish) :])
    found = timeline(predictor, broken, stride=0.5)
    assert "decoded in spite of errors" in found.damage
    assert found.duration > 2.8
    numbers = [frame.number for frame in WholeVideo(broken)]
    assert numbers == sorted({*numbers})  # what was there before the error comes once
    assert len(numbers) > 70
    cut = tmp_path / "cut.mkv"
    cut.write_bytes(whole_file[:middle])
    found = timeline(predictor, cut, stride=0.5)
    assert "ends after" in found.damage
    assert 1 < found.duration < 2
    assert found.ends[-1] < 2
    with pytest.raises(VideoError, match="no such file"):
        timeline(predictor, tmp_path / "none.mp4")


def noise(count):
    return np.random.default_rng(0).integers(0, 256, (count, 64, 80, 3), np.uint8)


def test_frames_that_change_their_size_end_it(predictor, tmp_path):
    """What was read before counts."""
    small, large = (write_video(tmp_path / f"{s}.h264", noise(30)[:, :s, :s]) for s in (48, 64))
    both = tmp_path / "both.h264"
    both.write_bytes(small.read_bytes() + large.read_bytes())
    found = timeline(predictor, both, stride=0.2)
    assert "breaks off after" in found.damage
    assert "the frame size changes" in found.damage
    assert len(found.starts) == 5  # the first 30 frames, at 25 frames/s


def test_a_short_video_repeats_its_last_frame(predictor, tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(5, 64, 80))
    found = timeline(predictor, path, batch_size=1)
    assert len(found.starts) == 1
    clips = VideoReader()(str(path), starting_at(path, 0.0))
    expected = predictor.score(predictor.model.crops()(clips.frames[0]))[0].numpy()
    assert np.array_equal(found.scores[0], expected)


def test_windows_of_a_stream():
    """At a constant rate they are those of a file; where frames are lost, the next ones."""
    tick, shown = 1 / 90000, {}
    for lost in ((), (2, 3)):
        moments = moments_of(RATE, 8 / 30, 30.0)
        windows = Windows(places_from(moments, 8 / 30, tick, 900.0, 0.2), lambda frame: frame)
        for i in range(20):
            if i in lost:
                continue
            image = np.full((1, 1, 3), i, np.uint8)
            for window in windows.feed(i, 900 + 3000 * i, lambda image=image: image):
                shown[lost, round(window.start * 30)] = window.frames[:, 0, 0, 0].tolist()
    assert shown == {
        ((), 0): [0, 2, 4, 7], ((), 6): [6, 8, 10, 13], ((), 12): [12, 14, 16, 19],
        ((2, 3), 0): [0, 4, 4, 7], ((2, 3), 6): [6, 8, 10, 13], ((2, 3), 12): [12, 14, 16, 19],
    }  # fmt: skip


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv"])
def test_a_gap_before_the_last_frame_is_shown_no_longer_than_a_frame(predictor, tmp_path, name):
    """59 frames, a gap, and one more: the last one is shown for 1/25 s, not for the mean."""
    times = [*range(59), 120]
    path = write_video(tmp_path / name, numbered_frames(60, 64, 80), fps=25, times=times)
    assert WholeVideo(path).duration == pytest.approx(121 / 25)
    assert timeline(predictor, path, stride=1.0).duration == pytest.approx(121 / 25)
