"""The way to the servers of a cluster, and what is said where it ends."""

import socket
import time

import pytest
import tensorflow as tf

from nos_tf.errors import ClusterLostError, RunError
from nos_tf.evaluation.cluster import connection


def test_what_listens_but_is_no_server_is_told_in_time():
    started = time.monotonic()
    with pytest.raises(RunError, match=r'within 0.2 s not all answered as TensorFlow servers do'):
        connection._within(0.2, lambda: time.sleep(5))
    assert time.monotonic() - started < 2
    with pytest.raises(RunError, match='cannot connect to the cluster: ValueError: no'):
        connection._within(5, lambda: (_ for _ in ()).throw(ValueError('no')))
    assert connection._within(5, lambda: 7) == 7


def test_who_listens_is_seen_whatever_the_kind_of_address():
    with socket.create_server(('127.0.0.1', 0)) as server:
        address = f'127.0.0.1:{server.getsockname()[1]}'
        assert connection.is_listening(address)
    assert not connection.is_listening(address)
    with socket.create_server(('::1', 0), family=socket.AF_INET6) as server:
        assert connection.is_listening(f'[::1]:{server.getsockname()[1]}')


@pytest.mark.parametrize(
    ('error', 'is_lost'),
    [
        (tf.errors.UnavailableError(None, None, 'failed to connect to /job:ps/replica:0/task:0'), True),
        (tf.errors.UnavailableError(None, None, 'failed to connect to /job:worker/replica:0/task:1'), False),
        (tf.errors.FailedPreconditionError(None, None, 'Could not find variable'), True),
        (tf.errors.InvalidArgumentError(None, None, 'of /job:ps'), False),
    ],
)
def test_only_a_parameter_server_that_is_gone_is_the_end_of_a_cluster(error, is_lost):
    if is_lost:
        with pytest.raises(ClusterLostError, match='the parameter server is gone .*nothing is lost'):
            connection.raise_if_lost(error)
    else:
        connection.raise_if_lost(error)
