"""Sentences that are made and read, and what is no pair of texts."""

import pytest
from num2words import num2words

from gnmt.corpora import NumberWords, Pairs, TextFiles, Wmt14

SMALL = NumberWords(train_examples=300, validation_examples=20, test_examples=30, below=1000)


@pytest.fixture(scope='module')
def corpus():
    return SMALL.load()


def test_numbers_are_translated_and_in_one_part_only(corpus):
    english = {num2words(n): num2words(n, lang='de') for n in range(1000)}
    assert english['one hundred and twenty-three'] == 'einhundertdreiundzwanzig'
    for part, count in zip(corpus[1:], (300, 20, 30), strict=True):
        assert len(part.source) == count
        assert [english[words] for words in part.source] == part.target
    assert len({words for part in corpus[1:] for words in part.source}) == 350
    assert SMALL.load() == corpus != NumberWords(300, 20, 30, 1000, seed=1).load()


@pytest.mark.parametrize(
    ('arguments', 'said'),
    [
        ({'below': 100}, 'there are not the 21000 numbers'),
        ({'test_examples': 0}, 'NumberWords.test_examples = 0'),
        ({'seed': 0.5}, 'NumberWords.seed = 0.5'),
        ({'below': 10**30}, 'at most 1,000,000,000,000'),
    ],
)
def test_numbers_that_cannot_be(arguments, said):
    with pytest.raises(ValueError, match=said):
        NumberWords(**arguments)


def write(folder, stem='train', source='a\n b b \n', target='A\nB'):
    for suffix, content in (('en', source), ('de', target)):
        (folder / f'{stem}.{suffix}').write_bytes(content if isinstance(content, bytes) else content.encode())


@pytest.fixture
def files(tmp_path):
    for stem in ('train', 'val', 'test_2016_flickr'):
        write(tmp_path, stem)
    return tmp_path


def test_parallel_files_are_read_line_by_line(files):
    write(files, source='ein\u2028s\x0b \r\nzwei\n', target='1\n2\n')  # of these only \n ends a line
    corpus = TextFiles(str(files)).load()
    assert corpus.train == Pairs(['ein\u2028s', 'zwei'], ['1', '2'])
    write(files, source=b'\xef\xbb\xbfein\n', target='1\n')  # with a byte order mark
    assert TextFiles(str(files)).load().train.source == ['ein']
    assert corpus.test == Pairs(['a', 'b b'], ['A', 'B']) and corpus.name.endswith(' en-de')


@pytest.mark.parametrize(
    ('change', 'said'),
    [
        ({'target': 'A\n'}, r'train.en has 2 lines and .*train.de 1'),
        ({'source': ''}, 'train.en is empty'),
        ({'source': '\n\n'}, 'train.en is empty'),
        ({'source': 'a\n\nb\n', 'target': 'a\nb\nc\n'}, 'train.en, line 2: empty'),
        ({'source': b'a\nb\xff\n'}, 'train.en, line 2: not UTF-8'),
    ],
)
def test_what_is_no_parallel_text_is_named(files, change, said):
    write(files, **change)
    with pytest.raises(ValueError, match=said):
        TextFiles(str(files)).load()


def test_files_that_are_not_there_are_named(files):
    with pytest.raises(FileNotFoundError, match=r'newstest.en is not there: TextFiles wants it'):
        TextFiles(str(files), test='newstest').load()
    with pytest.raises(FileNotFoundError, match="TextFiles.directory = 'nowhere': no such directory"):
        TextFiles('nowhere').load()
    with pytest.raises(ValueError, match='TextFiles.directory = None: must be a text'):
        TextFiles(None)


def test_the_fingerprint_is_that_of_the_text(files):
    corpus = TextFiles(str(files))
    before = corpus.fingerprint()
    assert before == corpus.fingerprint()
    write(files, 'val', source='a\nb c\n')
    assert corpus.fingerprint() != before
    (files / 'val.de').unlink()
    with pytest.raises(FileNotFoundError, match='val.de is not there'):
        corpus.fingerprint()
    assert SMALL.fingerprint() == Wmt14().fingerprint() == ''


def test_wmt_that_is_not_there_says_how_to_fetch_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"in .*tfds.load\('wmt14_translate/de-en'\)"):
        Wmt14(str(tmp_path), download=False).load()
