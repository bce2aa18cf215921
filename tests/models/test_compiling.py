"""Blocks that are compiled: once for all, with the numbers of those that aren't.

By default torch traces and doesn't make code, which takes seconds; how often it traces is how often
it would compile.
"""

from __future__ import annotations

import copy
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any, cast

import pytest
import torch
from small_run import ROOT
from torch import Tensor
from torch._dynamo.utils import counters
from torch._inductor.exc import CppCompileError, InductorError

from timesformer.models.attention import ATTENTION_REGISTRY, TokenGrid
from timesformer.models.attention.divided import DividedSpaceTimeBlock
from timesformer.models.attention.dropping import set_batch_part
from timesformer.models.compiling import code_errors, compile_blocks
from timesformer.models.explain.attention_maps import attention_maps
from timesformer.models.vit import TimeSformer
from timesformer.utils import stopping
from timesformer.utils.errors import ConfigError, Stopped

# torch looks whether inputs have gradients, and doesn't expect warnings to be errors.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
SCHEMES = sorted(name for name, _ in ATTENTION_REGISTRY)


@pytest.fixture(autouse=True)
def _afresh() -> Iterator[None]:
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


def compilations() -> int:
    return counters["stats"]["unique_graphs"]


def make(scheme: str = "divided_space_time", **options: Any) -> TimeSformer:
    sizes = {"img_size": 64, "num_frames": 4, "num_classes": 5, "embed_dim": 24, "num_heads": 3}
    given = {"depth": 3, "drop_path_rate": 0.4, "init": "scratch"} | sizes | options
    model = TimeSformer(attention_type=scheme, **given)
    with torch.no_grad():  # no step is zero
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return model


def answer(model: TimeSformer, clips: Tensor, part: int, training: bool) -> list[Tensor]:
    """Logits and, in training, gradients."""
    set_batch_part(model.train(training), part, 2)
    torch.manual_seed(5)
    if not training:
        with torch.no_grad():
            return [model(clips)]
    model.zero_grad()
    logits = model(clips)
    logits.square().sum().backward()
    return [logits.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


def same_numbers(plain: TimeSformer, backend: str) -> None:
    compiled = copy.deepcopy(plain)
    compile_blocks("here", compiled, backend=backend)
    before = compilations()  # a trial
    assert list(compiled.state_dict()) == list(plain.state_dict())
    average = copy.deepcopy(compiled)
    for training in (True, False):
        for size in (2, 3, 4):
            for part in (0, 1):
                clips = torch.rand(size, 3, 4, 64, 64)
                expected = answer(plain, clips, part, training)
                torch.testing.assert_close(
                    answer(compiled, clips, part, training), expected, rtol=1e-4, atol=1e-4
                )
    # Of training and of evaluation, for all sizes: all blocks, and the last, of which CLS is read.
    kinds = 2 if plain.model.num_prefix_tokens else 1
    with torch.no_grad():
        torch.testing.assert_close(average.eval()(clips), expected[0], rtol=1e-4, atol=1e-4)
    assert compilations() - before == 2 * kinds


def test_blocks_batches_and_parts_share_one_compilation() -> None:
    same_numbers(make(), "eager")


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_code_gives_the_numbers_of_every_scheme(scheme: str) -> None:
    same_numbers(make(scheme), "inductor")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_code_whose_activations_are_recomputed() -> None:
    same_numbers(make(act_checkpoint=True), "inductor")


def test_hooks_are_called(caplog: pytest.LogCaptureFixture) -> None:
    plain, clips = make(depth=2).eval(), torch.rand(2, 3, 4, 64, 64)
    compiled = copy.deepcopy(plain)
    compile_blocks("here", compiled, backend="eager")
    with torch.no_grad(), caplog.at_level("INFO", "timesformer"):
        compiled(clips)
        maps = attention_maps(compiled.model, clips)
        expected = attention_maps(plain.model, clips)
    assert maps.keys() == expected.keys()
    for name, weights in expected.items():
        torch.testing.assert_close(maps[name], weights)
    assert "a hook looks into DividedSpaceTimeBlock" in caplog.text


class Own(DividedSpaceTimeBlock):
    """A block with a forward of its own."""

    def forward(self, x: Tensor, grid: TokenGrid) -> Tensor:
        return super().forward(x, grid)


@torch.no_grad()
def test_a_forward_of_its_own_is_compiled() -> None:
    model, clips = make(depth=1).eval(), torch.rand(2, 3, 4, 64, 64)
    expected = model(clips)
    model.model.blocks[0].__class__ = Own
    compile_blocks("here", model, backend="eager")
    torch.testing.assert_close(model(clips), expected)
    model.model.blocks[0].norm1.register_forward_hook(lambda *_: None)
    torch.testing.assert_close(model(clips), expected)


def test_a_model_without_blocks_refuses() -> None:
    with pytest.raises(ConfigError, match=r"here compiles the blocks .*, and Linear has none"):
        compile_blocks("here", torch.nn.Linear(2, 2))


def test_a_missing_compiler_is_told_in_one_line() -> None:
    program = (
        "import torch\n"
        "from timesformer.models.compiling import require_compiler\n"
        "from timesformer.utils.errors import ConfigError\n"
        "try:\n    require_compiler('TRAIN.COMPILE', torch.device('cpu'))\n"
        "except ConfigError as error:\n    print(error)\n"
    )
    environment = {"CXX": "no-such-compiler", "PATH": "/nowhere", "HOME": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    [line] = done.stdout.splitlines()
    assert line.startswith("TRAIN.COMPILE: torch.compile can't make code here (")
    assert "CXX" in line


def test_code_that_cant_be_made_or_read_is_one_line() -> None:
    """As an empty library, of a process that was killed while its compiler linked."""

    def cut_short(*_: object) -> None:
        raise ImportError("/cache/ab/cab.main.so: file too short")

    model, backend = make(depth=1), cast("str", cut_short)
    compile_blocks("here", model, backend=backend)
    said = r"^compiled blocks: torch.compile can't make code here \(.*: file too short\): .*"
    with pytest.raises(ConfigError, match=f"{said} TORCHINDUCTOR_CACHE_DIR "):
        model(torch.rand(2, 3, 4, 64, 64))


def test_a_compiler_that_is_stopped_with_its_job_is_told() -> None:
    with stopping.noting_signals():
        os.kill(os.getpid(), signal.SIGTERM)
        with (
            pytest.raises(Stopped, match=r"^SIGTERM: code was being compiled"),
            code_errors("here"),
        ):
            raise InductorError(CppCompileError(["g++"], ""), None)


def test_a_compilers_output_is_told() -> None:
    error = CppCompileError(["g++", "-c"], "In file included:\nx.s: Fatal error: no space\n")
    said = r"\(x\.s: Fatal error: no space\)"
    with pytest.raises(ConfigError, match=said), code_errors("here"):
        raise InductorError(error, None)
