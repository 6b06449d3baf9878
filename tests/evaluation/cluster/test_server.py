"""What a server sees to before and while it serves; that it serves is in tests/launch/test_server.py."""

import os
import socket
import time

import pytest

from nos_tf.errors import RunError
from nos_tf.evaluation.cluster import notes, server
from nos_tf.evaluation.cluster.config import ClusterConfig


class Left(BaseException):
    """Raised in place of the end of the process; its argument is the exit code."""


@pytest.fixture(autouse=True)
def root(tmp_path, monkeypatch):
    def leave(code):
        raise Left(code)

    monkeypatch.setattr(notes, 'ROOT', tmp_path)
    monkeypatch.setattr(os, '_exit', leave)
    return tmp_path


def test_a_chief_is_no_server(root):
    with pytest.raises(RunError, match='a server is a worker or a ps; the chief is the search itself'):
        server.serve(ClusterConfig(('a:1',), ('b:1',), 'c:1', 'chief', 0))
    assert list(root.iterdir()) == []


@pytest.mark.parametrize('host', ['127.0.0.1', ''])
def test_a_port_that_is_taken_on_any_address_is_named(host):
    with socket.create_server((host, 0)) as other:
        address = f'127.0.0.1:{other.getsockname()[1]}'
        with pytest.raises(RunError, match=f'{address}: another process has this port'):
            server.check_address(address)
    server.check_address(address)


def test_a_port_is_free_again_as_soon_as_its_server_is_gone():
    with socket.create_server(('127.0.0.1', 0)) as other:
        port = other.getsockname()[1]
        with socket.create_connection(('127.0.0.1', port)) as client:
            connection, _ = other.accept()
            connection.close()  # first, so that the system remembers the port for a minute
            assert client.recv(1) == b''
    server.check_address(f'127.0.0.1:{port}')


@pytest.mark.parametrize(
    'address, says',
    [
        ('192.0.2.77:2222', '192.0.2.77:2222: the host is not this machine'),  # an address of documentation's
        ('no-such-host.invalid:2222', 'no-such-host.invalid:2222: the host is unknown here'),
    ],
)
def test_an_address_of_another_machine_is_named(address, says):
    with pytest.raises(RunError, match=says):
        server.check_address(address)


def test_hosts_may_be_names_and_in_brackets():
    with socket.create_server(('127.0.0.1', 0)) as other:
        port = other.getsockname()[1]
    server.check_address(f'localhost:{port}')
    if socket.has_dualstack_ipv6():
        server.check_address(f'[::1]:{port}')


def write_deadline(address, text):
    notes.deadline_path(address).write_text(text)


def test_the_watchdog_ends_the_process_after_the_deadline_only(capsys, monkeypatch):
    address, now = 'a:1', 1_000_000.0
    monkeypatch.setattr(time, 'time', lambda: now)
    notes.write_identity(address, {})
    watch = server.watchdog(address)
    watch()
    write_deadline(address, '1000020.000000 end')
    watch()
    now += 19
    watch()
    write_deadline(address, '')  # that child ended
    now += 1000
    watch()
    write_deadline(address, '1001030.000000 end')
    watch()
    now += 9
    watch()
    write_deadline(address, '1001060.000000 end')  # the next one followed between two looks
    watch()
    now += 33
    assert capsys.readouterr().err == ''
    with pytest.raises(Left) as left:
        watch()
    assert left.value.args == (server.OVER_LIMIT,)
    assert capsys.readouterr().err == (
        'the child that was begun 33 s ago is over its limit; this worker ends so that another can be tried\n'
    )


def test_an_interrupt_ends_it_quietly_and_leaves_nothing(root, monkeypatch, capsys):
    def start(config, threads):
        notes.write_identity(config.address, {})
        raise KeyboardInterrupt

    monkeypatch.setattr(server, '_start', start)
    with pytest.raises(Left) as left:
        server.serve(ClusterConfig(('a:1',), ('b:1',), None, 'worker', 0))
    assert left.value.args == (0,)
    assert list(root.iterdir()) == []
    assert capsys.readouterr() == ('', '')


def test_what_tensorflow_refuses_is_one_line(monkeypatch):
    with socket.create_server(('', 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setattr(server, 'check_address', lambda address: None)
        with pytest.raises(RunError, match=f'TensorFlow cannot serve at 127.0.0.1:{port}: Could not start gRPC server'):
            server.serve(ClusterConfig((f'127.0.0.1:{port}',), ('127.0.0.1:1',), None, 'worker', 0))
