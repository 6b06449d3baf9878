r"""Runs a launcher on a cluster of local processes, and starts again those that die or hang (Section 3.3).

python launch/local_cluster.py --workers 2 -- launch/search.py --gin_files gin/quickstart.gin gin/cluster.gin \
    --run_dir runs/cluster
"""

import argparse
import contextlib
import fcntl
import json
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from supervised import ClusterError, Process

from nos_tf.cli import streams

INTERRUPTED = 130
FAILED = 2
CLUSTER_LOST = 75  # exit code of a chief that asks for a new cluster
SERVER = (sys.executable, str(Path(__file__).with_name('server.py')))
PORTS = range(10_000, 32_768)  # below those that the system lends to connections, while a server is being restarted too
TURN = 0.2  # seconds between two looks at the processes
ECHO = 1.0  # seconds after which Ctrl-C is forwarded to a chief that the terminal has not told
LEAVE_SECONDS = 15.0  # seconds that an interrupted chief may take to leave
FAREWELL = 3.0  # seconds for servers to leave


@dataclass
class Supervisor:
    """Starts a cluster, keeps it alive, and ends it.

    Args:
        chief: command whose end is the end of all.
        logs: folder for what the servers print, and for cluster.json.
        workers: number of them.
        ps: number of parameter servers.
        heartbeat_seconds: a process that is silent for longer counts as hung; its start is included.
        restarts: deaths in a row of one process, each soon after its start, that are borne.
        server: command that serves as TF_CONFIG says.
    """

    chief: Sequence[str]
    logs: Path
    workers: int
    ps: int = 1
    heartbeat_seconds: float = 60.0
    restarts: int = 10
    server: Sequence[str] = SERVER
    _signal: int | None = field(default=None, init=False)  # what interrupts; None once it is forwarded, too
    _leaving_since: float | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        jobs = {'ps': self.ps, 'worker': self.workers}
        self._tasks = [(job, index) for job, count in jobs.items() for index in range(count)]
        names = [f'{job}-{index}' for job, index in self._tasks]
        self._servers = [Process(name, self.server, self.logs / f'{name}.log') for name in names]
        self._chief = Process('chief', self.chief)
        self._processes = [*self._servers, self._chief]

    def run(self) -> int:
        """Runs until the chief ends for good, or somebody interrupts; returns the exit code.

        Raises:
            ClusterError: a process dies again and again, or another cluster uses the folder.
        """
        with self._lock(), self._interruptible():
            try:
                configs = self._configure()
                before = time.monotonic()
                while (code := self._turn(configs)) is None:
                    time.sleep(TURN)
                    now = time.monotonic()
                    if now - before > TURN + self.heartbeat_seconds / 2:  # this process was stopped, as by Ctrl-Z
                        for process in self._processes:
                            process.forgive()
                    before = now
                return code
            finally:
                self._end()

    def _configure(self) -> list[str]:
        """TF_CONFIG of each process, in order; ports stay the same for all lives, since the others know them."""
        tasks = [*self._tasks, ('chief', 0)]
        addresses = [f'127.0.0.1:{port}' for port in free_ports(len(tasks))]
        cluster: dict[str, list[str]] = {}
        for (job, _), address in zip(tasks, addresses, strict=True):
            cluster.setdefault(job, []).append(address)
        return [json.dumps({'cluster': cluster, 'task': {'type': job, 'index': index}}) for job, index in tasks]

    def _turn(self, configs: Sequence[str]) -> int | None:
        """Looks at each process once; the exit code if this is the end."""
        for process in self._processes:
            process.look()
        if self._leaving_since is not None:
            return self._leave(self._leaving_since)
        code = self._chief.code()
        if code in (-signal.SIGINT, -signal.SIGTERM):  # somebody's wish, before the chief could hear it
            return INTERRUPTED
        if code is not None and code >= 0 and code != CLUSTER_LOST:
            return code
        self._mend()
        due = [(process, config) for process, config in zip(self._processes, configs, strict=True) if _is_due(process)]
        for process, config in due:
            process.start(config)
        if due:
            self._publish()
        return None

    def _mend(self) -> None:
        """Has what died or hangs started again: a worker by itself, all with anything else."""
        for process in [self._chief, *self._servers]:
            cause = process.ended(self.heartbeat_seconds)
            if not cause:
                continue
            pause = process.count_death(cause, self.restarts)
            if process.name.startswith('worker'):
                process.restart(cause, pause)
                self._publish()
                continue
            for other in self._processes:
                other.restart(cause if other is process else f'{process.name}: {cause}', pause)
            self._publish()
            _say(f'{process.name}: {cause}; the whole cluster is started anew in {pause:g} s')
            return

    def _leave(self, since: float) -> int | None:
        """Waits for an interrupted chief, within reason; returns its exit code."""
        code, waited = self._chief.code(), time.monotonic() - since
        if self._chief.due is not None or waited > LEAVE_SECONDS:
            return INTERRUPTED
        if code is not None:
            return code if code >= 0 and code != CLUSTER_LOST else INTERRUPTED
        if self._signal is not None and (self._signal != signal.SIGINT or waited > ECHO):
            self._chief.signal(self._signal)
            self._signal = None
        return None

    def _end(self) -> None:
        self._chief.kill()
        for server in self._servers:
            server.signal(signal.SIGTERM)
        deadline = time.monotonic() + FAREWELL
        for server in self._servers:
            server.kill(max(0.0, deadline - time.monotonic()))
        with contextlib.suppress(OSError):  # of a full disk we have said so already
            self._publish()

    def _publish(self) -> None:
        """Writes cluster.json, whole or not at all."""
        draft = self.logs / 'cluster.draft'
        states = {process.name: process.state() for process in self._processes}
        draft.write_text(json.dumps({'processes': states}, indent=1), encoding='utf-8')
        draft.replace(self.logs / 'cluster.json')

    @contextlib.contextmanager
    def _lock(self) -> Iterator[None]:
        self.logs.mkdir(parents=True, exist_ok=True)
        with open(self.logs / '.lock', 'w', encoding='utf-8') as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ClusterError(f'another cluster logs to {self.logs}: wait for it, or choose another') from error
            yield

    @contextlib.contextmanager
    def _interruptible(self) -> Iterator[None]:
        """Turns Ctrl-C and SIGTERM into a wish that the next turn sees; the first one counts."""

        def interrupt(number: int, _: object) -> None:
            if self._leaving_since is None:
                self._signal, self._leaving_since = number, time.monotonic()

        kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        for number, handler in kept.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, interrupt)
        yield
        for number, handler in kept.items():
            signal.signal(number, handler)


def _is_due(process: Process) -> bool:
    return process.due is not None and process.due <= time.monotonic()


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on, at whatever address of this machine, as a server of TensorFlow needs them."""
    found: list[int] = []
    for port in random.SystemRandom().sample(PORTS, len(PORTS)):
        if len(found) == count:
            break
        with contextlib.suppress(OSError), socket.create_server(('', port)):
            found.append(port)
    if len(found) < count:
        raise ClusterError(f'{count} free ports are needed between {PORTS[0]} and {PORTS[-1]}, there are {len(found)}')
    return found


def _say(text: str) -> None:
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _count(at_least: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or not at_least <= int(text) <= 1_000_000:
            raise argparse.ArgumentTypeError(f'{text!r}: must be a whole number, at least {at_least}')
        return int(text)

    return parse


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The options, and the command after `--`."""
    summary, _, example = (__doc__ or '').partition('\n\n')  # `python -OO` drops docstrings
    shown = f'Example: {example.strip()}\n\n' if example else ''
    parser = argparse.ArgumentParser(
        usage='%(prog)s --workers N [option ...] -- SCRIPT [argument ...]',
        description=summary,
        epilog=f'{shown}The servers log to DIR/logs, where DIR is the --run_dir of the script. '
        'They listen on\nall addresses of this machine, and ask nobody for a password.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument('--workers', type=_count(1), required=True, metavar='N', help='processes that train children')
    parser.add_argument('--ps', type=_count(1), default=1, metavar='N', help='parameter servers; 1 by default')
    parser.add_argument('--logs', type=Path, metavar='DIR', help='for logs, if the script has no --run_dir')
    for flag, least, default, text in (
        ('--heartbeat_seconds', 1, 60, 'a process that is silent for longer is restarted, and its start has to fit in'),
        ('--restarts', 0, 10, 'deaths in a row of one process, each soon after its start, that are borne'),
    ):
        parser.add_argument(
            flag, type=_count(least), default=default, metavar='N', help=f'{text}; {default} by default'
        )
    split = argv.index('--') if '--' in argv else len(argv)
    arguments, command = parser.parse_args(argv[:split]), list(argv[split + 1 :])
    if not command:
        parser.error('no command: give -- and a script with its arguments, such as -- launch/search.py --run_dir ...')
    if not Path(command[0]).is_file():
        parser.error(f'no script at {command[0]!r}: after -- comes the path of a Python script')
    arguments.logs = arguments.logs or _logs_of(command)
    if arguments.logs is None:
        parser.error('where are the logs to go? Give the script a --run_dir DIR, or --logs DIR before the --')
    return arguments, command


def _logs_of(command: Sequence[str]) -> Path | None:
    """The folder for logs in the run directory that a command names, if it names one."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    parser.add_argument('--run_dir')
    try:
        run_dir = parser.parse_known_args(list(command[1:]))[0].run_dir
    except argparse.ArgumentError:  # it has no value: the script will say so
        return None
    return Path(run_dir, 'logs') if run_dir and run_dir.strip() else None


def main(argv: Sequence[str], server: Sequence[str] = SERVER) -> int:
    """Runs a command on a cluster; returns the exit code."""
    options, command = parse(argv)
    try:
        return Supervisor([sys.executable, *command], server=server, **vars(options)).run()
    except (ClusterError, OSError) as error:
        _say(f'error: {error}')
        return FAILED


if __name__ == '__main__':
    streams.keep_numbers()
    try:
        streams.leave('', main(sys.argv[1:]))
    except SystemExit as left:  # of argparse, which has said why or printed its help
        streams.leave('', int(left.code or 0))
