"""From a search to a comparison."""

import pytest

from nos_tf.compare.funnel import best_of_search
from nos_tf.dsl.rule import UpdateRule
from nos_tf.errors import RunError
from tests.report.test_report import REWARDS, RULES, fill


def test_the_best_rules_as_text_that_means_them(tmp_path):
    fill(tmp_path)
    best = best_of_search(str(tmp_path), 2)
    assert list(best.values()) == sorted(set(REWARDS), reverse=True)[:2]
    assert [UpdateRule.parse(text) for text in best] == [UpdateRule.parse(RULES[i]).canonical() for i in (1, 0)]
    assert len(best_of_search(str(tmp_path), 100)) == 4


def test_of_rules_that_do_alike_the_best_is_enough(tmp_path):
    fill(tmp_path)
    names = [list(best_of_search(str(tmp_path), count, apart)) for count, apart in ((9, 0.0), (9, 0.2), (2, 0.2))]
    assert names[0] == ['g * exp(sign(g) * sign(m))', 'g', 'exp(g)', 'noise']
    assert names[1] == ['g * exp(sign(g) * sign(m))', 'exp(g)', 'noise'] and names[2] == names[1][:2]


def test_what_cannot_be_is_named(tmp_path):
    with pytest.raises(RunError, match='holds no results.sqlite'):
        best_of_search(str(tmp_path))
    with pytest.raises(ValueError, match='best_of_search.count = 0'):
        best_of_search(str(tmp_path), 0)
    for apart in (-0.1, 2.5, float('nan'), True, '1'):
        with pytest.raises(ValueError, match='best_of_search.apart = '):
            best_of_search(str(tmp_path), 5, apart)
