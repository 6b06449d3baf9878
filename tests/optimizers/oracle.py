"""A second interpreter of rules in float64 NumPy, written from the definition of the language alone.

It shares no line with the package: a mistake would have to be made twice to go unnoticed. Random numbers are fed in;
`draws` makes those that the package should draw.
"""

import numpy as np

from tests.rules import OPERANDS, UNARIES

BETAS = {'m': 0.9, 'v': 0.999, 'gamma': 0.999}
LATER = {'m99': (1, 0.99), 'v99': (2, 0.99), 'v95': (2, 0.95)}  # power and decay of the averages of version 2
EPSILON = 1e-8
NOISE_STDDEV = 0.01


def sign(x):
    result = np.zeros_like(x)
    result[x > 1.2e-38] = 1.0
    result[x < -1.2e-38] = -1.0
    result[np.isnan(x)] = np.nan
    return result


def clip(x, limit):
    result = x.copy()
    result[x > limit] = limit
    result[x < -limit] = -limit
    return result


def operand_value(token, leaves, epsilon=EPSILON, noise_stddev=NOISE_STDDEV):
    """The value of an operand, given g, w, the corrected averages and (for noise) standard normal numbers."""
    g, w = leaves['g'], leaves['w']
    if token in ('g', 'm', 'v', 'gamma', 'm99', 'm99_before'):
        return leaves[token]
    if token in ('adam99', 'rmsprop99', 'adam95', 'rmsprop95'):
        above, below = leaves['m' if token[0] == 'a' else 'g'], leaves[f'v{token[-2:]}']
        return above / (below**0.5 + epsilon)
    if token == 'm_nesterov':
        return nesterov(leaves)
    if token in ('linear', 'cosine', 'restart'):
        done = leaves['progress']
        angle = {'linear': 0, 'cosine': np.pi * done, 'restart': np.pi * ((4 * done) % 1)}[token]
        return np.full_like(g, 1 - done if token == 'linear' else (1 + np.cos(angle)) / 2)
    if token == 'g^2':
        return g * g
    if token == 'g^3':
        return g * g * g
    if token in ('sign(g)', 'sign(m)'):
        return sign(leaves[token[5]])
    if token == '1':
        return np.full_like(g, 1.0)
    if token == 'noise':
        return leaves['normal'] * noise_stddev
    if token.endswith('*w'):
        return {'1e-4': 0.0001, '1e-3': 0.001, '1e-2': 0.01, '1e-1': 0.1}[token[:4]] * w
    numerator = {'adam': 'm', 'rmsprop': 'g'}[token]
    return leaves[numerator] / (leaves['v'] ** 0.5 + epsilon)


def nesterov(leaves):
    """Nadam's numerator, as Keras has it: the momentum of step i is u_i, and products are multiplied out."""
    step, beta = round(float(np.ravel(leaves['step'])[0])), leaves['beta_1']
    u = [beta * (1 - 0.5 * 0.96**i) for i in range(1, step + 2)]
    until_now = np.prod(u[:-1])
    m = leaves['m'] * (1 - beta**step)
    return u[-1] * m / (1 - until_now * u[-1]) + (1 - u[-2]) * leaves['g'] / (1 - until_now)


def unary_value(token, x, keep=None, epsilon=EPSILON):
    """The value of a unary function; `keep` is the mask of a `drop`."""
    if token == 'x':
        return x
    if token == '-x':
        return 0.0 - x
    if token == 'exp':
        return np.exp(x)
    if token == 'log':
        magnitude = np.abs(x)
        magnitude[magnitude < epsilon] = epsilon
        return np.log(magnitude)
    if token.startswith('clip'):
        return clip(x, {'clip(1e-5)': 0.00001, 'clip(1e-4)': 0.0001, 'clip(1e-3)': 0.001}[token])
    if token.startswith('drop'):
        return np.array([value if kept else 0.0 for value, kept in zip(x, keep, strict=True)])
    if token in ('sqrt', 'abs', 'square'):
        size = np.maximum(x, 0.0 - x)
        return {'sqrt': size**0.5, 'abs': size, 'square': size**2}[token]
    assert token == 'sign', token
    return sign(x)


def binary_value(token, x, y, epsilon=EPSILON):
    """The value of a binary function."""
    if token == '+':
        return x + y
    if token == '-':
        return x - y
    if token == '*':
        return x * y
    if token == '/':
        return x / (y + epsilon)
    if token in ('max', 'min'):
        larger = x > y
        first = larger if token == 'max' else ~larger
        return np.where(np.isnan(x) | np.isnan(y), np.nan, np.where(first, x, y))
    if token == 'lerp':
        return 0.9 * x + 0.1 * y
    if token == 'agree':
        return np.where(x * y > 0, x, 0.0)
    assert token == 'left', token
    return x


def evaluate(tokens, leaves, keep=None, epsilon=EPSILON, noise_stddev=NOISE_STDDEV):
    """The update over λ, of vectors; `keep(operand, unary)` is the mask of a `drop` of that operand."""
    results = {}
    for number in range(len(tokens) // 5):
        op1, op2, u1, u2, b = tokens[5 * number : 5 * number + 5]
        sides = []
        for operand, unary in ((op1, u1), (op2, u2)):
            value = results[operand] if operand in results else operand_value(operand, leaves, epsilon, noise_stddev)
            mask = keep(operand, unary) if unary.startswith('drop') else None
            sides.append(unary_value(unary, np.array(value), mask, epsilon))
        results[f't{number + 1}'] = binary_value(b, *sides, epsilon)
    return results[f't{len(tokens) // 5}']


def _mix(x):
    x = (x ^ x >> np.uint32(16)) * np.uint32(0x7FEB352D)
    x = (x ^ x >> np.uint32(15)) * np.uint32(0x846CA68B)
    return x ^ x >> np.uint32(16)


def random_bits(seed, step, node, size):
    """Integers in [0, 2^24) of the first `size` elements: a hash, in unsigned integers that wrap."""
    key = np.zeros(size, np.uint32)
    for part in (seed, step, node):
        key = _mix(key ^ np.uint32(part & 0xFFFFFFFF))
    return _mix(_mix(np.arange(size, dtype=np.uint32) ^ key) + _mix(key)) >> np.uint32(8)


def draws(seed, size):
    """What `train` is fed: `keep(step, operand, unary)`, the mask of a drop, and the standard normal `normal(step)`."""

    def keep(step, operand, unary):
        identity = OPERANDS.index(operand) if operand in OPERANDS else 15 + int(operand[1:])
        uniform = random_bits(seed, step, 1 + 11 * identity + UNARIES.index(unary), size) / 2**24
        return uniform >= {'drop(0.1)': 0.1, 'drop(0.3)': 0.3, 'drop(0.5)': 0.5}[unary]

    def normal(step):
        radius, angle = ((random_bits(seed, step, node, size) + 0.5) / 2**24 for node in (0, -1))
        return np.sqrt(-2 * np.log(radius)) * np.cos(2 * np.pi * angle)

    return {'keep': keep, 'normal': normal}


def train(
    tokens, weights, gradients, learning_rate, *,
    betas=BETAS, epsilon=EPSILON, noise_stddev=NOISE_STDDEV, keep=None, normal=None, nudge=None, total_steps=None,
):  # fmt: skip
    """The weights [P] after each update by gradients [steps, P].

    `keep(step, operand, unary)` and `normal(step)` are the random numbers, steps from 1. `nudge` [P] multiplies the
    weights at the start and the averages at each use: what rounding might do, enlarged.
    """
    nudge = np.ones_like(weights) if nudge is None else nudge
    averages = {name: (power, beta) for power, (name, beta) in enumerate(betas.items(), start=1)} | LATER
    w, sums = weights * nudge, {name: np.zeros_like(weights) for name in averages}
    trajectory = []
    with np.errstate(all='ignore'):
        for step, g in enumerate(gradients, start=1):
            leaves = {'g': g, 'w': w, 'normal': normal(step) if normal else None, 'step': step, 'beta_1': betas['m']}
            leaves |= {'m99_before': sums['m99'], 'progress': min(1, (step - 1) / (total_steps or len(gradients)))}
            for name, (power, beta) in averages.items():
                sums[name] = beta * sums[name] + (1 - beta) * g**power
                leaves[name] = sums[name] / (1 - beta**step) * nudge
            masks = (lambda operand, unary, step=step: keep(step, operand, unary)) if keep else None
            w = w - learning_rate * evaluate(tokens, leaves, masks, epsilon, noise_stddev)
            trajectory.append(w)
    return np.array(trajectory)
