"""A job, and who has it done: the interface of everything that turns rules into outcomes."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

from nos_tf.dsl.rule import UpdateRule
from nos_tf.errors import RunError
from nos_tf.tasks.child import Outcome


class Job(NamedTuple):
    """A training to be done."""

    program: UpdateRule  # canonical
    seed: int

    def __str__(self) -> str:
        return f'the rule {self.program}'


class Setup(Protocol):
    """All that a process needs to know before it is given jobs: a value that pickles."""

    def identity(self) -> dict[str, Any]:
        """Returns all that the outcomes depend on but the machine: name of each part -> JSON value."""

    def trainer(self) -> Any:
        """Returns something whose `train(*job)` does a job."""


@runtime_checkable
class Evaluator(Protocol):
    """Has children trained, or knows what became of them; any number may be under way."""

    @property
    def workers(self) -> int | None:
        """The number of jobs that can be under way at once; None where `start` has yet to find out."""

    def identity(self, setup: Any) -> dict[str, Any]:
        """Returns all that the outcomes of a setup depend on, the machine included: name of each part -> JSON value."""

    def start(self, setup: Any) -> None:
        """Gets ready to train.

        Raises:
            ValueError: the data do not fit.
            RunError: it cannot be; the message says why.
        """

    def submit(self, job: Job) -> None:
        """Adds a job to the queue."""

    def collect(self) -> list[tuple[Job, Outcome]]:
        """Waits for at least one job to end; returns those that have, each once; [] if there is none to wait for.

        Raises:
            RunError: a job cannot be done; the message says why.
        """

    def status(self) -> Mapping[str, float]:
        """Returns figures about the workers: `alive`, `restarts`; {} for those that live as long as the search."""

    def close(self) -> None:
        """Drops what is queued and ends what runs."""


@dataclass
class Patience:
    """Counts what goes wrong with no job finished in between; the same thing `attempts` times is an end."""

    attempts: int
    failures: Counter[Job | None] = field(default_factory=Counter)

    def fail(self, message: str, job: Job | None = None) -> None:
        """Counts a failure of a job, or of all; raises RunError with the message if it is the last."""
        self.failures[job] += 1
        if self.failures[job] >= self.attempts:
            raise RunError(f'{message}; nothing is lost, the same command goes on')


def reason(error: BaseException | None) -> str:
    """An error in one line of bounded length; TensorFlow begins with where it was, and ends with what it was."""
    text = ' '.join(f'{type(error).__name__}: {error}'.split())
    return text if len(text) <= 400 else f'{text[:100]} ... {text[-300:]}'
