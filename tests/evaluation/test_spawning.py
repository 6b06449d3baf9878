"""Workers of scripts, with a main guard or without, of standard input, `-c` and notebooks; and what they are told."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nos_tf.evaluation import spawning

ROOT = Path(__file__).parents[2]
HEAD = """
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from spawning import pack, without_main  # alone: without TensorFlow
from helper import call

print('begins', flush=True)
FACTOR = 6


class Own:
    def __init__(self, value):
        self.value = value

    def __call__(self):
        return FACTOR * self.value


def run():
    packed = pack(Own(7))
    with ProcessPoolExecutor(1, get_context('spawn')) as pool, without_main():
        print(pool.submit(call, packed).result(), flush=True)
"""
GUARDED = "\nif __name__ == '__main__':\n    run()\n"
HELPER = 'from spawning import unpack\n\n\ndef call(packed):\n    return unpack(packed)()\n'
PRINTED = ['begins', '42']  # once: the worker does not import the script


@pytest.fixture
def folder(tmp_path):
    (tmp_path / 'spawning.py').symlink_to(spawning.__file__)
    (tmp_path / 'helper.py').write_text(HELPER)
    return tmp_path


def lines(folder, *arguments, text=None):
    """What a Python process prints."""
    environment = {**os.environ, 'PYTHONPATH': str(folder)}
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, env=environment, cwd=folder, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    'tail',
    [
        '\nrun()\n',
        GUARDED,
        '\nimport threading\nthread = threading.Thread(target=run)\nthread.start()\nthread.join()\n',
    ],
    ids=['no guard', 'guard', 'thread'],
)
def test_a_script_begins_once(folder, tail):
    (folder / 'script.py').write_text(HEAD + tail)
    assert lines(folder, 'script.py') == PRINTED
    assert lines(folder, '-m', 'script') == PRINTED


def test_what_is_no_file_sends_its_classes_along(folder):
    assert lines(folder, '-', text=HEAD + '\nrun()\n') == PRINTED
    assert lines(folder, '-c', HEAD + '\nrun()\n') == PRINTED
    notebook = (
        f'import code\nshell = code.InteractiveInterpreter(vars())\nshell.runcode({HEAD!r})\nshell.runcode("run()")\n'
    )
    assert lines(folder, '-', text=notebook) == PRINTED


@pytest.mark.parametrize('is_file', [True, False])
def test_the_main_module_is_as_it_was(monkeypatch, is_file):
    main = sys.modules['__main__']
    if not is_file:
        monkeypatch.delattr(main, '__file__', raising=False)  # a worker of pytest-xdist has none
    before = dict(vars(main))
    with spawning.without_main():
        assert main.__spec__ is None and getattr(main, '__file__', None) is None
    assert vars(main) == before
    assert vars(main) == before


def test_what_no_import_leads_to_is_sent_by_value():
    """A lambda has no name to be imported by."""
    assert spawning.unpack(spawning.pack([lambda x: x + 1]))[0](2) == 3


def test_threads_that_hide_the_main_module_leave_it_as_it_was():
    main = sys.modules['__main__']
    before = dict(vars(main))
    inside, leave = threading.Event(), threading.Event()

    def hide():
        with spawning.without_main():
            inside.set()
            leave.wait(10)

    def hide_too():
        with spawning.without_main():
            pass

    threads = [threading.Thread(target=target) for target in (hide, hide_too)]
    threads[0].start()
    assert inside.wait(10)
    threads[1].start()
    leave.set()
    for thread in threads:
        thread.join(10)
    assert vars(main) == before


def test_what_cannot_be_sent_is_said_with_what_to_do():
    with pytest.raises(
        ValueError,
        match=r'cannot be told what to train \(TypeError: .*lock.*: define its parts in a module',
    ) as error:
        spawning.pack(threading.Lock())
    assert '\n' not in str(error.value)
    with pytest.raises(ValueError, match="No module named 'gone'.*: define its parts in a module of your own"):
        spawning.unpack(b'cgone\nOwn\n.')


SEARCH = """
import sys
from dataclasses import dataclass

import gin

from nos_tf import Search, SearchSpace
from nos_tf.controller.learners import RandomSearch
from nos_tf.evaluation.pool import ProcessPool
from nos_tf.tasks.child import Child
from nos_tf.tasks.data import Digits
from nos_tf.tasks.convnet import ConvNet, ImageClassification

print('begins', flush=True)


@gin.register
@dataclass(frozen=True)
class MyDigits(Digits):
    def load(self):
        print('loads', type(self).__name__, file=sys.stderr, flush=True)
        return super().load()


task = ImageClassification(MyDigits(train_examples=200), ConvNet(filters=2), epochs=1, batch_size=50)
settings = {'children': 5, 'rescored': 0, 'rescore_seeds': 0, 'baselines': ()}
search = Search(task, None, SearchSpace(), RandomSearch(), Child((0.1,)), ProcessPool(workers=1), **settings)
print('ends with', search.run(sys.argv[1])['children'], flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize('from_file', [True, pytest.param(False, marks=pytest.mark.drill)])
def test_a_search_without_a_guard_begins_once_and_ends(tmp_path, from_file):
    (tmp_path / 'script.py').write_text(SEARCH)
    done = subprocess.run(
        [sys.executable, 'script.py' if from_file else '-', 'run'],
        input=SEARCH,
        capture_output=True,
        text=True,
        env={**os.environ, 'PYTHONPATH': str(ROOT)},
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert printed[0] == 'begins' and printed[-1] == 'ends with 5' and printed.count('begins') == 1
    assert done.stderr.count('loads MyDigits') >= 2  # here and in the worker
