"""A rule as source of its own: an optimizer for Keras, Optax or PyTorch that imports nothing but its framework.

The formula is that of the rule's canonical form. Equal sub-expressions are one local variable, drawn once if random.
"""

import builtins
import keyword
import re
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from string import Template

from nos_tf.dsl.expression import to_infix
from nos_tf.dsl.known import KNOWN_RULES, KnownRule
from nos_tf.dsl.primitives import SLOTS, RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.optimizers.frameworks import FRAMEWORKS, Framework
from nos_tf.optimizers.source import formula_of

LINE = 88  # characters of a line: what the usual formatters leave as it is

CAPITALS = {
    'addsign': 'AddSign',
    'powersign': 'PowerSign',
    'rmsprop': 'RMSProp',
    'sgd': 'SGD',
    'signsgd': 'SignSGD',
}  # CamelCase where a capital alone would not do

MEANINGS = {
    'g': 'the gradient',
    'w': 'the weights',
    'm': 'the bias-corrected running average of g',
    'v': 'the bias-corrected running average of g^2',
    'gamma': 'the bias-corrected running average of g^3',
    'adam': 'm / (sqrt(v) + epsilon)',
    'rmsprop': 'g / (sqrt(v) + epsilon)',
    'noise': 'normal numbers of deviation noise_stddev, fresh at each step',
    'sign(x)': '-1, 0 or 1; 0 for denormals, NaN for NaN',
    'log(x)': 'log(max(|x|, epsilon))',
    'clip(x, c)': 'x, limited to [-c, c]',
    'drop(x, p)': '0 with probability p, else x, not rescaled; fresh at each step',
    'x / y': 'x / (y + epsilon)',
}

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

    >>> export('m * exp(g^2)', 'torch').splitlines()[-3].strip()
    'u = m * torch.exp(g**2)'
    """
    rule = rule if isinstance(rule, UpdateRule) else UpdateRule.parse(rule)
    if framework not in FRAMEWORKS:
        raise ValueError(f'no framework {framework!r}: choose from {", ".join(FRAMEWORKS)}')
    target = FRAMEWORKS[framework]
    canonical = rule.canonical()
    known = next((k for k in KNOWN_RULES.values() if UpdateRule.parse(k.infix).canonical() == canonical), None)
    title = _checked_name(name, target) if name is not None else _default_name(known, target)
    return _fill(target.template, _blanks(title, canonical, known, target))


def _default_name(known: KnownRule | None, target: Framework) -> str:
    snake = known.name if known else 'update_rule'
    return snake if target.is_function else _camel_case(snake)


def _camel_case(name: str) -> str:
    return ''.join(CAPITALS.get(word, word[:1].upper() + word[1:]) for word in name.split('_'))


def _checked_name(name: str, target: Framework) -> str:
    used = {*re.findall(r'\w+', target.template), *dir(builtins)}
    if not name.isidentifier() or keyword.iskeyword(name) or name in used:
        raise ValueError(f'{name!r} cannot name the optimizer: give an identifier that its source does not use itself')
    return name


def _blanks(
    name: str, rule: UpdateRule, known: KnownRule | None, target: Framework
) -> dict[str, Sequence[Mapping[str, str]]]:
    """The word of a gutter -> what its lines are filled with, once for each item; '' -> what any line may ask for."""
    formula = formula_of(rule.expression, target.spelling)
    words = set(re.findall(r'\w+', ' '.join([formula.text, *formula.assignments])))
    slots = [
        {'slot': slot.name, 'beta': slot.decay, 'power': 'g' if slot.power == 1 else f'g**{slot.power}'}
        for slot in (SLOTS[name] for name in rule.slots)
    ]
    if slots:
        words |= {'g', 'jnp'}
    elif words & {'_sign', '_drop'}:
        words.add('jnp')
    read = words.union(slot['beta'] for slot in slots)
    options = {option: _number(value) for option, value in asdict(RuleConstants()).items() if option in read}
    if rule.is_stochastic and target.seed:
        options['seed'] = target.seed
    trees = {'g': 'updates', **{slot: slot for slot in rule.slots}}
    trees |= {'w': 'params'} if 'w' in words else {}
    trees |= {'key': 'subkeys'} if rule.is_stochastic else {}
    common = {
        'name': name,
        'state': f'{_camel_case(name)}State',
        'source': known.source if known else '',
        'formula': formula.text,
        'draws': str(formula.draws),
        'options': ''.join(f', {option}={default}' for option, default in options.items()),
        'entries': ''.join(f', "{option}": {option}' for option in options),
        'arguments': ', '.join(trees),
        'trees': ', '.join(trees.values()),
    }

    def when(condition: object) -> Sequence[Mapping[str, str]]:
        return [{}] if condition else []

    return {
        **dict.fromkeys(words, when(True)),
        '': [common],
        'slot': slots,
        'slots': when(slots),
        'option': [{'option': option, 'purpose': PURPOSES[option]} for option in options],
        'options': when(options),
        'local': [{'local': line} for line in formula.assignments],
        'meaning': [{'meaning': line} for line in _meanings(to_infix(rule.expression))],
        'known': when(known),
        'random': when(rule.is_stochastic),
        'stateful': when(slots or rule.is_stochastic),
        'bare': when(not slots and not rule.is_stochastic),
    }


def _fill(template: str, blanks: Mapping[str, Sequence[Mapping[str, str]]]) -> str:
    """The blocks of lines whose gutter has something to fill them with."""
    lines = (line.partition('|') for line in template.strip('\n').splitlines())
    source = []
    for gutter, block in groupby(lines, key=lambda line: line[0].strip()):
        text = '\n'.join(line for _, _, line in block)
        source += [Template(text).substitute(blanks[''][0], **blank) for blank in blanks.get(gutter, ())]
    return '\n'.join(_wrap(line) for line in '\n'.join(source).splitlines()) + '\n'


def _wrap(line: str) -> str:
    """The line, or one line for each item between its brackets if it is too long."""
    match = re.fullmatch(r'( *)(.*?[({])(.*)([)}]:?)', line)
    if len(line) <= LINE or match is None:
        return line
    indent, head, items, tail = match.groups()
    return '\n'.join([indent + head, *(f'{indent}    {item},' for item in items.split(', ')), indent + tail])


def _meanings(infix: str) -> list[str]:
    """The formula as one would read it, then the words that it is made of."""
    text = textwrap.wrap(f'u = {infix}', 72, subsequent_indent='    ', break_long_words=False)
    words, used = set(re.findall(r'\w+', infix)), []
    for term, meaning in reversed(MEANINGS.items()):  # from the bottom: a meaning speaks of terms above it
        if ' / ' in infix if term == 'x / y' else term.partition('(')[0] in words:
            words.update(re.findall(r'\w+', meaning))
            used.append(f'{term}: {meaning}')
    return [f'    {line}' for line in (*text, *reversed(used))]


def _number(value: float) -> str:
    return repr(value).replace('e-0', 'e-')
