"""Do the finds of `make search` hold up? The quickstart with several seeds, each in a directory of its own.

python benchmarks/quickstart_study.py run --run_dir runs/quickstart_study --seeds 5    # goes on where it was
python benchmarks/quickstart_study.py page                                            # the table of README.md

`run` keeps the summaries in docs/results/quickstart, in a folder named after the configuration; a search whose summary
is there is not run again. `page` shows all that were tried.
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parent / 'tabular'))
from documents import fill, markdown

from nos_tf import output
from nos_tf.compare.bench import NULL
from nos_tf.compare.verification import Margin, Verdict, shown
from nos_tf.search.search import VERIFIED

ROOT = Path(__file__).resolve().parents[1]
PAGE, RESULTS = ROOT / 'README.md', ROOT / 'docs' / 'results' / 'quickstart'
NAME = 'autoencoder_and_characters'


def run(run_dir: Path, name: str, seeds: int) -> None:
    """Runs the searches whose summaries are missing, one after the other."""
    for seed in range(seeds):
        kept = RESULTS / name / f'seed_{seed}.json'
        if kept.exists():
            continue
        here = run_dir / name / f'seed_{seed}'
        earlier = sorted((run_dir / name).glob(f'seed_*/{VERIFIED}'))
        if earlier and not here.exists():  # the baselines are everybody's, and are not trained again
            shutil.copytree(earlier[0], here / VERIFIED)
        command = [sys.executable, str(ROOT / 'launch' / 'search.py'), '--gin_files', 'gin/quickstart.gin']
        begin = time.monotonic()
        subprocess.run([*command, '--run_dir', here, '--gin_bindings', f'Search.seed = {seed}'], check=True, cwd=ROOT)
        summary = json.loads((here / 'summary.json').read_text(encoding='utf-8'))
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps({'seconds_in_all': time.monotonic() - begin, **summary}, indent=1), encoding='utf-8')


def rows(name: str, summary: dict[str, Any]) -> Iterator[list[str]]:
    """Yields a row of the table for each task that the rule of a search was tested on."""
    verdict = Verdict.of_json(summary['verification'])
    for task, is_seen in verdict.tasks.items():
        margins = [margin for margin in verdict.margins if margin.task == task and margin.baseline != NULL]
        best = best_hand_made(margins)
        yield [
            name.replace('_', ' '),
            str(summary['configuration']['Search.seed']),
            f'`{verdict.rule}`',
            shown(task) if is_seen else f'{task}, unseen',
            *(str(sum(getattr(margin, how) for margin in margins)) for how in ('is_better', 'is_worse')),
            f'{best.baseline}: {best}',
        ]


def best_hand_made(margins: list[Margin]) -> Margin:
    """Returns the margin to the optimizer that is best on the seeds of the test."""
    return min(margins, key=lambda margin: margin.mean)


def page() -> None:
    """Fills the table of README.md."""
    head = ['configuration', 'seed', 'the rule that was chosen', 'tested on', 'better than', 'worse than']
    head.append('the best hand-made one')
    body: list[list[str]] = []
    for path in sorted(RESULTS.glob('*/seed_*.json'), key=lambda path: (path.parent.name != NAME, path)):
        body += rows(path.parent.name, json.loads(path.read_text(encoding='utf-8')))
    fill(PAGE, {'searches': markdown(head, body)})


def main() -> None:
    """Does one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=('run', 'page'))
    parser.add_argument('--run_dir', type=Path, default=Path('runs/quickstart_study'))
    parser.add_argument('--name', default=NAME, help='of the configuration, as gin/quickstart.gin has it now')
    parser.add_argument('--seeds', type=int, default=5)
    arguments = parser.parse_args()
    if arguments.what == 'run':
        run(arguments.run_dir, arguments.name, arguments.seeds)
    else:
        page()


if __name__ == '__main__':
    output.command(main)
