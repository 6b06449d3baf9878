"""Printing to streams that lack an encoding, space, or a reader."""

import ast
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from nos_tf import output
from nos_tf.output import Lenient
from nos_tf.search.display import Display, scores_table
from nos_tf.search.rescore import Score

ROOT = Path(__file__).resolve().parents[1]
ENCODINGS = ['ascii', 'cp1252', 'latin-1', 'utf-8', 'utf-16']


class Broken(io.StringIO):
    """A stream that cannot be written to."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error

    def write(self, text: str) -> int:
        raise self._error

    def flush(self) -> None:
        raise self._error


def test_the_library_prints_by_this_module_alone() -> None:
    """A bare `print` dies of what it cannot encode; nos_tf/__main__.py is a command, which has settled that before."""
    prints = [
        f'{path.relative_to(ROOT)}, line {node.lineno}'
        for path in [*ROOT.glob('nos_tf/*/*.py'), *ROOT.glob('launch/gnmt/*.py')]
        if path.name not in ('output.py', 'train.py')
        for node in ast.walk(ast.parse(path.read_text(encoding='utf-8')))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ('print', 'Console', 'sys.stdout.write')
    ]
    assert prints == []


def stream(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


def written(file: io.TextIOWrapper) -> str:
    file.flush()
    return file.buffer.getvalue().decode(file.encoding)


@pytest.mark.parametrize(
    ('encoding', 'text'),
    [('ascii', "+-1.0 l\\xf6p '\\u6f22\n"), ('cp1252', '±1.0 löp ’\\u6f22\n'), ('utf-8', '±1.0 löp ’漢\n')],
)
def test_what_an_encoding_lacks_is_spelled(encoding: str, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, print_line in (('stdout', output.say), ('stderr', output.warn)):
        file = stream(encoding)
        monkeypatch.setattr(sys, name, file)
        print_line('±1.0 löp ’漢')
        assert written(file) == text


@pytest.mark.parametrize('encoding', ENCODINGS)
def test_a_search_shows_its_lines_and_its_table_in_any_encoding(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = stream(encoding)
    monkeypatch.setattr(sys, 'stdout', file)
    with Display(4, 0) as display:
        display.note('m̂ ± ü')
        display.console.print(scores_table([Score('', 'g', 0.5, 0.5, 0.1, 0.25, 0.125, 0.1, (0.5,))], 2))
    text = written(file)
    spelled = '+-' if encoding == 'ascii' else '±'
    assert f'0.500 {spelled} 0.100' in text and f'+0.250 {spelled} 0.125' in text
    assert ('┃' in text) == encoding.startswith('utf')


def test_a_name_that_is_no_text_is_printed_with_its_bytes_by_a_command() -> None:
    file = stream('utf-8')
    file.reconfigure(errors=output.SPELL)
    file.write('a\udcff±')
    file.flush()
    assert file.buffer.getvalue() == b'a\xff\xc2\xb1'
    strict = stream('utf-8')
    Lenient(strict).write('a\udcff±')
    assert written(strict) == 'a\\xff±'


@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), ValueError('I/O operation on closed file')])
def test_a_full_or_closed_stream_ends_no_run(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, '_failures', [])
    monkeypatch.setattr(sys, 'stdout', Broken(error))
    monkeypatch.setattr(sys, 'stderr', Broken(error))
    output.say('x')
    output.warn('x')
    with Display(4, 0) as display:
        display.note('x')


def test_what_was_lost_is_told_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output, '_failures', [])
    file = Broken(OSError(28, 'No space left on device'))
    monkeypatch.setattr(sys, 'stdout', file)
    output.say('x')
    monkeypatch.setattr(file, 'flush', lambda: None)  # there is space again
    monkeypatch.setattr(file, 'fileno', lambda: os.open(os.devnull, os.O_WRONLY))
    with pytest.raises(OSError, match='No space left on device'):
        output.finish()
    output.finish()


def test_that_nobody_reads_ends_a_run_but_not_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, 'stdout', Broken(BrokenPipeError()))
    monkeypatch.setattr(sys, 'stderr', Broken(BrokenPipeError()))
    output.warn('x')
    with pytest.raises(BrokenPipeError):
        output.say('x')
    with pytest.raises(BrokenPipeError), Display(4, 0) as display:
        display.note('x')


def test_without_streams_nothing_is_printed(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, 'stdout', None)
    monkeypatch.setattr(sys, 'stderr', None)
    output.say('x')
    output.warn('x')
    output.finish()
    with Display(4, 0) as display:
        display.note('x')
    assert capfd.readouterr() == ('', '')


def end(stdout: str, code: str, **variables: str) -> tuple[int, str]:
    """The exit code and standard error of a command whose standard output nobody reads, is full, or is closed."""
    read, write = os.pipe()
    os.close(read)
    target = os.open('/dev/full', os.O_WRONLY) if stdout == 'full' else write
    run = subprocess.run(
        [sys.executable, '-c', code],
        env={**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '', **variables},
        stdout=target,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=(lambda: os.close(1)) if stdout == 'closed' else None,
        check=False,
    )
    os.close(write)
    return run.returncode, run.stderr


FULL = (2, "error: [Errno 28] No space left on device: 'standard output'\n")
PRINTS = {  # what may be printed: a word, more than a buffer, a table by Rich, the help of argparse
    'short': 'print("x")',
    'long': 'print("x" * 100_000)',
    'rich': 'output.console().print("x")',
    'help': 'import argparse; argparse.ArgumentParser().parse_args(["--help"])',
}


@pytest.mark.parametrize('stdout', ['nobody', 'full', 'closed'])
@pytest.mark.parametrize('prints', PRINTS)
def test_a_command_ends_without_a_traceback(prints: str, stdout: str) -> None:
    code = f'from nos_tf import output\ndef main():\n    {PRINTS[prints]}\noutput.command(main)'
    found = end(stdout, code)
    if stdout == 'nobody':
        assert found == (output.NOBODY_READS, '')
    elif stdout == 'full':
        assert found[0] == FULL[0] and (found == FULL or prints == 'long')
        assert found[1].startswith('error: [Errno 28] No space left on device')
    else:
        assert found[0] == 0 and (found[1] == '' or prints == 'help')  # which argparse then prints to standard error


@pytest.mark.parametrize(('returned', 'code'), [(None, 0), (3, 3)])
def test_a_command_returns_its_exit_code(returned: int | None, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, 'stdout', stream('ascii'))
    monkeypatch.setattr(sys, 'stderr', stream('ascii'))
    with pytest.raises(SystemExit) as left:
        output.command(lambda: print('±') or returned)  # type: ignore[func-returns-value]
    assert left.value.code == code
    assert written(sys.stdout) == '+-\n'  # type: ignore[arg-type]
