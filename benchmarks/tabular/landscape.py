"""What the space of one iteration looks like: figure and tables of docs/tabular_benchmark.md, from the table alone.

python benchmarks/tabular/landscape.py
"""

import argparse
from contextlib import suppress
from pathlib import Path

import matplotlib.figure
import numpy as np
import table_rewards
from documents import fill, markdown
from scipy import stats

from nos_tf import output
from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.dsl.rule import UpdateRule
from nos_tf.evaluation.table import Columns, RewardTable

FOLDER = Path(__file__).resolve().parent
CHANCE = 0.15  # rewards up to here are those of rules that do not train: ten classes
LEVELS = (CHANCE, 0.5, 0.8, 0.85, 0.87)
SHOWN = 20
TOP = 0.01  # the share of programs that counts as good


class Landscape:
    """The rewards of a table, by program and by class.

    Args:
        table: a complete one.

    Raises:
        SystemExit: it is not.
    """

    def __init__(self, table: RewardTable) -> None:
        if not table.metadata['complete']:
            raise SystemExit('the table is not complete: `python benchmarks/tabular/generate.py` goes on with it')
        self.table = table
        self.rewards = table_rewards.rewards(table)  # [P]
        self.rules = [UpdateRule.from_ids(ids) for ids in table.representatives]  # [C]
        self.class_rewards = self.told(table.first)[:, 0]
        self.again = self.told(table.again)  # [K, S]
        self.seeds = np.column_stack([self.class_rewards[table.rescored], self.again])  # [K, 1 + S]
        self.spellings = np.bincount(table.class_of, minlength=len(self.rules))

    def told(self, columns: Columns) -> np.ndarray:
        """Rewards, float64 [N, ...]."""
        return self.table.accuracies[columns.right].astype(np.float64).reshape(len(columns.right), -1)

    def levels(self) -> str:
        """How many programs reach what."""
        deep = self.told(self.table.deep)[:, 0]
        rows = [
            [f'above {level:g}', *(f'{(x > level).mean():.1%}' for x in (self.rewards, self.class_rewards, deep))]
            for level in LEVELS
        ]
        rows.append(['highest', *(f'{x.max():.3f}' for x in (self.rewards, self.class_rewards, deep))])
        return markdown(['reward', 'programs', 'functions', 'random programs of two iterations'], rows)

    def best(self) -> str:
        """The functions of the highest mean over all seeds, and the known rules."""
        means, half = self.seeds.mean(axis=1), 1.96 * self._noise() / np.sqrt(self.seeds.shape[1])
        order = np.argsort(-means, kind='stable')
        known = self._known()
        rank = {int(row): place for place, row in enumerate(order, start=1)}
        shown = [*order[:SHOWN], *(row for row in order[SHOWN:] if int(self.table.rescored[row]) in known)]
        rates = self.table.metadata['task']['Child.learning_rates']
        rows = []
        for row in shown:
            one = self.table.rescored[row]
            name = known.get(int(one))
            text = f'`{self.rules[one].infix}`' + (f' ({name})' if name else '')
            rate = rates[self.table.first.winner[one]]
            rows.append([str(rank[row]), text, f'{means[row]:.4f}', f'{rate:g}', str(self.spellings[one])])
        return markdown(['rank', 'rule', f'mean reward, ± {half:.4f}', 'learning rate', 'programs'], rows)

    def _known(self) -> dict[int, str]:
        """The names of known rules, by class."""
        space, names = self.table.space, {}
        for name in KNOWN_RULES:
            with suppress(ValueError):  # more than one iteration
                choices = space.encode(UpdateRule.parse(name).canonical())
                names[int(self.table.class_of[self.table.index(np.array([choices]))[0]])] = name
        return names

    def _noise(self) -> float:
        """The standard deviation of a reward between seeds, pooled over the functions with several that train."""
        trains = self.seeds.min(axis=1) > CHANCE
        return float(np.sqrt(self.again[trains].var(axis=1, ddof=1).mean()))  # the first was selected by

    def noise(self) -> str:
        """How far one reward can be trusted."""
        first, others = self.seeds[:, 0], self.again.mean(axis=1)
        order = np.argsort(-first, kind='stable')
        rows = [
            ['standard deviation of a reward between seeds', f'{self._noise():.4f}'],
            ['standard deviation of the true rewards of the best 500', f'{self._true_spread(order[:500]):.4f}'],
            [
                f'Spearman correlation of the first reward and the mean of the others, all {len(first):,}',
                _rank(first, others),
            ],
            ['the same, best 500', _rank(first[order[:500]], others[order[:500]])],
            ['first reward of the 100 that looked best', f'{first[order[:100]].mean():.4f}'],
            ['mean of their other rewards', f'{others[order[:100]].mean():.4f}'],
        ]
        audit = self.told(self.table.audit)[:, 0]
        off = np.abs(audit - self.class_rewards[self.table.class_of[self.table.audited]])
        rows.append(
            [f'merged programs that were trained themselves ({len(off)}): another reward', f'{(off > 0).sum()}']
        )
        rows.append(['largest difference, mean difference', f'{off.max():.3f}, {off.mean():.5f}'])
        return markdown(['noise', ''], rows)

    def _true_spread(self, rows: np.ndarray) -> float:
        """The deviation of the means over seeds, less what noise adds to it."""
        observed = self.again[rows].mean(axis=1).var(ddof=1)
        return float(np.sqrt(max(0.0, observed - self.again[rows].var(axis=1, ddof=1).mean() / self.again.shape[1])))

    def primitives(self) -> str:
        """What each primitive does to a program, and how often the best have it."""
        choices = table_rewards.choices_of(self.table)
        good = table_rewards.best(self.table, round(TOP * len(self.rewards)))
        rows = []
        kinds = (('operand', (0, 1)), ('unary', (2, 3)), ('binary', (4,)))
        for kind, steps in kinds:
            for index, token in enumerate(self.table.space.choices[steps[0]]):
                has = (choices[:, steps] == index).any(axis=1)
                trains = (self.rewards[has] > CHANCE).mean()
                lift = has[good].mean() / has.mean()
                rows.append([kind, f'`{token}`', f'{self.rewards[has].mean():.3f}', f'{trains:.0%}', f'{lift:.2f}'])
        return markdown(['', 'primitive', 'mean reward', 'of its programs train', 'times as often in the top 1%'], rows)

    def draw(self, path: Path) -> None:
        """Rewards of all programs, and how one seed predicts the others."""
        figure = matplotlib.figure.Figure(figsize=(11, 4), layout='constrained')
        left, right = figure.subplots(1, 2)
        bins = np.linspace(0, 0.9, 91)
        left.hist(self.rewards, bins, label=f'all {len(self.rewards):,} programs', color='tab:blue')
        left.hist(
            self.told(self.table.deep)[:, 0],
            bins,
            weights=np.full(len(self.table.deep.right), len(self.rewards) / max(1, len(self.table.deep.right))),
            histtype='step',
            color='tab:orange',
            label='programs of two iterations (scaled)',
        )
        left.set(yscale='log', xlabel='reward: validation accuracy on the digits', ylabel='programs')
        left.legend(frameon=False, loc='upper center')
        right.scatter(self.seeds[:, 0], self.again.mean(axis=1), s=4, alpha=0.4, linewidths=0)
        low = np.quantile(self.again.mean(axis=1), 0.02) - 0.01
        right.axline((low, low), slope=1, color='black', linewidth=0.8, linestyle=':')
        right.set(xlabel='reward with the seed of the task', ylabel='mean reward with four others')
        right.set_ylim(low, None)
        for axes in (left, right):
            axes.spines[['top', 'right']].set_visible(False)
        figure.savefig(path, dpi=150)


def _rank(x: np.ndarray, y: np.ndarray) -> str:
    return f'{stats.spearmanr(x, y).statistic:.2f}'


def main() -> None:
    """Draws and fills in."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--table', type=Path, default=FOLDER / 'digits.npz')
    parser.add_argument('--document', type=Path, default=FOLDER.parents[1] / 'docs' / 'tabular_benchmark.md')
    arguments = parser.parse_args()
    landscape = Landscape(RewardTable.load(arguments.table))
    landscape.draw(arguments.document.with_suffix('.png'))
    tables = {name: getattr(landscape, name)() for name in ('levels', 'best', 'noise', 'primitives')}
    fill(arguments.document, tables)
    print('\n\n'.join(tables.values()))


if __name__ == '__main__':
    output.command(main)
