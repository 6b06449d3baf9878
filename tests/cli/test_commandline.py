"""Flags, configurations, and how a launcher ends: one line and an exit code, in this process with `os._exit` caught."""

import io
import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import gin
import pytest

from nos_tf.cli import commandline
from gnmt import corpora as _corpora  # noqa: F401  (gin files name what these modules register)
from gnmt import places as _places  # noqa: F401
from gnmt.transfer import Transfer
from nos_tf.compare import funnel as _funnel  # noqa: F401
from nos_tf.compare.comparison import Comparison
from nos_tf.dsl.known import TABLE_1
from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace
from nos_tf.errors import RunError
from nos_tf.search.search import Search
from nos_tf.tasks import builtin as _builtin  # noqa: F401  (gin files name what these register)
from nos_tf.tasks import wide_resnet as _wide_resnet  # noqa: F401
from tests.launching import run_here

ROOT = Path(__file__).resolve().parents[2]
DESCRIPTION = 'Does this.\n\npython launch/this.py --run_dir runs/x'
GIN_FILES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob('gin/*.gin'))

WANTED = {  # by files that name it, of whoever uses them
    'TextFiles.directory': 'x',
    'best_of_search.run_dir': str(ROOT / 'docs/results/search_cifar10'),
}

PARTS = {  # files that say only what is to differ, and to what they are added
    'gin/cluster.gin': ['gin/digits.gin'],
    'gin/found_rules.gin': ['gin/convnet_reduced.gin'],
    'gin/gnmt_cluster.gin': ['gin/gnmt_numbers.gin'],
}

# Bello et al. (2017), Section 4: what the text states, by the name of the binding.
PAPER = {
    'TRPO.batch_size': 5,
    'TRPO.units': 150,
    'TRPO.weight_range': 0.08,
    'TRPO.entropy_coefficient': 0.0015,
    'AdamSurrogate.learning_rate': 1e-5,
    'TfdsImages.dataset': 'cifar10',
    'TfdsImages.validation_examples': 5000,
    'ConvNet.filters': 32,
    'ImageClassification.train_examples': 10_000,
    'ImageClassification.batch_size': 100,
    'Child.learning_rates': (0.00001, 0.0001, 0.001, 0.01, 0.1, 1, 10),
    'Child.sweep_epochs': 1,
    'ImageClassification.epochs': 5,
}
# The sixteen rules of Table 1 as strings of the presets: what one iteration says is padded in front to two.
TABLE_1_IN_TOKENS = {
    'powersign_plus_clip': 'sign(g) sign(m) x x * t1 g exp clip(1e-4) + t2 g x x *',
    'clip_momentum_exp_v': 'g g x x + m v clip(1e-4) exp *',
    'momentum_exp_v': 'g g x x + m v x exp *',
    'powersign': 'sign(g) sign(m) x x * t1 g exp x *',
    'drop30_powersign': 'sign(g) sign(m) x x * t1 g exp drop(0.3) *',
    'momentum_exp_g2': 'g g x x + m g^2 x exp *',
    'drop10_momentum_over_exp_g2': 'g g x x + m g^2 drop(0.1) exp /',
    'drop10_powersign': 'sign(g) sign(m) x x * t1 g exp drop(0.1) *',
    'clip_rmsprop_plus_drop30_momentum': 'g g x x + rmsprop m clip(1e-5) drop(0.3) +',
    'adam_powersign': 'sign(g) sign(m) x x * t1 adam exp x *',
    'adam_exp_m': 'g g x x + adam m x exp *',
    'sgd_plus_drop30_momentum': 'g g x x + g m x drop(0.3) +',
    'drop10_momentum_exp_g3': 'g g x x + m g^3 drop(0.1) exp *',
    'sgd_minus_clip_g2': 'g g x x + g g^2 x clip(1e-4) -',
    'exp_sgd_minus_exp_momentum': 'g g x x + g m exp exp -',
    'drop30_momentum_exp_w': 'g g x x + m 1e-3*w drop(0.3) exp *',
}


class Left(BaseException):
    """Raised in place of the end of the process; its argument is the exit code."""


@pytest.fixture(autouse=True)
def clean_slate(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No configuration, no change of signals, and a process that does not end, later neither."""

    def leave(code: int) -> None:
        raise Left(code)

    monkeypatch.setattr(os, '_exit', leave)
    monkeypatch.delenv('NOS_TF_TRACEBACK', raising=False)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    gin.clear_config()
    yield
    gin.clear_config()
    for number, handler in handlers.items():
        signal.signal(number, handler)
    for thread in threading.enumerate():
        if isinstance(thread, threading.Timer):  # of an interruption: it would end the process that runs the tests
            thread.cancel()


def configured(*files: str, bindings: tuple[str, ...] = (), root: Callable = Search) -> Search:
    """What files and bindings describe."""
    argv = ['--run_dir', 'x', *(f'--gin_files={file}' for file in files), *(f'--gin_bindings={b}' for b in bindings)]
    return commandline.configure(commandline.parse_arguments(DESCRIPTION, argv), root)


# Flags


def test_flags_may_hold_several_values_and_come_several_times() -> None:
    flags = ['--gin_files', 'a', 'b', '--gin_bindings', 'x = 1', 'y = 2', '--gin_files=c', '--gin_bindings=z = 3']
    arguments = commandline.parse_arguments(DESCRIPTION, [*flags, '--run_dir', 'runs/ä b'])
    assert arguments.gin_files == ['a', 'b', 'c']
    assert arguments.gin_bindings == ['x = 1', 'y = 2', 'z = 3']
    assert arguments.run_dir == Path('runs/ä b')


@pytest.mark.parametrize('flags', [(), ('--allow_mixed',)])
@pytest.mark.parametrize(
    ('name', 'function', 'kind', 'preset'),
    [
        ('search', 'search', 'nos_tf.Search', 'quickstart'),
        ('cifar10', 'compare', 'nos_tf.compare.comparison.Comparison', 'convnet_reduced'),
        ('gnmt/train', 'transfer', 'gnmt.transfer.Transfer', 'gnmt_numbers'),
    ],
)
def test_whether_machines_may_differ_reaches_the_run(name, function, kind, preset, flags, tmp_path, monkeypatch):
    def run(_, run_dir, *, allow_mixed):
        raise RunError(f'{run_dir} {allow_mixed}')

    monkeypatch.setattr(f'{kind}.run', run)
    with pytest.raises(RunError, match=f'{tmp_path} {bool(flags)}'):
        run_here(name, function, '--gin_files', f'gin/{preset}.gin', '--run_dir', tmp_path, *flags)


@pytest.mark.parametrize(
    ('argv', 'says'),
    [
        ([], '--run_dir'),
        (['--gin_files', 'a'], '--run_dir'),
        (['--run_dir', 'x'], 'give --gin_files, such as gin/quickstart.gin'),
        (['--run_dir', '', '--gin_files', 'a'], '--run_dir: is empty'),
        (['--run_dir', 'x', '--gin_file', 'a'], 'unrecognized arguments: --gin_file a'),
    ],
)
def test_unfit_flags_end_with_code_2(argv: list[str], says: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as left:
        commandline.parse_arguments(DESCRIPTION, argv)
    assert left.value.code == 2
    assert says in capsys.readouterr().err.splitlines()[-1]


def test_help_tells_what_it_does_with_an_example(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as left:
        commandline.parse_arguments(DESCRIPTION, ['--help'])
    text = capsys.readouterr().out
    assert left.value.code == 0
    for part in ('Does this.', 'python launch/this.py', '--gin_bindings', 'Search.children = 50', 'NOS_TF_TRACEBACK'):
        assert part in text


def test_help_needs_no_docstring(capsys: pytest.CaptureFixture) -> None:
    """`python -OO` has none."""
    with pytest.raises(SystemExit):
        commandline.parse_arguments(None, ['--help'])
    assert '--gin_bindings' in capsys.readouterr().out


# Configurations


@pytest.mark.parametrize(
    ('binding', 'says'),
    [
        ('Serch.children = 3', "No configurable matching 'Serch'"),
        ('Serch.children = 3', "; did you mean 'Search'?"),
        ('Search.childre = 3', "doesn't have a parameter named 'childre'"),
        ('Search.childre = 3', "; did you mean 'children'?"),
        ('ProcessPool.speed = 3', '; it has workers, attempts'),
        ('Search.learner = @Trpo()', "No configurable matching reference '@Trpo()'"),
        ('Search.learner = @Trpo()', "; did you mean 'TRPO'?"),
        ('Search.learner = @here/RandomSerach()', "; did you mean 'RandomSearch'?"),
        ('Search.children', "expected ':' or '='"),
        ('TfdsImages.dataset = cifar10', "Failed to parse token 'cifar10'"),
        ("Search.children = 'many'", "Search.children = 'many': must be a whole number, at least 1"),
        ('Search.children = 0', 'Search.children = 0: must be a whole number, at least 1'),
        ("SearchSpace.operands = ('g', 'h')", "SearchSpace.operands has 'h': choose from g, g^2"),
        ('SearchSpace.operands = 3', 'SearchSpace'),
        ('TRPO.max_kl = -1', 'TRPO.max_kl = -1: must be > 0'),
        ('TRPO.batch_size = 0', 'TRPO.batch_size = 0'),
        ("ConvNet.filters = 'many'", 'ConvNet'),
        ("Child.learning_rates = ('a',)", "Child.learning_rates = ('a',): must be numbers, above 0, at least one"),
        ('Child.rungs = 3', 'Child.rungs = 3: must be a sequence'),
    ],
)
def test_an_unfit_binding_is_named(binding: str, says: str) -> None:
    with pytest.raises(RunError) as error:
        configured('gin/digits.gin', bindings=(binding,))
    assert says in str(error.value)
    assert '<class' not in str(error.value)


@pytest.mark.parametrize(
    ('bindings', 'says'),
    [
        (
            ("SearchSpace.operands = ('g',)", 'SearchSpace.distinct_operands = True'),
            'no legal rule: SearchSpace.distinct_operands needs two operands',
        ),
        (
            ("SearchSpace.binaries = ('+',)", 'SearchSpace.no_final_addition = True'),
            'no legal rule: SearchSpace.no_final_addition forbids the only binary function',
        ),
    ],
)
def test_a_space_without_rules_is_refused(bindings: tuple[str, ...], says: str) -> None:
    with pytest.raises(RunError, match=says):
        configured('gin/digits.gin', bindings=bindings)


@pytest.mark.parametrize(
    ('content', 'says'),
    [
        (b"include 'gin/nowhere.gin'", "x.gin, line 1 (include 'gin/nowhere.gin'): there is no file gin/nowhere.gin"),
        (b"include 'gin/digits.gin'\nSearch.children = = 3", 'x.gin, line 2 (Search.children = = 3): '),
        (bytes(range(256)), 'x.gin, line 2: is no text in UTF-8'),
    ],
)
def test_an_unreadable_file_is_named(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / 'x.gin').write_bytes(content)
    with pytest.raises(RunError) as error:
        configured(str(tmp_path / 'x.gin'))
    assert says in str(error.value)


def test_a_missing_file_and_missing_bindings_are_named(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RunError, match=r'there is no file gin/nowhere\.gin'):
        configured('gin/nowhere.gin')
    with pytest.raises(RunError, match='Required bindings for `Search`.*task'):
        configured(bindings=('Search.children = 3',))
    assert caplog.records == []


def test_files_are_found_from_another_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mine.gin').write_text("include 'gin/digits.gin'\nSearch.children = 7\n")
    assert configured('gin/digits.gin', 'mine.gin').children == 7


@pytest.mark.parametrize('file', GIN_FILES)
def test_every_file_describes_what_it_is_for(file: str) -> None:
    text = (ROOT / file).read_text()
    is_comparison = 'launch/cifar10.py' in text or (file.endswith('_reduced.gin') and 'launch/search.py' not in text)
    kind = SearchSpace if file.startswith('gin/space_') else Comparison if is_comparison else Search
    kind = Transfer if file.startswith('gin/gnmt_') else kind
    base = PARTS.get(file, [])
    bindings = [f'{name} = {value!r}' for name, value in WANTED.items() if name in text]
    assert isinstance(configured(*base, file, bindings=bindings, root=gin.get_configurable(kind.__name__)), kind)


@pytest.mark.parametrize(('n', 'size'), [(1, 154_880), (2, 250_905_600), (3, 2_222_131_968)])
def test_spaces_have_the_size_that_their_files_state(n: int, size: int) -> None:
    space = configured(f'gin/space_{n}.gin', root=gin.get_configurable('SearchSpace'))
    assert (space.iterations, space.size) == (n, size)
    assert f'{size:,} strings' in (ROOT / f'gin/space_{n}.gin').read_text().splitlines()[0]


def test_the_presets_spell_table_1() -> None:
    spaces = {}
    for n in (2, 3):
        gin.clear_config()
        spaces[n] = configured(f'gin/space_{n}.gin', root=gin.get_configurable('SearchSpace'))
    assert TABLE_1_IN_TOKENS.keys() == {rule.name for rule in TABLE_1}
    depths = []
    for name, tokens in TABLE_1_IN_TOKENS.items():
        rule = UpdateRule.parse(tokens)
        assert rule.canonical() == UpdateRule.parse(name).canonical(), name
        space = spaces[rule.iterations]
        assert space.rule(space.encode(rule)) == rule
        depths.append(rule.iterations)
    assert sorted(depths) == [2] * 15 + [3]


def test_search_gin_holds_the_constants_of_the_paper() -> None:
    search = configured('gin/search.gin')
    assert {name: gin.query_parameter(name) for name in PAPER} == PAPER
    assert search.child.learning_rates == tuple(PAPER['Child.learning_rates'])  # type: ignore[arg-type]
    assert (search.learner.batch_size, search.task.network.filters, search.space.iterations) == (5, 32, 2)
    constants = RuleConstants()
    assert (constants.epsilon, constants.beta_1, constants.beta_2, constants.beta_3) == (1e-8, 0.9, 0.999, 0.999)


def test_the_operative_configuration_describes_the_same_search(tmp_path: Path) -> None:
    search = configured('gin/digits.gin', bindings=('Search.children = 7', "Search.baselines = ('adam',)"))
    (tmp_path / 'config.gin').write_text(gin.operative_config_str())
    gin.clear_config()
    assert configured(str(tmp_path / 'config.gin')) == search


# The end


def test_what_cannot_be_encoded_ends_no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding='ascii') for name in ('stdout', 'stderr')}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)

    def run() -> None:
        print('±')
        raise RunError('±')

    with pytest.raises(Left):
        commandline.main(run)
    assert streams['stdout'].buffer.getvalue() == b'+-\n'
    assert streams['stderr'].buffer.getvalue() == b'error: +-\n'


@pytest.mark.parametrize(
    ('error', 'code', 'says'),
    [
        (BrokenPipeError(), 141, ''),
        (
            OSError(28, 'No space left on device', 'standard output'),
            2,
            "error: [Errno 28] No space left on device: 'standard output'\n",
        ),
    ],
)
@pytest.mark.parametrize('ends', [None, SystemExit(0)])  # the help of argparse
def test_what_nobody_can_have_is_no_traceback(error, code, says, ends, monkeypatch, capsys) -> None:
    """Everything is done when the end finds that what was printed cannot be written."""

    def run() -> None:
        if ends:
            raise ends

    def finish() -> None:
        raise error

    monkeypatch.setattr('nos_tf.output.finish', finish)
    with pytest.raises(Left) as left:
        commandline.main(run)
    assert left.value.args == (code,)
    assert capsys.readouterr() == ('', says)


def leaving(error: BaseException) -> int:
    """The exit code of a launcher that raises."""

    def run() -> None:
        raise error

    with pytest.raises(Left) as left:
        commandline.main(run)
    return left.value.args[0]


@pytest.mark.parametrize(
    ('error', 'code', 'line'),
    [
        (RunError('one\n  line'), 2, 'error: one line'),
        (
            RunError(
                "no run\n  In call to configurable 'best_of' (<f at 0x7>)\n  In call to configurable 'C' (<class>)"
            ),
            2,
            'error: no run (in best_of)',
        ),
        (sqlite3.OperationalError('database is locked'), 2, 'error: database is locked'),
        (FileNotFoundError(2, 'No such file', 'x'), 2, "error: [Errno 2] No such file: 'x'"),
        (BrokenPipeError(), 2, 'stopped, for nobody reads the output any more: the same command goes on from there'),
        (
            KeyboardInterrupt(),
            130,
            'interrupted: what was finished is saved, the same command goes on from there',
        ),
    ],
)
def test_a_mistake_ends_with_one_line(
    error: BaseException, code: int, line: str, capsys: pytest.CaptureFixture
) -> None:
    assert leaving(error) == code
    assert capsys.readouterr().err == f'{line}\n'


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZeroDivisionError):
        commandline.main(lambda: print(1 / 0))
    monkeypatch.setenv('NOS_TF_TRACEBACK', '1')
    with pytest.raises(RunError):
        commandline.main(lambda: (_ for _ in ()).throw(RunError('x')))


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_only_the_first_signal_counts(number: int, capsys: pytest.CaptureFixture) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    closed = []

    def run() -> None:
        try:
            os.kill(os.getpid(), number)
        finally:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGTERM)
            closed.append(True)

    with pytest.raises(Left) as left:
        commandline.main(run)
    assert left.value.args == (130,)
    assert closed == [True]
    assert capsys.readouterr().err.count('\n') == 1


def test_an_ignored_interrupt_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    commandline.main(lambda: os.kill(os.getpid(), signal.SIGINT))


def test_closed_streams_do_not_hide_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('sys.stdout', None)
    monkeypatch.setattr('sys.stderr', None)
    assert leaving(RunError('nobody reads this')) == 2


def test_an_interruption_that_a_destructor_swallows_still_ends_the_process() -> None:
    code = """
import os, signal, time
from nos_tf.cli import commandline
commandline.GRACE = 0.5
class Deaf:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.1)
def run():
    Deaf()
    print('goes on', flush=True)
    time.sleep(60)
commandline.main(run)
"""
    environment = {**os.environ, 'PYTHONPATH': f'{ROOT}{os.pathsep}{ROOT / "launch"}'}
    restored = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731 - as in a terminal
    ended = subprocess.run(
        [sys.executable, '-c', code], env=environment, preexec_fn=restored, capture_output=True, text=True, timeout=50
    )
    assert ended.returncode == commandline.INTERRUPTED and ended.stdout == 'goes on\n'
    assert ended.stderr.splitlines()[-1].startswith('interrupted: ')
