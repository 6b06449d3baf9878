"""Runs PowerSign and the usual optimizers on the Rosenbrock function (Section 5.1, Figure 6), in less than a minute.

python launch/rosenbrock.py --run_dir runs/rosenbrock --rules "m * exp(sign(g) * sign(m))"
"""

import argparse
import math

from nos_tf.cli import commandline
from nos_tf.report import rosenbrock as report
from nos_tf.tasks.rosenbrock import START, suited, walk

POWERSIGN, ADAM, MOMENTUM = 'PowerSign', 'Adam', 'Momentum'
OPTIMIZERS = {
    POWERSIGN: ('powersign',),
    ADAM: tuple(f'keras.Adam with epsilon=1e-{i}' for i in range(3, 9)),  # 5.1: on a log scale from 1e-3 to 1e-8
    'RMSProp': ('keras.RMSprop',),
    'SGD': ('keras.SGD',),
    MOMENTUM: ('keras.SGD with momentum=0.9',),
}
RATES = (1e-4, 1e-3, 1e-2, 1e-1)  # 5.1: four on a log scale
ITERATIONS = 4000  # 5.1


def run() -> None:
    """Walks, draws and says whether what the paper found holds."""
    parser = commandline.argument_parser(__doc__ or '')
    parser.add_argument('--rules', nargs='+', default=[], type=_rule, metavar='RULE', help='more optimizers, as text')
    parser.add_argument(
        '--learning_rates', nargs='+', type=_positive, default=RATES, metavar='RATE', help='default: %(default)s'
    )
    parser.add_argument('--iterations', type=_count, default=ITERATIONS, metavar='N', help='default: %(default)s')
    parser.add_argument(
        '--start', nargs=2, type=_number, default=START, metavar=('X', 'Y'), help='default: %(default)s'
    )
    arguments = parser.parse_args()
    optimizers = OPTIMIZERS | {text: (text,) for text in arguments.rules}
    rates, start = sorted(set(arguments.learning_rates)), tuple(arguments.start)
    walks = {
        name: [way for text in texts for way in walk(text, rates, arguments.iterations, start)]
        for name, texts in optimizers.items()
    }
    picture = report.write(arguments.run_dir, walks)
    chosen = {name: report.best(tried) for name, tried in walks.items()}
    print(report.table(chosen))
    print(report.verdict(chosen, POWERSIGN, [name for name in OPTIMIZERS if name != POWERSIGN]))
    print(picture)


def _rule(text: str) -> str:
    try:
        suited(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def _number(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f'{text!r}: must be a number')
    return number


def _positive(text: str) -> float:
    number = _number(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f'{text!r}: must be a positive number')
    return number


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'{text!r}: must be a whole number, at least 1')
    return int(text)


if __name__ == '__main__':
    commandline.main(run)
