"""Does the controller learn? The quickstart on several seeds, by TRPO and by random search, as a table.

python benchmarks/quickstart_learning.py --run_dir runs/learning --seeds 5

Each search has a directory of its own; the same command goes on where it was stopped. Five seeds take half an hour on
two cores.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from nos_tf import output

ROOT = Path(__file__).resolve().parents[1]
LEARNERS = {'TRPO': (), 'RandomSearch': ('Search.learner = @RandomSearch()', 'RandomSearch.batch_size = 20')}


def search(run_dir: Path, bindings: tuple[str, ...]) -> dict:
    """The summary of one quickstart search, run now unless it has been."""
    command = [sys.executable, str(ROOT / 'launch' / 'search.py'), '--gin_files', 'gin/quickstart.gin']
    command += ['--run_dir', str(run_dir), '--gin_bindings', 'Search.rescore_seeds = 0', *bindings]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads((run_dir / 'summary.json').read_text(encoding='utf-8'))


def main() -> None:
    """Runs what is missing, prints a line for each search and the mean gain of each learner."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--run_dir', type=Path, default=Path('runs/learning'))
    parser.add_argument('--seeds', type=int, default=5)
    arguments = parser.parse_args()
    gains: dict[str, list[float]] = {name: [] for name in LEARNERS}
    print('learner        seed  first 100  last 100   gain   best  trained  seconds')
    for seed in range(arguments.seeds):
        for name, bindings in LEARNERS.items():
            summary = search(arguments.run_dir / f'{name}_{seed}', (*bindings, f'Search.seed = {seed}'))
            first, last = summary['mean_reward_first_100'], summary['mean_reward_last_100']
            gains[name].append(last - first)
            print(
                f'{name:14} {seed:4}  {first:9.3f} {last:9.3f} {last - first:+6.3f} {summary["best_reward"]:6.3f} '
                f'{summary["trained"]:8} {summary["seconds"]:8.0f}',
                flush=True,
            )
    for name, values in gains.items():
        print(
            f'{name}: gain {np.mean(values):+.3f} on average, {min(values):+.3f} at least, {max(values):+.3f} at most'
        )


if __name__ == '__main__':
    output.command(main)
