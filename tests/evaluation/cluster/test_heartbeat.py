"""A heart in a process of its own, and what a supervisor sees of it."""

import fcntl
import os
import select
import subprocess
import sys
from pathlib import Path

import pytest

from nos_tf.evaluation.cluster import heartbeat
from tests.fake_children import wait_until

PATH = Path(heartbeat.__file__)
LIVES = 'import os, runpy, time; runpy.run_path({path!r})["start"]({watch}seconds=0.02); {then}; time.sleep(60)'


def begin(pipe, then='pass', watch=''):
    """A process that beats into a pipe; it would end with code 0 after a minute. It starts without TensorFlow."""
    return subprocess.Popen(
        [sys.executable, '-c', LIVES.format(path=str(PATH), then=then, watch=watch)],
        env={**os.environ, heartbeat.VARIABLE: str(pipe)},
        pass_fds=[pipe] if pipe else [],
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def pipe():
    """The two ends; a test may have closed one already."""
    ends = os.pipe()
    yield ends
    for end in ends:
        try:
            os.close(end)
        except OSError:
            continue


def test_it_beats_until_the_supervisor_is_gone(pipe):
    read, write = pipe
    with begin(write) as process:
        os.close(write)
        beats = b''
        while len(beats) < 3:
            assert select.select([read], [], [], 30)[0]
            beats += os.read(read, 1)
        assert beats == b'...'
        assert process.poll() is None
        os.close(read)
        assert process.wait(30) == 1


def test_a_supervisor_that_does_not_read_is_no_hindrance(pipe):
    read, write = pipe
    os.set_blocking(write, False)
    capacity = fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096) if hasattr(fcntl, 'F_SETPIPE_SZ') else 65536
    assert os.write(write, b'x' * capacity) == capacity
    os.set_blocking(write, True)
    with begin(write, watch='lambda: print("turn", flush=True), ') as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(5)] == ['turn\n'] * 5
        assert os.read(read, capacity) == b'x' * capacity
        assert wait_until(lambda: select.select([read], [], [], 0)[0])  # it goes on
        process.kill()


def test_those_that_it_begins_do_not_inherit_the_pipe(pipe):
    _, write = pipe
    then = 'print(os.get_inheritable({0}), "{1}" in os.environ, flush=True)'
    with begin(write, then.format(write, heartbeat.VARIABLE)) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == 'False False\n'
        process.kill()


def test_without_a_supervisor_only_the_watch_is_kept():
    with begin('', watch='lambda: print("turn", flush=True), ') as process:
        assert process.stdout is not None
        assert [process.stdout.readline() for _ in range(3)] == ['turn\n'] * 3
        process.kill()


def test_with_neither_there_is_no_thread(monkeypatch):
    monkeypatch.delenv(heartbeat.VARIABLE, raising=False)
    monkeypatch.setattr('threading.Thread', None)
    heartbeat.start()
