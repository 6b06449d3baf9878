"""Configurations: gin files and bindings -> what they describe, and one short line when they cannot be used."""

import argparse
import contextlib
import difflib
import inspect
import io
import logging
import os
import re
import tokenize
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import gin

from nos_tf import output
from nos_tf.cli.unread import check_bindings
from nos_tf.errors import RunError
from nos_tf.renamed import rename_bindings

ROOT = Path(__file__).parents[2]
LONGEST = 400  # characters of a message of gin's
BINDINGS = '--gin_bindings'

# What gin says, since it has no kinds of errors.
_NO_CONFIGURABLE = re.compile(r"No configurable matching (?:reference )?'@?(?:[^']*/)?([\w.]+)")
_NO_PARAMETER = re.compile(r"Configurable '([^']+)' doesn't have a parameter named '([^']+)'")
_NO_FILE = re.compile(r'Unable to open file: (.*)\. Searched config paths: ')
_NO_VALUE = re.compile(r"No bindings specified for '(?:(.*)/)?gin\.macro' in config string")
_NO_MODULE = re.compile(r'No module named ')
_AMBIGUOUS = re.compile(r'Ambiguous selector ')
_IN_CALL = re.compile(r"\s*In call to configurable '([^']*)'[^\n]*")
_PLACE = re.compile(r'\n  In (?:file "(.*)",|bindings string) line (\d+)\n    ([^\n]*)(?:\n *\^)?')

# What to do about a syntax error, by what gin says of it; '' fits all others.
_ADVICE = {
    'Failed to parse token': 'a text needs quotes',
    'Unable to parse value': 'a value is a number, a quoted text, True, None, a tuple of those, @Name() or %macro',
    'in multi-line': 'a bracket or a quote is not closed',
    'unterminated': 'a bracket or a quote is not closed',
    "'import'": 'write import NAME, or from PLACE import NAME',
    'ndent': 'lines below NAME: are indented alike',
    '': 'write NAME.PARAMETER = VALUE',
}

Root = TypeVar('Root')


def configure(arguments: argparse.Namespace, root: Callable[[], Root]) -> Root:
    """Parses the configuration, and makes what it describes.

    Args:
        arguments: of `commandline.parse_arguments`.
        root: a gin configurable that is complete by its bindings.

    Raises:
        RunError: a file or a name that does not exist, a syntax error, a missing binding, or an unfit value.
    """
    gin.add_config_file_search_path(str(ROOT))  # for 'gin/...' wherever the command is given
    logging.disable(logging.ERROR)  # gin logs each path where a file is not
    try:
        bindings, renamed = rename_bindings('\n'.join(arguments.gin_bindings))
        _parse(arguments.gin_files, bindings, renamed)
        made = root()
        check_bindings(bindings.splitlines())
        return made
    except RecursionError as error:
        raise RunError(
            'cannot use the configuration: a macro or a reference leads back to itself, as in a = %b, b = %a'
        ) from error
    except ValueError as error:
        raise RunError(in_one_place(error) + _suggestion(str(error))) from error
    except (OSError, AttributeError, TypeError, RuntimeError) as error:
        raise RunError(f'cannot use the configuration: {in_one_place(error)}') from error
    finally:
        logging.disable(logging.NOTSET)


def in_one_place(error: BaseException) -> str:
    """Returns the message, with no more of what gin adds to it than the name of the configurable, if it lacks that."""
    text, *names = _IN_CALL.split(str(error))
    return text if not names or names[0] in text else f'{text} (in {names[0]})'


class _Reader:
    """Reads the files that gin asks for, as UTF-8 whatever the locale, and remembers them."""

    def __init__(self) -> None:
        self._open: list[Path] = []
        self.texts: dict[str, str] = {}
        self.renamed: dict[str, str] = {}  # old names in them -> new
        self.failed = BINDINGS  # in which of them parsing has ended

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[io.StringIO]:
        """Opens a file in place of the built-in `open`.

        Raises:
            RunError: it is no text, or includes itself.
        """
        path = Path(name)
        if path.resolve() in self._open:
            raise RunError(f'{name} includes itself: remove one include')
        self._open.append(path.resolve())
        try:
            self.texts[name], renamed = rename_bindings(_read(path))
            self.renamed.update(renamed)
            file = io.StringIO(self.texts[name])
            file.name = name  # gin's errors say it
            yield file
        except BaseException:
            self.failed = name if self.failed == BINDINGS else self.failed
            raise
        finally:
            self._open.pop()

    def place(self, pattern: str) -> str:
        """Returns where a line is that has the pattern, for a message; '' if none has."""
        for name, text in self.texts.items():
            for number, line in enumerate(text.splitlines(), 1):
                if re.search(pattern, line.partition('#')[0]):
                    return _place(name, number, line)
        return ''


def _read(path: Path) -> str:
    """Returns the text of a file, in one kind of line ends and without a byte order mark."""
    if path.is_dir():
        raise RunError(f'{path} is a folder: name the files in it')
    try:
        content = path.read_bytes()
        text = content.decode('utf-8-sig')
    except OSError as error:
        raise RunError(f'{path} cannot be read ({error.strerror}): see to its permissions') from error
    except UnicodeDecodeError as error:
        line = content.count(b'\n', 0, error.start) + 1
        raise RunError(f'{path}, line {line}: is no text in UTF-8: save it as UTF-8, or name another file') from error
    if '\0' in text:
        raise RunError(f'{path} is no text, it has null bytes: name a gin file')
    return text.replace('\r\n', '\n').replace('\r', '\n')


def _parse(files: list[str], bindings: str, renamed: dict[str, str]) -> None:
    """Gives gin what it is to parse, and tells of names that have moved.

    Args:
        files: of configurations.
        bindings: of the command line, in the names of today.
        renamed: the names of before among them -> today's.

    Raises:
        RunError: it cannot; the message names the file, the line and what to do.
    """
    reader = _Reader()
    readers = gin.config._FILE_READERS  # gin can add readers, but asks its own before
    kept, readers[:] = readers[:], [(reader, os.path.exists)]
    try:
        gin.parse_config_files_and_bindings(files, bindings, finalize_config=False)
        if renamed := {**reader.renamed, **renamed}:
            output.warn('names that have moved: ' + ', '.join(f'{old} is now {new}' for old, new in renamed.items()))
            if not _is_bound('Search.task'):  # before, there was but one kind of task
                gin.parse_config('Search.task = @ImageClassification()')
        gin.finalize()
    except SyntaxError as error:
        name = error.filename if error.filename and error.filename != '<tokenize>' else reader.failed
        raise RunError(_misspelled(_place(name, error.lineno, error.text), error.msg)) from error
    except tokenize.TokenError as error:
        reason, (line, _) = error.args
        raise RunError(_misspelled(_place(reader.failed, line), reason)) from error
    except Exception as error:  # an import in a file runs code of others
        raise RunError(_explained(error, reader)) from error
    finally:
        readers[:] = kept


def _is_bound(name: str) -> bool:
    try:
        gin.query_parameter(name)
    except ValueError:
        return False
    return True


def _misspelled(place: str, reason: str) -> str:
    """Returns an error of syntax in one line."""
    reason = ' '.join(reason.splitlines()[-1].split()).rstrip('.')
    advice = next(advice for said, advice in _ADVICE.items() if said in reason)
    return f'{place}: {reason}; {advice}'


def _explained(error: Exception, reader: _Reader) -> str:
    """Returns an error of parsing in one line: where, what, and what to do."""
    text, *places = _PLACE.split(str(error))
    text = ' '.join(text.strip('\'"').split() if isinstance(error, KeyError) else text.split()).rstrip('.')
    place = _place(places[0] or BINDINGS, int(places[1]), places[2]) if places else ''
    statement = places[2].split() if places else ['']
    if found := _NO_FILE.search(text):
        text = f'there is no file {found[1]}, neither in the working directory nor in {ROOT}'
    elif found := _NO_VALUE.search(text):
        name = found[1] or 'gin.macro'
        place = reader.place(rf'%{re.escape(name)}\b') or BINDINGS
        text = f'the macro %{name} has no value: add a line such as {name} = 1'
    elif _NO_MODULE.match(text):
        text += ': install it, or name its folder in PYTHONPATH'
    elif _AMBIGUOUS.match(text):
        text += ': write one of them'
    elif statement[0] in ('import', 'from'):
        text = f'{type(error).__name__}: {text}: that module cannot be imported'
    text = text if len(text) <= LONGEST else f'{text[:LONGEST]} ...'
    return (f'{place}: ' if place else '') + text + _suggestion(text)


def _place(name: str | None, line: int | None, text: str | None = None) -> str:
    """Returns a line of a file, or of the bindings, for a message."""
    shown = ' '.join((text or '').split())
    at = name or BINDINGS
    at = at if at == BINDINGS else f'{at}, line {line}'
    return f'{at} ({shown})' if shown else at


def _suggestion(message: str) -> str:
    """Returns what may have been meant, where gin does not know a name; of the parameters all, if none is like it."""
    registry: Any = gin.config._REGISTRY  # gin has no other list
    if found := _NO_CONFIGURABLE.search(message):
        given = found[1]
        names = [selector.rpartition('.')[2] for selector, _ in registry.items()]
    elif found := _NO_PARAMETER.search(message):
        given = found[2]
        names = list(inspect.signature(registry.get_match(found[1]).wrapped).parameters)
    else:
        return ''
    by_lower_case = {name.lower(): name for name in names}
    if close := difflib.get_close_matches(given.lower(), by_lower_case, 1):
        return f'; did you mean {by_lower_case[close[0]]!r}?'
    return f'; it has {", ".join(names)}' if found.re is _NO_PARAMETER else ''
