"""Both decoders give the same frames; torchcodec needs a process that finds FFmpeg's libraries."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import av
import pytest
from video_fixtures import numbered_frames, write_video

from timesformer.datasets.video import torchcodec as torchcodec_backend
from timesformer.datasets.video.reader import VideoReader
from timesformer.utils.errors import ConfigError

NOT_LOADED = 3  # status of the program where torchcodec doesn't load
# Prints, for each file, whether torchcodec decoded it and whether its clips are those of PyAV.
COMPARE = """
import json, sys
try:
    import torchcodec.decoders
except (ImportError, OSError, RuntimeError) as error:
    print(*str(error).split())
    sys.exit(3)
from timesformer.datasets.video import decode as decoder
from timesformer.datasets.video import torchcodec as torchcodec_backend
from timesformer.datasets.video.reader import VideoReader
from timesformer.clips.sampling import RateSampler
from timesformer.utils.errors import VideoError

pyav, torchcodec, used = VideoReader("pyav"), VideoReader("torchcodec"), []
fallback = decoder.load_clips
def spy(*args):
    used.append(False)
    return fallback(*args)

def read(reader, path):
    sampler = RateSampler(8, 4, placement="uniform")
    try:
        return reader(path, lambda n, fps: [sampler.place(n, fps, (i, 3)) for i in range(3)])
    except VideoError as error:
        return error.reason

for path in sys.argv[1:]:
    expected = read(pyav, path)
    used.clear()
    torchcodec_backend.decode.load_clips = spy
    found = read(torchcodec, path)
    torchcodec_backend.decode.load_clips = fallback
    if isinstance(expected, str):
        print(json.dumps([path, not used, found == expected, True]))
        continue
    same = all(a.equal(b) for a, b in zip(found.frames, expected.frames, strict=True))
    print(json.dumps([path, not used, same, found.damage == expected.damage]))
"""


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Environment of a process in which torchcodec loads, with PyAV's own FFmpeg if need be."""
    if find_spec("torchcodec") is None:
        pytest.skip("needs torchcodec, which isn't installed")
    folder, bundled = tmp_path_factory.mktemp("ffmpeg"), Path(av.__file__).parents[1] / "av.libs"
    for library in bundled.glob("lib*.so.*"):
        if match := re.fullmatch(r"(lib\w+)-\w+\.so\.(\d+)[.\d]*", library.name):
            (folder / f"{match[1]}.so.{match[2]}").symlink_to(library)
    paths = [str(folder), str(bundled), os.environ.get("LD_LIBRARY_PATH", "")]
    return os.environ | {"LD_LIBRARY_PATH": ":".join(paths)}


def _run(code: str, environment: dict[str, str], *args: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code, *args]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def compare(environment: dict[str, str], paths: list[Path]) -> dict[str, tuple[bool, ...]]:
    """For each file: torchcodec decoded it, the frames are the same, and so is the damage told."""
    done = _run(COMPARE, environment, *map(str, paths))
    if done.returncode == NOT_LOADED:
        pytest.skip(f"torchcodec doesn't load: {done.stdout[:200]}")
    assert done.returncode == 0, done.stderr[-2000:]
    rows = map(json.loads, done.stdout.splitlines())
    return {Path(path).name: tuple(results) for path, *results in rows}


def test_the_same_frames(environment: dict[str, str], tmp_path: Path) -> None:
    frames = numbered_frames(90)
    times = [*range(40), *(40 + 3 * i for i in range(50))]
    by_torchcodec = [
        write_video(tmp_path / "plain.mp4", frames, options={"bf": "0", "g": "12"}),
        write_video(tmp_path / "b_frames.mp4", frames, options={"bf": "3", "qp": "1"}),
        write_video(tmp_path / "late.mkv", frames, fps=25, first_pts=11),
        write_video(tmp_path / "variable.mp4", frames, times=times),
        write_video(
            tmp_path / "variable_b.mp4",
            frames,
            times=[*range(0, 160, 4), *range(160, 210)],
            options={"bf": "2", "g": "8", "qp": "1"},
        ),
        write_video(tmp_path / "short.mp4", frames[:5]),
    ]
    damaged = tmp_path / "damaged.mp4"
    data = bytearray(by_torchcodec[0].read_bytes())
    for place in range(len(data) // 3, len(data) // 2, 500):
        data[place] ^= 0xFF
    damaged.write_bytes(data)
    by_pyav = [
        write_video(tmp_path / "odd.mp4", numbered_frames(30, 49, 65)),
        write_video(tmp_path / "raw.h264", frames),
    ]
    (tmp_path / "text.mp4").write_text("no video")
    found = compare(environment, [*by_torchcodec, *by_pyav, damaged, tmp_path / "text.mp4"])
    assert not found.pop("damaged.mp4")[2]  # torchcodec conceals errors and tells nobody
    assert found == {
        **{path.name: (True, True, True) for path in by_torchcodec},
        **{path.name: (False, True, True) for path in by_pyav},
        "text.mp4": (True, True, True),  # the same error, from neither
    }


@pytest.mark.slow
def test_the_same_frames_of_real_files(environment: dict[str, str], shared_videos: Path) -> None:
    paths = [path for path in sorted(shared_videos.iterdir()) if path.stat().st_size < 3e6]
    found = compare(environment, [path for path in paths if path.suffix != ".md"])
    assert len(found) > 20
    assert [name for name, (_, *same) in found.items() if not all(same)] == []
    assert sum(decoded for decoded, *_ in found.values()) > 10


def test_a_version_of_other_frames_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", ModuleType("torchcodec.decoders"))
    monkeypatch.setitem(sys.modules, "torchcodec", ModuleType("torchcodec"))
    monkeypatch.setattr("importlib.metadata.version", lambda name: "0.11.1+cpu")
    with pytest.raises(ConfigError, match=r"0\.11\.1\+cpu gives other frames.*0\.12 or later"):
        torchcodec_backend.check_torchcodec()
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1.0")
    torchcodec_backend.check_torchcodec()


def test_where_it_does_not_load_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", None)
    with pytest.raises(ConfigError, match=r"DATA.DECODING_BACKEND torchcodec .* or use pyav"):
        VideoReader("torchcodec")
    with pytest.raises(ConfigError, match="install torchcodec"):
        torchcodec_backend.check_torchcodec()
