"""What gin cannot read, in one line each: where it is, what is wrong, what to do."""

import argparse
import importlib
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import gin
import pytest

from nos_tf.cli import configuration
from nos_tf.errors import RunError
from nos_tf.renamed import NAMES
from nos_tf.search.search import Search

ROOT = Path(__file__).resolve().parents[2]
DIGITS = "include 'gin/digits.gin'\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A working directory that modules can be imported from, and no configuration."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    gin.clear_config()
    yield tmp_path
    gin.clear_config()


def configured(*files: str, bindings: tuple[str, ...] = (), root: Callable = Search) -> Search:
    return configuration.configure(argparse.Namespace(gin_files=list(files), gin_bindings=list(bindings)), root)


def refusal(*files: str, bindings: tuple[str, ...] = ()) -> str:
    """The line that says why a configuration is refused."""
    with pytest.raises(RunError) as error:
        configured(*files, bindings=bindings)
    text = str(error.value)
    assert len(text) < 250 and '\n' not in text, text
    return text


@pytest.mark.parametrize(
    ('line', 'says'),
    [
        ('import no_such_module', "No module named 'no_such_module': install it, or name its folder in PYTHONPATH"),
        ('from os import nothing', "No module named 'os.nothing'; 'os' is not a package: install it"),
        ('import broken', 'ZeroDivisionError: division by zero: that module cannot be imported'),
        ('Search.children = %count', 'the macro %count has no value: add a line such as count = 1'),
        ("include 'nowhere.gin'", f'there is no file nowhere.gin, neither in the working directory nor in {ROOT}'),
        ("include 'folder'", 'folder is a folder: name the files in it'),
        ("include 'x.gin'", 'x.gin includes itself: remove one include'),
        ('Serch.children = 3', "No configurable matching 'Serch'; did you mean 'Search'?"),
        (
            'Search.childre = 3',
            "Configurable 'Search' doesn't have a parameter named 'childre'; did you mean 'children",
        ),
        ('Search.learner = @Trpo()', "No configurable matching reference '@Trpo()'; did you mean 'TRPO'?"),
        ('twin.x = 3', "Ambiguous selector 'twin', matches ['"),
        ('Search.children = = 3', 'Unable to parse value; a value is a number'),
        ('Search.children = many', "Failed to parse token 'many'; a text needs quotes"),
        ('Search children = 3', "Couldn't parse statement, expected ':' or '='; write NAME.PARAMETER = VALUE"),
    ],
)
def test_a_line_that_cannot_be_used_is_shown_with_its_file_and_number(line: str, says: str, here: Path) -> None:
    (here / 'broken.py').write_text('1 / 0\n', encoding='utf-8')
    (here / 'folder').mkdir()
    (here / 'x.gin').write_text(f'{DIGITS}# %count\n{line}\n', encoding='utf-8')
    assert refusal('x.gin').startswith(f'x.gin, line 3 ({line}): {says}')


@gin.register('twin', module='a')
def twin_a(x: int) -> None: ...


@gin.register('twin', module='b')
def twin_b(x: int) -> None: ...


def test_a_module_with_a_syntax_error_is_named_itself(here: Path) -> None:
    (here / 'misspelled.py').write_text('\nx = = 3\n', encoding='utf-8')
    (here / 'x.gin').write_text('import misspelled\n', encoding='utf-8')
    importlib.invalidate_caches()
    assert re.match(r'.*misspelled\.py, line 2 \(x = = 3\): invalid syntax', refusal('x.gin'))


@pytest.mark.parametrize(
    ('text', 'says'),
    [
        ("Search.baselines = ('adam',\n", r'x\.gin, line \d: .*; a bracket or a quote is not closed'),
        ('Search:\n    children = 3\n  seed = 3\n', r'x\.gin, line 3.*; lines below NAME: are indented alike'),
        ('Search:\nchildren = 3\n', r'x\.gin, line 2 \(children = 3\): Expected indentation.*'),
    ],
)
def test_what_goes_over_several_lines_is_told_of_too(text: str, says: str, here: Path) -> None:
    (here / 'x.gin').write_text(text, encoding='utf-8')
    assert re.fullmatch(says, refusal('x.gin'))


@pytest.mark.parametrize('text', ['a = %b\nb = %a\nSearch.children = %a\n', 'Search.learner = @Search()\n'])
def test_what_leads_back_to_itself_is_one_line(text: str, here: Path) -> None:
    (here / 'x.gin').write_text(DIGITS + text, encoding='utf-8')
    assert 'leads back to itself' in refusal('x.gin')


def test_a_circle_of_includes_names_the_line_that_closes_it(here: Path) -> None:
    (here / 'x.gin').write_text("include 'y.gin'\n", encoding='utf-8')
    (here / 'y.gin').write_text("\ninclude './x.gin'\n", encoding='utf-8')
    assert refusal('x.gin') == "y.gin, line 2 (include './x.gin'): ./x.gin includes itself: remove one include"
    (here / 'x.gin').write_text("include 'z.gin'\ninclude 'z.gin'\n" + DIGITS, encoding='utf-8')
    (here / 'z.gin').write_text('', encoding='utf-8')
    assert configured('x.gin').children == 2000  # twice is no circle


@pytest.mark.parametrize(
    ('content', 'says'),
    [
        (DIGITS.encode('utf-16'), 'x.gin, line 1: is no text in UTF-8: save it as UTF-8, or name another file'),
        (
            '\n# ä\n'.encode('latin-1'),
            'x.gin, line 2: is no text in UTF-8: save it as UTF-8, or name another file',
        ),
        (b'a\0b', 'x.gin is no text, it has null bytes: name a gin file'),
    ],
)
def test_a_file_in_another_encoding_is_named(content: bytes, says: str, here: Path) -> None:
    (here / 'x.gin').write_bytes(content)
    assert refusal('x.gin') == says


def test_a_byte_order_mark_and_the_line_ends_of_windows_are_read(here: Path) -> None:
    text = (DIGITS + 'Search.children = 7  # ±\n').replace('\n', '\r\n')
    (here / 'x.gin').write_bytes(text.encode('utf-8-sig'))
    assert configured('x.gin').children == 7


def test_files_are_utf_8_whatever_the_locale(here: Path) -> None:
    (here / 'x.gin').write_text("name = 'ä'  # ±\n", encoding='utf-8')
    code = """
import argparse, gin
from nos_tf.cli import configuration
configuration.configure(argparse.Namespace(gin_files=['x.gin'], gin_bindings=[]), lambda: None)
print(ascii(gin.query_parameter('%name')))
"""
    environment = {'LANG': 'C', 'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0', 'PYTHONPATH': str(ROOT)}
    run = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True, check=False)
    assert (run.stdout, run.stderr) == ("'\\xe4'\n", '')


def test_bindings_have_no_file_but_a_line(here: Path) -> None:
    assert refusal('gin/digits.gin', bindings=('a = 1', 'Search.children = = 3')).startswith(
        '--gin_bindings (Search.children = = 3): '
    )
    gin.clear_config()
    assert refusal(bindings=("include 'no.gin'",)).startswith("--gin_bindings (include 'no.gin'): there is no file")
    gin.clear_config()
    assert refusal('gin/digits.gin', bindings=('Search.children = %u',)).startswith('--gin_bindings: the macro %u')


def test_reading_leaves_gin_and_the_logs_as_they_were(here: Path) -> None:
    readers = list(gin.config._FILE_READERS)
    configured('gin/digits.gin')
    gin.clear_config()
    refusal('nowhere.gin')
    assert readers == gin.config._FILE_READERS
    assert logging.root.manager.disable == logging.NOTSET


# Names that have moved

MOVED = 'names that have moved: '


def of_before(text: str) -> str:
    """The same in the names of before, when there was but one kind of task."""
    for old, new in NAMES.items():
        text = text.replace(new, old)
    return ''.join(line for line in text.splitlines(True) if not line.startswith('Search.task'))


@pytest.fixture
def old(here: Path) -> Path:
    """The working directory, with a file of before that has a value for each name that has moved."""
    files = {name: (ROOT / f'gin/{name}.gin').read_text(encoding='utf-8') for name in ('search', 'digits')}
    text = ''.join(files.values()).replace("include 'gin/search.gin'", '')
    assert all(f'{name} =' in text for name in NAMES.values())
    (here / 'old.gin').write_text(of_before(text), encoding='utf-8')
    return here


def warnings(capsys: pytest.CaptureFixture) -> list[str]:
    out, err = capsys.readouterr()
    assert out == ''
    return err.splitlines()


def test_a_file_of_before_describes_the_same_search_with_one_line_of_warning(
    old: Path, capsys: pytest.CaptureFixture
) -> None:
    found = configured('old.gin')
    (line,) = warnings(capsys)
    assert line.startswith(MOVED)
    assert set(line.removeprefix(MOVED).split(', ')) == {f'{one} is now {other}' for one, other in NAMES.items()}
    gin.clear_config()
    assert found == configured('gin/digits.gin')
    assert found.task.identity() == Search().task.identity()
    assert warnings(capsys) == []


def test_what_gin_says_is_in_the_names_of_today(old: Path) -> None:
    configured('old.gin')
    operative = gin.operative_config_str()
    assert all(f'{name} =' in operative for name in NAMES.values())
    assert 'Search.task = @ImageClassification()' in operative
    assert not any(name in operative for name in NAMES)


def test_a_file_that_includes_one_of_before_may_have_the_names_of_today(
    old: Path, capsys: pytest.CaptureFixture
) -> None:
    (old / 'x.gin').write_text("include 'old.gin'\nImageClassification.epochs = 4\n", encoding='utf-8')
    assert configured('x.gin').task.epochs == 4
    assert len(warnings(capsys)) == 1


def test_bindings_of_before_are_those_of_today(here: Path, capsys: pytest.CaptureFixture) -> None:
    found = configured('gin/digits.gin', bindings=('Child.epochs = 7', 'Search.seed = 3\n  Child.batch_size=50'))
    assert warnings(capsys) == [
        f'{MOVED}Child.epochs is now ImageClassification.epochs, Child.batch_size is now ImageClassification.batch_size'
    ]
    assert (found.task.epochs, found.task.batch_size, found.seed) == (7, 50, 3)
    gin.clear_config()
    today = ('ImageClassification.epochs = 7', 'ImageClassification.batch_size = 50', 'Search.seed = 3')
    assert configured('gin/digits.gin', bindings=today) == found
    assert warnings(capsys) == []


def test_another_task_that_is_bound_stays(here: Path) -> None:
    class Other:
        """One that is none of images."""

        epochs, chance = 1, None

        def identity(self) -> dict[str, object]:
            """Nothing."""
            return {}

        def load(self) -> None:
            """Nothing."""

    gin.external_configurable(Other, 'OtherTask')
    (here / 'x.gin').write_text(f'{DIGITS}Child.epochs = 7\n', encoding='utf-8')
    found = configured('x.gin', bindings=('Search.task = @OtherTask()',))
    assert isinstance(found.task, Other)


@pytest.mark.parametrize(
    ('line', 'says'),
    [
        ('Child.epochs = 0', 'ImageClassification.epochs = 0: must be a whole number, at least 1'),
        ('Child.epochs = = 3', r'x.gin, line 2 (ImageClassification.epochs = = 3): '),
        ('Child.epoch = 3', "x.gin, line 2 (Child.epoch = 3): Configurable 'Child' doesn't have a parameter named"),
    ],
)
def test_a_mistake_in_a_file_of_before_is_named(line: str, says: str, here: Path) -> None:
    (here / 'x.gin').write_text(f'{DIGITS}{line}\n', encoding='utf-8')
    assert refusal('x.gin').startswith(says)


def test_texts_and_comments_are_left_alone(here: Path, capsys: pytest.CaptureFixture) -> None:
    (here / 'x.gin').write_text(f'{DIGITS}# Child.epochs = 5\nname = "Child.epochs = 5"\n', encoding='utf-8')
    configured('x.gin')
    assert warnings(capsys) == []
