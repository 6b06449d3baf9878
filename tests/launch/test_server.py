"""A server as a person or a supervisor runs it: a process, its exit code, what it prints and what it leaves."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from launch import server
from nos_tf.errors import RunError
from nos_tf.evaluation.cluster import notes
from tests.fake_children import wait_until

ROOT = Path(__file__).resolve().parents[2]


def launch(*flags, tf_config='', pipe=None):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'TF_CONFIG': tf_config, 'TF_CPP_MIN_LOG_LEVEL': '3'}
    return subprocess.Popen(
        [sys.executable, str(ROOT / 'launch/server.py'), *flags],
        env={**environment, 'NOS_TF_HEARTBEAT_FD': str(pipe)} if pipe is not None else environment,
        pass_fds=[] if pipe is None else [pipe],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # as in a terminal
    )


def finish(process):
    """Exit code, standard output, standard error."""
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def config(*workers, ps='127.0.0.1:1', kind='worker', index=0):
    return json.dumps({'cluster': {'worker': workers, 'ps': [ps]}, 'task': {'type': kind, 'index': index}})


def free_address():
    with socket.create_server(('127.0.0.1', 0)) as probe:
        return f'127.0.0.1:{probe.getsockname()[1]}'


def listens(address):
    host, port = address.split(':')
    with contextlib.suppress(OSError):
        socket.create_connection((host, int(port))).close()
        return True
    return False


@pytest.mark.slow
def test_a_worker_serves_beats_and_ends_quietly():
    address = free_address()
    read, write = os.pipe()
    process = launch(tf_config=config(address), pipe=write)
    os.close(write)
    try:
        assert select.select([read], [], [], 100)[0]
        assert os.read(read, 1) == b'.'
        assert wait_until(lambda: listens(address), 100)
        identity = json.loads(notes.identity_path(address).read_text(encoding='utf-8'))
        assert identity['intra_op threads'] == 1
        assert {'processor', 'tensorflow'} <= identity.keys()
        process.send_signal(signal.SIGTERM)
        assert finish(process) == (0, '', '')
        assert not notes.folder(address).exists()
    finally:
        process.kill()
        os.close(read)
        notes.remove(address)


@pytest.mark.slow
def test_a_worker_ends_when_a_child_is_over_its_limit():
    address = free_address()
    process = launch('--threads', '2', tf_config=config(address))
    try:
        assert wait_until(notes.identity_path(address).exists, 100)
        assert json.loads(notes.identity_path(address).read_text(encoding='utf-8'))['intra_op threads'] == 2
        notes.deadline_path(address).write_text('1.0 end')
        code, out, err = finish(process)
        assert (code, out) == (3, '')
        assert err.endswith('s ago is over its limit; this worker ends so that another can be tried\n')
    finally:
        process.kill()
        notes.remove(address)


@pytest.mark.slow
def test_a_port_that_is_taken_ends_with_code_2_and_one_line():
    with socket.create_server(('127.0.0.1', 0)) as other:
        address = f'127.0.0.1:{other.getsockname()[1]}'
        code, out, err = finish(launch(tf_config=config(address)))
    assert (code, out) == (2, '')
    assert err == (
        f'error: TF_CONFIG: {address}: another process has this port; '
        'TensorFlow needs it on all addresses of a machine\n'
    )
    assert not notes.folder(address).exists()


def test_a_server_needs_a_configuration(monkeypatch):
    monkeypatch.setattr('sys.argv', ['server.py'])
    monkeypatch.delenv('TF_CONFIG', raising=False)
    with pytest.raises(RunError, match='TF_CONFIG is not set'):
        server.serve()


@pytest.mark.parametrize('threads', ['0', '-1', 'many', '1.5', '²', '9999999'])
def test_an_unfit_number_of_threads_is_refused(threads, monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['server.py', f'--threads={threads}'])
    with pytest.raises(SystemExit) as left:
        server.serve()
    assert left.value.code == 2
    assert f"'{threads}': must be a whole number from 1 to 1024" in capsys.readouterr().err


def test_help_tells_what_it_does_with_an_example(monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', ['server.py', '--help'])
    with pytest.raises(SystemExit) as left:
        server.serve()
    assert left.value.code == 0
    text = capsys.readouterr().out
    for part in ('one worker or parameter server', 'TF_CONFIG', '--threads', '"task"', 'python launch/server.py'):
        assert part in text
