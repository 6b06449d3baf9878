"""One server of a cluster: a worker that trains children, or a parameter server (Section 3.3).

TensorFlow's servers ask nobody for a password, and they listen on all addresses of the machine, whichever of them
TF_CONFIG names: TensorFlow has no setting for that. A cluster belongs in a network where everyone is trusted.
"""

import errno
import os
import socket
import time
from collections.abc import Callable
from typing import NoReturn

import tensorflow as tf

from nos_tf import output
from nos_tf.errors import RunError
from nos_tf.evaluation.cluster import heartbeat, notes
from nos_tf.evaluation.cluster.config import ClusterConfig
from nos_tf.evaluation.cluster.keepalive import keep_alive
from nos_tf.evaluation.machine import identity, use_one_cpu_thread

INTER_OP_THREADS = 4  # on one, a closure waits for ever for functions that it calls; they do not compute at once
OVER_LIMIT = 3  # exit code of a server that ends for the sake of a child that does not


def serve(config: ClusterConfig, threads: int = 1) -> NoReturn:
    """Serves until the process is interrupted or killed.

    Args:
        config: the cluster, and which of its servers this is.
        threads: of the CPU, within an operation; children earn other rewards on more than one.

    Raises:
        RunError: this cannot be a server, or its address cannot be had.
    """
    try:
        _hold(_start(config, threads))
    except KeyboardInterrupt:
        notes.remove(config.address)
    os._exit(0)  # there may be a child in training that nobody waits for


def _hold(_server: tf.distribute.Server) -> None:
    while True:  # TensorFlow's own `join` would be deaf to signals, one long sleep to one that comes as it begins
        time.sleep(1)


def _start(config: ClusterConfig, threads: int) -> tf.distribute.Server:
    if config.task == 'chief':
        raise RunError('TF_CONFIG: task type "chief": a server is a worker or a ps; the chief is the search itself')
    check_address(config.address)
    _use_threads(threads)
    notes.write_identity(config.address, identity())  # no closure runs before, so none misses it
    try:
        server = tf.distribute.Server(
            tf.train.ClusterSpec(config.cluster),
            job_name=config.task,
            task_index=config.index,
            protocol='grpc',
            config=tf.compat.v1.ConfigProto(
                intra_op_parallelism_threads=threads,
                inter_op_parallelism_threads=max(threads, INTER_OP_THREADS),
                device_count={'GPU': 0},  # what `use_one_cpu_thread` hides, a server would still find
            ),
        )
    except tf.errors.OpError as error:
        raise RunError(f'TensorFlow cannot serve at {config.address}: {error.message}') from error
    heartbeat.start(watchdog(config.address))
    return server


def _use_threads(threads: int) -> None:
    use_one_cpu_thread()
    if threads != 1:
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(threads)


def check_address(address: str) -> None:
    """Sees to it that a server can be had there, since TensorFlow would not say why it cannot.

    Raises:
        RunError: the port is taken or not allowed, or the host is not this machine.
    """
    host, _, port = address.rpartition(':')
    try:
        found = socket.getaddrinfo(host.strip('[]'), None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise RunError(f'TF_CONFIG: {address}: the host is unknown here ({error.strerror})') from error
    if not any(_can_bind(family, place[0]) for family, *_, place in found):
        raise RunError(
            f'TF_CONFIG: {address}: the host is not this machine; '
            'a server runs on the machine that its address names, which is that of its "task"'
        )
    family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET  # as TensorFlow will listen
    try:
        dualstack = family is socket.AF_INET6
        socket.create_server(('', int(port)), family=family, dualstack_ipv6=dualstack).close()
    except OSError as error:
        taken = error.errno == errno.EADDRINUSE
        reason = 'another process has this port' if taken else f'this port cannot be had ({error.strerror})'
        raise RunError(f'TF_CONFIG: {address}: {reason}; TensorFlow needs it on all addresses of a machine') from error


def _can_bind(family: int, host: str | int) -> bool:
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.bind((host, 0))
    except OSError:
        return False
    return True


def watchdog(address: str) -> Callable[[], None]:
    """A function, to be called now and then, that ends the process when a child trains longer than it may.

    Nothing else can: a graph that runs does not hear of time. It also looks after the connections to other servers.
    """
    seen: dict[str, str] = {}
    begun: tuple[float, float] | None = None  # the deadline, and when it was first seen

    def watch() -> None:
        """Looks once."""
        nonlocal begun
        keep_alive(seen)
        now, deadline = time.time(), notes.read_deadline(address)
        if deadline is None:
            begun = None
            return
        if begun is None or begun[0] != deadline:
            begun = deadline, now
        if deadline < now:
            output.warn(
                f'the child that was begun {now - begun[1]:.0f} s ago is over its limit; '
                'this worker ends so that another can be tried'
            )
            os._exit(OVER_LIMIT)

    return watch
