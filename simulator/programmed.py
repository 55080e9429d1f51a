"""Synapses that learn by a rule given as text (rule_language.py), with its traces, tags and delays.

    rule = TextRule("dt = y0*x1 - 0.1*u0*t; dw = 0.01*u0*t*m1")
    Layer(LIF(10, tau=2.5), [Programmed(weights, rule)])

One step is one epoch of the chip. Every product of a rule reads w, d and t from before the update, as in Lava:

    Z' = clip(Z + sum_i scale_i rows_i columns_i^T * elements_i)       Z of w, d, t, each (P, E)

where rows are factors of y0 to y3, m0, m1 (P,), columns those of x0 to x2 (E,), and elements those of w, d, t.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from simulator.plasticity import Decay
from simulator.rule_language import Factor, Product, Rules, names, parse
from simulator.streamnet import whole
from simulator.synapses import Plastic, signed

ROWS = ("y0", "y1", "y2", "y3", "m0", "m1")  # what varies with the neuron
COLUMNS = ("x0", "x1", "x2")  # what varies with the input
MORE_TRACES = ("x2", "y2", "y3")


@dataclass(frozen=True)
class TextRule:
    """A rule as text, and the further traces that it names: x2 of the input, y2 and y3 of the output spikes.

    Raises ValueError for a text that is no rule, and for a trace that is named and not given.
    """

    text: str
    x2: Decay | None = None
    y2: Decay | None = None
    y3: Decay | None = None

    def __post_init__(self):
        for name in MORE_TRACES:
            if name in self.names and not isinstance(getattr(self, name), Decay):
                raise ValueError(f"the rule names {name}, which needs a trace: TextRule(text, {name}=Decay.of(0.1))")

    @cached_property
    def rules(self) -> Rules:
        """The products of each target."""
        return parse(self.text)

    @cached_property
    def names(self) -> set[str]:
        """All names in the text."""
        return names(self.rules)

    @property
    def modulated(self) -> bool:
        """Whether the synapse has a port for the modulatory input."""
        return bool({"m0", "m1"} & self.names)

    def uses(self, target: str) -> bool:
        """Tell whether the text reads or changes w, d or t."""
        return target in self.names or target in self.rules


class Programmed(Plastic):
    """All-to-all synapses that learn by a TextRule; see Plastic for what is not told here.

    `pre`, `post` and `mod` are the traces x1, y1 and m1. Tags t (P, E) begin at 0, stay within +-`tag_limit`, and are
    cleared by a reset. Delays d (P, E) [steps] begin at `delays`, stay within 0..`max_delay` and are kept; synapse
    (i, j) passes the filtered input of round(d) steps ago. u<k> counts steps since the synapse was made.
    """

    rules = (TextRule,)

    def __init__(self, weights, rule, *args, tag_limit: float = 1.0, max_delay: int = 7, delays=0.0, **options):
        self.tag_limit, self.max_delay = float(tag_limit), whole("max_delay [steps]", max_delay, 0)
        if not 0 < tag_limit < np.inf:
            raise ValueError(f"tag_limit must be above 0 and finite, not {tag_limit}")
        shape = np.shape(weights) if isinstance(rule, TextRule) and rule.uses("d") else (0, 0)
        if shape == (0, 0) and np.any(delays):
            raise ValueError("delays are for rules that name d; `delay` is one for all inputs")
        if np.size(delays) and np.shape(delays) not in ((), shape):
            raise ValueError(f"delays must have the shape {shape} of the weights, not {np.shape(delays)}")
        self.delays = np.full(shape, delays, dtype=float)
        if not ((self.delays >= 0) & (self.delays <= self.max_delay)).all():
            raise ValueError(f"delays must be from 0 to max_delay = {max_delay} steps")
        self.epochs = np.zeros(1)
        super().__init__(weights, rule, *args, **options)

    def current(self, x, m=None):
        """Return the current (P,) that input x (E,) causes, each part of it with its delay."""
        if not self.rule.uses("d"):
            return super().current(x)
        self.line = np.concatenate([self.filter.step(x)[None], self.line[:-1]])
        late = self.line[np.floor(self.delays + 0.5).astype(int), np.arange(self.n_pre)]
        return signed(self.sign) * (self.weights * late).sum(axis=1)

    def update(self, spikes, x, m=None, learn=True):
        """Advance the traces; then, if `learn`, weights, delays and tags."""
        super().update(spikes, x, m, learn=False)
        self.epochs += 1
        for name, given in (("x2", x), ("y2", spikes), ("y3", spikes)):
            if name in self.rule.names:
                trace = f"trace_{name}"
                setattr(self, trace, getattr(self.rule, name).next(getattr(self, trace), given))
        if learn:
            values = self._values(spikes, x)
            self._write({target: self._sum(target, values) for target in self.rule.rules})

    def state(self):
        """Return the arrays of Plastic, and the further traces, tags, delays and steps where the rule uses them."""
        arrays = {f"trace_{name}": getattr(self, f"trace_{name}") for name in MORE_TRACES if name in self.rule.names}
        arrays |= {"tag": self.tag} if self.rule.uses("t") else {}
        arrays |= {"delays": self.delays, "line": self.line} if self.rule.uses("d") else {}
        return super().state() | arrays | {"epochs": self.epochs}

    def limits(self) -> dict[str, tuple[float, float]]:
        """Return the bounds of w, d and t."""
        return {"w": self.bounds, "d": (0.0, float(self.max_delay)), "t": (-self.tag_limit, self.tag_limit)}

    def _write(self, fresh: dict[str, np.ndarray]) -> None:
        """Take over the new values of the targets."""
        limits = self.limits()
        for target, values in fresh.items():
            own = {"w": self.weights, "d": self.delays, "t": self.tag}[target]
            np.clip(values, *limits[target], out=own)

    def _sum(self, target: str, values: dict[str, np.ndarray]) -> np.ndarray:
        """Return the target (P, E) plus all products that are due in this step, added in the order of the text."""
        total = values[target].copy()
        for product in self.rule.rules[target]:
            if is_due(product, self.epochs[0]):
                total += self._term(product, values)
        return total

    def _term(self, product: Product, values: dict[str, np.ndarray]) -> np.ndarray:
        rows, columns, elements = divide(product)
        row, column = np.ones(self.n_post), np.ones(self.n_pre)
        for factor in rows:
            row = row * (values[factor.name] + factor.constant)
        for factor in columns:
            column = column * (values[factor.name] + factor.constant)
        term = np.outer(product.scale * row, column)
        for factor in elements:
            value = values[factor.name] + factor.constant
            term *= np.sign(value) if factor.sign else value
        return term

    def _values(self, spikes: np.ndarray, x: np.ndarray) -> dict[str, np.ndarray]:
        values = {"x0": x, "x1": self.trace_pre, "x2": self.trace_x2, "y0": spikes, "y1": self.trace_post}
        values |= {"y2": self.trace_y2, "y3": self.trace_y3, "m0": self.filter_mod.value, "m1": self.trace_mod}
        return values | {"w": self.weights, "d": self.delays, "t": self.tag}

    def _clear_traces(self) -> None:
        super()._clear_traces()
        self.trace_x2, self.trace_y2, self.trace_y3 = (np.zeros(n) for n in (self.n_pre, self.n_post, self.n_post))
        self.tag = np.zeros(self.weights.shape if self.rule.uses("t") else (0, 0))
        self.line = np.zeros((self.max_delay + 1 if self.rule.uses("d") else 0, self.n_pre))  # newest first


def is_due(product: Product, step: float) -> bool:
    """Tell whether a product counts in a step, counted from 1: one with u<k> in every 2^k-th, others in each."""
    return product.dependency[0] != "u" or step % 2 ** int(product.dependency[1]) == 0


def divide(product: Product) -> tuple[list[Factor], list[Factor], list[Factor]]:
    """Return the factors of a product, its dependency first, as those of (rows, columns, elements)."""
    factors = (Factor(product.dependency), *product.factors)
    kinds = (ROWS, COLUMNS, ("w", "d", "t"))
    return tuple([factor for factor in factors if factor.name in kind] for kind in kinds)
