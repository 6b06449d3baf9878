"""The paper's table names optimizers that there are, and each row is in itself as it must be."""

import numpy as np

from nos_tf.dsl.known import TABLE_1 as RULES
from nos_tf.optimizers.contender import Contender
from nos_tf.report.paper import FIGURES_5_AND_7, TABLE_1


def test_it_has_the_sixteen_rules_and_four_optimizers_of_keras():
    rules = [text for text in TABLE_1 if Contender(text).rule]
    assert rules == [rule.name for rule in RULES]
    assert len(TABLE_1) == 20 and set(FIGURES_5_AND_7) <= set(TABLE_1)


def test_the_best_is_not_worse_than_the_last_and_the_columns_sum_to_those_of_the_paper():
    values = np.array(list(TABLE_1.values()))
    assert values.shape == (20, 4) and (values[:, 2] >= values[:, 0]).all()
    # of the columns as printed
    np.testing.assert_allclose(values.sum(0), [1851.5, 1843.4, 1864.8, 1847.1], atol=0.01)
