"""Built-in tasks on tables: two of scikit-learn's, and an ill-conditioned one that is drawn."""

from functools import partial

import numpy as np

from nos_tf.tasks.builtin.common import CROSSENTROPY, Examples, builtin, dense, fixed_random, mislabelled
from nos_tf.tasks.keras_task import KerasTask


@builtin
def diabetes(large: bool = False, noisy: bool = False) -> KerasTask:
    """A small network predicts the progress of diabetes from ten measurements in the units they are in.

    Inputs that are not centred and differ in scale make it badly conditioned, as the tables of beginners are. Gradients
    carry some noise, and the measurements tell no more than half of the variance.

    Args:
        large: two hidden layers of 64 units in place of one of 16, and five times the steps.
        noisy: minibatches of 4 in place of 32, and noise of half a standard deviation on the training targets.
    """
    from sklearn.datasets import load_diabetes

    random = fixed_random()
    (x, y), (held_out_x, held_out_y) = _table(load_diabetes(return_X_y=True, scaled=False), 142, random)
    validation = held_out_x, ((held_out_y - y.mean()) / y.std()).astype(np.float32)
    y = (y - y.mean()) / y.std() + 0.5 * noisy * random.standard_normal(len(y))
    build = partial(dense, (64, 64, 1) if large else (16, 1), 'tanh')
    steps, batch_size = 1500 if large else 300, 4 if noisy else 32
    return KerasTask(build, (x, y.astype(np.float32)), validation, loss='mse', steps=steps, batch_size=batch_size)


@builtin
def wine(large: bool = False, noisy: bool = False) -> KerasTask:
    """A small network tells three cultivars of wine apart by thirteen measurements in the units they are in.

    One measurement is a thousand times the others, and hides them from rules that follow the gradient. Gradients carry
    some noise.

    Args:
        large: two hidden layers of 64 units in place of one of 16, and five times the steps.
        noisy: minibatches of 4 in place of 16, and a fifth of the training labels drawn at random.
    """
    from sklearn.datasets import load_wine

    random = fixed_random()
    (x, y), validation = _table(load_wine(return_X_y=True), 58, random)
    if noisy:
        y = mislabelled(y, 0.2, range(3), random)
    build = partial(dense, (64, 64, 3) if large else (16, 3))
    steps, batch_size = 3000 if large else 600, 4 if noisy else 16
    return KerasTask(build, (x, y), validation, loss=CROSSENTROPY, steps=steps, batch_size=batch_size)


@builtin
def ill_conditioned(large: bool = False, noisy: bool = False) -> KerasTask:
    """A linear regression has rotated inputs whose variances span four decades, so its loss is a narrow bowl.

    Optimisation is the limit, and a rule that scales each weight alone cannot undo the rotation. Gradients carry little
    noise, that of minibatches and one of standard deviation 0.1 on the training targets.

    Args:
        large: 256 inputs and five decades in place of 32 and four, and five times the steps.
        noisy: minibatches of 4 in place of 32, and ten times the noise on the training targets.
    """
    size, decades, steps = (256, 5, 6000) if large else (32, 4, 1200)
    random = fixed_random()
    deviations = np.logspace(0, -decades / 2, size)
    rotation, _ = np.linalg.qr(random.standard_normal((size, size)))
    independent = deviations * random.standard_normal((4500, size))
    y = independent @ (random.choice([-1.0, 1.0], size) * deviations**-0.5)  # narrow directions matter less, but do
    y[:4000] += (1.0 if noisy else 0.1) * random.standard_normal(4000)
    x, y = (independent @ rotation).astype(np.float32), y.astype(np.float32)
    train, validation = (x[:4000], y[:4000]), (x[4000:], y[4000:])
    build, batch_size = partial(dense, (1,)), 4 if noisy else 32
    return KerasTask(build, train, validation, loss='mse', steps=steps, batch_size=batch_size)


def _table(data: Examples, validation: int, random: np.random.Generator) -> tuple[Examples, Examples]:
    """Returns the rows of a table in two parts; all its columns are divided by one number, their standard deviation."""
    x, y = data
    held_out, train = np.split(random.permutation(len(x)), [validation])
    x = (x / x[train].std()).astype(np.float32)
    return (x[train], y[train]), (x[held_out], y[held_out])
