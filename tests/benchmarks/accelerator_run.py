"""`KERAS_BACKEND=jax python accelerator_run.py RESULT.npz`: what test_accelerator.py compares with TensorFlow."""

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks/accelerator')]

import numpy as np  # noqa: E402

STEPS, LONG, RATE, SEED = 4, 12, 0.01, 3
OPTIMIZERS = (
    'keras.SGD with momentum=0.9', 'keras.Adam', 'keras.Adam with epsilon=0.01', 'keras.RMSprop', 'keras.Lion',
    'g', 'adam', 'powersign', 'powersign_plus_clip', 'drop(g, 0.3) * exp(sign(g) * sign(m)) + noise',
    'm - clip(-(1e-4*w) / clip(v, 1e-5), 1e-3)',
)  # fmt: skip


def task():
    """Noisy patterns, one for each class."""
    import jax.numpy as jnp
    from children import Task

    rng = np.random.default_rng(0)
    labels = rng.integers(10, size=60).astype(np.int32)
    images = (rng.standard_normal([10, 6, 6, 3])[labels] + rng.standard_normal([60, 6, 6, 3])).astype(np.float32)
    split = images, labels
    return Task(split, split, filters=4, batch_size=20, dtype=jnp.float32)


def main(path):
    """Trains all optimizers, seven at a time, and races them."""
    import children

    children.EVALUATED = 20
    lab = children.Lab(task(), 7)
    optimizers = [children.Optimizer.of(text) for text in OPTIMIZERS]
    jobs = [(optimizer, RATE) for optimizer in optimizers]
    state, order = lab.start(SEED, len(jobs)), lab.task.order(SEED, STEPS)
    for first, end in ((0, 1), (1, STEPS)):  # as between rungs
        state = lab.train(jobs, state, order, SEED, first, end)
    raced, accuracies, rates = lab.race(optimizers, (1e-3, 1e-2, 1e-1), ((3, 2), (LONG, 1)), SEED)
    alone = lab.start(SEED, len(jobs))
    chosen, order_of_race = list(zip(optimizers, rates.tolist(), strict=True)), lab.task.order(SEED, LONG)
    alone = lab.train(chosen, alone, order_of_race, SEED, 0, LONG)
    images, labels = lab.task.train
    np.savez(
        path,
        images=images,
        labels=labels,
        start=lab.task.initial_weights(SEED),
        order=order,
        weights=np.asarray(state.weights),
        validation=lab.accuracy(state),
        raced=lab.accuracy(raced),
        accuracies=accuracies,
        rates=rates,
        raced_weights=np.asarray(raced.weights),
        weights_alone=np.asarray(alone.weights),
    )


if __name__ == '__main__':
    main(sys.argv[1])
