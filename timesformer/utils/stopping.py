"""Signals that ask a run to stop: it finishes what it is at, saves, and can be gone on with.

Clusters send SIGTERM or SIGUSR1 before they take a machine away, a person sends SIGINT (Ctrl-C).
The first is only noted; who works asks `asked` where stopping loses nothing. A second Ctrl-C ends
the process at once.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from timesformer.utils.errors import Stopped

SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGUSR1", "SIGINT") if hasattr(signal, name)
)
# torchrun hands on the Ctrl-C that the terminal has sent to its processes as well: they get it
# twice, and mean it once.
ONE_CTRL_C = 1.0
_HEARD = b"\nCtrl-C: ends as soon as nothing is lost by it; a second one ends at once\n"

_asked: list[signal.Signals] = []
_noting = 0  # scopes within each other


def asked() -> str:
    """Return the name of the signal that asks this process to stop, or ""."""
    return _asked[0].name if _asked else ""


@contextmanager
def noting_signals(hand_on_to: Sequence[int] = (), told: bool = False) -> Iterator[None]:
    """Note signals that ask to stop instead of ending by them; within another one it does nothing.

    Threads other than the main one get no signals, and can't take them.

    Args:
        hand_on_to: processes that are asked to stop too. Of a terminal's Ctrl-C they hear by
            themselves, so they get it as SIGTERM: twice would end them at once.
        told: of the first Ctrl-C stderr gets a line: a step may take long, and compiling longer.
    """
    global _noting
    if _noting or threading.current_thread() is not threading.main_thread():
        yield
        return
    first = 0.0

    def note(number: int, _: FrameType | None) -> None:
        nonlocal first
        if number == signal.SIGINT:
            if first and time.monotonic() - first > ONE_CTRL_C:
                raise KeyboardInterrupt
            if told and not first:
                os.write(2, _HEARD)  # not by a logger, which the signal may have interrupted
            first = first or time.monotonic()
        _asked.append(signal.Signals(number))
        for process in hand_on_to:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGTERM if number == signal.SIGINT else number)

    _asked.clear()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, note)
    if hasattr(signal, "pthread_sigmask"):  # see `without_interrupts`
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    _noting += 1
    try:
        yield
    finally:
        _noting -= 1
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _asked.clear()


@contextmanager
def without_interrupts() -> Iterator[None]:
    """Let processes that are started within not hear Ctrl-C until they note signals, or ignore it.

    They are busy with imports first, and each would end with a traceback of that.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave_signals_to_main() -> None:
    """Let a worker process go on when its group is asked to stop: the main process decides.

    It ends workers by SIGTERM, too, so that one counts if it is the main process that sends it.
    """
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    main = multiprocessing.parent_process()
    if main is not None and hasattr(signal, "sigwaitinfo"):  # else a worker ends, and with it a run
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_when_told_by, args=(main.pid,), daemon=True).start()


def _end_when_told_by(process: int) -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != process:
        pass
    os._exit(0)


def stopped(what: str) -> Stopped:
    """Return what ends a run that was asked to stop, here or on another rank.

    Args:
        what: was done, and what to do.
    """
    status = 130 if asked() == "SIGINT" else 75
    return Stopped(f"{asked() or 'another rank was asked to stop'}: {what}", status)
