"""`KERAS_BACKEND=... python backend_run.py RESULT.npz`: what test_backends.py compares between backends of Keras.

A backend is chosen once for a process, so that each has one of its own.
"""

import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from nos_tf import NOSOptimizer

SEES_TENSORFLOW = 'tensorflow' in sys.modules

import keras  # noqa: E402
import numpy as np  # noqa: E402
from keras import ops  # noqa: E402

from nos_tf.optimizers.export import export  # noqa: E402
from tests.optimizers.walks import gradients, start  # noqa: E402

DETERMINISTIC = (
    'sgd', 'adam', 'rmsprop', 'signum', 'powersign', 'addsign', 'powersign_plus_clip', 'adam_powersign', 'adam_exp_m',
    'sgd_minus_clip_g2', 'm / (gamma + eps) + 1e-3*w', 'log(gamma) * g', 'lion', 'nadam', 'cautious_adam',
    'min(adam95, lerp(m99, g)) + sqrt(square(m))',
)  # fmt: skip
STOCHASTIC = ('drop(g, 0.5)', 'drop(m, 0.3) + drop(g, 0.1)', 'g + noise')


def walk(optimizer):
    """float32 [steps, 16]: the weights after each update."""
    variable = keras.Variable(start())
    trajectory = []
    for gradient in gradients():
        optimizer.apply([ops.convert_to_tensor(gradient)], [variable])
        trajectory.append(ops.convert_to_numpy(variable))
    return np.array(trajectory)


def exported(rule):
    """The optimizer that `export` prints for Keras."""
    names = {'__name__': 'exported'}
    exec(export(rule, 'keras', name='Exported'), names)  # noqa: S102 - it is what is tested
    return names['Exported']


def train(optimizer):
    """The losses of four epochs; the weights after two more, with and without a restore before these."""
    keras.utils.set_random_seed(3)
    x = np.random.default_rng(1).standard_normal([64, 4]).astype('float32')
    y = x[:, :1] * 0.5 - x[:, 1:2]
    model = keras.Sequential([keras.Input([4]), keras.layers.Dense(8, activation='tanh'), keras.layers.Dense(1)])
    model.compile(optimizer=optimizer, loss='mse')
    losses = model.fit(x, y, batch_size=16, epochs=4, shuffle=False, verbose=0).history['loss']
    with tempfile.TemporaryDirectory() as folder:
        model.save(f'{folder}/model.keras')
        restored = keras.saving.load_model(f'{folder}/model.keras')
    for each in (model, restored):
        each.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    flat = [np.concatenate([w.ravel() for w in each.get_weights()]) for each in (model, restored)]
    return np.array(losses), *flat


def main(path):
    """Runs everything, and writes it to `path`."""
    results = {'backend': keras.backend.backend(), 'sees_tensorflow': SEES_TENSORFLOW}
    for rule in (*DETERMINISTIC, *STOCHASTIC):
        results[f'walk {rule}'] = walk(NOSOptimizer(rule, 0.0625, seed=11))
    for rule in DETERMINISTIC:
        results[f'exported {rule}'] = walk(exported(rule)(0.0625))
    optimizers = {
        'rule': NOSOptimizer('drop(m, 0.3) * exp(sign(g) * sign(m)) + noise', 0.02, seed=5),
        'exported': exported('drop(m, 0.3) * exp(sign(g) * sign(m)) + noise')(0.02, seed=5),
    }
    for name, optimizer in optimizers.items():
        for part, value in zip(('losses', 'continued', 'restored'), train(optimizer), strict=True):
            results[f'{part} {name}'] = value
    np.savez(path, **results)


if __name__ == '__main__':
    main(sys.argv[1])
