"""Reads a rule written in infix notation, in our spelling or in the paper's: `g * e^{sign(g)*sign(m̂)}`.

Recursive descent over a grammar of four levels; no `eval`. Each error says which character could not be read.

    sum     = product (("+" | "-") product)*
    product = factor (("*" | "/") factor)*          a number and w may stand side by side: 10^{-3}w
    factor  = "-" factor | atom (("^" | "**") factor)?
    atom    = number | operand | function "(" sum ("," (number | sum))? ")" | "(" sum ")" | "[" sum "]" | "{" sum "}"
"""

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple, NoReturn

from nos_tf.dsl.expression import Apply, Combine, Expression, Leaf
from nos_tf.dsl.hints import about_name, did_you_mean
from nos_tf.dsl.known import KNOWN_RULES
from nos_tf.dsl.primitives import BINARIES, OPERAND, OPERANDS, UNARIES, UNARY

MAX_LENGTH = 10_000  # characters
MAX_NESTING = 64
MAX_SIZE = 4096  # nodes of a tree, which `^` can make many times longer than its text
MAX_NUMBER_LENGTH = 20  # characters

_LEXEME = re.compile(
    r"""(?P<skip>\s+|\\(?:hat|left|right|,|;|\s))
      | \\(?:operatorname|mathrm|text)\{(?P<roman>\w+)\}
      | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)
      | (?P<name>\\?[^\W\d]\w*\u0302?)
      | (?P<symbol>\*\*|\\cdot|\\times|[-+*/^(){}\[\]|,−·×])""",
    re.VERBOSE,
)
_SYMBOLS = {'**': '^', '\\cdot': '*', '\\times': '*', '·': '*', '×': '*', '−': '-'}
_CLOSING = {'(': ')', '[': ']', '{': '}'}

_OPERANDS = {name: row.token for row in OPERANDS if row.name for name in (row.name, *row.spellings)}
_WEIGHTS = {Decimal(row.parameter): row.token for row in OPERANDS if row.reads_weights and row.parameter}
_POWERS_OF_G = {2: 'g^2', 3: 'g^3'}
_FUNCTIONS = {name: row.name for row in UNARIES if row.name for name in (row.name, *row.spellings)}
_OF_TWO = [row.name for row in BINARIES if row.name]
_PARAMETERS = {
    name: {Decimal(row.parameter): row.token for row in UNARIES if row.name == name and row.parameter}
    for name in _FUNCTIONS.values()
}
_EPSILONS = ('eps', 'epsilon', 'ε', 'ϵ')


class _Epsilon(NamedTuple):
    """`expression + eps`, which only a denominator may be; `expression` is None for eps alone."""

    expression: Expression | None


class _Weights(NamedTuple):
    """The word w, which only a number may multiply."""


_Value = Expression | Decimal | _Epsilon | _Weights


class _Lexeme(NamedTuple):
    kind: str  # 'number', 'name', 'symbol' or 'end'
    text: str
    at: int


def read_infix(text: str) -> Expression:
    """The expression that `text` denotes.

    Raises:
        ValueError: the text cannot be read; the message names the character and what is allowed there.
    """
    if len(text) > MAX_LENGTH:
        raise ValueError(f'a rule of {len(text)} characters: at most {MAX_LENGTH} are read')
    reader = _Reader(text)
    expression = reader.expression(reader.sum(), 0)
    if reader.next.kind != 'end':
        reader.fail('expected an operator or the end')
    return expression


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.nesting = 0
        self.lexemes = self._split()
        self.position = 0

    def _split(self) -> list[_Lexeme]:
        lexemes, at = [], 0
        while at < len(self.text):
            match = _LEXEME.match(self.text, at)
            if match is None:
                self.fail('no rule contains this character: write words, numbers, brackets and + - * / ^', at)
            kind = str(match.lastgroup)
            word = match.group(kind)
            if kind == 'roman' or (kind == 'name' and word in _SYMBOLS):
                kind = 'name' if kind == 'roman' else 'symbol'
            if kind != 'skip':
                lexemes.append(_Lexeme(kind, _SYMBOLS.get(word, word), at))
            at = match.end()
        return [*lexemes, _Lexeme('end', '', len(self.text))]

    @property
    def next(self) -> _Lexeme:
        return self.lexemes[self.position]

    def fail(self, expected: str, at: int | None = None) -> NoReturn:
        """Raises the error that names a character, the next one unless `at` is given, and what is allowed there."""
        at = self.next.at if at is None else at
        found = f'character {at + 1} ({self.text[at]!r})' if at < len(self.text) else 'its end'
        shown = self.text if len(self.text) <= 80 else f'{self.text[:77]}...'
        raise ValueError(f'cannot read the rule {shown!r} at {found}: {expected}')

    def take(self, *symbols: str) -> str:
        """The next symbol if it is one of `symbols`, which is then consumed; else an empty string."""
        lexeme = self.next
        if lexeme.kind != 'symbol' or lexeme.text not in symbols:
            return ''
        self.position += 1
        return lexeme.text

    def require(self, symbol: str) -> None:
        if not self.take(symbol):
            self.fail(f'expected {symbol!r}')

    def expression(self, value: _Value, at: int) -> Expression:
        """`value` as something that a rule can compute with."""
        if isinstance(value, Decimal) and abs(value) == 1:
            one = Leaf('1')
            return one if value > 0 else Apply('-x', one)
        if isinstance(value, Decimal):
            hint = f'; in a product write ({_WEIGHTS[abs(value)]})' if abs(value) in _WEIGHTS else ''
            self.fail(f'the number {value} is no operand; 1, {_listed(_WEIGHTS.values())} are{hint}', at)
        if isinstance(value, _Epsilon):
            self.fail('eps stands only in a denominator: a / (b + eps)', at)
        if isinstance(value, _Weights):
            self.fail(f'w stands only as {_listed(_WEIGHTS.values(), "or")}', at)
        if value.depth > MAX_NESTING:
            self.fail(f'nested deeper than {MAX_NESTING} levels', at)
        if value.size > MAX_SIZE:
            self.fail(f'longer than {MAX_SIZE} terms when it is written out', at)
        return value

    def sum(self) -> _Value:
        """Products joined by + and -, from the left."""
        at = self.next.at
        value = self.product()
        while symbol := self.take('+', '-'):
            right_at = self.next.at
            right = self.product()
            if symbol == '+' and right == _Epsilon(None):
                value = _Epsilon(self.expression(value, at))
            else:
                value = Combine(symbol, self.expression(value, at), self.expression(right, right_at))
        return value

    def product(self) -> _Value:
        """Factors joined by * and /, from the left; a number before w needs no sign."""
        at = self.next.at
        value = self.factor()
        while True:
            beside = isinstance(value, Decimal) and self.next.kind == 'name' and self.next.text == 'w'
            symbol = '*' if beside else self.take('*', '/')
            if not symbol:
                return value
            right_at = self.next.at
            right = self.factor()
            numbers = [factor for factor in (value, right) if isinstance(factor, Decimal)]
            if symbol == '*' and numbers and _Weights in (type(value), type(right)):
                value = self.decayed_weights(numbers[0], at)
            elif symbol == '/' and isinstance(right, _Epsilon) and right.expression is not None:
                value = Combine('/', self.expression(value, at), right.expression)
            else:
                value = Combine(symbol, self.expression(value, at), self.expression(right, right_at))

    def decayed_weights(self, number: Decimal, at: int) -> Expression:
        """The operand that a number times w is."""
        if abs(number) not in _WEIGHTS:
            self.fail(f'{number}*w is no operand; {_listed(_WEIGHTS.values())} are', at)
        leaf = Leaf(_WEIGHTS[abs(number)])
        return leaf if number > 0 else Apply('-x', leaf)

    def factor(self) -> _Value:
        """A minus, a power of e, or an atom that may have an exponent."""
        self.nesting += 1
        if self.nesting > MAX_NESTING:
            self.fail(f'nested deeper than {MAX_NESTING} levels')
        at = self.next.at
        if self.take('-'):
            value = self.factor()
            result: _Value = -value if isinstance(value, Decimal) else Apply('-x', self.expression(value, at))
        elif self.next.kind == 'name' and self.next.text == 'e':
            self.position += 1
            self.require('^')
            result = Apply('exp', self.expression(self.factor(), at))
        else:
            result = self.atom()
            if self.take('^'):
                result = self.power(result, at)
        self.nesting -= 1
        return result

    def power(self, base: _Value, at: int) -> _Value:
        """The base to the exponent that comes next."""
        exponent_at = self.next.at
        exponent = self.factor()
        if isinstance(base, Decimal) and isinstance(exponent, Decimal) and base == 10 and abs(exponent) < 10:
            return base**exponent
        if not isinstance(exponent, Decimal) or exponent not in _POWERS_OF_G:
            self.fail('an exponent is 2 or 3, or stands on e', exponent_at)
        x = self.expression(base, at)
        if x == Leaf('g'):
            return Leaf(_POWERS_OF_G[int(exponent)])
        square = Combine('*', x, x)
        return square if exponent == 2 else Combine('*', square, x)

    def atom(self) -> _Value:
        """A number, an operand, a call, or a sum in brackets."""
        lexeme = self.next
        self.position += 1
        if lexeme.kind == 'number':
            if len(lexeme.text) > MAX_NUMBER_LENGTH or not 1e-9 < float(lexeme.text) < 1e9:
                self.fail('no rule contains this number: it must lie between 1e-9 and 1e9', lexeme.at)
            return Decimal(lexeme.text)
        if lexeme.kind == 'symbol' and lexeme.text in _CLOSING:
            value = self.sum()
            self.require(_CLOSING[lexeme.text])
            return value
        if lexeme.kind == 'name':
            name = lexeme.text.removeprefix('\\')
            if name in _FUNCTIONS:
                return self.call(_FUNCTIONS[name])
            if name in _OF_TWO:
                return self.call_of_two(name)
            if name in _EPSILONS:
                return _Epsilon(None)
            if name == 'w':
                return _Weights()
            operand = _OPERANDS.get(name) or _OPERANDS.get(name.lower())
            if operand:
                return Leaf(operand)
        self.position -= 1
        word = lexeme.text.removeprefix('\\') if lexeme.kind == 'name' else ''
        self.fail(
            about_name(word)
            or f'expected an operand ({", ".join(OPERAND)}), a function '
            f'({", ".join(dict.fromkeys([*_FUNCTIONS.values(), *_OF_TWO]))}) or the name of a known rule'
            + did_you_mean(word, (*_OPERANDS, *_FUNCTIONS, *_OF_TWO, *_EPSILONS, *KNOWN_RULES))
        )

    def call(self, function: str) -> Expression:
        """A function, whose name is read already, of what its brackets hold."""
        bar = function == 'log' and self.take('|')
        if not bar:
            self.require('(')
        inner_bar = function == 'log' and not bar and self.take('|')
        at = self.next.at
        argument = self.expression(self.sum(), at)
        if bar or inner_bar:
            self.require('|')
        if _PARAMETERS[function]:
            function = self.parametrised(function)
        if not bar:
            self.require(')')
        if isinstance(argument, Leaf) and argument.token in UNARY[function].of_leaf:
            return Leaf(UNARY[function].of_leaf[argument.token])
        return Apply(function, argument)

    def call_of_two(self, function: str) -> Expression:
        """A function, whose name is read already, of the two values that its brackets hold."""
        arguments = []
        for before in '(,':
            self.require(before)
            at = self.next.at
            arguments.append(self.expression(self.sum(), at))
        self.require(')')
        return Combine(function, *arguments)

    def parametrised(self, function: str) -> str:
        """The token `clip(l)` or `drop(p)` whose parameter comes next."""
        self.require(',')
        at = self.next.at
        parameter = self.product()
        allowed = _PARAMETERS[function]
        if not isinstance(parameter, Decimal) or parameter not in allowed:
            self.fail(f'{function} takes {", ".join(UNARY[token].parameter for token in allowed.values())}', at)
        return allowed[parameter]


def _listed(words: Iterable[str], joined_by: str = 'and') -> str:
    *first, last = words
    return f'{", ".join(first)} {joined_by} {last}'
