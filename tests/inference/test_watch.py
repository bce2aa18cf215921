"""`timesformer watch`: streams that end, fail, stall or are too fast; all on the loopback."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from contextlib import contextmanager, suppress
from fractions import Fraction

import av
import pytest
from small_run import complaint_of, small_model
from video_fixtures import numbered_frames, write_video

from timesformer.commands.watch import main
from timesformer.datasets.video.whole import WholeVideo
from timesformer.inference.live import Live
from timesformer.inference.predictor import Predictor
from timesformer.inference.source import source_of
from timesformer.inference.watch import Watch
from timesformer.inference.windows import Windows, moments_of, places_from
from timesformer.utils.errors import VideoError

RATE = 60  # frames/s of the streams


@pytest.fixture(scope="module")
def predictor(synthetic_dir, tmp_path_factory):
    model = small_model(synthetic_dir, tmp_path_factory.mktemp("model"))
    model.class_names = ("a", "b", "c", "d", "e", "f")
    return Predictor(model)


@contextmanager
def serving(pieces):
    """Serve MPEG-TS over HTTP, one connection for each piece of so many frames; gives the URL."""

    def serve():
        for count in pieces:
            link = server.accept()[0]
            with suppress(OSError, av.FFmpegError), link, link.makefile("wb") as wire:
                link.recv(4096)  # the request: else closing resets the connection
                wire.write(b"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n")
                send(wire, count)
        server.close()

    server = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    thread.join(5)


def send(wire, count):
    """Send so many frames at their pace."""
    with av.open(wire, "w", format="mpegts", options={"flush_packets": "1"}) as out:
        stream = out.add_stream("mpeg2video", rate=RATE)
        stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p"
        stream.options = {"g": "6", "bf": "0"}
        begun = time.monotonic()
        for i, pixels in enumerate(numbered_frames(count, 64, 80)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, RATE)
            out.mux(stream.encode(frame))
            wire.flush()
            time.sleep(max(0.0, begun + i / RATE - time.monotonic()))
        out.mux(stream.encode())


def test_a_stream_that_is_cut_comes_back(predictor, caplog, monkeypatch):
    monkeypatch.setattr("timesformer.inference.live.FIRST_WAIT", 0.2)
    seen = []
    with serving((70, 70)) as url:
        watch = Watch(predictor, source_of(url), every=0.1, timeout=2, reconnect=1, topk=2)
        with pytest.raises(VideoError, match="opened again 1 time in vain"):
            seen += watch
    assert watch.summary.opened == 2  # once to more frames, once in vain
    starts = [one.start for one in seen]
    cut = next(i for i in range(1, len(starts)) if starts[i] < starts[i - 1])
    assert min(cut, len(starts) - cut) >= 2  # on both sides of the cut
    assert watch.summary.frames >= 100
    assert [len(one.prediction.top) for one in seen] == [2] * len(seen)
    assert "opened again in 0.2 s" in caplog.text


def test_a_stream_that_says_nothing_is_given_up(predictor):
    """It takes connections, and never sends anything."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        word = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        begun = time.monotonic()
        with pytest.raises(VideoError, match=r"tcp://.*: nothing came for 0.5 s"):
            [*Watch(predictor, source_of(word), timeout=0.5, reconnect=3)]
    assert time.monotonic() - begun < 4


def test_a_slow_model_sees_the_newest(predictor, tmp_path):
    """What it is too slow for is dropped and counted: it doesn't fall behind."""
    path = write_video(tmp_path / "a.mp4", numbered_frames(90, 64, 80), fps=60)
    watch = Watch(predictor, source_of(str(path)), every_frames=3)
    seen = []
    for one in watch:
        seen.append(one)
        time.sleep(0.25)
    done = watch.summary
    assert done.frames == 90
    assert done.dropped > 10
    assert done.dropped + done.predictions == 25  # windows of 16 frames, every third one
    assert done.seconds < 2.6  # the file lasts 1.5 s
    assert seen[-1].end == pytest.approx(1.5, abs=0.2)  # the last one is near the end
    assert seen[-1].dropped == done.dropped


def test_pictures_go_on_while_nobody_takes_them(predictor, tmp_path):
    path = write_video(tmp_path / "a.mp4", numbered_frames(30, 64, 80), fps=60)
    moments = moments_of(predictor.model.sampling, 4 / 15, 60.0)

    def make(fps, tick, first):
        return Windows(
            places_from(moments, 4 / 15, tick, first, 1 / 60), lambda frame: frame[:1, :1]
        )

    live = Live(source_of(str(path)), make, 5.0, 0)
    time.sleep(0.1)
    live._thread.join(5)
    assert (live.frames, live.windows, live.dropped) == (30, 15, 14)
    offer = live.take(0.0)
    assert offer.window.frames[-1, 0, 0, 0] == 29
    assert live.over
    live.close()


def test_a_signal_ends_it_with_a_summary(predictor, tmp_path, capsys):
    predictor.model.save_pretrained(tmp_path / "weights")
    path = write_video(tmp_path / "a.mp4", numbered_frames(600, 16, 16), fps=30)
    words = [str(path), "--checkpoint", str(tmp_path / "weights"), "--device", "cpu", "--json"]
    before = signal.getsignal(signal.SIGTERM)
    threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    main([*words, "--every", "100ms", "--topk", "1"])  # twenty seconds long
    out, err = capsys.readouterr()
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines
    assert {*lines[0]} == {"start", "end", "at", "topk", "latency", "fps", "dropped", "damage"}
    assert "latency" in err
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["none.mp4"], "none.mp4: there is no such file or camera"),
        (["987"], "there is no such camera"),
        (["gopher://a"], "a URL begins with rtsp"),
        (["-", "--reconnect", "-1"], "--reconnect -1"),
        (["-", "--every", "soon"], "'soon': seconds"),
        (["-", "--every", "0"], "--every 0: must be above 0"),
        (["-", "--topk", "0"], "--topk 0: must be 1 or more"),
        (["-", "--every", "1", "--every-frames", "2"], "not allowed with"),
    ],
)
def test_mistakes(words, said):
    told = complaint_of(main, *words, "--checkpoint", "x")
    assert said in told
    assert told.count("\n") == 1


def test_the_damage_of_a_file_is_told(predictor, tmp_path, capsys):
    """In the words of those who read it otherwise."""
    predictor.model.save_pretrained(tmp_path / "weights")
    path = write_video(tmp_path / "a.mkv", numbered_frames(90, 64, 80), fps=60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    video = WholeVideo(path)
    assert [*video]
    assert "ends after" in video.damage
    words = [str(path), "--checkpoint", str(tmp_path / "weights"), "--device", "cpu", "--json"]
    main([*words, "--every", "0.1"])
    out, err = capsys.readouterr()
    assert f"a.mkv: used as decoded: {video.damage}\n" in err
    assert json.loads(out.splitlines()[-1])["damage"]


@pytest.mark.parametrize("frames", [0, 3])
def test_a_file_that_ends_too_soon_is_an_error(predictor, tmp_path, frames):
    """Without a clip, and without pictures, whoever is waiting at that moment or not."""
    import wave

    path = tmp_path / "a"
    if frames:
        path = path.with_suffix(".mp4")
        write_video(path, numbered_frames(frames, 64, 80), fps=25)
    else:
        path = path.with_suffix(".wav")
        with wave.open(str(path), "wb") as sound:
            sound.setparams((1, 2, 8000, 0, "NONE", ""))
            sound.writeframes(bytes(1000))
    live = Live(source_of(str(path)), Watch(predictor, source_of(str(path)))._windows, 5, 0)
    live._thread.join(20)
    reason = "ended after 3 frames, before a clip was complete" if frames else "no video stream"
    with pytest.raises(VideoError, match=reason):
        _ = live.over


def test_clips_come_with_every_frame_at_most(predictor):
    """Whatever --every says: more would be of the same frames."""
    watch = Watch(predictor, source_of(__file__), every=1e-3)
    windows = watch._windows(25.0, 0.04, 0)
    images = numbered_frames(25, 64, 80)
    found = [w for i in range(25) for w in windows.feed(i, i, lambda i=i: images[i])]
    assert 2 < len(found) <= 25
    assert found[1].start - found[0].start == pytest.approx(0.04)
