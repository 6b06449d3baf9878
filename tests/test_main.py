"""`python -m nos_tf RULE`: what it prints is asserted line by line."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from matplotlib.image import imread

from nos_tf.__main__ import main
from nos_tf.dsl.known import KNOWN_RULES, LearningRate, read_learning_rates
from nos_tf.optimizers.export import export

ROOT = Path(__file__).parents[1]
POWERSIGN = r"""
infix           g * exp(sign(g) * sign(m))
tokens          sign(g) sign(m) x x * g t1 x exp *
LaTeX           g \cdot e^{\operatorname{sign}(g) \cdot \operatorname{sign}(\hat{m})}
iterations      2
slots           m: 4 bytes per parameter in float32 (Adam: 8)
stochastic      no
reads gradient  yes
canonical form  g * exp(sign(g) * sign(m))
                sign(g) sign(m) x x * g t1 x exp *
direction       g * exp(sign(g) * sign(m))
language        version 1
equals          powersign (by canonical form)
""".lstrip()

NOT_A_CHARACTER = 'no rule contains this character: write words, numbers, brackets and + - * / ^'


def printed(capsys: pytest.CaptureFixture, *argv: str) -> str:
    """Standard output of a command that succeeds and complains of nothing."""
    assert main(argv) == 0
    out, err = capsys.readouterr()
    assert err == ''
    return out


def values(capsys: pytest.CaptureFixture, *argv: str) -> dict[str, str]:
    """Label -> value; the tokens of the canonical form have an empty label."""
    return {line[:16].strip(): line[16:] for line in printed(capsys, *argv).splitlines()}


@pytest.mark.parametrize(
    'argv',
    [
        ['powersign'],
        ['PowerSign'],
        ['g * exp(sign(g) * sign(m))'],
        ['g', '*', 'exp(sign(g)', '*', 'sign(m))'],
        ['g * e^{sign(g)*sign(m\u0302)}'],
        ['sign(g) sign(m) x x * g t1 x exp *'],
        ['sign(g)', 'sign(m)', 'x', 'x', '*', 'g', 't1', 'x', 'exp', '*'],
    ],
)
def test_powersign_in_all_notations(argv, capsys):
    assert printed(capsys, *argv) == POWERSIGN


def test_adam(capsys):
    found = values(capsys, 'adam')
    assert found['slots'] == 'm v: 8 bytes per parameter in float32 (Adam: 8)'
    assert found['tokens'] == 'adam adam x x left'
    assert found['LaTeX'] == r'\text{ADAM}'
    assert found['equals'] == 'adam (by canonical form)'


def test_a_stochastic_rule(capsys):
    found = values(capsys, 'drop(m, 0.3) + g')
    assert found == {
        'infix': 'drop(m, 0.3) + g',
        'tokens': 'm g drop(0.3) x +',
        'LaTeX': r'\operatorname{drop}(\hat{m}, 0.3) + g',
        'iterations': '1',
        'slots': 'm: 4 bytes per parameter in float32 (Adam: 8)',
        'stochastic': 'yes',
        'reads gradient': 'yes',
        'canonical form': 'g + drop(m, 0.3)',
        '': 'g m x drop(0.3) +',
        'direction': 'g + drop(m, 0.3)',
        'language': 'version 1',
        'equals': 'sgd_plus_drop30_momentum (by canonical form)',
    }


def test_a_stochastic_rule_is_equal_by_canonical_form_only(capsys):
    found = values(capsys, 'drop(g, 0.3) * exp(sign(g * m))')  # drop30_powersign, were it not for sign(g * m)
    assert found['equals'] == 'no known rule'


def test_a_rule_that_only_its_fingerprint_betrays(capsys):
    found = values(capsys, 'g * exp(sign(g * m))')
    assert found['canonical form'] == 'g * exp(sign(g * m))'
    assert found['equals'] == 'powersign (by fingerprint)'


def test_a_rule_that_is_another_but_for_its_rate(capsys):
    found = values(capsys, 'lerp(adam + adam, adam + adam)')
    assert (found['direction'], found['language']) == ('adam, 2 times', 'version 2')
    assert found['equals'] == 'adam (2 times, by direction)'


def test_slots_are_those_of_the_canonical_form(capsys):
    found = values(capsys, 'v gamma x x * g m x x left')
    assert found['iterations'] == '2'
    assert found['slots'] == 'none: 0 bytes per parameter in float32 (Adam: 8)'
    assert (found['canonical form'], found['']) == ('g', 'g g x x left')
    assert found['equals'] == 'sgd (by canonical form)'


def test_a_rule_without_a_gradient(capsys):
    found = values(capsys, '1e-3*w + noise')
    assert (found['reads gradient'], found['stochastic'], found['equals']) == ('no', 'yes', 'no known rule')


@pytest.mark.parametrize(
    ('argv', 'tokens'),
    [
        (['-g'], 'g g -x x left'),
        (['--', '-g'], 'g g -x x left'),
        (['-g * m'], 'g m -x x *'),
        (['-1e-3*w'], '1e-3*w 1e-3*w -x x left'),
        (['--', '--g'], 'g g -x x left t1 t1 -x x left'),
        (['g', 'm', 'x', '-x', '-'], 'g m x -x -'),
    ],
)
def test_rules_with_a_minus_are_no_options(argv, tokens, capsys):
    assert values(capsys, *argv)['tokens'] == tokens


def test_a_long_rule_stays_on_one_line(capsys):
    rule = 'm' + ' * sign(drop(sign(drop(g, 0.1)), 0.1))' * 6
    found = values(capsys, rule)
    assert len(rule) > 200
    assert found['infix'] == rule
    assert len(found) == 12


def test_the_known_rules(capsys):
    table, notes = printed(capsys, '--list').split('\n\n')
    header, *rows = [line.rstrip() for line in table.splitlines()]
    tasks = list(dict.fromkeys(row.task for row in read_learning_rates()))
    assert header.split() == ['name', 'infix', 'slots', 'language', *tasks]
    assert [row.split()[0] for row in rows] == list(KNOWN_RULES)
    assert len(rows) == 29
    assert max(map(len, (header, *rows, *notes.splitlines()))) <= 130
    assert all(known.source in ' '.join(notes.split()) for known in KNOWN_RULES.values())


def test_the_known_rules_with_what_was_found_for_tasks(capsys, monkeypatch):
    found = [('digits', 'sgd', 0.1), ('cifar10', 'powersign', 1e-5), ('fashion_mnist', 'sgd', 10.0)]
    rates = [LearningRate(task, rule, rate, 0.5, 0.1, 3) for task, rule, rate in found]
    monkeypatch.setattr('nos_tf.__main__.read_learning_rates', lambda: rates)
    header, *rows = printed(capsys, '--list').split('\n\n')[0].splitlines()
    assert header.split() == ['name', 'infix', 'slots', 'language', 'digits', 'cifar10', 'fashion_mnist']
    assert max(map(len, (header, *rows))) <= 130
    ends = [header.index(task) + len(task) for task in ('digits', 'cifar10', 'fashion_mnist')]
    cells = {row.split()[0]: [row[end - 6 : end].strip() for end in ends] for row in rows}
    assert cells.pop('sgd') == ['0.1', '', '10']
    assert cells.pop('powersign') == ['', '1e-05', '']
    assert set(map(tuple, cells.values())) == {('', '', '')}


def test_a_picture(tmp_path, capsys):
    path = tmp_path / 'out.png'
    assert printed(capsys, 'powersign', '--plot', str(path)) == f'{POWERSIGN}picture         {path}\n'
    pixels = imread(path)
    assert pixels.shape == (572, 1210, 4)


@pytest.mark.parametrize(
    ('name', 'says'),
    [
        ('out.doc', r'error: .*out\.doc has the suffix \.doc: a picture has one of .*\.png, .*'),
        ('none/out.png', r'error: cannot write .*out\.png \(No such file or directory\): name a file in a .*'),
    ],
)
def test_a_picture_that_cannot_be_is_one_line(name, says, tmp_path, capsys):
    assert main(['powersign', '--plot', str(tmp_path / name)]) == 2
    out, err = capsys.readouterr()
    assert out == ''
    assert re.fullmatch(says + '\n', err)
    assert list(tmp_path.iterdir()) == []


def test_the_source_of_an_optimizer(capsys):
    assert printed(capsys, 'powersign', '--export', 'torch') == export('powersign', 'torch')
    assert printed(capsys, '-g', '*', 'm', '--export', 'keras', '--name', 'Mine') == export('-g * m', 'keras', 'Mine')


@pytest.mark.parametrize(
    ('argv', 'says'),
    [
        (['exp(g'], "error: cannot read the rule 'exp(g' at its end: expected ')'"),
        (['g', '+', '?'], "error: cannot read the rule 'g + ?' at character 5 ('?'): " + NOT_A_CHARACTER),
        (['-g?'], "error: cannot read the rule '-g?' at character 3 ('?'): " + NOT_A_CHARACTER),
        (['g\n+ ?'], r"error: cannot read the rule 'g\n+ ?' at character 5 ('?'): " + NOT_A_CHARACTER),
        (
            ['g', 'm', '-x'],
            'error: 3 tokens (g m -x): a rule has 5 for each iteration (op1 op2 u1 u2 b), and 1 to 10 iterations',
        ),
        (
            [''],
            'error: an empty text is no rule: write tokens, an infix expression or the name of a known rule',
        ),
        (
            ['g', '--export', 'optax', '--name', 'a b'],
            "error: 'a b' cannot name the optimizer: give an identifier that its source does not use itself",
        ),
    ],
)
def test_a_mistake_is_one_line(argv, says, capsys):
    assert main(argv) == 2
    assert capsys.readouterr() == ('', f'{says}\n')


@pytest.mark.parametrize(
    ('argv', 'says'),
    [
        ([], 'give a rule, or --list, not both'),
        (['powersign', '--list'], 'give a rule, or --list, not both'),
        (['--list', '--plot', 'a.png'], '--plot goes with a rule'),
        (['--list', '--export', 'torch'], '--export goes with a rule, and --name with --export'),
        (['g', '--name', 'Mine'], '--export goes with a rule, and --name with --export'),
        (['--lst'], 'unrecognized arguments: --lst'),
    ],
)
def test_an_unfit_command_shows_the_usage(argv, says, capsys):
    with pytest.raises(SystemExit, match='^2$'):
        main(argv)
    out, err = capsys.readouterr()
    assert out == ''
    assert err.startswith('usage: python -m nos_tf ')
    assert err.endswith(f'error: {says}\n')


def test_help_has_an_example(capsys):
    with pytest.raises(SystemExit, match='^0$'):
        main(['--help'])
    assert "Example: python -m nos_tf 'g * exp(sign(g) * sign(m))'" in capsys.readouterr().out


def test_the_module_is_a_command():
    command = [sys.executable, '-m', 'nos_tf', 'powersign']
    talkative = {name: value for name, value in os.environ.items() if name != 'TF_CPP_MIN_LOG_LEVEL'}
    run = subprocess.run(command, cwd=ROOT, env=talkative, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, POWERSIGN, '')


@pytest.mark.parametrize(
    ('redirection', 'code', 'says'),
    [
        ('| true', 141, ''),  # a reader that has gone: as any command that SIGPIPE ends
        ('> /dev/full', 2, "error: [Errno 28] No space left on device: 'standard output'\n"),
        ('>&-', 0, ''),
    ],
)
def test_nobody_has_to_read_what_it_prints(redirection, code, says):
    script = f'"$0" -m nos_tf powersign {redirection}; exit ${{PIPESTATUS[0]}}'
    environment = {**os.environ, 'PYTHONUNBUFFERED': ''}
    command = ['bash', '-c', script, sys.executable]
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (code, '', says)


@pytest.mark.parametrize('command', ['import keras, nos_tf', 'from nos_tf import NOSOptimizer; import keras'])
def test_who_imports_the_package_can_load_models(command):
    """Keras finds the class of a saved optimizer only if it has been imported."""
    code = f'{command}; print(keras.saving.get_registered_object("nos_tf>NOSOptimizer").__name__)'
    run = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.stdout == 'NOSOptimizer\n', run.stderr


def test_a_library_that_fails_is_named_where_a_name_of_the_package_is_asked_for(monkeypatch):
    """Python takes an AttributeError for our saying that there is no such name, and forgets what it was."""
    import nos_tf

    def fail(module):
        raise AttributeError("'NoneType' object has no attribute 'replace'")

    monkeypatch.setattr('nos_tf.import_module', fail)
    monkeypatch.delitem(vars(nos_tf), 'Search', raising=False)
    with pytest.raises(
        ImportError, match=r"nos_tf.Search cannot be imported: AttributeError: 'NoneType' object"
    ) as error:
        from nos_tf import Search  # noqa: F401
    assert isinstance(error.value.__cause__, AttributeError)
    with pytest.raises(AttributeError, match="module 'nos_tf' has no attribute 'Serch'"):
        nos_tf.Serch  # noqa: B018


def test_the_package_is_light_and_has_all_of_its_names():
    code = 'import sys, nos_tf; '
    code += 'print("keras" in sys.modules, nos_tf.NOSOptimizer("adam").rule, nos_tf.Search.__name__)'
    run = subprocess.run([sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.stdout == 'False adam Search\n', run.stderr
