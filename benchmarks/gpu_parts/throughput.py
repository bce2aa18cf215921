"""Measure clips per second and peak memory beside the TimeSformer of `transformers`.

python benchmarks/gpu_parts/throughput.py --device cuda --seconds 80

Both models have the same sizes and random weights, take the same clips in bf16 (autocast over
float32 weights), and take turns in one process, so that a GPU that slows down slows both. A
training step is forward, backward and AdamW. On a GPU it is the base model (divided attention, 8
frames of 224², 400 classes), on a CPU a tiny one that only shows that the table can be made.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from timesformer.models.vit import TimeSformer
from timesformer.utils.text import format_table

HEADER = (
    "what", "batch", "clips/s", "transformers'", "times as fast", "least", "most", "peak GiB",
    "transformers'",
)  # fmt: skip
OURS, THEIRS = "timesformer", "transformers"
ROUNDS = 7
TURN = 0.15  # seconds that a model's turn lasts at least: much longer than starting a kernel


class Sizes(NamedTuple):
    """Sizes of both models, and the batches they are measured with."""

    side: int
    frames: int
    width: int
    depth: int
    heads: int
    classes: int
    forward: tuple[int, ...]
    training: tuple[int, ...]


BASE = Sizes(224, 8, 768, 12, 12, 400, forward=(1, 8, 32, 64), training=(1, 8, 16, 32))
TINY = Sizes(64, 8, 96, 4, 3, 400, forward=(1, 4), training=(1, 4))


class Contestant:
    """A model with its optimizer.

    Args:
        model: takes what `arrange` makes of clips (B, 3, T, H, W), gives logits or holds them.
        arrange: of clips.
    """

    def __init__(self, model: nn.Module, arrange: Callable[[Tensor], Tensor]) -> None:
        self.model, self.arrange = model, arrange
        # The learning rate is small so that random labels can't drive weights to infinity.
        self.optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def logits(self, clips: Tensor) -> Tensor:
        """(B, 3, T, H, W) -> (B, K), in bf16."""
        with torch.autocast(clips.device.type, torch.bfloat16):
            out = self.model(self.arrange(clips))
        return out if isinstance(out, Tensor) else out.logits

    @torch.no_grad()
    def forward(self, clips: Tensor, labels: Tensor) -> Tensor:
        """Return the loss."""
        return F.cross_entropy(self.logits(clips).float(), labels)

    def train(self, clips: Tensor, labels: Tensor) -> Tensor:
        """Do a training step and return its loss."""
        loss = F.cross_entropy(self.logits(clips).float(), labels)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.detach()

    def bytes_kept(self) -> int:
        """Return the size of weights and of what the optimizer knows."""
        state = [v for s in self.optimizer.state.values() for v in s.values()]
        held = [*self.model.parameters(), *self.model.buffers(), *state]
        return sum(v.nbytes for v in held if isinstance(v, Tensor))


def make_ours(sizes: Sizes, device: torch.device) -> Contestant:
    """Make this repository's model."""
    with device:
        model = TimeSformer(
            img_size=sizes.side, num_classes=sizes.classes, num_frames=sizes.frames,
            embed_dim=sizes.width, depth=sizes.depth, num_heads=sizes.heads, drop_path_rate=0.0,
        )  # fmt: skip
    return Contestant(model, lambda clips: clips)


def make_theirs(sizes: Sizes, device: torch.device) -> Contestant:
    """Make that of `transformers`.

    Raises:
        ImportError: it isn't there, or can't be used with what is.
    """
    import transformers

    config = transformers.TimesformerConfig(
        image_size=sizes.side,
        num_frames=sizes.frames,
        hidden_size=sizes.width,
        num_hidden_layers=sizes.depth,
        num_attention_heads=sizes.heads,
        intermediate_size=4 * sizes.width,
        num_labels=sizes.classes,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,  # drop_path_rate is 0 already
    )
    with device:
        model = transformers.TimesformerForVideoClassification(config)
    return Contestant(model, lambda clips: clips.transpose(1, 2))


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def turn(run: Callable[[], Tensor], device: torch.device, repeats: int) -> float:
    """Return the seconds that one of some runs takes.

    Raises:
        ValueError: a loss isn't finite.
    """
    wait_for(device)
    start = time.perf_counter()
    for _ in range(repeats):
        loss = run()
    wait_for(device)
    seconds = (time.perf_counter() - start) / repeats
    if not loss.isfinite():
        raise ValueError(f"a loss is {loss.item()}")
    return seconds


def peak_bytes(contestant: Contestant, run: Callable[[], Tensor], device: torch.device) -> int:
    """Return the most that one run holds, with its own weights and without the other model's."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    run()
    wait_for(device)
    return torch.cuda.max_memory_allocated(device) - before + contestant.bytes_kept()


class Measured(NamedTuple):
    """Seconds of a run in each round, and peak bytes; None for memory on a CPU."""

    seconds: list[float]
    peak: int | None


def measure(
    contestants: dict[str, Contestant], what: str, sizes: Sizes, batch: int, device: torch.device
) -> dict[str, Measured | str]:
    """Run all in turn on the same clips; a model may need more memory than there is.

    Two runs to warm up (kernels are chosen, the optimizer makes its state) aren't counted.
    """
    clips = torch.randn(batch, 3, sizes.frames, sizes.side, sizes.side, device=device)
    labels = torch.arange(batch, device=device) % sizes.classes
    found: dict[str, Measured | str] = {}
    runs: dict[str, tuple[Callable[[], Tensor], int]] = {}
    for name, contestant in contestants.items():
        method = getattr(contestant, what)

        def run(method: Callable[[Tensor, Tensor], Tensor] = method) -> Tensor:
            return method(clips, labels)

        try:
            turn(run, device, 1)
            repeats = max(1, round(TURN / turn(run, device, 1)))
            peak = peak_bytes(contestant, run, device) if device.type == "cuda" else None
        except torch.OutOfMemoryError:
            found[name] = "out of memory"
            contestant.optimizer.zero_grad(set_to_none=True)
            torch.cuda.empty_cache()
            continue
        runs[name], found[name] = (run, repeats), Measured([], peak)
    for _ in range(ROUNDS):
        for name, (run, repeats) in runs.items():
            found[name].seconds.append(turn(run, device, repeats))
    return found


def cells(found: dict[str, Measured | str], batch: int) -> list[str]:
    """Return what stands under HEADER from clips/s on; ratios are of turns in the same round."""
    speed, memory = [], []
    for name in (OURS, THEIRS):
        result = found.get(name, "–")
        if isinstance(result, str):
            speed.append(result)
            memory.append("–")
            continue
        speed.append(f"{batch / statistics.median(result.seconds):.1f}")
        memory.append("–" if result.peak is None else f"{result.peak / 2**30:.2f}")
    ratios = ["–"] * 3
    if all(isinstance(found.get(name), Measured) for name in (OURS, THEIRS)):
        rounds = zip(found[THEIRS].seconds, found[OURS].seconds, strict=True)
        faster = [theirs / ours for theirs, ours in rounds]
        ratios = [f"{x:.2f}" for x in (statistics.median(faster), min(faster), max(faster))]
    return [*speed, *ratios, *memory]


def rows(
    contestants: dict[str, Contestant], sizes: Sizes, device: torch.device, end: float
) -> Iterator[tuple[object, ...]]:
    """Yield the rows of the table, as many as there is time for."""
    for what, batches in (("forward", sizes.forward), ("train", sizes.training)):
        for batch in batches:
            if time.monotonic() > end:
                yield (what, batch, "no time left", *["–"] * 6)
            else:
                found = measure(contestants, what, sizes, batch, device)
                yield (what, batch, *cells(found, batch))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    parser.add_argument("--seconds", type=float, default=80, help="begin no row after these (80)")
    args = parser.parse_args()
    end = time.monotonic() + args.seconds
    torch.manual_seed(0)
    device = torch.device(args.device)
    sizes = BASE if device.type == "cuda" else TINY
    contestants, note = {OURS: make_ours(sizes, device)}, ""
    try:
        contestants[THEIRS] = make_theirs(sizes, device)
    except Exception as error:  # whatever keeps it from being used, ours can be measured
        note = f"transformers: skipped ({type(error).__name__}: {error})"
    millions = " and ".join(
        f"{sum(p.numel() for p in c.model.parameters()) / 1e6:.1f}M ({name})"
        for name, c in contestants.items()
    )
    print(
        f"Divided attention, {sizes.frames} frames of {sizes.side}², width {sizes.width}, depth "
        f"{sizes.depth}, {sizes.classes} classes;\nparameters: {millions}.\n"
        f"bf16 over float32 weights. clips/s: medians of {ROUNDS} turns of {TURN} s or more, and "
        "those of transformers'\nTimesformerForVideoClassification; times as fast: median, least "
        "and most of the ratios of a round.\nPeak memory: weights, optimizer state and all that a "
        "run holds; measured on a GPU only."
    )
    if note:
        print(note)
    print(format_table([HEADER, *rows(contestants, sizes, device, end)]))


if __name__ == "__main__":
    main()
