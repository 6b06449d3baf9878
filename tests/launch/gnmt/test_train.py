"""The launcher as a person runs it: in one process with a stop between, and on a cluster where a worker dies."""

import json
import os
import re
import signal

import pytest

from nos_tf.cli import commandline
from gnmt.recipe import Trained
from nos_tf.store.trainings import read_trainings
from tests import launching
from tests.fake_children import wait_until

TINY = (
    'NumberWords.train_examples = 300',
    'NumberWords.validation_examples = 20',
    'NumberWords.test_examples = 20',
    'NumberWords.below = 1000',
    'TranslationRecipe.subwords = 60',
    'TranslationRecipe.batch_size = 25',
    'TranslationRecipe.evaluate_every = 5',
    'Transfer.candidate_steps = 5',
    'Gnmt.units = 16',
    "Transfer.learning_rates = {'keras.Adam': (0.01,), 'others': (0.3,)}",
)


def begin(run_dir, *bindings, files=('gin/gnmt_numbers.gin',), flags=()):
    return launching.start('gnmt/train', run_dir, '--gin_files', *files, '--gin_bindings', *TINY, *bindings, *flags)


@pytest.mark.slow
def test_a_stopped_comparison_goes_on_where_it_was(tmp_path):
    short = (
        'Transfer.evaluator = @ProcessPool()',
        'ProcessPool.workers = 1',
        'TranslationRecipe.steps = 20',
        'Transfer.seeds = 1',
    )
    process = begin(tmp_path / 'run', *short, flags=('--rules', 'powersign'))
    checkpoints = tmp_path / 'run/checkpoints'
    assert wait_until(lambda: len(list(checkpoints.glob('*.npz'))) == 1 or process.poll() is not None, 100)
    process.send_signal(signal.SIGINT)
    code, _, err = launching.finish(process)
    assert code == 130, err
    assert err.endswith('the same command goes on from there\n')
    code, rest, err = launching.finish(begin(tmp_path / 'run', *short, flags=('--rules', 'powersign')))
    assert (code, err) == (0, '')
    assert rest.splitlines()[-1] == str(tmp_path / 'run/report.html')
    done = read_trainings(tmp_path / 'run', Trained)
    for run in done.values():
        assert [point.step for point in run.points] == [5, 10, 15, 20] and run.test_bleu is not None
    told_again = [int(step) for step in re.findall(r': step (\d+) of 20', rest)]
    assert told_again in ([10, 15, 20], [15, 20], [20], [])  # from the checkpoint of step 5, or from one after it


@pytest.mark.parametrize(
    ('bindings', 'said'),
    [
        (('TranslationRecipe.subwords = 999999',), 'a vocabulary of 999999: this text gives at most'),
        (("Transfer.rules = ('nonsense',)",), "'nonsense'"),
        (
            ('TranslationRecipe.corpus = @TextFiles()', "TextFiles.directory = 'nowhere'"),
            "'nowhere': no such directory",
        ),
    ],
)
def test_mistakes_are_told(tmp_path, bindings, said):
    tiny = [binding for binding in TINY if '@TextFiles' not in str(bindings) or not binding.startswith('NumberWords')]
    flags = '--gin_files', 'gin/gnmt_numbers.gin', '--gin_bindings', *tiny, *bindings, '--run_dir', tmp_path / 'run'
    with pytest.raises(commandline.MISTAKES) as caught:
        launching.run_here('gnmt/train', 'transfer', *flags)
    assert said in str(caught.value)


@pytest.mark.slow
def test_a_cluster_trains_though_a_worker_is_killed(tmp_path):
    run_dir = tmp_path / 'run'
    command = [
        str(launching.ROOT / 'launch/gnmt/train.py'),
        '--gin_files',
        'gin/gnmt_numbers.gin',
        'gin/gnmt_cluster.gin',
    ]
    bindings = [*TINY, 'TranslationRecipe.steps = 60', 'TranslationRecipe.evaluate_every = 20']
    process = launching.start(
        'local_cluster', run_dir, '--workers', '2', '--', *command, '--gin_bindings', *bindings, '--rules', 'powersign'
    )
    checkpoints = run_dir / 'checkpoints'
    assert wait_until(lambda: list(checkpoints.glob('*.npz')) or process.poll() is not None, 100)
    pid = json.loads((run_dir / 'logs/cluster.json').read_text())['processes']['worker-1']['pid']
    os.kill(pid, signal.SIGKILL)
    code, out, err = launching.finish(process)
    assert code == 0, err
    (run,) = read_trainings(run_dir, Trained).values()
    assert run.points[-1].step == 60 and run.points[-1].validation_perplexity < run.points[0].validation_perplexity < 60
    assert out.splitlines()[-1] == str(run_dir / 'report.html')
