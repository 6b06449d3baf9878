"""What the children of a search show, as tables: the best rules, known ones, what the controller came to prefer."""

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from nos_tf.dsl.embedding import ALIKE, distance
from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.dsl.rule import UpdateRule
from nos_tf.report.page import Section
from nos_tf.search.tally import WINDOW, Tally
from nos_tf.store.database import OTHERS
from nos_tf.store.results import Run, best_rules
from nos_tf.store.schema import Row

BEST_RULES = 20
TENTH = 10  # the share of the children at either end that preferences are told of, inverted
TOKENS_OF_AN_ITERATION = 5


class _Seen(NamedTuple):
    """A program in a search."""

    first: Row  # the child that had it first
    times: int


def best_rules_section(rows: Sequence[Row], count: int = BEST_RULES) -> Section:
    """The best distinct programs, spelled in their canonical form."""
    seen, names, best = _seen(rows), _Names(), best_rules(rows, count)
    table = []
    for rank, (rule, reward) in enumerate(best.items(), start=1):
        first, times = seen[' '.join(rule.tokens)]
        rate = '' if first.learning_rate is None else f'{first.learning_rate:g}'
        slots = ', '.join(rule.slots) or 'none'
        name = names.of(first)
        better = itertools.islice(best, rank - 1)
        alike = next((str(i) for i, other in enumerate(better, start=1) if distance(rule, other) < ALIKE), '')
        cells = str(rank), rule.infix, name, alike, f'{reward:.3f}', rate, slots, str(times), str(first.id)
        table.append(list(cells))
    head = 'rank', 'rule', 'known as', 'acts as', 'reward', 'learning rate', 'slots', 'sampled', 'first child'
    says = (
        'Programs that are the same in canonical form count once. One that changes weights on random probes nearly as '
        f'a better one does (distance below {ALIKE}) has its rank under "acts as". A reward is of one seed: the order '
        'among good rules is mostly luck.'
    )
    return Section('The best distinct rules of the search', says, head, table, (0, 3, 4, 5, 7, 8))


def known_rules_section(rows: Sequence[Row]) -> Section:
    """Known optimizers that the search came upon by itself, as the same function."""
    names = _Names()
    found: dict[str, list[Row]] = {}
    for row in rows:
        if name := names.of(row):
            found.setdefault(name, []).append(row)
    table = [
        [name, KNOWN_RULES[name].infix, str(children[0].id), f'{children[0].reward:.3f}', str(len(children))]
        for name, children in sorted(found.items(), key=lambda item: -item[1][0].reward)
    ]
    says = f'{len(found)} of the {len(KNOWN_RULES)} rules that have a name were sampled, in whatever spelling.'
    head = ['name', 'rule', 'first child', 'reward', 'sampled']
    return Section('Known rules that it came upon', says, head, table, (2, 3, 4))


def preferences_section(rows: Sequence[Row]) -> Section:
    """How often the controller chooses each primitive, at the beginning and at the end."""
    count = max(1, len(rows) // TENTH)
    shares = [_shares(part) for part in (rows[:count], rows[-count:])]
    choices = sorted({*shares[0], *shares[1]}, key=lambda c: (c[0], -shares[1].get(c, 0.0), c[1]))
    table = [[kind, token, *(f'{share.get((kind, token), 0.0):.1%}' for share in shares)] for kind, token in choices]
    says = (
        f'The share of each primitive among all choices of its kind, over the first {count} and the last {count} '
        'children, as sampled.'
    )
    head = ['kind', 'primitive', 'at first', 'at last']
    return Section('What the controller came to prefer', says, head, table, (2, 3))


def searches_section(runs: Mapping[str, Run]) -> Section:
    """Searches by name beside the first one."""
    configuration = next(iter(runs.values())).configuration
    table = []
    for name, run in runs.items():
        summary = Tally.of(run.rows).summary()
        differs = sorted(
            k for k, v in run.configuration.items() if (k in configuration or k == OTHERS) and v != configuration.get(k)
        )
        rewards = [f'{summary[key]:.3f}' for key in ('mean_reward_first_100', 'mean_reward_last_100', 'best_reward')]
        told = ', '.join(f'{key} = {json.dumps(run.configuration[key])}' for key in differs)
        seconds = f'{run.seconds:.0f}'
        table.append([name, told, str(summary['children']), str(summary['distinct_rules']), *rewards, seconds])
    says = f'Means are of {WINDOW} children, of fewer in a short search; what belongs to one learner alone is left out.'
    head = ['search', 'differs in', 'sampled', 'distinct', 'mean at first', 'mean at last', 'best reward', 'seconds']
    return Section('Beside other searches', says, head, table, range(2, 8))


def _shares(rows: Iterable[Row]) -> dict[tuple[str, str], float]:
    counts: Counter[tuple[str, str]] = Counter()
    kinds = 'operand', 'operand', 'unary', 'unary', 'binary'
    for row in rows:
        tokens = row.rule.split()
        counts.update(zip(kinds * (len(tokens) // TOKENS_OF_AN_ITERATION), tokens, strict=True))
    totals: Counter[str] = Counter()
    for (kind, _), number in counts.items():
        totals[kind] += number
    return {choice: number / totals[choice[0]] for choice, number in counts.items()}


def _seen(rows: Iterable[Row]) -> dict[str, _Seen]:
    seen: dict[str, _Seen] = {}
    for row in rows:
        before = seen.get(row.program)
        seen[row.program] = _Seen(before.first, before.times + 1) if before else _Seen(row, 1)
    return seen


class _Names:
    """Of known rules, by what they compute."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        for name, known in KNOWN_RULES.items():
            rule = UpdateRule.parse(known.infix).canonical()
            self._names.setdefault(' '.join(rule.tokens), name)
            if not rule.is_stochastic:
                self._names.setdefault(rule.fingerprint(), name)

    def of(self, row: Row) -> str:
        """The name of what a child computes, or ''."""
        return self._names.get(row.program) or self._names.get(row.fingerprint or '', '')
