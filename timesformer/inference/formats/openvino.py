"""OpenVINO's intermediate representation, computed by OpenVINO."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from timesformer.inference.formats import seal
from timesformer.inference.formats.base import (
    CLIPS,
    KEY,
    LOGITS,
    About,
    Format,
    Run,
    need_products,
)

SEAL = (f"<!-- {KEY}-sha256: ".encode(), b" -->\n")
GROUP = "64"  # divides the widths of all ViTs; rows that are no multiple of it are slow
ATTENTION = ("ScaledDotProductAttention", "Softmax")
"""Steps of models that NNCF should take for transformers."""


class OpenVino(Format):
    """An .xml file with its weights in a .bin beside it.

    int8 is of the weights of matrix products, with activations rounded as they come, a scale for
    each GROUP of a row; or, with clips to calibrate on, NNCF's post-training quantisation of
    weights and activations, convolutions too.
    """

    name, suffix, runtime = "openvino", ".xml", "openvino"
    packages = ("openvino",)
    for_int8 = ("nncf",)
    calibrates = True
    half_graph = False

    def write(
        self, program: ExportedProgram, path: Path, about: About, clips: Sequence[Tensor]
    ) -> None:
        """Write NAME.xml and NAME.bin."""
        import openvino

        model = openvino.convert_model(program)
        model.reshape(openvino.PartialShape([-1, *about.shape]))
        model.inputs[0].get_tensor().set_names({CLIPS})
        model.outputs[0].get_tensor().set_names({LOGITS})
        if about.precision == "int8":
            model = _calibrated(model, clips) if clips else _rounded(model)
        model.set_rt_info(about.to_text(), [KEY])
        openvino.save_model(model, str(path), compress_to_fp16=about.precision == "fp16")
        seal.append(path, [path.with_suffix(".bin")], SEAL)

    def open(self, path: Path) -> tuple[str | None, Run]:
        """Read a file, for the CPU and as many threads as torch has."""
        import openvino

        seal.check(path, [path.with_suffix(".bin")], SEAL)
        core = openvino.Core()
        model = core.read_model(str(path))
        text = model.get_rt_info([KEY]).astype(str) if model.has_rt_info([KEY]) else None
        # Left to itself it computes in bf16 on processors that have it.
        settings = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP}
        settings["INFERENCE_NUM_THREADS"] = str(torch.get_num_threads())
        compiled = core.compile_model(model, "CPU", settings)

        def run(clips: Tensor) -> Tensor:
            return torch.from_numpy(compiled(clips.numpy())[0].copy())

        return text, run


def _rounded(model: Any) -> Any:
    """Return the model with the weights of matrix products in 8 bits, a scale a row.

    Raises:
        UserError: few of the weights are of matrix products.
    """
    import nncf

    with redirect_stdout(sys.stderr):
        model = nncf.compress_weights(
            model,
            mode=nncf.CompressWeightsMode.INT8_SYM,
            ignored_scope=nncf.IgnoredScope(
                types=["Convolution", "GroupConvolution"], validate=False
            ),
        )
    sizes: dict[bool, int] = {True: 0, False: 0}
    for step in model.get_ops():
        if step.get_type_name() == "Constant":
            sizes[step.get_element_type().to_string() == "i8"] += math.prod(step.shape)
    need_products(sizes[True], sizes[False], "say --calibrate, which takes convolutions too")
    return model


def _calibrated(model: Any, clips: Sequence[Tensor]) -> Any:
    """Return the model with weights and activations in 8 bits, their ranges those of clips."""
    import nncf

    attends = any(step.get_type_name() in ATTENTION for step in model.get_ops())
    with redirect_stdout(sys.stderr):  # where its progress bars belong
        return nncf.quantize(
            model,
            nncf.Dataset([clip.numpy() for clip in clips]),
            subset_size=len(clips),
            model_type=nncf.ModelType.TRANSFORMER if attends else None,
        )
