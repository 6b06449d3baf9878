"""A chief for test_cluster.py: `local_cluster.py ... -- cluster_run.py OUT KEY=VALUE ...`.

Its children are graphs that train nothing, and misbehave where their seed says so. What became of them goes to OUT.
"""

import json
import os
import sys
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / 'launch')]

ENDLESS, FAILS = 1000, 1001  # seeds


def main() -> None:
    """Has jobs done, one for each seed."""
    out, *settings = sys.argv[1:]
    told = dict(setting.split('=') for setting in settings)
    os.environ.update({name: value for name, value in told.items() if name.isupper()})
    import tensorflow as tf

    from nos_tf.cli import commandline
    from nos_tf.dsl.rule import UpdateRule
    from nos_tf.dsl.vocabulary import Vocabulary
    from nos_tf.evaluation.cluster.cluster import Cluster
    from nos_tf.evaluation.jobs import Job
    from nos_tf.evaluation.machine import use_one_cpu_thread
    from nos_tf.tasks.child import Outcome

    class Fake:
        """A trainer of one iteration."""

        def __init__(self) -> None:
            self.data = (tf.constant([1.0, 2.0]), tf.constant([3]))
            self.task, self.chance, self.vocabulary = None, 0.1, Vocabulary(1)
            self.measures, self.ids_of = 2, self.vocabulary.ids_of

        def start(self, seed):
            return tf.constant([seed], tf.float32), ()

        def graph(self, token_ids, seed, start, data):
            (values, _), steps = data, tf.where(seed == ENDLESS, 2**31 - 1, 100)
            total = tf.while_loop(lambda i, _: i < steps, lambda i, x: (i + 1, x + 1e-9), (0, values[0]))[1]
            with tf.control_dependencies([tf.debugging.assert_none_equal(seed, FAILS, message='as the seed wishes')]):
                reward = start[0][0] / 100 + 0.0 * total
            return reward, tf.constant(1), tf.stack([reward, values[1]])

        def outcome(self, rule, reward, rate, accuracies, seconds):
            return Outcome(float(reward), 0.1 * int(rate), tuple(map(float, accuracies)), seconds)

    def run() -> None:
        use_one_cpu_thread()
        cluster = Cluster(child_seconds=float(told.get('limit', 60)), attempts=2, start_seconds=60.0)
        cluster.start(SimpleNamespace(trainer=Fake))
        rule = UpdateRule.parse('g * exp(m)').canonical()
        jobs = [Job(rule, int(seed)) for seed in told['seeds'].split(',')]
        for job in jobs:
            cluster.submit(job)
        ended: list = []
        while found := cluster.collect():
            ended += [(job.seed, *outcome[:3], outcome.origin) for job, outcome in found]
        Path(out).write_text(json.dumps({'ended': ended, 'status': cluster.status(), 'workers': cluster.workers}))
        cluster.close()

    commandline.main(run)


if __name__ == '__main__':
    main()
