"""`launch_job`, which the published code has here."""

from __future__ import annotations

from collections.abc import Callable

from fvcore.common.config import CfgNode

from timesformer.utils.errors import ConfigError
from timesformer.utils.starting import launch


def launch_job(
    cfg: CfgNode, init_method: str, func: Callable[[CfgNode], None], daemon: bool = False
) -> None:
    """Run `func(cfg)` in every process that the config asks for: `starting.launch`.

    Raises:
        ConfigError: daemonic processes are asked for, which couldn't have loader workers.
    """
    if daemon:
        raise ConfigError("launch_job: daemon True isn't supported: leave it out")
    launch(cfg, init_method, func)
