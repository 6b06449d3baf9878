"""TF_CONFIG: which processes a cluster consists of, and which of them this one is (Section 3.3)."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from nos_tf.errors import RunError

VARIABLE = 'TF_CONFIG'
JOBS = ('worker', 'ps', 'chief')
_ADDRESS = re.compile(r'(?:\[[0-9A-Fa-f:.]+(?:%\w+)?]|[^\s/\[\]:]+):([0-9]{1,5})')
_EXAMPLE = (
    '{"cluster": {"worker": ["10.0.0.1:2222"], "ps": ["10.0.0.2:2222"], "chief": ["10.0.0.3:2222"]}, '
    '"task": {"type": "worker", "index": 0}}'
)


def check_used(used: bool, remedy: str) -> None:
    """Checks that a cluster that the environment names is not left idle.

    Args:
        used: whether the run trains on it.
        remedy: what would make it.

    Raises:
        RunError: TF_CONFIG names one, and the run does not use it.
    """
    if os.environ.get(VARIABLE) and not used:
        raise RunError(f'{VARIABLE} names a cluster that would be idle: {remedy}, or unset it')


@dataclass(frozen=True)
class ClusterConfig:
    """The processes of a cluster by their addresses, each 'host:port', and the place of this one among them.

    Args:
        workers: train children.
        ps: parameter servers; one at least, since TensorFlow asks for it.
        chief: the search itself; None where nobody else needs to know it.
        task: what this process is: 'worker', 'ps' or 'chief'.
        index: which of those it is, from 0.
    """

    workers: tuple[str, ...]
    ps: tuple[str, ...]
    chief: str | None
    task: str
    index: int

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> 'ClusterConfig':
        """Reads TF_CONFIG.

        Raises:
            RunError: it is missing or malformed; the message names what was given and what is allowed.
        """
        config = _parse(environment.get(VARIABLE, ''))
        addresses = _addresses(_mapping(config, 'cluster'))
        task = _mapping(config, 'task')
        kind = task.get('type')
        if kind not in JOBS:
            raise _error(f'task type {_shown(kind)}', f'choose from {", ".join(JOBS)}')
        chiefs = addresses['chief']
        return cls(
            workers=addresses['worker'],
            ps=addresses['ps'],
            chief=chiefs[0] if chiefs else None,
            task=kind,
            index=_index(task.get('index'), kind, len(addresses[kind])),
        )

    @property
    def cluster(self) -> dict[str, list[str]]:
        """Job -> addresses, as TensorFlow's ClusterSpec takes it."""
        jobs = {'worker': list(self.workers), 'ps': list(self.ps)}
        return {**jobs, 'chief': [self.chief]} if self.chief is not None else jobs

    @property
    def address(self) -> str:
        """Returns the address of this process."""
        return self.cluster[self.task][self.index]

    def tf_config(self) -> str:
        """The text that `read` understands.

        >>> config = ClusterConfig(('a:1', 'b:1'), ('c:1',), None, 'worker', 1)
        >>> config.address
        'b:1'
        >>> ClusterConfig.read({'TF_CONFIG': config.tf_config()}) == config
        True
        """
        return json.dumps({'cluster': self.cluster, 'task': {'type': self.task, 'index': self.index}})


def _error(given: str, allowed: str) -> RunError:
    return RunError(f'{VARIABLE}: {given}: {allowed}')


def _shown(value: Any) -> str:
    """Returns a value as short JSON, as it was given."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 80 else f'{text[:77]}...'


def _parse(text: str) -> dict[str, Any]:
    if not text.strip():
        raise RunError(f'{VARIABLE} is not set: it says which process of which cluster this is, such as {_EXAMPLE}')
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _error(f'no JSON ({error})', f'such as {_EXAMPLE}') from error
    if not isinstance(config, dict):
        raise _error(_shown(config), f'must be an object, such as {_EXAMPLE}')
    return config


def _mapping(config: Mapping[str, Any], name: str) -> dict[str, Any]:
    value = config.get(name)
    if not isinstance(value, dict):
        raise _error(f'"{name}" is {_shown(value)}', f'must be an object, as in {_EXAMPLE}')
    return value


def _addresses(cluster: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """Job -> its addresses; each is well formed, and no two are the same."""
    if unknown := [job for job in cluster if job not in JOBS]:
        raise _error(f'job {_shown(unknown[0])}', f'choose from {", ".join(JOBS)}')
    found = {job: tuple(_of_job(job, cluster.get(job, []))) for job in JOBS}
    for job in ('worker', 'ps'):
        if not found[job]:
            raise _error(f'no {job}', f'"cluster" needs at least one address for "{job}", as in {_EXAMPLE}')
    if len(found['chief']) > 1:
        raise _error(f'"chief" is {_shown(found["chief"])}', 'there is one chief at most')
    seen: set[str] = set()
    for address in (address for addresses in found.values() for address in addresses):
        if address.lower() in seen:
            raise _error(f'the address {_shown(address)} occurs twice', 'each process needs one of its own')
        seen.add(address.lower())
    return found


def _of_job(job: str, addresses: Any) -> Iterator[str]:
    if not isinstance(addresses, list):
        raise _error(f'"{job}" is {_shown(addresses)}', 'must be a list of addresses, such as ["10.0.0.1:2222"]')
    for address in addresses:
        match = _ADDRESS.fullmatch(address) if isinstance(address, str) else None
        if match is None or not 1 <= int(match[1]) <= 65535:
            raise _error(
                f'"{job}" has {_shown(address)}', 'must be "host:port" with a port from 1 to 65535, IPv6 in brackets'
            )
        yield address


def _index(given: Any, kind: str, count: int) -> int:
    """The number of the task; a string of digits counts as one, as it does for TensorFlow."""
    number = int(given) if isinstance(given, str) and re.fullmatch('[0-9]{1,9}', given) else given
    if count == 0:
        raise _error(f'task type "{kind}"', f'"cluster" has no address for "{kind}"')
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < count:
        raise _error(f'index {_shown(given)} of "{kind}"', f'must be a whole number from 0 to {count - 1}')
    return number
