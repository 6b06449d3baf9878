"""The way from a search to a few optimizers (Section 5.2): its best rules, trained longer and longer, fewer and fewer.

The searches leave many rules that do well for a few epochs; a `Comparison` with rungs stops those that show less
promise, and tells how well each stage foretells the next.
"""

from pathlib import Path

import gin

from nos_tf.store.results import best_rules, read_results


@gin.register
def best_of_search(run_dir: str = gin.REQUIRED, count: int = 24, apart: float = 0.0) -> dict[str, float]:
    """The best distinct rules of a search with their rewards, the best first.

    Args:
        run_dir: of the search, which may be under way.
        count: of rules, at most.
        apart: how differently, at least, a rule changes weights from each better one, as the root mean square over
            probes of updates of mean square 1 (`nos_tf.dsl.embedding.distance`); 0: all that are not the same count.

    Raises:
        RunError: no search has run there.
        ValueError: the count or the distance is unfit.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f'best_of_search.count = {count!r}: must be a whole number, at least 1')
    if isinstance(apart, bool) or not isinstance(apart, int | float) or not 0 <= apart <= 2:
        raise ValueError(f'best_of_search.apart = {apart!r}: must be a number from 0 to 2')
    return {rule.infix: reward for rule, reward in best_rules(read_results(Path(run_dir)), count, apart).items()}
