"""A rule as source of its own: an optimizer for Keras, Optax or PyTorch that imports nothing but its framework.

The source around the formula is a template of templates/, one for each framework.

The formula is that of the rule's canonical form. Equal sub-expressions are one local variable, drawn once if random.
"""

from __future__ import annotations

import builtins
import functools
import itertools
import keyword
import re
import textwrap
import unicodedata
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from nos_tf.dsl.expression import to_infix
from nos_tf.dsl.known import KNOWN_RULES, KnownRule
from nos_tf.dsl.primitives import BINARIES, OPERANDS, SLOTS, UNARIES, Primitive, RuleConstants, Slot
from nos_tf.dsl.rule import UpdateRule
from nos_tf.optimizers.source import KEY, Spelling, formula_of, number

if TYPE_CHECKING:
    import jinja2


@dataclass(frozen=True)
class Framework:
    """A framework that rules can be exported to; its template is a file of templates/.

    Args:
        spelling: of the functions in a formula.
        seed: the default of the seed; '' if the framework has a generator of its own.
        is_function: whether the optimizer is a function, and not a class.
    """

    spelling: Spelling
    seed: str = ''
    is_function: bool = False


HELPERS = {'sign': '_sign(%s)', 'nesterov': '_nesterov(%s, %s, %s, %s)'}
"""Functions that the templates define."""

FRAMEWORKS = {
    'keras': Framework(
        Spelling(
            'ops',
            HELPERS,
            drop='_drop(%s, %s, self.generator)',
            normal='_normal(%s, self.generator)',
            owner='self.',
        ),
        seed='None',
    ),
    'optax': Framework(
        Spelling(
            'jnp',
            HELPERS,
            drop=f'_drop(%s, %s, {KEY})',
            normal=f'jax.random.normal({KEY}, %s.shape, g.dtype)',
        ),
        seed='0',
        is_function=True,
    ),
    'torch': Framework(
        Spelling(
            'torch',
            {
                **HELPERS,
                'exp_of_sign': '_exp_of_sign(%s)',
                'maximum': 'torch.clip(%s, min=%s)',
                'minimum': 'torch.clip(%s, max=%s)',
            },
            drop='_drop(%s, %s)',
            normal='torch.randn_like(%s)',
        ),
    ),
}
"""The frameworks that a rule can be exported to, by name."""

LINE = 88  # characters of a line: what the usual formatters leave as it is

CAPITALS = {
    'addsign': 'AddSign',
    'powersign': 'PowerSign',
    'rmsprop': 'RMSProp',
    'sgd': 'SGD',
    'signsgd': 'SignSGD',
}  # CamelCase where a capital alone would not do

PURPOSES = {
    'beta_1': 'decay of m',
    'beta_2': 'decay of v',
    'beta_3': 'decay of gamma',
    'epsilon': 'keeps logarithms and quotients finite',
    'noise_stddev': 'standard deviation of noise',
    'seed': 'of the random numbers',
}


def export(rule: str | UpdateRule, framework: str, name: str | None = None) -> str:
    """The source of an optimizer, to be pasted anywhere.

    Args:
        rule: an `UpdateRule`, or text that `UpdateRule.parse` reads.
        framework: 'keras' (a `keras.optimizers.Optimizer`), 'optax' (a function that returns an
            `optax.GradientTransformation`) or 'torch' (a `torch.optim.Optimizer`).
        name: of the class or the function; None for the name under which the rule is known, or `UpdateRule`.

    Returns:
        Python, with a docstring that says what the rule is; hyper-parameters and slots are those that the rule reads.

    Raises:
        ValueError: the rule cannot be read, the framework is not among the three, or the name cannot be used.

    >>> export('m * exp(g^2)', 'torch').splitlines()[-2].strip()
    'u = m * torch.exp(g**2)'
    """
    rule = rule if isinstance(rule, UpdateRule) else UpdateRule.parse(rule)
    if framework not in FRAMEWORKS:
        raise ValueError(f'no framework {framework!r}: choose from {", ".join(FRAMEWORKS)}')
    canonical = rule.canonical()
    known = next((k for k in KNOWN_RULES.values() if UpdateRule.parse(k.infix).canonical() == canonical), None)
    if name is None:
        snake = known.name if known else 'update_rule'
        name = snake if FRAMEWORKS[framework].is_function else _camel_case(snake)
    elif not _may_be_called(name, _source(framework, 'Unnamed', canonical, known)):
        raise ValueError(f'{name!r} cannot name the optimizer: give an identifier that its source does not use itself')
    return _source(framework, name, canonical, known)


def _camel_case(name: str) -> str:
    return ''.join(CAPITALS.get(word, word[:1].upper() + word[1:]) for word in name.split('_'))


def _may_be_called(name: str, source: str) -> bool:
    name = unicodedata.normalize('NFKC', name)  # as Python reads it
    return name.isidentifier() and not keyword.iskeyword(name) and name not in {*_words(source), *dir(builtins)}


def _words(*texts: str) -> set[str]:
    return set(re.findall(r'\w+', ' '.join(texts)))


@functools.cache
def _template(framework: str) -> jinja2.Template:
    import jinja2  # few commands need it

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / 'templates'),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(f'{framework}.py.j2')


def _source(framework: str, name: str, rule: UpdateRule, known: KnownRule | None) -> str:
    """Fills the template of a framework."""
    target = FRAMEWORKS[framework]
    formula = formula_of(rule.expression, target.spelling)
    words = _words(formula.text, *formula.assignments)
    slots = [
        {
            'name': slot.name,
            'before': f'{slot.name}_before',
            'beta': str(slot.decay),
            'is_fixed': isinstance(slot.decay, float),
            'power': 'g' if slot.power == 1 else f'g**{slot.power}',
        }
        for slot in (SLOTS[name] for name in rule.slots)
    ]
    read = words | set(rule.constants)
    options = {option: number(value) for option, value in asdict(RuleConstants()).items() if option in read}
    limits = {option: '1.0' if option.startswith('beta') else 'float("inf")' for option in options}
    if rule.is_stochastic and target.seed:
        options['seed'] = target.seed
    text = _template(framework).render(
        name=name,
        state=f'{_camel_case(name)}State',
        source=known.source if known else '',
        meanings=_meanings(to_infix(rule.expression)),
        slots=slots,
        counts=bool(slots) or rule.reads_progress,
        required=', total_steps' if rule.reads_progress else '',
        numbers=(['total_steps'] if rule.reads_progress else []) + list(options),
        is_random=rule.is_stochastic,
        reads_gradient='g' in words or bool(slots),
        words=words,
        options=options,
        purposes=PURPOSES,
        limits=limits,
        signature=''.join(f', {option}={default}' for option, default in options.items()),
        assignments=formula.assignments,
        formula=formula.text,
        draws=formula.draws,
    )
    return '\n'.join(map(_wrap, _without_unused(text).splitlines())) + '\n'


def _without_unused(source: str) -> str:
    """Leaves out the helpers of a template that nothing else mentions."""
    mentions = Counter(re.findall(r'\w+', source))
    helpers = {part: re.match(r'def (_\w+)', part) for part in source.split('\n\n\n')}
    return '\n\n\n'.join(part for part, helper in helpers.items() if not helper or mentions[helper[1]] > 1)


def _wrap(line: str) -> str:
    """Returns the line, or what is between its last brackets on lines of their own if it is too long."""
    line = re.sub(r'^( *return )([^(].*[^)])$', r'\1(\2)', line) if len(line) > LINE else line
    close = max(map(line.rfind, ')}'))
    if len(line) <= LINE or line[close + 1 :] not in ('', ':'):
        return line
    depth, commas = 0, []
    for start in range(close, -1, -1):
        depth += (line[start] in ')}]') - (line[start] in '({[')
        if depth == 0:
            break
        if depth == 1 and line[start : start + 2] == ', ':
            commas.append(start)
    ends = [start - 1, *reversed(commas), close]
    items = [line[a + 2 : b] for a, b in itertools.pairwise(ends)]
    is_sum = not commas and line[start] == '(' and not line[start - 1].isalnum()  # brackets around a part of a formula
    indent = ' ' * (len(line) - len(line.lstrip()))
    body = [f'{indent}    {item}{"" if is_sum else ","}' for item in items]
    return '\n'.join([line[: start + 1], *body, indent + line[close:]])


def _meanings(infix: str) -> list[str]:
    """Returns the formula as one would read it, then the words that it is made of."""
    text = textwrap.wrap(f'u = {infix}', 72, subsequent_indent='    ', break_long_words=False)
    gradient, *rows = (*OPERANDS, *UNARIES, *BINARIES)
    explained: list[Primitive | Slot] = [
        gradient,
        *SLOTS.values(),
        *rows,
    ]  # a meaning speaks of what is explained above it
    lines = dict.fromkeys(each.meaning for each in explained if each.meaning)
    words, used = _words(infix), []
    for line in reversed(lines):
        term, meaning = line.split(': ', 1)
        if ' / ' in infix if term == 'x / y' else term.partition('(')[0] in words:
            words |= _words(meaning)
            used.append(line)
    return [*text, *(part for line in reversed(used) for part in textwrap.wrap(line, 76, subsequent_indent='    '))]
