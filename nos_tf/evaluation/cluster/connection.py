"""The way of a chief to the servers of its cluster, and what is said when there is none (Section 3.3)."""

import functools
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import tensorflow as tf

from nos_tf.errors import ClusterLostError, RunError
from nos_tf.evaluation.cluster.config import ClusterConfig
from nos_tf.evaluation.cluster.server import check_address
from nos_tf.evaluation.jobs import reason

UNREACHABLE = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.DeadlineExceededError)
BEGUN_ANEW = (tf.errors.FailedPreconditionError, tf.errors.NotFoundError)  # the variables are gone

T = TypeVar('T')


def connect(seconds: float) -> tuple[ClusterConfig, Any]:
    """The cluster that TF_CONFIG describes, and a coordinator of its workers (`ClusterCoordinator`).

    Args:
        seconds: to wait for the servers.

    Raises:
        RunError: TF_CONFIG is unfit, this is not its chief, or a server does not answer; the message names it.
    """
    config = ClusterConfig.read()
    if config.task != 'chief':
        raise RunError(
            f'TF_CONFIG: task type "{config.task}": this process is to be the chief; launch/server.py is the rest'
        )
    tf.get_logger().setLevel(logging.CRITICAL)  # each worker that dies would be told of at length, twice
    check_address(config.address)
    _wait_for_servers(config, seconds)
    return config, _within(seconds, functools.partial(_connect, config))


def raise_if_lost(error: Exception) -> None:
    """Raises ClusterLostError where an error says that the parameter server is gone."""
    if isinstance(error, BEGUN_ANEW) or (isinstance(error, UNREACHABLE) and '/job:ps' in str(error)):
        raise ClusterLostError(
            f'the parameter server is gone ({reason(error)}); nothing is lost, the same command goes on'
        ) from error


def _wait_for_servers(config: ClusterConfig, seconds: float) -> None:
    """Returns when all servers listen."""
    missing = [*config.ps, *config.workers]
    deadline = time.monotonic() + seconds
    while missing := [address for address in missing if not is_listening(address)]:
        if time.monotonic() > deadline:
            raise RunError(
                f'no answer within {seconds:g} s from {", ".join(missing)}: is launch/server.py running there, and may '
                'this machine reach it?'
            )
        time.sleep(0.2)


def is_listening(address: str, seconds: float = 1.0) -> bool:
    """Returns whether somebody answers at 'host:port'."""
    host, _, port = address.rpartition(':')
    try:
        socket.create_connection((host.strip('[]'), int(port)), seconds).close()
    except OSError:
        return False
    return True


def _connect(config: ClusterConfig) -> Any:
    """A coordinator; blocks until all servers answer it as TensorFlow servers do."""
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec(config.cluster), task_type='chief', task_id=0, rpc_layer='grpc'
    )
    strategy = tf.distribute.ParameterServerStrategy(resolver)
    return tf.distribute.coordinator.ClusterCoordinator(strategy)


def _within(seconds: float, function: Callable[[], T]) -> T:
    """The value of a function that may block for ever; raises RunError if it does."""
    values: list[T] = []
    errors: list[Exception] = []

    def call() -> None:
        try:
            values.append(function())
        except Exception as error:  # raised again below
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(seconds)
    if values:
        return values[0]
    if errors:
        raise RunError(f'cannot connect to the cluster: {reason(errors[0])}') from errors[0]
    raise RunError(
        f'the servers of TF_CONFIG listen, but within {seconds:g} s not all answered as TensorFlow servers do'
    )
