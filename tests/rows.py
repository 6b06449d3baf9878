"""Rows of a store for the tests of what tells about them, without a store."""

import json

from nos_tf.dsl.rule import UpdateRule
from nos_tf.store.schema import Row


def make_row(reward, rule='g', id=0, origin='trained'):
    """A child with this reward; five make a batch."""
    parsed = UpdateRule.parse(rule)
    tokens, program = (' '.join(r.tokens) for r in (parsed, parsed.canonical()))
    fingerprint = None if parsed.is_stochastic else parsed.fingerprint()
    sweep = json.dumps([0.1, reward])
    return Row(id, id // 5, id // 5, tokens, program, reward, 0.1, sweep, 1.5, 0, -3.25, origin, fingerprint)


def make_rows(rewards, rules=('g',)):
    """Children with these rewards, whose rules come in turn."""
    return [make_row(reward, rules[i % len(rules)], i) for i, reward in enumerate(rewards)]
