"""Where pairs of sentences come from (Section 5.3): number words, parallel files, WMT 2014."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple, Protocol, runtime_checkable

import gin
import numpy as np
from num2words import num2words

from nos_tf.config import Configured, Count, Incidental, Natural, at_most

MOST = 10**12
"""The highest bound of number words."""


class Pairs(NamedTuple):
    """Sentences and their translations, as many."""

    source: Sequence[str]
    target: Sequence[str]


class Corpus(NamedTuple):
    """A translation task."""

    name: str
    train: Pairs
    validation: Pairs
    test: Pairs


@runtime_checkable
class CorpusSource(Protocol):
    """Where a corpus comes from."""

    def load(self) -> Corpus:
        """The sentences.

        Raises:
            FileNotFoundError: they are not there; the message says how to get them.
            ValueError: they are no pairs of sentences; the message names file and line.
        """

    def fingerprint(self) -> str:
        """What tells the text from another that the same bindings might name; '' if none could be.

        Raises:
            FileNotFoundError: it is not there.
        """


@gin.register
@dataclass(frozen=True)
class NumberWords(Configured):
    """German numerals from English ones, 'one hundred and twenty-three' -> 'einhundertdreiundzwanzig'.

    There is one right answer, and nothing to download. The parts share no number.

    Args:
        train_examples: numbers to learn from.
        validation_examples: numbers to stop by.
        test_examples: numbers to report.
        below: the bound of the numbers.
        seed: of which are in which part.
    """

    train_examples: Count = 20_000
    validation_examples: Count = 500
    test_examples: Count = 500
    below: Annotated[Count, at_most(MOST)] = 1_000_000
    seed: Natural = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        wanted = self.train_examples + self.validation_examples + self.test_examples
        if wanted > self.below:
            raise ValueError(f'NumberWords.below = {self.below}: there are not the {wanted} numbers that are wanted')

    def load(self) -> Corpus:
        """Numbers drawn without replacement."""
        random = np.random.Generator(np.random.PCG64(self.seed))
        wanted = self.train_examples + self.validation_examples + self.test_examples
        numbers = random.choice(self.below, wanted, replace=False)
        pairs = [(num2words(int(n)), num2words(int(n), lang='de')) for n in numbers]
        ends = np.cumsum([self.train_examples, self.validation_examples])
        parts = pairs[: ends[0]], pairs[ends[0] : ends[1]], pairs[ends[1] :]
        return Corpus('number words', *(Pairs(*map(list, zip(*part, strict=True))) for part in parts))

    def fingerprint(self) -> str:
        """None: the bindings say all."""
        return ''


@gin.register
@dataclass(frozen=True)
class TextFiles(Configured):
    """Plain parallel text, a sentence a line: `train.en` beside `train.de`, and so on (Multi30k is such).

    Args:
        directory: where the files lie.
        source: suffix of the language to translate from.
        target: suffix of the language to translate into.
        train: stem of the files to learn from.
        validation: stem of those to stop by.
        test: stem of those to report.
    """

    directory: Annotated[str, Incidental] = gin.REQUIRED
    source: str = 'en'
    target: str = 'de'
    train: str = 'train'
    validation: str = 'val'
    test: str = 'test_2016_flickr'

    def load(self) -> Corpus:
        """All sentences, without the white space around them."""
        folder = Path(self.directory)
        parts = [self._pairs(folder, stem) for stem in (self.train, self.validation, self.test)]
        return Corpus(f'{folder.resolve().name} {self.source}-{self.target}', *parts)

    def fingerprint(self) -> str:
        """A hash of all files."""
        digest = hashlib.sha256()
        for stem in (self.train, self.validation, self.test):
            for path in self._paths(Path(self.directory), stem):
                digest.update(hashlib.sha256(_read(path)).digest())
        return digest.hexdigest()[:16]

    def _paths(self, folder: Path, stem: str) -> list[Path]:
        if not folder.is_dir():
            raise FileNotFoundError(f'TextFiles.directory = {self.directory!r}: no such directory')
        return [folder / f'{stem}.{suffix}' for suffix in (self.source, self.target)]

    def _pairs(self, folder: Path, stem: str) -> Pairs:
        paths = self._paths(folder, stem)
        source, target = map(_lines, paths)
        if len(source) != len(target):
            raise ValueError(
                f'{paths[0]} has {len(source)} lines and {paths[1]} {len(target)}: they must be translations of each '
                'other, line by line'
            )
        return Pairs(source, target)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise FileNotFoundError(f'{path} is not there: TextFiles wants it') from error


def _lines(path: Path) -> list[str]:
    """The lines of a file; only a line feed ends one, whatever else Unicode counts as an end."""
    try:
        text = _read(path).decode('utf-8-sig')
    except UnicodeDecodeError as error:
        before = error.object[: error.start].count(b'\n')
        raise ValueError(f'{path}, line {before + 1}: not UTF-8 ({error.reason})') from error
    lines = [line.strip() for line in text.removesuffix('\n').split('\n')]
    if not any(lines):
        raise ValueError(f'{path} is empty')
    for number, line in enumerate(lines, start=1):
        if not line:
            raise ValueError(f'{path}, line {number}: empty')
    return lines


@gin.register
@dataclass(frozen=True)
class Wmt14(Configured):
    """WMT 2014 English -> German through tensorflow-datasets; newstest2013 to stop by, newstest2014 to report.

    Args:
        data_dir: where the data lie; None means TFDS_DATA_DIR, else ~/tensorflow_datasets.
        download: fetch the data, some gigabytes, if they are not there.
        train_examples: the first so many; None for all 4.5 million.
    """

    data_dir: Annotated[str | None, Incidental] = None
    download: Annotated[bool, Incidental] = True
    train_examples: Count | None = None

    def fingerprint(self) -> str:
        """None: tensorflow-datasets has one such text."""
        return ''

    def load(self) -> Corpus:
        """All sentences in memory: some 3 GB."""
        import tensorflow_datasets as tfds

        name = 'wmt14_translate/de-en'
        train = 'train' if self.train_examples is None else f'train[:{self.train_examples}]'
        try:
            parts = tfds.load(
                name,
                split=[train, 'validation', 'test'],
                data_dir=self.data_dir,
                download=self.download,
            )
        except Exception as error:  # tfds raises whatever its downloader does
            reason = ' '.join(f'{type(error).__name__}: {error}'.split())[:200]
            raise FileNotFoundError(
                f'no data set {name!r} in {self.data_dir or "TFDS_DATA_DIR"} ({reason}); with a network, '
                f'`python -c "import tensorflow_datasets as tfds; tfds.load({name!r})"` fetches it'
            ) from error
        pairs = []
        for part in parts:
            rows = [(row['en'].decode(), row['de'].decode()) for row in tfds.as_numpy(part)]
            pairs.append(Pairs(*map(list, zip(*(row for row in rows if all(map(str.strip, row))), strict=True))))
        return Corpus('WMT 2014 en-de', *pairs)
