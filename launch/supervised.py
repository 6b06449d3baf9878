"""A process that is supervised: its lives, its heartbeat, and what it died of. Standard library only."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HEARTBEAT = 'NOS_TF_HEARTBEAT_FD'  # tells a process where to write a byte now and then
QUICK = 10.0  # seconds after its first heartbeat before which a death counts as an inability to work
LONGEST_PAUSE = 30.0  # seconds
_LIBC = ctypes.CDLL(None) if sys.platform == 'linux' else None  # loaded before any fork
_PR_SET_PDEATHSIG = 1


class ClusterError(Exception):
    """A cluster cannot start or go on; the message is one line."""


@dataclass
class Process:
    """One process of a cluster through all its lives.

    Args:
        name: such as 'worker-0'.
        command: what it executes.
        log: file of what it prints; None leaves it the terminal and its Ctrl-C.
    """

    name: str
    command: Sequence[str]
    log: Path | None = None
    due: float | None = field(default=0.0, init=False)  # when it is to start, by the monotonic clock; None if it runs
    _popen: subprocess.Popen | None = field(default=None, init=False)
    _code: int | None = field(default=None, init=False)
    _pipe: int = field(default=-1, init=False)
    _first_beat: float | None = field(default=None, init=False)
    _last_beat: float = field(default=0.0, init=False)
    _quick: int = field(default=0, init=False)  # deaths in a row that came soon
    _restarts: int = field(default=0, init=False)
    _reason: str = field(default='', init=False)  # of the last restart
    _since: float = field(default=0.0, init=False)  # Unix seconds

    def start(self, tf_config: str) -> None:
        """Begins a life as what TF_CONFIG says; to be called from the main thread, on whose end the life depends."""
        parent, (pipe, write) = os.getpid(), os.pipe()
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, write)
            output = stack.enter_context(open(self.log, 'ab', buffering=0)) if self.log else None
            if output:
                why = f'restarted: {self._reason}' if self._reason else 'started'
                output.write(f'--- {time.strftime("%Y-%m-%d %H:%M:%S")} {self.name} is {why}\n'.encode())
            self._popen = subprocess.Popen(
                self.command,
                env={**os.environ, 'TF_CONFIG': tf_config, HEARTBEAT: str(write)},
                pass_fds=[write],
                stdin=subprocess.DEVNULL if output else None,
                stdout=output,
                stderr=output,
                start_new_session=output is not None,
                preexec_fn=lambda: _die_with(parent),
            )
        os.set_blocking(pipe, False)
        self._pipe, self.due, self._since = pipe, None, time.time()
        self._first_beat, self._last_beat = None, time.monotonic()

    def look(self) -> None:
        """Takes note of a heartbeat and of an end, for all that is asked until the next look."""
        self._code = self._popen.poll() if self._popen is not None else None
        with contextlib.suppress(BlockingIOError):
            if self._pipe >= 0 and os.read(self._pipe, 65536):
                self.forgive()
                self._first_beat = self._first_beat or self._last_beat

    def forgive(self) -> None:
        """Counts silence from now."""
        self._last_beat = time.monotonic()

    def code(self) -> int | None:
        """Its exit code, negative for a signal; None if it runs, or is about to be started."""
        return self._code

    def ended(self, heartbeat_seconds: float) -> str:
        """What it died of, which may be a silence that lasts too long; '' if it lives, or is about to be started."""
        if self._code is not None:
            return f'killed by signal {-self._code}' if self._code < 0 else f'exit code {self._code}'
        if self._popen is not None and time.monotonic() - self._last_beat > heartbeat_seconds:
            return f'no heartbeat for {heartbeat_seconds:g} s'
        return ''

    def count_death(self, cause: str, restarts: int) -> float:
        """Counts a death that it is to blame for; returns the seconds to wait before its next life.

        Args:
            cause: of `ended`.
            restarts: how many deaths in a row, each soon after the start, are borne.

        Raises:
            ClusterError: this was one too many.
        """
        quick = self._first_beat is None or time.monotonic() - self._first_beat < QUICK
        self._quick = self._quick + 1 if quick else 0
        if self._quick > restarts:
            see = f'; see {self.log}' if self.log else ''
            times = f'{self._quick} times in a row soon after its start' if restarts else 'soon after its start'
            raise ClusterError(f'{self.name} died {times} ({cause}){see}')
        return min(LONGEST_PAUSE, 2.0 ** (self._quick - 1)) if quick else 0.5

    def restart(self, reason: str, pause: float) -> None:
        """Ends this life, if it has not ended, and settles when the next one begins."""
        self.kill()
        self._reason, self._restarts, self.due = reason, self._restarts + 1, time.monotonic() + pause

    def signal(self, number: int) -> None:
        """Sends a signal; to what a server has begun too, while a chief sees to that by itself."""
        if self._popen is not None and self._popen.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                (os.killpg if self.log else os.kill)(self._popen.pid, number)

    def kill(self, seconds: float = 0.0) -> None:
        """Ends it, at once or if it does not end by itself within some seconds; does not start it again."""
        if self._popen is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(seconds)
            self.signal(signal.SIGKILL)
            self._popen.wait()
            os.close(self._pipe)
        self._popen, self._code, self._pipe, self.due = None, None, -1, None

    def state(self) -> dict[str, Any]:
        """What others may want to know of it: name -> JSON value."""
        pid = self._popen.pid if self._popen is not None else None
        return {'pid': pid, 'restarts': self._restarts, 'reason': self._reason, 'since': self._since}


def _die_with(parent: int) -> None:
    """In a process that was just forked: has the kernel kill it when its parent ends, however that comes about."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)
