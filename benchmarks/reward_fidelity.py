"""Does it change what the search sees? Rewards with bfloat16, with racing and with rejection, beside the full rewards.

python benchmarks/reward_fidelity.py --gin_files gin/cifar10_small.gin --run_dir runs/fidelity

The rules are the known ones and random ones, drawn uniformly from the space of the configuration. The full reward of a
rule is that of float32 and of the full sweep, on the seed of the task. Three tables, each selected by --parts:

    bf16       rewards in bfloat16 against the full ones, and beside them the full ones on another seed, over all of
               the first --rules rules and over those that train: with a full reward above 1.5 times chance
    racing     how often the race of learning rates (--rungs) ends with another rate than the full sweep, what that
               does to the reward, and the share of the time that it saves
    rejection  how many rules are said to be untrainable, and how many of them falsely: with a full reward more than
               --margin above chance; of the rules of Table 1 none may be

The trainings of a rule follow each other on one thread. They are filed in the run directory as they end, and the same
command goes on where it was stopped, also with more rules. A training takes some three seconds of one core on small
CIFAR-10 images, and there are 23 + --random of them, as many again by racing, and two for each of --rules.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from nos_tf.cli import commandline  # first: it hides what TensorFlow prints when it is imported

# isort: split
import numpy as np
from optimizer_step import machine
from scipy import stats
from trainings import Contender, Ours, Training, Trainings, argument_parser, images_of, variant

from nos_tf import Search, SearchSpace, UpdateRule
from nos_tf.controller.learners import RandomSearch
from nos_tf.dsl.known import KNOWN_RULES, TABLE_1
from nos_tf.dsl.screening import why_untrainable
from nos_tf.dsl.vocabulary import Vocabulary
from nos_tf.evaluation.machine import use_one_cpu_thread
from nos_tf.tasks.child import Outcome

PARTS = ('bf16', 'racing', 'rejection')
FULL, OTHER_SEED, BFLOAT16 = 'full', 'another seed', 'bfloat16'
TRAINS = 1.5  # times chance: a rule of a larger full reward trains at all
DRAWN_FROM = 0  # seed of the random rules


class Pairs(NamedTuple):
    """The full outcomes of some rules, and what became of the same rules otherwise."""

    full: list[Outcome]
    other: list[Outcome]

    def above(self, reward: float) -> 'Pairs':
        """Returns the rules of a higher full reward."""
        kept = [(full, other) for full, other in zip(*self, strict=True) if full.reward > reward]
        return Pairs([full for full, _ in kept], [other for _, other in kept])

    def rewards(self) -> tuple[np.ndarray, np.ndarray]:
        """Full and other rewards."""
        full, other = (np.array([outcome.reward for outcome in side]) for side in self)
        return full, other


def random_rules(space: SearchSpace, count: int) -> list[UpdateRule]:
    """Distinct programs, drawn uniformly, one by one: a longer list begins with the shorter one."""
    agent = RandomSearch().start(space, DRAWN_FROM)
    rules: dict[UpdateRule, None] = {}
    draw = 0
    while len(rules) < count and draw < 100 * count:
        rules[space.rule(agent.propose(1, draw).choices[0]).canonical()] = None
        draw += 1
    return list(rules)


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A Markdown table."""
    print('| ' + ' | '.join(header) + ' |\n' + '|---' * len(header) + '|')
    for row in rows:
        print('| ' + ' | '.join(map(str, row)) + ' |')
    print()


def print_agreement(contenders: dict[str, Pairs], trains: float) -> None:
    """The table of bf16."""
    rows = []
    for name, pairs in contenders.items():
        for which, some in (('all', pairs), (f'above {trains:.3g}', pairs.above(trains))):
            full, other = some.rewards()
            if len(full) < 2:
                continue
            change = np.abs(other - full)
            spearman = stats.spearmanr(full, other).statistic
            rows.append([name, which, len(full), f'{spearman:.3f}', f'{change.mean():.4f}', f'{change.max():.4f}'])
    header = ('against the full reward', 'full rewards', 'rules', 'Spearman', 'mean difference', 'largest difference')
    print_table(header, rows)


def print_racing(groups: dict[str, Pairs]) -> None:
    """The table of racing."""
    rows = []
    for name, pairs in groups.items():
        if not pairs.full:
            continue
        full, other = pairs.rewards()
        moved = sum(a.learning_rate != b.learning_rate for a, b in zip(*pairs, strict=True))
        seconds = [sum(outcome.seconds for outcome in side) for side in pairs]
        changes = [f'{value:+.4f}' for value in ((other - full).mean(), (other - full).min(), (other - full).max())]
        share = f'{1 - seconds[1] / seconds[0]:.0%}'
        rows.append([name, len(full), f'{moved} ({moved / len(full):.0%})', *changes, share])
    header = ('rules', 'number', 'another rate', 'mean change of reward', 'largest loss', 'largest gain', 'time saved')
    print_table(header, rows)


def print_rejection(groups: dict[str, dict[UpdateRule, Outcome]], reasons: dict[UpdateRule, str], bar: float) -> None:
    """The table of rejection, and every false reject."""
    rows = []
    for name, outcomes in groups.items():
        if not outcomes:
            continue
        rejected = [rule for rule in outcomes if rule in reasons]
        false = sum(outcomes[rule].reward > bar for rule in rejected)
        fail = sum(outcome.reward <= bar for outcome in outcomes.values())
        saved = sum(outcomes[rule].seconds for rule in rejected) / sum(o.seconds for o in outcomes.values())
        share = f'{len(rejected) / len(outcomes):.0%}'
        rows.append([name, len(outcomes), fail, len(rejected), false, share, f'{saved:.0%}'])
    header = ('rules', 'number', f'reward at most {bar:.3g}', 'rejected', 'falsely', 'trainings saved', 'time saved')
    print_table(header, rows)
    for outcomes in groups.values():
        for rule, outcome in outcomes.items():
            if rule in reasons and outcome.reward > bar:
                print(f'Rejected falsely: `{rule}`, "{reasons[rule]}", though its full reward is {outcome.reward:.3f}.')


def main() -> None:
    """Trains what is missing and prints the tables."""
    parser = argument_parser(__doc__ or '')
    parser.add_argument('--parts', nargs='+', choices=PARTS, default=PARTS)
    parser.add_argument('--rules', type=int, default=40, help='for bf16, the known ones first')
    parser.add_argument('--random', type=int, default=300, help='random rules for racing and rejection')
    parser.add_argument('--margin', type=float, default=0.05, help='above chance: a rejected rule of more was good')
    parser.add_argument('--run_dir', type=Path, default=Path('runs/reward_fidelity'))
    arguments = parser.parse_args()
    search = commandline.configure(arguments, Search)
    use_one_cpu_thread()
    known = list(dict.fromkeys(UpdateRule.parse(name).canonical() for name in KNOWN_RULES))
    drawn = random_rules(search.space, max(arguments.random, arguments.rules - len(known)))
    drawn = [rule for rule in drawn if rule not in known]
    some = [*known, *drawn][: arguments.rules] if 'bf16' in arguments.parts else []
    many = [*known, *drawn[: arguments.random]] if {'racing', 'rejection'} & {*arguments.parts} else []
    rules = list(dict.fromkeys((*some, *many)))

    full = variant(dataclasses.replace(search.setup, vocabulary=Vocabulary.of(search.space, known)))
    rungs = ' '.join(f'{share:g}:{rates}' for share, rates in arguments.rungs)
    contenders: dict[str, Contender] = {
        FULL: Ours(full),
        OTHER_SEED: Ours(variant(full, seed=full.child.seed + 1)),
        BFLOAT16: Ours(variant(full, bfloat16=True)),
        rungs: Ours(variant(full, rungs=arguments.rungs)),
    }
    wanted = {FULL: rules, OTHER_SEED: some, BFLOAT16: some, rungs: many if 'racing' in arguments.parts else []}
    rows = [[Training(name, rule) for name in contenders if rule in wanted[name]] for rule in rules]
    outcomes = Trainings(arguments.run_dir, full.identity()).train(rows, contenders, arguments.workers)

    def pairs(contender: str, rules: Sequence[UpdateRule]) -> Pairs:
        full, other = ([outcomes[Training(name, rule)] for rule in rules] for name in (FULL, contender))
        return Pairs(full, other)

    chance = images_of(full).chance
    drawn = drawn[: arguments.random]
    print(f'{machine()}; {arguments.workers} workers of one thread\n')
    if 'bf16' in arguments.parts:
        print_agreement({name: pairs(name, some) for name in (BFLOAT16, OTHER_SEED)}, TRAINS * chance)
    if 'racing' in arguments.parts:
        print(f'Rungs {rungs}:\n')
        training = pairs(rungs, many).above(TRAINS * chance)
        groups = {'known': pairs(rungs, known), 'random': pairs(rungs, drawn)}
        print_racing({**groups, f'both, with a full reward above {TRAINS * chance:.3g}': training})
    if 'rejection' in arguments.parts:
        reasons = {rule: why for rule in many if (why := why_untrainable(rule, full.child.constants))}
        table_1 = [UpdateRule.parse(row.name).canonical() for row in TABLE_1]
        groups_of_rules = {'Table 1': table_1, 'known': known, 'random': drawn}
        full_outcomes = {
            name: {rule: outcomes[Training(FULL, rule)] for rule in group} for name, group in groups_of_rules.items()
        }
        print_rejection(full_outcomes, reasons, chance + arguments.margin)


if __name__ == '__main__':
    commandline.main(main)
