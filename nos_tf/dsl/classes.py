"""The programs of a space of one iteration, gathered into classes of those that compute the same function.

Deterministic programs are merged by their fingerprint, random ones by their canonical form alone: so one training for
each class rewards the whole space (154,880 programs over all primitives), as far as the fingerprint does not err.
"""

import dataclasses
import itertools
import math
from dataclasses import dataclass

import numpy as np

from nos_tf.dsl.equivalence import canonical_tokens, fingerprint, is_stochastic
from nos_tf.dsl.expression import from_tokens
from nos_tf.dsl.primitives import RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.dsl.space import SearchSpace

SAME_PROGRAM = 0  # the canonical form of the program is the representative of its class, and the same bit for bit
SAME_FUNCTION = 1  # the fingerprint alone says so


@dataclass(frozen=True)
class Classes:
    """The partition of a space; programs count in C order of the choices op1, op2, u1, u2, b.

    Args:
        of: int32 [P], the class of each program.
        origin: uint8 [P], SAME_PROGRAM or SAME_FUNCTION.
        representatives: a canonical rule for each class.
        forms: the number of distinct canonical forms.
        random_forms: how many of them draw random numbers.
    """

    of: np.ndarray
    origin: np.ndarray
    representatives: tuple[UpdateRule, ...]
    forms: int
    random_forms: int


def find_classes(space: SearchSpace, constants: RuleConstants) -> Classes:
    """The classes of a whole space, in the order of their first programs.

    Args:
        space: of one iteration, and without constraints.
        constants: the hyper-parameters of rules.

    Raises:
        ValueError: the space is another, or lacks primitives of a canonical form.
    """
    if space.iterations != 1 or space.size != math.prod(map(len, space.choices)):
        raise ValueError(
            f'SearchSpace.iterations = {space.iterations}, {space.size:,} legal rules: classes are found in a space of '
            'one iteration without constraints'
        )
    programs = [canonical_tokens(tokens) for tokens in itertools.product(*space.choices)]
    for form in set(programs):
        if missing := [token for token, bank in zip(form, space.choices, strict=True) if token not in bank]:
            raise ValueError(f'SearchSpace lacks {", ".join(missing)}, which the canonical form {" ".join(form)} needs')
    class_of_form: dict[tuple[str, ...], int] = {}
    class_of_function: dict[str, int] = {}
    representatives: list[tuple[str, ...]] = []
    random_forms = 0
    for form in dict.fromkeys(programs):
        is_random = is_stochastic(from_tokens(form))
        random_forms += is_random
        function = ' '.join(form) if is_random else fingerprint(form, constants)
        class_of_form[form] = class_of_function.setdefault(function, len(representatives))
        if class_of_form[form] == len(representatives):
            representatives.append(form)
    of = np.array([class_of_form[form] for form in programs], np.int32)
    same = np.array([representatives[class_of_form[form]] == form for form in programs])
    return Classes(
        of=of,
        origin=np.where(same, SAME_PROGRAM, SAME_FUNCTION).astype(np.uint8),
        representatives=tuple(map(UpdateRule, representatives)),
        forms=len(class_of_form),
        random_forms=random_forms,
    )


def program_of(space: SearchSpace, index: int) -> UpdateRule:
    """The program of an index in C order of its choices."""
    return space.rule(map(int, np.unravel_index(index, tuple(map(len, space.choices)))))


def draw_merged(classes: Classes, space: SearchSpace, trained: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Programs that only the fingerprint merged, each of another canonical form, at random: int32 [<= count].

    Args:
        classes: of the space.
        space: of the programs.
        trained: bool [C], the classes to draw from.
        count: how many to draw.
        seed: of the draw.
    """
    merged = np.flatnonzero((classes.origin == SAME_FUNCTION) & trained[classes.of])
    forms: dict[UpdateRule, int] = {}
    for program in np.random.default_rng(seed).permutation(merged):
        if len(forms) == count:
            break
        forms.setdefault(program_of(space, program).canonical(), int(program))
    return np.array(list(forms.values()), np.int32)


def draw_deeper(space: SearchSpace, count: int, seed: int) -> list[UpdateRule]:
    """Distinct canonical programs of two iterations: those of uniformly drawn strings that need both.

    Nine strings in ten do not read their first iteration: they are programs of one.

    Args:
        space: of the primitives.
        count: how many to draw; a tiny space may have fewer.
        seed: of the draw.
    """
    deep = dataclasses.replace(space, iterations=2)
    random = np.random.default_rng(seed)
    programs: dict[UpdateRule, None] = {}
    for _ in range(1000 * count):
        if len(programs) == count:
            break
        program = deep.rule(random.integers([len(bank) for bank in deep.choices])).canonical()
        if program.iterations == 2:
            programs[program] = None
    return list(programs)
