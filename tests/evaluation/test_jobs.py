"""What evaluators share: patience with failures, and reasons in one line."""

import pytest

from nos_tf.dsl.rule import UpdateRule
from nos_tf.errors import RunError
from nos_tf.evaluation.jobs import Job, Patience, reason

JOB = Job(UpdateRule.parse('g').canonical(), 0)


def test_the_same_failure_so_many_times_is_an_end_and_each_job_has_its_own_count():
    patience = Patience(2)
    patience.fail('no luck', JOB)
    patience.fail('no luck')
    with pytest.raises(RunError, match='no luck; nothing is lost, the same command goes on'):
        patience.fail('no luck', JOB)
    patience.failures.clear()
    patience.fail('no luck', JOB)


def test_a_reason_is_one_line_that_keeps_both_ends():
    assert reason(ValueError('two\n  lines')) == 'ValueError: two lines'
    long = reason(ValueError('begin ' + 'x' * 1000 + ' end'))
    assert long.startswith('ValueError: begin') and long.endswith(' end') and ' ... ' in long and len(long) < 450
