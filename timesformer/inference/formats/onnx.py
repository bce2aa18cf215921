"""ONNX files, computed by onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from timesformer.inference.formats import seal
from timesformer.inference.formats.base import (
    BATCH,
    CLIPS,
    KEY,
    LOGITS,
    About,
    Format,
    Run,
    need_products,
)
from timesformer.utils.files import is_file

LARGEST = 2_000_000_000
"""Bytes of weights in one file: protobuf ends at 2 GiB. More of them stand in a file beside it."""
# One more of ModelProto.metadata_props (14): a key (1) and a value (2) of 64 characters.
_SEAL_KEY = f"{KEY}-sha256".encode()
SEAL = (
    bytes([14 << 3 | 2, len(_SEAL_KEY) + 68, 1 << 3 | 2, len(_SEAL_KEY)])
    + _SEAL_KEY
    + bytes([2 << 3 | 2, 64]),
    b"",
)
MATRICES = ("MatMul", "Gemm")


class Onnx(Format):
    """int8 is dynamic: weights of matrix products are stored so, activations rounded on the way."""

    name, suffix, runtime = "onnx", ".onnx", "onnxruntime"
    packages = ("onnx", "onnxscript", "onnxruntime")

    def write(
        self, program: ExportedProgram, path: Path, about: About, clips: Sequence[Tensor]
    ) -> None:
        """Write one file, and NAME.data beside it if weights need more than LARGEST bytes.

        Raises:
            UserError: int8 would leave most weights as they are.
        """
        made = torch.onnx.export(
            program, dynamo=True, input_names=[CLIPS], output_names=[LOGITS], verbose=False
        )
        assert made is not None
        _tidy(made.model)
        made.model.metadata_props[KEY] = about.to_text()
        if about.precision == "int8":
            full = path.with_name("full.onnx")
            self._save(made, full)
            _quantise(full, path)
            for file in path.parent.glob("full.onnx*"):
                file.unlink()
        else:
            self._save(made, path)
        seal.append(path, _weights_of(path), SEAL)

    def _save(self, made: Any, path: Path) -> None:
        size = sum(v.const_value.nbytes for v in made.model.graph.initializers.values())
        made.save(str(path), external_data=size > LARGEST)

    def open(self, path: Path) -> tuple[str | None, Run]:
        """Read a file, for the CPU and as many threads as torch has."""
        import onnxruntime

        seal.check(path, _weights_of(path), SEAL)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # its warnings are of graphs, not of what people can mend
        options.intra_op_num_threads = torch.get_num_threads()
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )

        def run(clips: Tensor) -> Tensor:
            (logits,) = session.run([LOGITS], {CLIPS: clips.numpy()})
            return torch.from_numpy(logits)

        return session.get_modelmeta().custom_metadata_map.get(KEY), run


def _weights_of(path: Path) -> list[Path]:
    beside = path.with_name(f"{path.name}.data")
    return [beside] if is_file(beside) else []


def _tidy(model: Any) -> None:
    """Call the batch so, where the exporter calls it s7, and leave out the paths of source files.

    The exporter writes the Python stack of every operator into the file.
    """
    import onnx_ir

    for value in (*model.graph.inputs, *model.graph.outputs):
        value.shape = onnx_ir.Shape([BATCH, *value.shape[1:]])
    model.graph.metadata_props.clear()
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for function in model.functions.values():
        for node in function.all_nodes():
            node.metadata_props.clear()


def _quantise(source: Path, target: Path) -> None:
    """Store the weights of matrix products in 8 bits, a scale a column.

    7 of them are used: on processors without VNNI, products of 8 × 8 bits overflow.

    Raises:
        UserError: few of the weights are of matrix products.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(source))
    del model.graph.value_info[:]  # it infers shapes anew, and trips over the exporter's names
    quantize_dynamic(
        model,
        str(target),
        op_types_to_quantize=[*MATRICES],
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )
    sizes: dict[bool, int] = {True: 0, False: 0}
    for tensor in onnx.load(str(target)).graph.initializer:
        count = 1
        for length in tensor.dims:
            count *= length
        sizes[tensor.data_type in (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)] += count
    need_products(
        sizes[True], sizes[False], "use --to openvino --calibrate, which takes convolutions too"
    )
