import json

import pytest

from nos_tf.errors import RunError
from nos_tf.evaluation.cluster.config import ClusterConfig, check_used

CLUSTER = {'worker': ['10.0.0.1:2222', 'host-2:2222'], 'ps': ['[fd00::2]:1'], 'chief': ['localhost:65535']}


def read(cluster=CLUSTER, kind='worker', index=0, **more):
    text = json.dumps({'cluster': cluster, 'task': {'type': kind, 'index': index}, **more})
    return ClusterConfig.read({'TF_CONFIG': text})


def complaint(text):
    with pytest.raises(RunError) as error:
        ClusterConfig.read({} if text is None else {'TF_CONFIG': text})
    assert '\n' not in str(error.value)
    assert 'TF_CONFIG' in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(
    'kind, index, address',
    [
        ('worker', 0, '10.0.0.1:2222'),
        ('worker', 1, 'host-2:2222'),
        ('ps', 0, '[fd00::2]:1'),
        ('chief', 0, 'localhost:65535'),
    ],
)
def test_each_process_learns_the_cluster_and_its_place(kind, index, address):
    config = read(kind=kind, index=index, environment='cloud')
    assert config == ClusterConfig(('10.0.0.1:2222', 'host-2:2222'), ('[fd00::2]:1',), 'localhost:65535', kind, index)
    assert config.address == address
    assert config.cluster == CLUSTER
    assert ClusterConfig.read({'TF_CONFIG': config.tf_config()}) == config


def test_the_environment_of_the_process_is_read(monkeypatch):
    monkeypatch.setenv('TF_CONFIG', json.dumps({'cluster': CLUSTER, 'task': {'type': 'ps', 'index': 0}}))
    assert ClusterConfig.read().task == 'ps'


def test_the_chief_may_be_left_out_and_an_index_may_be_a_string():
    config = read({'worker': ['a:1', 'b:1'], 'ps': ['c:1']}, index='1')
    assert (config.chief, config.index, config.address) == (None, 1, 'b:1')
    assert json.loads(config.tf_config())['cluster'] == {'worker': ['a:1', 'b:1'], 'ps': ['c:1']}


@pytest.mark.parametrize(
    'text, says',
    [
        (None, 'is not set'),
        ('  ', 'is not set'),
        ('{', 'no JSON'),
        ('[' * 100_000, 'no JSON'),
        ('[1]', '[1]: must be an object'),
        ('{"task": {}}', '"cluster" is null: must be an object'),
        ('{"cluster": {"worker": ["a:1"], "ps": ["b:1"]}}', '"task" is null: must be an object'),
    ],
)
def test_what_is_no_configuration_is_refused(text, says):
    assert says in complaint(text)


@pytest.mark.parametrize(
    'change, says',
    [
        ({'evaluator': ['x:1']}, 'job "evaluator": choose from worker, ps, chief'),
        ({'worker': []}, 'no worker'),
        ({'ps': []}, 'no ps'),
        ({'ps': None}, '"ps" is null: must be a list'),
        ({'worker': 'a:1'}, '"worker" is "a:1": must be a list'),
        ({'worker': [7]}, '"worker" has 7: must be "host:port"'),
        ({'chief': ['x:1', 'y:1']}, 'one chief at most'),
        ({'ps': ['HOST-2:2222']}, '"HOST-2:2222" occurs twice'),
        *(
            ({'ps': [address]}, f'"ps" has {json.dumps(address)}: must be "host:port" with a port from 1 to 65535')
            for address in ('a', 'a:', ':1', 'a:0', 'a:65536', 'a:1x', 'fd00::2:1', 'grpc://a:1', 'a b:1', '[x]:1')
        ),
    ],
)
def test_an_unfit_cluster_is_refused(change, says):
    text = json.dumps({'cluster': {**CLUSTER, **change}, 'task': {'type': 'worker', 'index': 0}})
    assert says in complaint(text)


@pytest.mark.parametrize(
    'task, says',
    [
        ({'index': 0}, 'task type null: choose from worker, ps, chief'),
        ({'type': 'master', 'index': 0}, 'task type "master": choose from'),
        ({'type': ['worker'], 'index': 0}, 'task type ["worker"]: choose from'),
        ({'type': 'worker'}, 'index null of "worker": must be a whole number from 0 to 1'),
        ({'type': 'worker', 'index': 2}, 'index 2 of "worker"'),
        ({'type': 'worker', 'index': -1}, 'index -1 of "worker"'),
        ({'type': 'worker', 'index': True}, 'index true of "worker"'),
        ({'type': 'worker', 'index': 0.0}, 'index 0.0 of "worker"'),
        ({'type': 'worker', 'index': '1x'}, 'index "1x" of "worker"'),
    ],
)
def test_an_unfit_task_is_refused(task, says):
    assert says in complaint(json.dumps({'cluster': CLUSTER, 'task': task}))


def test_a_chief_without_an_address_is_refused():
    text = json.dumps({'cluster': {'worker': ['a:1'], 'ps': ['b:1']}, 'task': {'type': 'chief', 'index': 0}})
    assert '"cluster" has no address for "chief"' in complaint(text)


def test_a_cluster_that_would_be_idle_is_refused(monkeypatch):
    monkeypatch.setenv('TF_CONFIG', '{}')
    check_used(True, 'add it')
    with pytest.raises(RunError, match='TF_CONFIG names a cluster that would be idle: add it, or unset it'):
        check_used(False, 'add it')
    monkeypatch.delenv('TF_CONFIG')
    check_used(False, 'add it')
