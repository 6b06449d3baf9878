"""Found optimizers against those that have a name, by seed: what beat what, by how much, and how sure that is."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from nos_tf.compare.paired import Difference
from nos_tf.optimizers.contender import Contender
from nos_tf.report.page import Section, spread

SAYS = (
    'Of each found rule minus each optimizer that has a name, over the seeds that both have: the mean, half of its 95% '
    'interval by Student’s t, and the probability p of so large a difference by chance (paired t-test). That p is of '
    'one cell alone: of twenty cells without any difference, one is below .05. Those with fewer seeds than others come '
    'last. '
)
SAYS_OF_ALL = (
    'Of each comparison the optimizer that is best on validation among those that have a name, and among those that '
    'were found (of those with the most seeds), with mean and standard deviation of what is judged; the latter minus '
    'the former over the seeds that both have, as below; and how many of those that were found are ahead of the '
    'former by more than the interval, and how many behind.'
)


class Scores(NamedTuple):
    """What the optimizers of a comparison are judged by."""

    of_what: str  # such as 'test accuracy, in points'
    by_seed: Mapping[str, Sequence[float]]  # of each optimizer as text, the one that is best on validation first


class _Judged(NamedTuple):
    found: list[str]  # the best first, of those with the most seeds
    named: list[str]  # likewise
    differences: list[list[Difference]]  # of each of the former from each of the latter

    @classmethod
    def of(cls, by_seed: Mapping[str, Sequence[float]]) -> '_Judged | None':
        """None if there is nothing to judge, or nothing to judge it by."""
        found = [text for text in by_seed if not Contender(text).is_known]
        found = found or [text for text in by_seed if Contender(text).rule]
        named = [text for text in by_seed if text not in found]
        if not found or not named:
            return None
        # the mean of fewer seeds is best too easily by luck
        found, named = (sorted(texts, key=lambda text: -len(by_seed[text])) for texts in (found, named))
        return cls(found, named, [[_difference(by_seed[ours], by_seed[other]) for other in named] for ours in found])

    def beyond_interval(self, sign: int) -> int:
        """How many that were found are better (1) or worse (-1) than the best that has a name by more than that."""
        return sum(sign * row[0].mean > row[0].half_width for row in self.differences)


def paired_section(scores: Scores) -> Section | None:
    """A row for each optimizer to be judged, a column for each that it is judged by.

    Where every rule has a name, all rules are judged by the optimizers of Keras.

    Returns:
        None if there is nothing to judge, or nothing to judge it by.
    """
    judged = _Judged.of(scores.by_seed)
    if judged is None:
        return None
    rows = [
        [Contender(text).label, *map(_cell, differences)]
        for text, differences in zip(judged.found, judged.differences, strict=True)
    ]
    head = ['optimizer', *(Contender(other).label for other in judged.named)]
    ahead, behind = judged.beyond_interval(1), judged.beyond_interval(-1)
    verdict = (
        f'On the left is the best of the latter, {head[1]}: of {len(rows)}, {ahead} {_are(ahead)} ahead of it by more '
        f'than the interval, {behind} {_are(behind)} behind.'
    )
    return Section(f'Differences by seed: {scores.of_what}', SAYS + verdict, head, rows, range(1, len(head)))


def overview_section(compared: Mapping[str, Scores]) -> Section | None:
    """A row for each comparison, by its name: the best found optimizer against the best that has a name.

    Returns:
        None if no comparison has both.
    """
    rows = []
    for name, scores in compared.items():
        if judged := _Judged.of(scores.by_seed):
            first = judged.named[0], judged.found[0]
            best = [f'{Contender(text).label}: {spread(scores.by_seed[text], 1)}' for text in first]
            counts = [str(judged.beyond_interval(sign)) for sign in (1, -1)]
            seeds = min(len(scores.by_seed[text]) for text in first)
            rows.append([name, scores.of_what, *best, str(seeds), _cell(judged.differences[0][0]), *counts])
    numbers = 'seeds', 'difference', 'found ahead', 'found behind'
    head = ['comparison', 'judged by', 'best with a name', 'best found', *numbers]
    return Section('What beat what', SAYS_OF_ALL, head, rows, range(4, len(head))) if rows else None


def _difference(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    pairs = min(len(ours), len(theirs))
    return Difference.of(ours[:pairs], theirs[:pairs])


def _cell(difference: Difference) -> str:
    cell = f'{difference.mean:+.1f}'
    if not math.isnan(difference.half_width):
        cell += f' ± {difference.half_width:.1f}'
    return cell if math.isnan(difference.p) else f'{cell} (p {difference.p:.2g})'


def _are(count: int) -> str:
    return 'is' if count == 1 else 'are'
