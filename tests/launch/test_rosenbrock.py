"""The Rosenbrock experiment as a person runs it, in small."""

import functools

import pytest

from tests.launching import run_here

launch = functools.partial(run_here, 'rosenbrock', 'run')


def test_it_walks_draws_and_says_what_holds(tmp_path, capsys):
    run_dir = tmp_path / 'new'
    launch('--run_dir', str(run_dir), '--iterations', '50', '--learning_rates', '1e-3', '10', '--rules', 'm * exp(v)')
    out = capsys.readouterr().out.splitlines()
    assert {line.split(' | ')[0] for line in out[2:8]} == {
        f'| {name}' for name in ('PowerSign', 'Adam', 'RMSProp', 'SGD', 'Momentum', 'm * exp(v)')
    }
    assert out[-2].startswith('PowerSign ends ') and out[-1] == str(run_dir / 'rosenbrock.png')
    assert len((run_dir / 'walks.csv').read_text().splitlines()) == 1 + 2 * (5 + 6)


def test_a_walk_far_out_is_drawn(tmp_path, capsys):
    launch('--run_dir', str(tmp_path), '--iterations', '20', '--learning_rates', '0.01')
    assert 'diverged at every rate' in capsys.readouterr().out and (tmp_path / 'rosenbrock.png').stat().st_size > 9999


@pytest.mark.parametrize(
    ('argv', 'said'),
    [
        ((), 'required: --run_dir'),
        (('--rules', 'g +'), 'argument --rules'),
        (('--rules', 'keras.Nothing'), "keras.optimizers has no 'Nothing'"),
        (('--rules', 'g with beta_1=0.5'), 'beta_1 changes nothing: g reads no constant'),
        (('--rules', 'keras.Muon'), 'x and y are no matrix'),
        (('--learning_rates', '-1'), 'argument --learning_rates'),
        (('--learning_rates', '0'), 'must be a positive number'),
        (('--iterations', '0'), 'must be a whole number'),
        (('--start', 'nan', '1'), 'must be a number'),
        (('--start', '1'), 'expected 2 arguments'),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, capsys, argv, said):
    with pytest.raises(SystemExit) as left:
        launch(*(('--run_dir', str(tmp_path)) if argv else ()), *argv)
    assert left.value.code == 2 and said in capsys.readouterr().err
    assert not [*tmp_path.iterdir()]
