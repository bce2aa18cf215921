"""TRAIN.TUBE_KEEP: what is kept follows from the clip alone, until the last epochs; who refuses."""

from __future__ import annotations

import pytest
import torch

from timesformer.config.defaults import get_cfg
from timesformer.engine.tubes import TubeChoice
from timesformer.models.build import meta_model
from timesformer.utils.errors import ConfigError


def choice(share: float = 0.5, **keys: object) -> TubeChoice:
    cfg = get_cfg()
    cfg.TRAIN.TUBE_KEEP = share
    words = [w for k, v in keys.items() for w in (k.replace("__", "."), v)]
    cfg.merge_from_list(words)
    return TubeChoice(cfg, meta_model(cfg))


def of(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers)


def test_a_clip_keeps_its_positions_whatever_its_batch() -> None:
    tubes = choice()
    clips = torch.empty(3, 3, 1, 224, 224, device="meta")
    whole = tubes(torch.empty(3, 3, 1, 224, 224), of(7, 7, 2), of(0, 1, 0), 4)
    assert whole is not None
    assert whole.positions.shape == (3, 98)
    assert len({tuple(row) for row in whole.positions.tolist()}) == 3
    alone = tubes(torch.empty(1, 3, 1, 224, 224), of(7), of(1), 4)
    assert alone is not None
    assert alone.positions.equal(whole.positions[1:2])
    later = tubes(torch.empty(1, 3, 1, 224, 224), of(7), of(1), 5)
    assert later is not None
    assert not later.positions.equal(alone.positions)
    # 15 epochs: the last quarter, rounded up, sees whole clips
    assert tubes(clips, of(7, 7, 2), of(0, 1, 0), 10) is not None
    assert tubes(clips, of(7, 7, 2), of(0, 1, 0), 11) is None


def test_what_is_said() -> None:
    assert choice(1.0).in_words(224) == ""
    said = "TRAIN.TUBE_KEEP 0.5: 98 of the 14×14 patch positions of a frame until epoch 11, then"
    assert choice().in_words(224).startswith(said)
    axial = choice(TIMESFORMER__ATTENTION_TYPE="axial", TRAIN__FULL_EPOCHS=3)
    assert "10 rows × 10 columns of the 14×14 patch positions" in axial.in_words(224)
    assert "until epoch 12" in axial.in_words(224)


@pytest.mark.parametrize("name", ["s3d", "mvit_v2_s", "slowfast_r50"])
def test_models_without_patches_refuse_it_by_name(name: str) -> None:
    keys = {"MODEL__MODEL_NAME": name, "DATA__NUM_FRAMES": 32}
    with pytest.raises(ConfigError, match=rf"^TRAIN.TUBE_KEEP 0.5: {name} .* set it to 1$"):
        choice(**keys)
    assert choice(1.0, **keys)(torch.empty(1, 3, 1, 224, 224), of(0), of(0), 0) is None
