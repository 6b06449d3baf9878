"""Random rules for the tests, written in tokens that are spelled out here: no table of the package is read."""

import numpy as np

OPERANDS = (
    'g', 'g^2', 'g^3', 'm', 'v', 'gamma', 'sign(g)', 'sign(m)',
    '1', 'noise', '1e-4*w', '1e-3*w', '1e-2*w', '1e-1*w', 'adam', 'rmsprop',
)  # fmt: skip
UNARIES = (
    'x', '-x', 'exp', 'log', 'clip(1e-5)', 'clip(1e-4)', 'clip(1e-3)',
    'drop(0.1)', 'drop(0.3)', 'drop(0.5)', 'sign',
)  # fmt: skip
BINARIES = ('+', '-', '*', '/', 'left')
OPERANDS_2 = (
    'm99', 'm99_before', 'adam99', 'rmsprop99', 'adam95', 'rmsprop95', 'm_nesterov', 'linear', 'cosine', 'restart',
)  # fmt: skip
UNARIES_2 = ('sqrt', 'abs', 'square')
BINARIES_2 = ('max', 'min', 'lerp', 'agree')
WORDS_2 = (
    'm99', 'm99_before', 'adam99', 'rmsprop99', 'adam95', 'rmsprop95', 'm_nesterov', 'g * linear', 'g * cosine',
    'g * restart', 'sqrt(m)', 'abs(g - m)', 'square(v - g)', 'max(g, m)', 'min(g, m99)', 'lerp(g, m)', 'agree(g, m)',
    'adam95 * linear + agree(sign(lerp(m99_before, g)), g) * cosine - max(m_nesterov, g) / sqrt(v)',
)  # fmt: skip
"""Rules of version 2 that have each of its words, and one that has many."""
RANDOM = ('noise', 'drop(0.1)', 'drop(0.3)', 'drop(0.5)')


def random_tokens(random, iterations, stochastic=True, version=1):
    """The tokens of one rule, each uniform among those that are legal; half of the later operands are temporaries."""
    more = (OPERANDS_2, UNARIES_2, BINARIES_2) if version == 2 else ((), (), ())
    operands = [token for token in (*OPERANDS, *more[0]) if stochastic or token not in RANDOM]
    unaries = [token for token in (*UNARIES, *more[1]) if stochastic or token not in RANDOM]
    binaries = [*BINARIES, *more[2]]
    tokens = []
    for k in range(iterations):
        for _ in range(2):
            bank = [f't{j}' for j in range(1, k + 1)] if k and random.random() < 0.5 else operands
            tokens.append(bank[random.integers(len(bank))])
        tokens += [unaries[random.integers(len(unaries))] for _ in range(2)]
        tokens.append(binaries[random.integers(len(binaries))])
    return tuple(tokens)


def random_rules(count, seed, stochastic=True, deepest=3, version=1):
    """The tokens of `count` rules of one, two, ..., `deepest` iterations in turn."""
    random = np.random.default_rng(seed)
    return [random_tokens(random, 1 + i % deepest, stochastic, version) for i in range(count)]
