"""What goes between the processes of Ray Data, without Ray."""

from __future__ import annotations

import json

import numpy as np
import torch

from timesformer.inference.passes import DecodedPass, Piece, ReadPiece
from timesformer.integrations.ray import _decoded, _told


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
