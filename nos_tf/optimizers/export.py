"""A rule as source of its own: an optimizer for Keras, Optax or PyTorch that imports nothing but its framework.

The formula is that of the rule's canonical form. Equal sub-expressions are one local variable, drawn once if random.
"""

import builtins
import keyword
import re
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from itertools import groupby
from string import Template

from nos_tf.dsl.expression import Apply, Expression, Leaf, arguments, row_of, to_infix, walk
from nos_tf.dsl.known import KNOWN_RULES, KnownRule
from nos_tf.dsl.primitives import ATOM, NEGATION, PRODUCT, SLOTS, RuleConstants
from nos_tf.dsl.rule import UpdateRule
from nos_tf.optimizers.frameworks import FRAMEWORKS, KEY, Framework

ONE = Leaf('1')
LINE = 88  # characters of a line: what the usual formatters leave as it is
FORMULA = 60  # characters of a formula, behind the deepest indentation; a longer one gives parts of itself a name

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
    formula, local, draws = _formula(rule.expression, target.spellings)
    words = set(re.findall(r'\w+', ' '.join([formula, *local])))
    slots = [
        {'slot': slot, 'beta': f'beta_{k}', 'power': 'g' if k == 1 else f'g**{k}'}
        for k, slot in enumerate(SLOTS, start=1)
        if slot in rule.slots
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
        'formula': formula,
        'draws': str(draws),
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
        'local': [{'local': line} for line in local],
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


def _formula(expression: Expression, spellings: Mapping[str, str]) -> tuple[str, list[str], int]:
    """The code of an expression, the assignments that it needs before it, and how many keys they ask for."""
    printer = _Printer(expression, spellings)
    return printer.code(expression)[0], printer.assignments, len(printer.draws)


class _Printer:
    """Prints an expression with as few parentheses as it needs, and gives a name to what occurs twice or is long."""

    def __init__(self, expression: Expression, spellings: Mapping[str, str]) -> None:
        self.spellings = spellings
        nodes = dict.fromkeys(walk(expression))
        self.draws = [e for e in nodes if KEY in spellings[e.token]]
        occurrences = Counter(child for e in nodes for child in arguments(e))
        self.repeated = {e for e, count in occurrences.items() if count > 1}
        self.names: dict[Expression, str] = {}
        self.assignments: list[str] = []

    def code(self, e: Expression) -> tuple[str, int]:
        """The text of `e` and the precedence of its outermost operator."""
        if e in self.names:
            return self.names[e], ATOM
        parts = {child: self.code(child) for child in arguments(e)}
        text, precedence = self._spell(e, parts)
        for child in sorted(parts, key=lambda child: -len(parts[child][0])):
            if len(text) > FORMULA and child not in self.names:
                parts[child] = self._name(child, parts[child][0])
                text, precedence = self._spell(e, parts)
        is_cheap = isinstance(e, Leaf) and ('(' not in text or e == ONE)
        return self._name(e, text) if e in self.repeated and not is_cheap else (text, precedence)

    def _name(self, e: Expression, text: str) -> tuple[str, int]:
        word = re.sub(r'\W', '_', e.token).strip('_') if isinstance(e, Leaf) else ''
        self.names[e] = word if word.isidentifier() else f't{1 + sum(n[0] == "t" for n in self.names.values())}'
        self.assignments.append(f'{self.names[e]} = {text}')
        return self.names[e], ATOM

    def _spell(self, e: Expression, parts: Mapping[Expression, tuple[str, int]]) -> tuple[str, int]:
        spelling = self.spellings[e.token]
        if e in self.draws:
            spelling = spelling.replace(KEY, f'keys[{self.draws.index(e)}]' if len(self.draws) > 1 else 'key')

        def text(child: Expression, least: int) -> str:
            inner, precedence = parts[child]
            return inner if precedence >= least else f'({inner})'

        if isinstance(e, Leaf):
            return spelling, PRODUCT if re.search(' [*/] ', spelling) else NEGATION if '**' in spelling else ATOM
        if isinstance(e, Apply):
            is_negation = e.token == '-x'
            return spelling % text(e.argument, ATOM if is_negation else 0), NEGATION if is_negation else ATOM
        precedence = row_of(e).precedence
        left, right = text(e.left, precedence), text(e.right, 1 if e.token == '/' else precedence + 1)
        if e.left != e.right:  # beside a tensor, a number will do
            left, right = ('1.0' if child == ONE else side for child, side in ((e.left, left), (e.right, right)))
        return spelling % (left, right), precedence
