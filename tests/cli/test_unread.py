"""What is bound on the command line is read by the run, or refused."""

import gin
import pytest

from nos_tf.cli import commandline
from nos_tf.errors import RunError
from nos_tf.search.search import Search


@pytest.fixture(autouse=True)
def clean_slate():
    gin.clear_config()
    yield
    gin.clear_config()


def configured(*bindings, file='gin/digits.gin'):
    argv = ['--run_dir', 'x', '--gin_files', file, '--gin_bindings', *bindings]
    return commandline.configure(commandline.parse_arguments('', argv), Search)


@pytest.mark.parametrize(
    ('bindings', 'name'),
    [
        (('RuleConstants.beta_1 = 0.95',), 'RuleConstants.beta_1'),
        (('Search.children = 3', 'nos_tf.controller.learners.Evolution.population = 7'), 'Evolution.population'),
        (('other/Search.children = 5',), 'other/Search.children'),
        (('Search.seed = 1\nCluster.attempts = 9',), 'Cluster.attempts'),
    ],
)
def test_a_binding_that_nothing_reads_is_refused(bindings, name):
    with pytest.raises(RunError, match=f'--gin_bindings: {name} changes nothing, for nothing in this run is made by @'):
        configured(*bindings)


def test_bindings_that_are_read_have_their_effect():
    search = configured(
        'Child.constants = @RuleConstants()',
        'RuleConstants.beta_1 = 0.95',
        'nos_tf.search.search.Search.children = 3',
        "include 'gin/space_1.gin'",
        'OPERANDS = ("g", "m")\nSearchSpace.operands = %OPERANDS',
        'Search.learner = @narrow/RandomSearch()',
        'narrow/RandomSearch.batch_size = 2',
    )
    assert (search.child.constants.beta_1, search.children, search.learner.batch_size) == (0.95, 3, 2)
    assert search.space.operands == ('g', 'm')


def test_files_may_say_more_than_a_run_reads():
    assert configured('Search.seed = 1', 'Search.learner = @Reinforce()', file='gin/search.gin').seed == 1
