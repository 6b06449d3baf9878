"""Sockets of this process, as the kernel has them."""

import socket
import sys

import pytest

from nos_tf.evaluation.cluster.keepalive import IDLE, INTERVAL, PROBES, UNANSWERED, keep_alive

pytestmark = pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')


def settings(connection):
    options = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT)
    kept = connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    return kept, *(connection.getsockopt(socket.IPPROTO_TCP, option) for option in options)


def test_connections_are_set_once_whichever_end_began_them_and_what_listens_is_not():
    expected = (1, IDLE, INTERVAL, PROBES, UNANSWERED)
    seen = {}
    with socket.create_server(('127.0.0.1', 0)) as listener:
        before = settings(listener)
        with socket.create_connection(listener.getsockname()) as one, listener.accept()[0] as other:
            assert settings(one) != expected
            keep_alive(seen)
            assert settings(one) == settings(other) == expected
            assert settings(listener) == before and str(listener.fileno()) not in seen
            one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 0)
            keep_alive(seen)
            assert settings(one)[0] == 0  # it was seen
        with socket.create_connection(listener.getsockname()) as another:
            keep_alive(seen)
            assert settings(another) == expected
