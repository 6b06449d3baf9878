"""Connections that notice when the other end is out of reach: TensorFlow's own would wait for ever (Section 3.3).

A cable that is cut tells nobody. Without keepalive, whoever waits for an answer across it waits on when it is mended,
too, for the other end may have given up meanwhile. gRPC could ask, but TensorFlow has no setting for that; the sockets
of a process can be found and set from within, on Linux.
"""

import os
import socket
import sys
from contextlib import suppress

IDLE, INTERVAL, PROBES = 10, 5, 4  # seconds without a byte, seconds between questions, and how many without an answer
UNANSWERED = 30_000  # milliseconds that something sent may stay unconfirmed
_FOLDER = '/proc/self/fd'


def keep_alive(seen: dict[str, str]) -> None:
    """Sets all connected TCP sockets of this process that are not set yet.

    Args:
        seen: file descriptor -> what it was at the last call, which this one brings up to date.
    """
    if sys.platform != 'linux':
        return
    for descriptor in os.listdir(_FOLDER):
        with suppress(OSError):  # it was closed meanwhile, or is not connected yet
            target = os.readlink(f'{_FOLDER}/{descriptor}')
            if target.startswith('socket:') and seen.get(descriptor) != target:
                _set(int(descriptor))
                seen[descriptor] = target


def _set(descriptor: int) -> None:
    with socket.socket(fileno=os.dup(descriptor)) as connection:
        if connection.type != socket.SOCK_STREAM or connection.family not in (socket.AF_INET, socket.AF_INET6):
            return
        connection.getpeername()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            (socket.TCP_KEEPIDLE, IDLE),
            (socket.TCP_KEEPINTVL, INTERVAL),
            (socket.TCP_KEEPCNT, PROBES),
            (socket.TCP_USER_TIMEOUT, UNANSWERED),
        ):
            connection.setsockopt(socket.IPPROTO_TCP, option, value)
