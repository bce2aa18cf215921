"""TRAIN.TUBE_KEEP: training on some patch positions of each clip, the same in all its frames."""

from __future__ import annotations

from fvcore.common.config import CfgNode
from torch import Tensor, nn

from timesformer.clips.tubes import PatchGrid, Tubes, draw_tubes, kept_shape
from timesformer.config.fewer_tokens import reduced_epochs
from timesformer.utils.checkpoint import bare
from timesformer.utils.errors import ConfigError
from timesformer.utils.rng import keyed_rng


class TubeChoice:
    """Chooses the positions of each clip that a model sees.

    They are a function of (seed, epoch, video, view): not of the process, nor of how a step's clips
    are spread.

    Args:
        cfg: reads TRAIN.TUBE_KEEP, the keys of `reduced_epochs`, and RNG_SEED.
        model: sees them.

    Raises:
        ConfigError: the model can't leave patches out.
    """

    def __init__(self, cfg: CfgNode, model: nn.Module) -> None:
        self.share, self.seed = cfg.TRAIN.TUBE_KEEP, cfg.RNG_SEED
        self.until = reduced_epochs(cfg) if self.share < 1 else 0
        self.model = bare(model)
        side = cfg.DATA.TRAIN_CROP_SIZE
        if self.share < 1 and self._grid(side, side) is None:
            raise ConfigError(
                f"TRAIN.TUBE_KEEP {self.share:g}: {cfg.MODEL.MODEL_NAME} isn't made of patches "
                "that can be left out: set it to 1"
            )

    def __call__(self, clips: Tensor, index: Tensor, view: Tensor, epoch: int) -> Tubes | None:
        """Choose positions of clips (B, 3, T, H, W), on their device; None for all.

        Args:
            clips: what the model is to see.
            index: of each clip's video (B,).
            view: which of the video's clips it is (B,).
            epoch: from 0.
        """
        if epoch >= self.until:
            return None
        grid = self._grid(*clips.shape[-2:])
        assert grid is not None
        keys = zip(index.tolist(), view.tolist(), strict=True)
        rngs = [keyed_rng("tubes", self.seed, epoch, *key) for key in keys]
        tubes = draw_tubes(grid, self.share, rngs)
        return tubes._replace(positions=tubes.positions.to(clips.device, non_blocking=True))

    def in_words(self, side: int) -> str:
        """Say what is kept of frames of that side, and until when; "" for all of it."""
        grid = self._grid(side, side) if self.until else None
        if grid is None:
            return ""
        rows, columns = kept_shape(grid, self.share)
        kept = f"{rows} rows × {columns} columns of" if rows > 1 else f"{columns} of"
        whole = f"{grid.height}×{grid.width} patch positions of a frame"
        return (
            f"TRAIN.TUBE_KEEP {self.share:g}: {kept} the {whole} until epoch {self.until}, "
            f"then all of them"
        )

    def _grid(self, height: int, width: int) -> PatchGrid | None:
        patch_grid = getattr(self.model, "patch_grid", None)
        return patch_grid(height, width) if patch_grid else None
