"""What runs in a job: `timesformer run` as a person would start it, and somebody who watches it.

The watcher is one process for each task of the job. It hands on signals that ask to stop, knows by
the status how the run has ended, and lets submitit queue the job again, or gives up.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import IO, TYPE_CHECKING, Any, TypeVar

from timesformer.cluster.attempts import AGAIN, FINISHED, GAVE_UP, STOPPED, Attempts
from timesformer.utils.errors import ANOTHER_ENDED

if TYPE_CHECKING:
    from submitit.helpers import DelayedSubmission

T = TypeVar("T")

SAVED, MISTAKE, INTERRUPTED = 75, 2, 130  # statuses of `timesformer run`, see utils/errors.py
# submitit sends it, or has SLURM send it, before a job's time is over or it has to make room.
NOTICE = getattr(signal, f"SIG{os.environ.get('SUBMITIT_PREEMPT_SIGNAL', 'USR2')}")
WANTED = "its time was over, or its machine was wanted for another job"
MARGIN = 15.0  # seconds of the notice that are left for queueing the job again
MOMENT = 0.05  # seconds between two looks at the run
# Seconds that a job that was asked to stop waits for SLURM to end it: if it is cancelled that
# happens within KillWait, and queueing it again would be wrong.
LINGER = 120.0
LOCAL_STARTS = 6  # submitit's local executor doesn't start a job more often
PROGRAM = (sys.executable, "-m", "timesformer.utils.following", "timesformer", "run")


class GivenUpError(RuntimeError):
    """A job isn't queued again; the message says why and what to do."""


@dataclass
class ClusterRun:
    """A run, for submitit: called in each task of a job, again after each time it is queued again.

    Attributes:
        words: of `timesformer run`.
        output_dir: of the run.
        tries: attempts without progress, one after the other, after which it is given up.
        submission: see `Attempts`.
        notice: seconds from the signal of `NOTICE` to the end of the job.
        program: what the words are given to.
        look: seconds between two looks at what other ranks say.
        patience: seconds that the main process has to notice by itself that a rank has failed.
    """

    words: tuple[str, ...]
    output_dir: str
    tries: int
    submission: str
    notice: float
    program: tuple[str, ...] = PROGRAM
    look: float = 5.0
    patience: float = 30.0
    _child: _Child | None = field(default=None, init=False, repr=False, compare=False)
    _why: str = field(default="", init=False, repr=False, compare=False)  # the attempt ends
    _asked: bool = field(default=False, init=False, repr=False, compare=False)  # to stop

    def __call__(self) -> str:
        """Run until it is finished.

        Raises:
            GivenUpError: it isn't, and there is no use in queueing the job again.
            SystemExit: submitit has queued it again.
        """
        import submitit

        place = submitit.JobEnvironment()
        attempts = Attempts(self.output_dir, self.submission)
        if place.global_rank:
            return self._follow(place.global_rank, attempts)
        if attempts.outcome()[0] == FINISHED:  # it was, while the job was queued again
            return "finished before"
        if reason := attempts.given_up(self.tries):  # SLURM itself starts a job again, too
            raise self._giving_up(-1, reason, attempts)
        number = attempts.begin(place.job_id, socket.gethostname())
        _say(f"attempt {number}, job {place.job_id}: timesformer run {' '.join(self.words)}")
        status, said = self._watched(attempts, place.num_tasks > 1)
        if status == 0:
            attempts.end(0, "", FINISHED)
            return f"finished in attempt {number}"
        return self._after(status, said, attempts, local=place.cluster == "local")

    def checkpoint(self) -> DelayedSubmission:
        """Let the run save and end; return it as what is to be queued again. submitit calls this.

        Raises:
            GivenUpError: see `__call__`.
        """
        import submitit

        attempts = Attempts(self.output_dir, self.submission)
        again = submitit.helpers.DelayedSubmission(replace(self))
        status = self._stopped()
        if status == 0:  # just then; the next attempt has nothing to do
            attempts.end(0, "", FINISHED)
            return again
        attempts.end(status, self._why, AGAIN)
        if reason := attempts.given_up(self.tries):
            raise self._giving_up(status, reason, attempts)
        place = submitit.JobEnvironment()
        if place.cluster == "local" and _starts(attempts, place.job_id) >= LOCAL_STARTS:
            reason = (
                f"the local executor starts a job {LOCAL_STARTS} times at most; the last end: "
                f"{self._why}; submit it again: it goes on"
            )
            raise self._giving_up(status, reason, attempts)
        _say(f"to be queued again: {self._why}")
        return again

    def _stopped(self) -> int:
        """Return how the run has ended, after having asked it to if it hasn't."""
        if self._child is None:  # it was about to start
            self._why = self._why or WANTED
            return SAVED
        if (status := self._child.ended) is None:
            self._why = WANTED
            _say(f"asked to make room: the run has {self._patience():.0f} s to save")
            self._child.ask_to_stop()
            status = self._child.wait(self._patience())
        if status is None:
            self._why += f"; it didn't end within {self._patience():.0f} s and was killed"
            status = self._child.kill()
        return status

    def _after(self, status: int, said: str, attempts: Attempts, local: bool) -> str:
        """Do what follows an end that isn't the run's."""
        lost = ANOTHER_ENDED in said
        causes = _waited(attempts.failed_ranks, self.look if lost else 0.0)
        if causes and (status != MISTAKE or lost):
            status, said = causes[0]["status"], f"{causes[0]['said']} (rank {causes[0]['rank']})"
        if status == INTERRUPTED:
            attempts.end(status, said or "interrupted", STOPPED)
            raise GivenUpError(f"interrupted: {said}; submit it again: it goes on")
        if status == MISTAKE and ANOTHER_ENDED not in said:
            raise self._giving_up(status, f"{said}; mend that and submit it again", attempts)
        self._why = f"{said or 'it said nothing'} ({_in_words(status)})"
        if (self._asked or status == SAVED) and not local:
            _sleep(LINGER)  # SLURM ends the job meanwhile, or sends `NOTICE`
        signal.raise_signal(NOTICE)  # submitit calls `checkpoint`, queues the job and ends this
        raise GivenUpError(f"{self._why}; submitit didn't queue the job again")

    def _follow(self, rank: int, attempts: Attempts) -> str:
        """Run one of the other ranks; what follows is decided by the main process."""
        status, said = self._watched(attempts, others=False)
        if status == 0:
            return "finished"
        if status not in (SAVED, INTERRUPTED):
            attempts.note_rank(rank, status, said)
        # Ending with an error, this task would take the main process with it.
        _sleep(LINGER + self.patience)
        raise GivenUpError(f"rank {rank}: {said} ({_in_words(status)})")

    def _watched(self, attempts: Attempts, others: bool) -> tuple[int, str]:
        """Start the program, wait for its end, and return its status and its last words."""
        if signal.SIGTERM != NOTICE:
            signal.signal(signal.SIGTERM, self._hand_on)
        self._child = _Child([*self.program, *self.words])
        try:
            while (status := self._child.wait(self.look)) is None:
                if others and attempts.failed_ranks():
                    status = self._child.wait(self.patience)
                    status = self._child.kill() if status is None else status
                    break
        except KeyboardInterrupt:
            self._child.ask_to_stop(signal.SIGINT)
            self._child.wait(self._patience())
            status = INTERRUPTED
        return status, self._child.last_words()

    def _hand_on(self, number: int, _: object) -> None:
        self._asked = True
        if self._child:
            self._child.ask_to_stop()

    def _patience(self) -> float:
        return max(self.notice - MARGIN, self.notice / 2)

    def _giving_up(self, status: int, reason: str, attempts: Attempts) -> GivenUpError:
        attempts.end(status, reason, GAVE_UP)
        _say(f"given up: {reason}")
        return GivenUpError(reason)


class _Child:
    """A process that ends with this one, and what it says on stderr, which goes there too.

    A handler of a signal may ask at any moment whether it has ended, also in the middle of such a
    question. So there are no locks: a thread waits, the others look.

    Attributes:
        ended: its status, None as long as it runs.
    """

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,  # open as long as this process is there: utils/following.py
            stderr=subprocess.PIPE,
            start_new_session=True,  # what is sent to a group of processes, it gets once: from us
            preexec_fn=_leave_notice_to_parent,
        )
        self.ended: int | None = None
        self._lines: deque[str] = deque(maxlen=50)
        assert self.process.stderr is not None
        self._reader = threading.Thread(target=self._read, args=(self.process.stderr,), daemon=True)
        self._reader.start()
        threading.Thread(target=self._wait, daemon=True).start()

    def _wait(self) -> None:
        self.ended = self.process.wait()
        assert self.process.stdin is not None
        self.process.stdin.close()

    def _read(self, stream: IO[bytes]) -> None:
        with stream:
            for line in stream:
                sys.stderr.buffer.write(line)
                sys.stderr.buffer.flush()
                self._lines.append(line.decode("utf-8", "replace").strip())

    def wait(self, seconds: float) -> int | None:
        """Wait for the end, and return its status, None if it is still there."""
        return _waited(lambda: self.ended, seconds)

    def ask_to_stop(self, number: int = signal.SIGTERM) -> None:
        """Ask for a checkpoint and the end."""
        if self.ended is None:
            with suppress(ProcessLookupError):  # it has ended just now
                os.kill(self.process.pid, number)

    def kill(self) -> int:
        """End it at once."""
        self.ask_to_stop(signal.SIGKILL)
        while self.ended is None:
            time.sleep(MOMENT)
        return self.ended

    def last_words(self) -> str:
        """Return the last error that it told, else its last line."""
        self._reader.join(2.0)  # a process that it left behind may hold stderr open
        said = [line for line in list(self._lines) if line]
        errors = [line for line in said if line.startswith("error: ")]
        return (errors or said or [""])[-1].removeprefix("error: ")


def _leave_notice_to_parent() -> None:
    """Ignore, in the process that is being started, the signal that its watcher waits for.

    Some clusters send it to all processes, and it would end one that doesn't expect it.
    """
    signal.signal(NOTICE, signal.SIG_IGN)


def _waited(ask: Callable[[], T], seconds: float) -> T:
    """Return the answer, once it is neither None nor empty or the time is over."""
    until = time.monotonic() + seconds
    while (answer := ask()) in (None, []) and time.monotonic() < until:
        time.sleep(MOMENT)
    return answer


def _sleep(seconds: float) -> None:
    """Sleep, so that signals are handled even if another thread is told of them."""
    _waited(lambda: None, seconds)


def _starts(attempts: Attempts, job: str) -> int:
    return sum(line.get("job") == job for line in attempts.lines("start"))


def _in_words(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"


def _say(line: Any) -> None:
    print(f"timesformer submit: {line}", flush=True)
