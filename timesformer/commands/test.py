r"""Test a video model on several views of each video, without training it.

Weights are TEST.CHECKPOINT_FILE_PATH, or the newest checkpoint in OUTPUT_DIR.

Example:
  timesformer test --cfg Kinetics/TimeSformer_divST_8x32_224 \
      NUM_GPUS 1 DATA.PATH_TO_DATA_DIR data TEST.CHECKPOINT_FILE_PATH model.pyth
"""

from __future__ import annotations

from collections.abc import Sequence

from timesformer.engine.evaluate import test
from timesformer.utils.parser import load_config, parse_args
from timesformer.utils.starting import launch


def main(argv: Sequence[str] | None = None) -> None:
    """Test, in as many processes as the config and the environment ask for."""
    args = parse_args(argv, "test", __doc__)
    launch(load_config(args, only="test"), args.init_method, test)
