"""The best rules of `evolve.py` and the best optimizers made by hand, on seeds that the search has not seen.

The images are those that chose, and the best of many rules on these seeds are flattered by them: an interval is of one
row alone.

python benchmarks/accelerator/table.py docs/results/search_cifar10_accelerator/long.json
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from nos_tf import output
from nos_tf.compare.paired import Difference, half_width
from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.dsl.rule import UpdateRule
from nos_tf.report.page import markdown

HEAD = ['rule', 'in the search', 'accuracy again', 'against the best by hand', 'learning rates']


def main() -> None:
    """Prints the table as Markdown."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').partition('\n')[0])
    parser.add_argument('result', type=Path, help='a JSON file')
    parser.add_argument('--best', type=int, default=12, help='found rules')
    parser.add_argument('--by_hand', type=int, default=12, help='others')
    arguments = parser.parse_args()
    found = json.loads(arguments.result.read_text(encoding='utf-8'))
    print(markdown(HEAD, list(rows(found, arguments.best, arguments.by_hand)), range(1, 4)))


def rows(found: dict[str, Any], best: int, by_hand: int) -> Iterable[list[str]]:
    """A row for each optimizer, the best mean first.

    Args:
        found: what `evolve.py` left.
        best: how many found rules.
        by_hand: how many others.
    """
    trained, trained_again = (_by_text(found[key]) for key in ('rewards', 'rewards again'))
    again = {text: np.array([reward for _, _, reward, *_ in runs]) for text, runs in trained_again.items()}
    ranked = sorted(again, key=lambda text: -again[text].mean())
    known = [text for text in ranked if text.startswith('keras.') or text in KNOWN_RULES]
    ours = [text for text in ranked if len(text.split()) % 5 == 0 and text not in known]
    shown = {*ours[:best], *known[:by_hand]}
    for text in (text for text in ranked if text in shown):
        values = again[text]
        difference = Difference.of(values, again[known[0]])
        reward = f'{np.mean([run[2] for run in trained[text]]):.1%}' if text in ours else ''
        rates = sorted({rate for run in trained_again[text] for rate in run[4]})
        yield [
            UpdateRule.parse(text).infix if text in ours else text,
            reward,
            f'{values.mean():.1%} ± {half_width(values):.1%}',
            f'{100 * difference.mean:+.1f} ± {100 * difference.half_width:.1f}',
            ', '.join(f'{rate:g}' for rate in rates),
        ]


def _by_text(rewards: list[list[Any]]) -> dict[str, list[list[Any]]]:
    found: dict[str, list[list[Any]]] = {}
    for row in sorted(rewards, key=lambda row: row[1]):
        found.setdefault(row[0], []).append(row)
    return found


if __name__ == '__main__':
    output.command(main)
