"""Programs made of a model (torch.export, ONNX) take any number of clips and give its numbers."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from golden_recipe import fill_

import timesformer
from timesformer.models.attention import ATTENTION_REGISTRY

SMALL = {"img_size": 16, "num_frames": 4, "num_classes": 3, "embed_dim": 12, "depth": 1}
SMALL |= {"num_heads": 2, "patch_size": 8}
VIT = "vit_base_patch16_224"
CASES = {name: (VIT, {"attention_type": name}) for name, _ in ATTENTION_REGISTRY}
CASES |= {
    "tubelets, CLS in time": (VIT, {"tubelet_size": 2, "cls_in_time": True}),
    "padded": (VIT, {"attention_type": "sparse_local_global", "img_size": (24, 40)}),
    "centred": (VIT, {"attention_type": "sparse_local_global", "local_window": "centred"}),
    "vtn": ("vtn", {}),
    "vivit": ("vivit_factorised_encoder", {"tubelet_size": 2}),
}
OTHERS = ("mvit_v1_b", "mvit_v2_s", "r2plus1d_18", "s3d", "swin3d_t")
BATCH = ({0: torch.export.Dim("batch", min=1)},)


def model_and_clips(name: str, changes: dict, built: dict):
    model = timesformer.create_model(name, **(built | changes)).eval()
    size = model.architecture.img_size
    height, width = (size, size) if isinstance(size, int) else size
    clips = [torch.randn(n, 3, built["num_frames"], height, width) for n in (2, 1, 3, 8)]
    return model, clips


def check_export(model: torch.nn.Module, clips: list[torch.Tensor]) -> None:
    program = torch.export.export(model, (clips[0],), dynamic_shapes=BATCH).module()
    with torch.no_grad():
        for clip in clips[1:]:
            torch.testing.assert_close(program(clip), model(clip), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_exported_with_any_batch(case: str) -> None:
    model, clips = model_and_clips(*CASES[case], SMALL)
    check_export(fill_(model), clips)


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_other_models_exported_with_any_batch(name: str) -> None:
    check_export(*model_and_clips(name, {}, {"num_frames": 8, "img_size": 32, "num_classes": 3}))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("case", CASES)
def test_onnx_with_any_batch(case: str, tmp_path: Path) -> None:
    if missing := [n for n in ("onnx", "onnxscript", "onnxruntime") if not find_spec(n)]:
        pytest.skip(f"needs {', '.join(missing)}: pip install 'timesformer[onnx]'")
    import onnxruntime

    model, clips = model_and_clips(*CASES[case], SMALL)
    path = str(tmp_path / "model.onnx")
    torch.onnx.export(
        fill_(model), (clips[0],), path, dynamo=True, dynamic_shapes=BATCH, verbose=False
    )
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    for clip in clips[1:]:
        (logits,) = session.run(None, {name: clip.numpy()})
        with torch.no_grad():
            torch.testing.assert_close(torch.from_numpy(logits), model(clip), atol=1e-5, rtol=1e-5)
