"""The time of one update by exported PyTorch optimizers, beside those of torch.optim with as many slots.

python benchmarks/torch_step.py --rounds 60

Rows are 300 small parameters and 10 million weights in five. All optimizers take turns, in an order that changes every
round, on one thread. Times are in milliseconds: the median of the rounds, by the clock of the process, which leaves out
what other processes took, and by that of the wall; and the ratio of the first to that of the optimizer compared with.
"""

import argparse
import platform
import random
import statistics
import time
from pathlib import Path

import torch

from nos_tf.optimizers.export import export

SHAPES: dict[str, list[tuple[int, ...]]] = {
    '300 small vectors': [(100,)] * 300,
    '10M in 5 matrices': [(2000, 1000)] * 5,
}
THEIRS = {  # by slots
    'Adam': (torch.optim.Adam, {}),
    'RMSprop': (torch.optim.RMSprop, {}),
    'SGD(momentum)': (torch.optim.SGD, {'momentum': 0.9}),
}
COMPARED = {'adam': 'Adam foreach', 'rmsprop': 'RMSprop foreach', 'powersign': 'SGD(momentum) foreach'}
RATE = 1e-3


def exported(rule: str) -> type[torch.optim.Optimizer]:
    """The class that the source of a rule defines."""
    names: dict[str, type[torch.optim.Optimizer]] = {}
    exec(export(rule, 'torch', 'Exported'), names)  # noqa: S102 - it is what is measured
    return names['Exported']


def optimizers(shapes: list[tuple[int, ...]]) -> dict[str, torch.optim.Optimizer]:
    """One of each kind by name, on weights of its own, after two steps."""

    def weights() -> list[torch.nn.Parameter]:
        parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        return parameters

    made: dict[str, torch.optim.Optimizer] = {}
    for name, (cls, options) in THEIRS.items():
        made[f'{name} foreach'] = cls(weights(), lr=RATE, foreach=True, **options)
        if cls is not torch.optim.RMSprop:  # which has no fused one
            made[f'{name} fused'] = cls(weights(), lr=RATE, fused=True, **options)
    for rule in COMPARED:
        made[rule] = exported(rule)(weights(), lr=RATE)
    for optimizer in made.values():
        optimizer.step()
        optimizer.step()
    return made


def time_rounds(runs: dict[str, torch.optim.Optimizer], rounds: int) -> dict[str, tuple[float, float]]:
    """The medians by name: milliseconds of the process and of the wall."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name in random.sample(list(runs), len(runs)):
            process, wall = time.process_time(), time.perf_counter()
            runs[name].step()
            times[name].append((time.process_time() - process, time.perf_counter() - wall))
    return {
        name: (1000 * statistics.median(p for p, _ in taken), 1000 * statistics.median(w for _, w in taken))
        for name, taken in times.items()
    }


def machine() -> str:
    """Names the machine and the versions of what was measured."""
    path = Path('/proc/cpuinfo')
    lines = path.read_text().splitlines() if path.exists() else []
    models = [line.partition(': ')[2] for line in lines if line.startswith('model name')]
    name = f'{models[0]}, {len(models)} cores' if models else platform.processor()
    return f'{name}; Python {platform.python_version()}, PyTorch {torch.__version__}'


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=60)
    parser.add_argument('--threads', type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    print(f'{machine()}; {torch.get_num_threads()} thread(s), {arguments.rounds} rounds\n')
    print('| weights | optimizer | ms | ms, wall | ratio |\n|---|---|--:|--:|---|')
    for title, shapes in SHAPES.items():
        medians = time_rounds(optimizers(shapes), arguments.rounds)
        for name, (process, wall) in medians.items():
            rule = f'export of `{name}`' if name in COMPARED else name
            other = COMPARED.get(name)
            ratio = f'{process / medians[other][0]:.2f} of {other}' if other else ''
            print(f'| {title} | {rule} | {process:.2f} | {wall:.2f} | {ratio} |', flush=True)


if __name__ == '__main__':
    main()
