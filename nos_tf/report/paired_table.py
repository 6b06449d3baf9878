"""Found optimizers against those that have a name, by seed: what beat what, by how much, and how sure that is."""

import math
from collections.abc import Mapping, Sequence

from nos_tf.optimizers.contender import Contender
from nos_tf.report.page import Section
from nos_tf.search.paired import Difference

SAYS = (
    'Of each found rule minus each optimizer that has a name, over the seeds that both have: the mean, half of its 95% '
    'interval by Student’s t, and the probability p of so large a difference by chance (paired t-test). That p is of '
    'one cell alone: of twenty cells without any difference, one is below .05. '
)


def paired_section(of_what: str, scores: Mapping[str, Sequence[float]], digits: int) -> Section | None:
    """A row for each optimizer to be judged, a column for each that it is judged by.

    Where every rule has a name, all rules are judged by the optimizers of Keras.

    Args:
        of_what: the score, such as 'test accuracy, in points'.
        scores: by seed, of each optimizer as text, the best optimizer first.
        digits: after the point.

    Returns:
        None if there is nothing to judge, or nothing to judge it by.
    """
    found = [text for text in scores if not Contender(text).is_known]
    found = found or [text for text in scores if Contender(text).rule]
    named = [text for text in scores if text not in found]
    if not found or not named:
        return None
    table = [[_difference(scores[text], scores[other]) for other in named] for text in found]
    rows = [
        [Contender(text).label, *(_cell(d, digits) for d in differences)]
        for text, differences in zip(found, table, strict=True)
    ]
    head = ['optimizer', *(Contender(other).label for other in named)]
    ahead, behind = (sum(sign * row[0].mean > row[0].half_width for row in table) for sign in (1, -1))
    verdict = (
        f'On the left is the best of the latter, {head[1]}: of {len(found)}, {ahead} {_are(ahead)} ahead of it by more '
        f'than the interval, {behind} {_are(behind)} behind.'
    )
    return Section(f'Differences by seed: {of_what}', SAYS + verdict, head, rows, range(1, len(head)))


def _difference(ours: Sequence[float], theirs: Sequence[float]) -> Difference:
    pairs = min(len(ours), len(theirs))
    return Difference.of(ours[:pairs], theirs[:pairs])


def _cell(difference: Difference, digits: int) -> str:
    cell = f'{difference.mean:+.{digits}f}'
    if not math.isnan(difference.half_width):
        cell += f' ± {difference.half_width:.{digits}f}'
    return cell if math.isnan(difference.p) else f'{cell} (p {difference.p:.2g})'


def _are(count: int) -> str:
    return 'is' if count == 1 else 'are'
