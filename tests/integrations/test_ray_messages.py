"""What goes between the processes of Ray Data, without Ray."""

from __future__ import annotations

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image

from timesformer.clips.sampling import RateSampler
from timesformer.clips.windows import WindowSampler
from timesformer.datasets.video.reader import VideoReader
from timesformer.inference.passes import DecodedPass, Look, Piece, ReadPiece
from timesformer.integrations.ray import ClipDecoder, Described, _decoded, _told, _unit
from timesformer.models import base


def test_a_pass_arrives_as_it_was_sent() -> None:
    """All that is known of a video, also that it is short; places are those of the whole list."""
    times = np.array([[0.1, 0.3], [0.7, 1.1]])
    good = ReadPiece(Piece(0, 0, 2, 5), times, times.mean(1), "cut", short="0.2 s, and a clip")
    bad = ReadPiece(Piece(1, 0, 1, 1), np.empty((0, 0)), np.empty(0), error="no video")
    pixels = torch.rand(2, 3, 2, 4, 4)
    sent = _told(DecodedPass(7, [good, bad], pixels), {"first": 40, "paths": ["a.mp4", "b.mp4"]})
    found, paths = _decoded(json.loads(sent), pixels.numpy().tobytes())
    assert paths == {40: "a.mp4", 41: "b.mp4"}
    assert torch.equal(found.pixels, pixels)
    assert [read.piece for read in found.pieces] == [Piece(40, 0, 2, 5), Piece(41, 0, 1, 1)]
    for ours, theirs in zip(found.pieces, (good, bad), strict=True):
        assert ours.times.tolist() == theirs.times.tolist()
        assert ours.middles.tolist() == theirs.middles.tolist()
        assert ours[3:] == theirs[3:]


@pytest.mark.parametrize(("fps", "windows"), [(None, 1), (10.0, 3)])
def test_folders_of_images_have_the_rate_that_is_said(tmp_path, fps, windows) -> None:
    """Thirty images are a second, or three."""
    (tmp_path / "frames").mkdir()
    for i in range(30):
        Image.new("RGB", (16, 16)).save(tmp_path / "frames" / f"{i}.png")
    said = {"mean": [0.5] * 3, "std": [0.5] * 3, "channel_order": "RGB", "sampling": "rate"}
    said |= {
        "num_frames": 2,
        "sampling_rate": 15,
        "target_fps": 30.0,
        "crop_size": 16,
        "short_side": 16,
    }
    sampler = WindowSampler(RateSampler(2, 15, 30.0), 1.0)
    look = Look(base.Testing(1, 1, "sum", False), sampler, 4)
    more = () if fps is None else (VideoReader(frames_fps=fps),)
    units = pa.table({name: [text] for name, text in _unit(0, [str(tmp_path / "frames")]).items()})
    [found] = ClipDecoder(Described(said, (), None), look, *more)(units)
    [piece] = json.loads(found["pass"].to_pylist()[0])["pieces"]
    assert piece["piece"]["total"] == len(piece["read"]["times"]) == windows
