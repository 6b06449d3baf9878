"""Schedules of the learning rate against those of Keras."""

import keras
import numpy as np
import pytest

from nos_tf.optimizers.schedule import Schedule

schedules = keras.optimizers.schedules
STEPS = np.arange(25)


@pytest.mark.parametrize(
    ('kind', 'theirs'),
    [
        ('linear', schedules.PolynomialDecay(0.3, 20, end_learning_rate=0.0)),
        ('cosine', schedules.CosineDecay(0.3, 20)),
        ('constant', lambda step: 0.3),
    ],
)
def test_without_a_warm_up_they_are_those_of_keras(kind, theirs):
    ours = Schedule(0.3, 20, kind)
    np.testing.assert_allclose([float(ours(t)) for t in STEPS], [float(theirs(t)) for t in STEPS], atol=1e-7)


def test_a_warm_up_rises_to_the_rate_and_no_higher():
    np.testing.assert_allclose([float(Schedule(1.0, 100, warmup_steps=4)(t)) for t in (0, 1, 3, 4)], [0.25, 0.5, 1, 1])


def test_they_travel_with_a_model():
    ours = Schedule(0.3, 20, 'cosine', 5)
    assert schedules.deserialize(schedules.serialize(ours)) == ours
    with pytest.raises(ValueError, match=r"Schedule.kind = 'step': choose from constant, linear, cosine"):
        Schedule(0.3, 20, 'step')
