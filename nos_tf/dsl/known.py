"""Rules that have a name: the sixteen of Table 1, optimizers made by hand, and the learning rates found best for them.

`learning_rates.csv`, beside this file, has the learning rate that was found best for each of them on each task that was
tried; `benchmarks/known_rules.py` writes it.

The paper's `m` is the bias-corrected average (1 - beta_1) * sum(beta_1^i g), not the sum that Keras calls velocity:
`keras.optimizers.SGD(momentum=0.9)` walks as `momentum` does at ten times the rate, once the correction has died out.
"""

import csv
from pathlib import Path
from typing import NamedTuple

LEARNING_RATES_FILE = Path(__file__).with_name('learning_rates.csv')


class KnownRule(NamedTuple):
    """A name, the rule in infix notation, and where it is from."""

    name: str
    infix: str
    source: str


HAND_MADE: tuple[KnownRule, ...] = (
    KnownRule('sgd', 'g', 'Robbins & Monro 1951'),
    KnownRule('momentum', 'm', 'Polyak 1964'),
    KnownRule('adam', 'adam', 'Kingma & Ba 2015'),
    KnownRule('rmsprop', 'rmsprop', 'Tieleman & Hinton 2012'),
    KnownRule('signsgd', 'sign(g)', 'Bernstein et al. 2018'),
    KnownRule('signum', 'sign(m)', 'Bernstein et al. 2018'),
    KnownRule('addsign', '(1 + sign(g) * sign(m)) * g', 'Bello et al. 2017, TensorFlow 1 contrib'),
)

TABLE_1: tuple[KnownRule, ...] = tuple(
    KnownRule(name, infix, 'Bello et al. 2017, Table 1')
    for name, infix in (
        ('powersign_plus_clip', '(exp(sign(g) * sign(m)) + clip(g, 1e-4)) * g'),
        ('clip_momentum_exp_v', 'clip(m, 1e-4) * exp(v)'),
        ('momentum_exp_v', 'm * exp(v)'),
        ('powersign', 'g * exp(sign(g) * sign(m))'),
        ('drop30_powersign', 'drop(g, 0.3) * exp(sign(g) * sign(m))'),
        ('momentum_exp_g2', 'm * exp(g^2)'),
        ('drop10_momentum_over_exp_g2', 'drop(m, 0.1) / (exp(g^2) + eps)'),
        ('drop10_powersign', 'drop(g, 0.1) * exp(sign(g) * sign(m))'),
        ('clip_rmsprop_plus_drop30_momentum', 'clip(rmsprop, 1e-5) + drop(m, 0.3)'),
        ('adam_powersign', 'adam * exp(sign(g) * sign(m))'),
        ('adam_exp_m', 'adam * exp(m)'),
        ('sgd_plus_drop30_momentum', 'g + drop(m, 0.3)'),
        ('drop10_momentum_exp_g3', 'drop(m, 0.1) * exp(g^3)'),
        ('sgd_minus_clip_g2', 'g - clip(g^2, 1e-4)'),
        ('exp_sgd_minus_exp_momentum', 'exp(g) - exp(m)'),
        ('drop30_momentum_exp_w', 'drop(m, 0.3) * exp(1e-3*w)'),
    )
)

VERSION_2: tuple[KnownRule, ...] = (
    KnownRule('lion', 'sign(lerp(m99_before, g))', 'Chen et al. 2023'),
    KnownRule('nadam', 'm_nesterov / sqrt(v)', 'Dozat 2016, with the momentum of Keras'),
    KnownRule('cautious_adam', 'agree(adam, g)', 'Liang et al. 2024, without their rescaling by the mean of the mask'),
    KnownRule('cautious_lion', 'agree(sign(lerp(m99_before, g)), g)', 'Liang et al. 2024, without their rescaling'),
    KnownRule('grams', 'abs(adam) * sign(g)', 'Cao et al. 2024'),
    KnownRule('sign_sum', 'sign(g) + sign(m)', 'found by gin/digits.gin of this package'),
)
"""Rules of version 2 of the language, but for the last, which is of version 1 and has its name since then."""

KNOWN_RULES: dict[str, KnownRule] = {rule.name: rule for rule in (*HAND_MADE, *TABLE_1, *VERSION_2)}


class LearningRate(NamedTuple):
    """How a known rule did on a task; the reward is an accuracy on the validation set, its spread over seeds."""

    task: str
    rule: str
    learning_rate: float  # that most often won the sweep, of which each seed has one
    reward_mean: float
    reward_sd: float
    seeds: int


def read_learning_rates(path: Path = LEARNING_RATES_FILE) -> tuple[LearningRate, ...]:
    """The learning rates on file, task by task; none where there is no file."""
    if not path.exists():
        return ()
    with path.open(encoding='utf-8', newline='') as file:
        return tuple(
            LearningRate(
                row['task'],
                row['rule'],
                float(row['learning_rate']),
                float(row['reward_mean']),
                float(row['reward_sd']),
                int(row['seeds']),
            )
            for row in csv.DictReader(file)
        )
