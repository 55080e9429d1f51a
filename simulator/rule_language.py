"""The language of Loihi's learning rules: sums of products as text, read into terms.

    parse("dw = 2*y0*x1 - 2*x0*y1")            # {"w": (Product(...), Product(...))}
    parse("dt = y0*x1 - u0*t*2^-3; dw = u0*t*m1")

Rules for the weight w, the delay d and the tag t are separated by ";" or line ends. The grammar is that of Lava
(symbolic_equation.py, 2025), blanks ignored:

    rule    := ["+"|"-"] product {("+"|"-") product}
    product := item {"*" item}                       exactly one of the first items x0, y0, m0 or u<digit>
    item    := name | literal | "(" [sign] literal ")" | "(" [sign] name [("+"|"-") literal] ")"
             | "(" [sign] literal ("+"|"-") name ")" | "sgn(" the same with w, d or t, not negated ")"
    literal := number ["*2^" [sign] int] | "2^" [sign] int

Ours beside it: decimals, and m0 and m1, the modulatory input of the neuron and its trace. x0 and y0 are spikes of input
and output, x1, x2, y1, y2, y3 their traces, which contain the present spike; u<k> is 1 in every 2^k-th step, else 0.
What Lava reads otherwise than written is refused here: negative factors without brackets (it cuts the product at the
minus), u<k> behind another dependency (dropped), u10 (read as u1).
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

DEPENDENCIES = ("x0", "y0", "m0")  # and u0 to u9
TRACES = ("x1", "x2", "y1", "y2", "y3", "m1")
TARGETS = ("w", "d", "t")  # weight, delay, tag
NAMES = (*DEPENDENCIES, *TRACES, *TARGETS)
TOKEN = re.compile(r"(?P<number>(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<symbol>\S)", re.ASCII)


class RuleError(ValueError):
    """A text that is no rule; the message points at the character."""


class Factor(NamedTuple):
    """(value of `name` + constant), or the sign of that."""

    name: str
    constant: float = 0.0
    sign: bool = False


class Product(NamedTuple):
    """scale * dependency * factors; a dependency u<k> is no number but tells in which steps."""

    scale: float
    dependency: str
    factors: tuple[Factor, ...]


class Token(NamedTuple):
    """A number, name, symbol or "end", and the place of its first character, from 0."""

    kind: str
    text: str
    at: int


Rules = dict[str, tuple[Product, ...]]  # by target


def parse(text: str) -> Rules:
    """Return the products of each target, in the order of the text. Raises RuleError, which points at the character."""
    if not isinstance(text, str):
        raise RuleError(f"a rule is a text such as 'dw = y0*x1 - x0*y1', not {text!r}")
    rules: Rules = {}
    periods: set[str] = set()
    at = 0
    for statement in re.split("[;\n]", text):
        if statement.strip():
            parser = _Parser(text, at, at + len(statement), periods)
            target = parser.target(rules)
            rules[target] = parser.products()
        at += len(statement) + 1
    if not rules:
        raise RuleError("the rule is empty: write at least one of 'dw = ...', 'dd = ...', 'dt = ...'")
    return rules


def names(rules: Rules) -> set[str]:
    """Return all names in the products, dependencies included."""
    products = [product for products in rules.values() for product in products]
    return {p.dependency for p in products} | {factor.name for p in products for factor in p.factors}


def representable(rules: Rules) -> tuple[bool, str]:
    """Tell whether Loihi can hold the rules, and why not ("" where it can).

    Limits as in Lava: the numbers of a product make one mantissa * 2^exponent, mantissa -8 to 7 when even values have
    been halved into the exponent, exponent -7 to 8; an added constant is whole and has 8 bits and a sign.
    """
    for target, products in rules.items():
        for number, product in enumerate(products, 1):
            reason = _unknown_to_chip(product)
            if reason:
                return False, f"product {number} of d{target}: {reason}"
    return True, ""


def _unknown_to_chip(product: Product) -> str:
    for name in (product.dependency, *(factor.name for factor in product.factors)):
        if name[0] == "m":
            return f"the chip has no {name}; there a reward takes the place of a trace y1, y2 or y3"
    for factor in product.factors:
        if factor.constant % 1 or abs(factor.constant) > 255:
            return f"the constant {factor.constant:g} beside {factor.name} is not a whole number of 8 bits and a sign"
    mantissa, divisor = product.scale.as_integer_ratio()
    exponent = 1 - divisor.bit_length()
    while mantissa and mantissa % 2 == 0:
        mantissa, exponent = mantissa // 2, exponent + 1
    if not -8 <= mantissa <= 7:
        return f"the factor {product.scale:g} is no number from -8 to 7 times a power of 2"
    return "" if -7 <= exponent <= 8 else f"the factor {product.scale:g} needs the power 2^{exponent}, beyond -7 to 8"


class _Parser:
    """Reads the statement text[first:last]; `periods` collects the u<k> of all statements, for there is one k only."""

    def __init__(self, text: str, first: int, last: int, periods: set[str]):
        self.text, self.periods = text, periods
        found = TOKEN.finditer(text, first, last)
        self.tokens = [Token(match.lastgroup, match.group(), match.start()) for match in found]
        self.tokens.append(Token("end", "", last))
        self.here = 0

    def target(self, taken: Rules) -> str:
        """Read "dw =" and return "w"."""
        token = self._take()
        if token.text not in ("dw", "dd", "dt"):
            self._refuse(token, "a rule begins with 'dw =', 'dd =' or 'dt ='")
        if token.text[1] in taken:
            self._refuse(token, f"there are two rules {token.text}: write them as one sum")
        self._expect("=", f"'=' must follow {token.text}")
        return token.text[1]

    def products(self) -> tuple[Product, ...]:
        """Read the sum."""
        sign = self._sign()
        found = [self._product(sign)]
        while self._next.kind != "end":
            if self._next.text not in ("+", "-"):
                self._refuse(self._next, _instead(self._next))
            found.append(self._product(self._sign()))
        return tuple(found)

    def _product(self, sign: int) -> Product:
        begin = self._next
        scale, dependency, factors = float(sign), None, []
        while True:
            item = self._next
            number, factor = self._item()
            scale *= number
            if factor is not None and dependency is None and _is_dependency(factor):
                dependency = factor.name
            elif factor is not None:
                self._check_late(item, factor)
                factors.append(factor)
            if self._next.text != "*":
                break
            self._take()
        if not math.isfinite(scale):
            self._refuse(begin, "the numbers of this product are too large")
        if dependency is None:
            self._refuse(begin, "this product needs a dependency: one of x0, y0, m0 or u0 to u9 times the rest")
        return Product(scale, dependency, tuple(factors))

    def _item(self) -> tuple[float, Factor | None]:
        """Read an item; return (its numbers, its variable)."""
        token = self._next
        if token.text in ("+", "-"):
            self._refuse(token, f"a sign within a product needs brackets, as in ({token.text}2) or ({token.text}x1)")
        if token.kind == "number":
            return self._literal(), None
        if token.text == "(":
            self._take()
            return self._bracket(False)
        if token.text == "sgn":
            self._take()
            self._expect("(", "'(' must follow sgn")
            return self._bracket(True)
        return 1.0, Factor(self._name())

    def _bracket(self, sgn: bool) -> tuple[float, Factor | None]:
        """Read "[sign] name +- literal )", or its other forms; -x1 + 3 becomes -1 and (x1 - 3)."""
        begin, name, constant, negative = self._next, None, 0.0, 1
        for part in range(2):
            sign = self._sign() if part == 0 or self._next.text in ("+", "-") else 0
            if sign == 0:
                break
            if self._next.text in ("(", "sgn"):
                self._refuse(self._next, "brackets do not nest: one name and one number at most")
            if self._next.kind == "number":
                if constant or part and name is None:
                    self._refuse(self._next, "a bracket holds one number at most")
                constant = sign * self._literal()
            else:
                if name is not None and self._next.kind == "name":
                    self._refuse(self._next, "a bracket holds one name at most: write the sum as two products")
                begin, name, negative = self._next, self._name(), sign
        self._expect(")", "')' is missing: a bracket holds one name plus or minus one number")
        return self._bracketed(sgn, begin, name, constant, negative)

    def _bracketed(self, sgn, begin, name, constant, negative) -> tuple[float, Factor | None]:
        if sgn and (name not in TARGETS or negative < 0):
            self._refuse(begin, "sgn( ) takes w, d or t, not negated, plus or minus a number")
        if name is None:
            return constant, None
        if name[0] == "u" and constant:
            self._refuse(begin, f"{name} tells in which steps; nothing can be added to it")
        return float(negative), Factor(name, negative * constant, sgn)

    def _literal(self) -> float:
        """Read a number, 2^n or number*2^n."""
        token = self._take()
        if self._next.text == "^":
            return self._power(token)
        value = float(token.text)
        ahead = [token.text for token in self.tokens[self.here : self.here + 3]]
        if ahead == ["*", "2", "^"]:
            self._take()
            value *= self._power(self._take())
        if math.isinf(value):
            self._refuse(token, "this number is too large")
        return value

    def _power(self, base: Token) -> float:
        if base.text != "2":
            self._refuse(base, "only 2 can be raised to a power, as in 2^-3")
        self._take()
        sign, token = self._sign(), self._take()
        if not re.fullmatch(r"[0-9]+", token.text) or len(token.text) > 2:
            self._refuse(token, "the power of 2 must be a whole number below 100, as in 2^-3")
        return 2.0 ** (sign * int(token.text))

    def _name(self) -> str:
        token = self._take()
        if re.fullmatch(r"u\d", token.text):
            if self.periods | {token.text} != {token.text}:
                self._refuse(token, f"only one u<k> may be used in all rules; {min(self.periods)} is used already")
            self.periods.add(token.text)
        elif re.fullmatch(r"u\d*", token.text):
            self._refuse(token, "u takes one digit, u0 to u9: u<k> is every 2^k-th step")
        elif token.text not in NAMES:
            self._refuse(token, "a number or a name must stand here; names: " + ", ".join((*NAMES, "u0 to u9")))
        return token.text

    def _check_late(self, item: Token, factor: Factor) -> None:
        if factor.name[0] == "u":
            self._refuse(item, f"{factor.name} must be the first dependency of its product, before x0, y0 and m0")

    def _sign(self) -> int:
        return (-1 if self._take().text == "-" else 1) if self._next.text in ("+", "-") else 1

    def _expect(self, symbol: str, message: str) -> None:
        if self._next.text != symbol:
            self._refuse(self._next, message)
        self._take()

    @property
    def _next(self) -> Token:
        return self.tokens[self.here]

    def _take(self) -> Token:
        token = self.tokens[self.here]
        self.here = min(self.here + 1, len(self.tokens) - 1)
        return token

    def _refuse(self, token: Token, message: str) -> None:
        rest = self.text[token.at :].split("\n")[0].split(";")[0].strip()
        where = f"before {rest!r}" if rest else "at the end"
        raise RuleError(f"character {token.at + 1} of the rule, {where}: {message}")


def _is_dependency(factor: Factor) -> bool:
    plain = not factor.constant and not factor.sign
    return plain and (factor.name in DEPENDENCIES or factor.name[0] == "u")


def _instead(token: Token) -> str:
    if token.text == "/":
        return "there is no division: multiply with a number below 1"
    if token.text == ")":
        return "this ')' closes no bracket"
    return "'*', '+' or '-' must stand here"
