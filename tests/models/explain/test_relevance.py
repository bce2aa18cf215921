"""Relevance of patches, and how far to believe it, of models that look where we say."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from timesformer.models.explain.faithfulness import (
    Curves,
    Faithfulness,
    centre_prior,
    faithfulness,
)
from timesformer.models.explain.relevance import explain
from timesformer.utils.errors import UserError

T, SIDE = 4, 64  # four by four patches
FRAME, ROW, COLUMN = 2, 1, 3  # what decides


class Looks(nn.Module):
    """Class 1 is as probable as one patch of one frame is bright."""

    def forward(self, clips: Tensor) -> Tensor:
        rows, columns = slice(16 * ROW, 16 * ROW + 16), slice(16 * COLUMN, 16 * COLUMN + 16)
        seen = clips[:, :, FRAME, rows, columns].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(seen), 6 * seen - 2], dim=1)


class Eighth(nn.Module):
    """The same of frame 6, row 1, column 3, whatever the size."""

    def forward(self, clips: Tensor) -> Tensor:
        seen = clips[:, :, 6, 16:32, 48:64].mean((1, 2, 3))
        return torch.stack([torch.zeros_like(seen), 6 * seen - 2], dim=1)


def clip() -> Tensor:
    clips = torch.zeros(2, 3, T, SIDE, SIDE)
    clips[0, :, FRAME, 16 * ROW : 16 * ROW + 16, 16 * COLUMN : 16 * COLUMN + 16] = 1
    clips[1] = torch.rand(3, T, SIDE, SIDE)
    return clips


def test_occlusion_finds_what_decides() -> None:
    found = explain(Looks().train(), clip(), "occlusion", torch.tensor([1, 1]))
    assert found.maps.shape == (2, T, 4, 4)
    torch.testing.assert_close(found.maps.sum((1, 2, 3)), torch.ones(2))
    assert found.maps[0, FRAME, ROW, COLUMN] == pytest.approx(1.0)
    large = torch.zeros(1, 3, 8, 128, 128)  # windows of two frames, rows and columns
    large[:, :, 6, 16:32, 48:64] = 1
    found = explain(Eighth(), large, "occlusion", torch.tensor([1]))
    assert found.maps[0, 5:8, 0:3, 2:5].sum() == pytest.approx(1.0)
    assert found.maps[0, 6, 1, 3] == found.maps.max()


def test_a_true_map_is_faithful_and_a_wrong_one_says_so() -> None:
    right = torch.zeros(T, 4, 4)
    right[FRAME, ROW, COLUMN] = 1
    good = faithfulness(Looks(), clip()[0], right, 1)
    assert good.is_faithful
    assert good.verdict.startswith("faithful")
    assert good.map.deletion[0] == good.map.insertion[-1] > 0.9
    assert good.map.deletion[1] < 0.5 < good.map.insertion[1]
    wrong = faithfulness(Looks(), clip()[0], -right, 1)
    assert wrong.map.score < 0
    assert wrong.verdict == "not faithful: doesn't beat a random order or the centre"
    moved = faithfulness(Looks(), clip()[0], right.flip(0), 1)  # frames in the wrong order
    assert moved.map.score < good.map.score


def test_what_all_orders_have_in_common_is_asked_once() -> None:
    model, asked = Looks(), []
    model.register_forward_hook(lambda _, given, __: asked.append(given[0]))
    faithfulness(model, clip()[0], torch.rand(T, 4, 4), 1)
    assert max(map(len, asked)) <= 4
    seen = torch.cat(asked)
    assert len(seen) == 2 + 6 * 2 * 15  # grey, the clip; six orders of fifteen steps, both ways
    assert sum(bool((one == clip()[0]).all()) for one in seen) == 1


def test_a_draw_is_no_win() -> None:
    black = torch.zeros_like(clip()[0])
    some = torch.rand(T, 4, 4)
    assert not faithfulness(Looks(), black, some, 1).is_faithful
    even = faithfulness(Looks(), clip()[0], torch.full((T, 4, 4), 1 / 64), 1)
    assert even.map == even.random  # and not that of the patches' places
    assert "a random order" in even.verdict


class Rounds(Looks):
    """What patches are covered changes nothing but the last digits."""

    def forward(self, clips: Tensor) -> Tensor:
        return 1e-6 * super().forward(clips)


def test_rounding_is_no_win() -> None:
    right = torch.zeros(T, 4, 4)
    right[FRAME, ROW, COLUMN] = 1
    assert faithfulness(Looks(), clip()[0], right, 1).is_faithful
    assert not faithfulness(Rounds(), clip()[0], right, 1).is_faithful


class Broken(Looks):
    """Gives no numbers."""

    def forward(self, clips: Tensor) -> Tensor:
        return super().forward(clips) * torch.nan


def test_scores_that_are_none_make_no_map() -> None:
    with pytest.raises(UserError, match="scores that aren't finite"):
        explain(Broken(), clip(), "occlusion")
    curves = Curves([torch.nan], [torch.nan])
    assert not Faithfulness(curves, curves, curves).is_faithful


def test_the_centre_prior_is_largest_in_the_centre() -> None:
    prior = centre_prior(2, 3, 5)
    assert prior.shape == (2, 3, 5)
    assert prior[1].argmax() == 7
    assert prior[0, 0, 0] == prior.min()


def test_models_without_attention_and_unknown_methods() -> None:
    with pytest.raises(ValueError, match="reads the attention of a TimeSformer, which Looks is"):
        explain(Looks(), clip(), "rollout")
    with pytest.raises(ValueError, match="none of rollout, gradient, occlusion"):
        explain(Looks(), clip(), "cam")
