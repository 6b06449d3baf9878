"""Why does adam_powersign win on number words and lose on Multi30k? Gradient noise and epsilon, one by one.

python benchmarks/translation_noise.py run --run_dir runs/translation_noise   # goes on where it was
python benchmarks/translation_noise.py page                                   # the tables of docs/results/gnmt.md

The network of gin/gnmt_numbers.gin learns number words for 200 updates, with small and large batches, with and without
dropout. `adam` and `adam_powersign` have two values of epsilon and the same rates, a factor of two apart; the best of
these, by the validation perplexity of the first seed, has another seed. There it is looked at closely: how often a
gradient has the sign of its running average, which is when adam_powersign takes the larger step, and what happens to
the rows of an embedding that have no gradient in a step.
"""

import argparse
import itertools
import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gin
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'launch'))
sys.path.insert(0, str(Path(__file__).resolve().parent / 'tabular'))

from documents import fill, markdown
from outcomes import read_rows, write_rows

from gnmt import corpora as _corpora  # noqa: F401  (gin files name what these modules register)
from gnmt import places as _places  # noqa: F401
from gnmt.recipe import TranslationRecipe
from gnmt.trainer import TranslatorTrainer
from gnmt.transfer import Transfer
from nos_tf import output
from nos_tf.dsl.primitives import RuleConstants
from nos_tf.evaluation.machine import use_one_cpu_thread

ROOT = Path(__file__).resolve().parents[1]
PAGE, FIGURES = ROOT / 'docs' / 'results' / 'gnmt.md', ROOT / 'docs' / 'results' / 'translation_noise.csv'
STEPS, SEEDS, LOOKED_AT = 200, 2, 100  # updates; seeds; updates at the end that are looked at
RATES = (0.016, 0.008, 0.004, 0.002, 0.001, 0.0005)
RULES, EPSILONS = ('adam', 'adam_powersign'), (1e-8, 1e-4)
BATCHES, DROPOUTS = (64, 8), (0.0, 0.3)
ALL_NOISE = 0.5 + math.asin(0.1 / math.sqrt(0.1**2 / (1 - 0.9**2))) / math.pi
"""How often signs agree where gradients are independent of each other: the average has a tenth of the last one."""


def recipe_of(batch_size: int, dropout: float) -> TranslationRecipe:
    """Returns the recipe of number words with other noise, and a constant rate after the warm-up."""
    bindings = [
        f'TranslationRecipe.batch_size = {batch_size}',
        f'Gnmt.dropout = {dropout}',
        f'TranslationRecipe.steps = {STEPS}',
        f'TranslationRecipe.evaluate_every = {STEPS}',
        'Schedule.decay_from = None',
    ]
    gin.clear_config()
    gin.parse_config_files_and_bindings([str(ROOT / 'gin' / 'gnmt_numbers.gin')], bindings)
    made: TranslationRecipe = gin.get_configurable('TranslationRecipe')()
    return made


def run(run_dir: Path) -> None:
    """Trains what is missing; a row for each optimizer and seed, as they come."""
    use_one_cpu_thread()
    rows: list[dict[str, Any]] = list(read_rows(FIGURES))
    done = {(int(row['batch_size']), float(row['dropout'])) for row in rows}
    texts = [f'{rule} with epsilon={epsilon:g}' for rule in RULES for epsilon in EPSILONS]
    for batch_size, dropout in itertools.product(BATCHES, DROPOUTS):
        if (batch_size, dropout) in done:
            continue
        recipe, folder = recipe_of(batch_size, dropout), run_dir / f'{batch_size}-{dropout:g}'
        transfer = Transfer(
            recipe=recipe, rules=texts, learning_rates={'others': RATES}, candidate_steps=STEPS, seeds=SEEDS
        )
        found = transfer.run(folder)
        best = json.loads((folder / 'summary.json').read_text(encoding='utf-8'))['best rates']
        for text, trainings in found.items():
            close = look(recipe, folder, text, best[text])
            for seed, trained in enumerate(trainings):
                point = trained.points[-1]
                rows.append(
                    {
                        'batch_size': batch_size,
                        'dropout': dropout,
                        'optimizer': text,
                        'learning_rate': best[text],
                        'seed': seed,
                        'loss': f'{math.log(point.validation_perplexity):.5g}',
                        'exact': point.validation_exact,
                        **(close if seed == 0 else dict.fromkeys(close, '')),
                    }
                )
        write_rows(FIGURES, rows)


def look(recipe: TranslationRecipe, run_dir: Path, text: str, rate: float) -> dict[str, str]:
    """Returns what gradients and embeddings do over the last updates of a training.

    Args:
        recipe: of the training.
        run_dir: is not written to.
        text: the optimizer, a rule that keeps the average of gradients.
        rate: its learning rate.
    """
    trainer = TranslatorTrainer(recipe, run_dir)
    state = trainer.state(text, rate, 0)
    state.restore(run_dir / 'none')
    seen = [updated(state, recipe.subwords) for _ in range(STEPS)][-LOOKED_AT:]
    agree, without, moved = np.mean(seen, 0)
    return {'signs_agree': f'{agree:.4f}', 'rows_without': f'{without:.4f}', 'moved_without': f'{moved:.4f}'}


def updated(state: Any, rows: int) -> tuple[float, float, float]:
    """Does an update.

    Returns:
        the share of weights with a gradient whose average has its sign; of the rows of embeddings, those without a
        gradient; and the share of the squared change of embeddings that is theirs.
    """
    decay = RuleConstants().beta_1
    weights, averages = arrays(state)
    state.update(*state.next_batch())
    new_weights, new_averages = arrays(state)
    agree = of = without = count = 0
    moved = all_moved = 0.0
    for w, m, new_w, new_m in zip(weights, averages, new_weights, new_averages, strict=True):
        gradient = np.where(np.isclose(new_m, decay * m, rtol=1e-6, atol=0), 0, new_m - decay * m)
        has = gradient != 0
        agree += int((np.sign(gradient) == np.sign(new_m))[has].sum())
        of += int(has.sum())
        if w.shape[0] == rows and w.ndim == 2:
            idle, change = ~has.any(1), np.square(new_w - w).sum(1)
            without, count = without + int(idle.sum()), count + rows
            moved, all_moved = moved + float(change[idle].sum()), all_moved + float(change.sum())
    return agree / of, without / count, moved / all_moved


def arrays(state: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Returns copies of the weights, and of the running averages of their gradients."""
    averages = [variable for variable in state.optimizer.variables if variable.name.endswith('_m')]
    both: Any = [[np.array(v.value) for v in of] for of in (state.readable_model().trainable_variables, averages)]
    return both[0], both[1]


def table(rows: list[dict[str, str]]) -> Iterator[list[str]]:
    """Yields a row for each noise and optimizer."""
    for key, group in itertools.groupby(rows, key=lambda row: (row['batch_size'], row['dropout'], row['optimizer'])):
        of = list(group)
        losses = [float(row['loss']) for row in of]
        yield [
            *key,
            of[0]['learning_rate'],
            ', '.join(f'{loss:.3f}' for loss in losses),
            f'{np.mean([float(row["exact"]) for row in of]):.1%}',
            *(f'{float(of[0][name]):.1%}' for name in ('signs_agree', 'rows_without', 'moved_without')),
        ]


def page() -> None:
    """Fills the table of docs/results/gnmt.md."""
    head = ['batch', 'dropout', 'optimizer', 'rate', 'validation loss, by seed', 'exact']
    head += [f'signs agree ({ALL_NOISE:.0%} if all is noise)']
    head += ['rows without a gradient', 'their share of the change']
    fill(PAGE, {'translation noise': markdown(head, list(table(list(read_rows(FIGURES)))))})


def main() -> None:
    """Does one of the two."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('what', choices=('run', 'page'))
    parser.add_argument('--run_dir', type=Path, default=Path('runs/translation_noise'))
    given = parser.parse_args()
    if given.what == 'run':
        run(given.run_dir)
    else:
        page()


if __name__ == '__main__':
    output.command(main)
