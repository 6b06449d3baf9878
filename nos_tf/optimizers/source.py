"""Formulas of rules as source code: the rows of the primitives, computed on pieces of text instead of numbers."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from nos_tf.dsl.expression import Expression, Leaf, arguments, is_sign, row_of, walk
from nos_tf.dsl.primitives import ATOM, NEGATION, PRODUCT, SLOTS, SUM, Inputs

FORMULA = 60  # characters of a formula, behind the deepest indentation; a longer one gives parts of itself a name

KEY = '$key'
"""A placeholder in the spelling of a draw: the key that it draws by, where random numbers need one."""


def _operators(symbol: str) -> tuple[Callable[[Any, Any], 'Code'], Callable[[Any, Any], 'Code']]:
    """Returns what computes `x symbol y` of x and y, and what computes it of y and x."""

    def of(x: Any, y: Any) -> 'Code':
        """Returns the code of x, the symbol and y."""
        x, y = _code(x), _code(y)
        left, right = x.beside(y), y.beside(x)
        precedence = SUM if symbol in '+-' else PRODUCT
        text = f'{left.within(precedence)} {symbol} {right.within(precedence + 1)}'
        return Code(text, precedence, x.is_tensor or y.is_tensor)

    return of, lambda y, x: of(x, y)


@dataclass(frozen=True)
class Code:
    """A piece of source code that has a value.

    Args:
        text: the code.
        precedence: of its outermost operator, as in `nos_tf/dsl/primitives.py`.
        is_tensor: whether its value is a tensor, and not a number.
        is_one: whether it is a tensor of ones: beside another tensor the number 1 will do.
    """

    text: str
    precedence: int = ATOM
    is_tensor: bool = True
    is_one: bool = False

    def __neg__(self) -> 'Code':
        return Code(f'-{self.within(ATOM)}', NEGATION, self.is_tensor)

    def __gt__(self, other: Any) -> 'Code':
        return Code(f'{self.within(SUM)} > {_code(other).text}', 0)

    __add__, __radd__ = _operators('+')
    __sub__, __rsub__ = _operators('-')
    __mul__, __rmul__ = _operators('*')
    __truediv__, __rtruediv__ = _operators('/')
    __mod__, __rmod__ = _operators('%')

    def within(self, least: int) -> str:
        """Returns the text, in parentheses if its precedence is lower."""
        return self.text if self.precedence >= least else f'({self.text})'

    def beside(self, other: 'Code') -> 'Code':
        """Returns it as an operand: a tensor of ones is a number beside any other tensor."""
        return Code('1.0', is_tensor=False) if self.is_one and other.is_tensor and not other.is_one else self


def _code(x: Any) -> Code:
    return x if isinstance(x, Code) else Code(number(x), is_tensor=False)


def number(x: float) -> str:
    """Returns a number as one would write it."""
    return repr(x) if x == 0 or abs(x) >= 0.01 else f'{x:.0e}'.replace('e-0', 'e-')


@dataclass(frozen=True)
class Spelling:
    """How a framework spells functions.

    Args:
        library: the name under which it is imported; its functions are named as NumPy's are.
        functions: those that are spelled otherwise, with %s for each argument; `sign` is among them, and `exp_of_sign`
            if there is a faster way to the exponential of a sign, as rows have it (`Primitive.of_sign`).
        drop: the spelling of a dropped value, %s for the value and for the probability; `KEY` for its key.
        normal: likewise of standard normal numbers, %s for a tensor that they are to be like.
        owner: what is written before the name of a constant.
    """

    library: str
    functions: Mapping[str, str]
    drop: str
    normal: str
    owner: str = ''

    def power(self, x: Code, n: int) -> Code:
        """Returns x to the power of n."""
        return Code(f'{x.within(ATOM)}**{n}', NEGATION)

    def ones_like(self, x: Code) -> Code:
        """Returns ones."""
        return Code(f'{self.library}.ones_like({x.text})', is_one=True)

    def __getattr__(self, name: str) -> Callable[..., Code]:
        """Returns a function of the library."""
        if name.startswith('_'):  # what Python itself looks for
            raise AttributeError(name)

        def call(*values: Any) -> Code:
            codes = list(map(_code, values))
            texts = tuple(code.text for code in codes)
            spelling = self.functions.get(name, f'{self.library}.{name}({", ".join(["%s"] * len(texts))})')
            return Code(spelling % texts, is_tensor=any(code.is_tensor for code in codes))

        return call

    def inputs(self, key: str = '') -> Inputs:
        """Returns what a row reads, as code; `key` is what a random one draws by."""
        averages, before = ({slot: Code(f'{slot}{end}') for slot in SLOTS} for end in ('', '_before'))
        step, progress = (Code(name, is_tensor=False) for name in ('step', 'progress'))
        constants, draw = _Constants(self.owner), _Draw(self, key)
        return Inputs(Code('g'), Code('w'), averages, constants, draw, before=before, step=step, progress=progress)


@dataclass(frozen=True)
class _Constants:
    """The hyper-parameters of rules, each as its name."""

    owner: str

    def __getattr__(self, name: str) -> Code:
        return Code(f'{self.owner}{name}', is_tensor=False)


@dataclass(frozen=True)
class _Draw:
    """Draws for one node, as code."""

    spelling: Spelling
    key: str

    def drop(self, x: Code, probability: float) -> Code:
        """Returns the call that drops."""
        return Code((self.spelling.drop % (x.text, probability)).replace(KEY, self.key))

    def normal_like(self, x: Code) -> Code:
        """Returns the call that draws."""
        return Code((self.spelling.normal % x.text).replace(KEY, self.key))


@dataclass(frozen=True)
class Formula:
    """The code of an expression.

    Args:
        text: of its value.
        assignments: statements that come before.
        draws: how many keys they ask for, `key` if it is one, else `keys[0]` and so on.
    """

    text: str
    assignments: tuple[str, ...]
    draws: int


def formula_of(expression: Expression, spelling: Spelling) -> Formula:
    """Returns the code of an expression; what occurs twice in it, or is long, is a variable of its own."""
    printer = _Printer(expression, spelling)
    text = printer.code(expression).text
    return Formula(text, tuple(printer.assignments), len(printer.draws))


class _Printer:
    def __init__(self, expression: Expression, spelling: Spelling) -> None:
        self.spelling = spelling
        nodes = dict.fromkeys(walk(expression))
        self.draws = [e for e in nodes if row_of(e).is_random]
        occurrences = Counter(child for e in nodes for child in arguments(e))
        self.repeated = {e for e, count in occurrences.items() if count > 1}
        self.names: dict[Expression, str] = {}
        self.assignments: list[str] = []

    def code(self, e: Expression) -> Code:
        """Returns the code of `e`: its name if it has one."""
        if e in self.names:
            return Code(self.names[e])
        parts = {child: self.code(child) for child in arguments(e)}
        code = self._spell(e, parts)
        for child in sorted(parts, key=lambda child: -len(parts[child].text)):
            if len(code.text) > FORMULA and child not in self.names:
                parts[child] = self._name(child, parts[child])
                code = self._spell(e, parts)
        is_cheap = isinstance(e, Leaf) and ('(' not in code.text or code.is_one)
        return self._name(e, code) if e in self.repeated and not is_cheap else code

    def _spell(self, e: Expression, parts: Mapping[Expression, Code]) -> Code:
        row, parts_of = row_of(e), [parts[x] for x in arguments(e)]
        faster = f'{row.name}_of_sign'
        if row.of_sign and faster in self.spelling.functions and is_sign(*arguments(e)):
            return getattr(self.spelling, faster)(*parts_of)
        key = f'keys[{self.draws.index(e)}]' if e in self.draws and len(self.draws) > 1 else 'key'
        return row.compute(self.spelling, self.spelling.inputs(key), *parts_of)

    def _name(self, e: Expression, code: Code) -> Code:
        word = re.sub(r'\W', '_', e.token).strip('_') if isinstance(e, Leaf) else ''
        self.names[e] = word if word.isidentifier() else f't{1 + sum(n[0] == "t" for n in self.names.values())}'
        self.assignments.append(f'{self.names[e]} = {code.text}')
        return Code(self.names[e])
