"""Train the golden model under DistributedDataParallel, in a process group of one rank.

torchrun --standalone --nproc-per-node 1 benchmarks/gpu_parts/one_rank.py --device cuda
"""

from __future__ import annotations

import argparse
import sys

import numpy as np
import torch
import torch.distributed as dist
from golden import NUMBERS, PRECISIONS, loss_difference, set_products
from golden_model import SOLVERS, tiny_model
from golden_recipe import fill_
from torch.nn.parallel import DistributedDataParallel

SCHEME = "divided_space_time"


def talk(device: torch.device) -> None:
    """Use what training uses: a sum, a barrier, and objects gathered.

    Raises:
        RuntimeError: a sum over one rank isn't what it was.
    """
    value = torch.arange(4.0, device=device)
    dist.all_reduce(value)
    gathered: list[object] = [None]
    dist.all_gather_object(gathered, {"rank": dist.get_rank()})
    dist.barrier()
    if value.tolist() != [0, 1, 2, 3] or gathered != [{"rank": 0}]:
        raise RuntimeError(f"one rank alone sums to {value.tolist()} and gathers {gathered}")


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu", help="cpu or cuda (cpu)")
    device = torch.device(parser.parse_args().device)
    if device.type == "cuda":
        device = torch.device("cuda", 0)
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    talk(device)
    exact = PRECISIONS[0]
    set_products(exact.products)
    well = True
    for optimizer in SOLVERS:
        model = fill_(tiny_model(SCHEME)).to(device)
        devices = [device] if device.type == "cuda" else None
        model = DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)
        with np.load(NUMBERS) as numbers:
            expected = numbers[f"{SCHEME}/train/{optimizer}"]
        difference, _ = loss_difference(model, exact, optimizer, expected)
        ok = difference <= exact.rest
        print(
            f"DDP over {dist.get_backend()}, one rank, {optimizer}: losses differ from the golden "
            f"ones by {difference:.1e} ({exact.rest:.0e} allowed): {'ok' if ok else 'NOT OK'}",
            flush=True,
        )
        well &= ok
    dist.destroy_process_group()
    if not well:
        sys.exit("losses under DDP differ by more than is allowed")


if __name__ == "__main__":
    main()
