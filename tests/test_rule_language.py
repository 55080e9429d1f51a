"""Rules as text: what the grammar reads and refuses, what the chip can hold, the presets."""

import re

import pytest

from simulator.rule_language import Factor, Product, RuleError, parse, representable
from simulator.rule_presets import PRESETS, preset

X0, X1, Y1 = Factor("x0"), Factor("x1"), Factor("y1")


def product(text):
    (only,) = parse(f"dw = {text}")["w"]
    return only


@pytest.mark.parametrize(
    "text, expected",
    [
        ("x0", (1, "x0", ())),
        ("-x0", (-1, "x0", ())),
        ("+ y0 * x1", (1, "y0", (X1,))),
        ("x1*y0", (1, "y0", (X1,))),  # any order
        ("x0*y0", (1, "x0", (Factor("y0"),))),  # a second dependency is a factor
        ("x0*x0", (1, "x0", (X0,))),
        ("u0*x0", (1, "u0", (X0,))),
        ("m0*m1", (1, "m0", (Factor("m1"),))),
        ("u7*w*d*t", (1, "u7", (Factor("w"), Factor("d"), Factor("t")))),
        ("x0*x2*y2*y3", (1, "x0", (Factor("x2"), Factor("y2"), Factor("y3")))),
        ("3*x0", (3, "x0", ())),
        ("3*2^2*x0", (12, "x0", ())),
        ("3*2^+2*x0*2^-1", (6, "x0", ())),
        ("2^-3*x0", (0.125, "x0", ())),
        (".5*x0*1e-1*2.", (0.1, "x0", ())),
        ("(-3)*x0*(+2)", (-6, "x0", ())),
        ("(-3*2^-1)*x0", (-1.5, "x0", ())),
        ("(x0)", (1, "x0", ())),
        ("(-x0)*2", (-2, "x0", ())),
        ("x0*(y1 + 3)", (1, "x0", (Factor("y1", 3),))),
        ("x0*(y1 - 3*2^1)", (1, "x0", (Factor("y1", -6),))),
        ("x0*(-y1 + 3)", (-1, "x0", (Factor("y1", -3),))),  # a minus on the name flips product and number
        ("x0*(3 + y1)", (1, "x0", (Factor("y1", 3),))),
        ("x0*(3 - y1)", (-1, "x0", (Factor("y1", -3),))),
        ("x0*(-3 - y1)", (-1, "x0", (Factor("y1", 3),))),
        ("x0*(y0 - 1)", (1, "x0", (Factor("y0", -1),))),
        ("x0*sgn(w)", (1, "x0", (Factor("w", 0, True),))),
        ("x0*sgn(t - 2)", (1, "x0", (Factor("t", -2, True),))),
        ("x0*sgn(-2 + d)", (1, "x0", (Factor("d", -2, True),))),
    ],
)
def test_forms(text, expected):
    assert product(text) == Product(*expected)
    assert product(text.replace(" ", "")) == Product(*expected)


def test_sums_and_several_rules():
    assert parse("dw = 2*y0*x1 - 2*x0*y1") == {"w": (Product(2, "y0", (X1,)), Product(-2, "x0", (Y1,)))}
    assert parse("dt=y0*x1 ; dd = -u0*d\n\n dw = u0*t;") == {
        "t": (Product(1, "y0", (X1,)),),
        "d": (Product(-1, "u0", (Factor("d"),)),),
        "w": (Product(1, "u0", (Factor("t"),)),),
    }


@pytest.mark.parametrize(
    "text, at, message",
    [
        ("dw = x0*-2*y1", 9, "a sign within a product needs brackets, as in (-2)"),
        ("dw = x0 - -y1*y0", 11, "needs brackets"),
        ("dw = x0*u2", 9, "u2 must be the first dependency"),
        ("dw = u2*u2", 9, "u2 must be the first dependency"),
        ("dw = u10*w", 6, "u takes one digit"),
        ("dw = u*w", 6, "u takes one digit"),
        ("dw = u1*w - u2*w", 13, "only one u<k> may be used in all rules; u1 is used already"),
        ("dw = u1*w; dt = u2*t", 17, "only one u<k>"),
        ("dw = x0*((w + 1))", 10, "brackets do not nest"),
        ("dw = x0*(w + (1))", 14, "brackets do not nest"),
        ("dw = x0*(sgn(w))", 10, "brackets do not nest"),
        ("dw = x0*(w + t)", 14, "a bracket holds one name at most"),
        ("dw = x0*(1 + 2)", 14, "a bracket holds one number at most"),
        ("dw = x0*(w + 1 + 2)", 16, "')' is missing"),
        ("dw = x0*(2*w)", 11, "')' is missing"),
        ("dw = x0*(w", 11, "at the end: ')' is missing"),
        ("dw = x0*()", 10, "a number or a name must stand here"),
        ("dw = x0*sgn w", 13, "'(' must follow sgn"),
        ("dw = x0*sgn(-w)", 14, "sgn( ) takes w, d or t, not negated"),
        ("dw = x0*sgn(3 - w)", 17, "sgn( ) takes"),
        ("dw = x0*sgn(y1)", 13, "sgn( ) takes"),
        ("dw = (u0 + 1)*w", 7, "nothing can be added"),
        ("dw = x1*y1", 6, "needs a dependency"),
        ("dw = y0 + 3", 11, "needs a dependency"),
        ("dw = x0/2", 8, "there is no division"),
        ("dw = x0 y1", 9, "'*', '+' or '-' must stand here"),
        ("dw = x0)", 8, "closes no bracket"),
        ("dw = x0*x3", 9, "names: x0, y0, m0, x1, x2"),
        ("dw = x0*3^2", 9, "only 2 can be raised"),
        ("dw = x0*2^y1", 11, "the power of 2 must be a whole number"),
        ("dw = x0*2^0.5", 11, "the power of 2 must be a whole number"),
        ("dw = x0*1e999", 9, "too large"),
        ("dw = 1e300*x0*1e300", 6, "too large"),
        ("dw = x0*(w + 1e300*2^99)", 14, "too large"),
        ("dw = 1e300*1e300*x0*0", 6, "too large"),
        ("dw = x0*2^\u00b2", 11, "the power of 2 must be a whole number"),
        ("dw = u\u0663*w", 6, "u takes one digit"),
        ("dw = x0*(w + -1)", 14, "a number or a name must stand here"),
        ("dw = x0 +", 10, "at the end"),
        ("dw = x0; dw = y0", 10, "two rules dw"),
        ("w = x0", 1, "a rule begins with"),
        ("dw x0", 4, "'=' must follow dw"),
    ],
)
def test_refusals_point_at_the_character(text, at, message):
    with pytest.raises(RuleError, match=rf"^character {at} of the rule, .*{re.escape(message)}") as refused:
        parse(text)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("text", ["", " ; ", None, 3])
def test_no_rule_at_all(text):
    with pytest.raises(RuleError, match="rule is"):
        parse(text)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("dw = 7*2^8*x0 - 2^-7*y0*x1*(w - 255)", ""),
        ("dw = 0.5*x0", ""),
        ("dw = (-8)*2^8*x0", "needs the power 2^11"),  # -8 is halved to -1
        ("dw = x0 + 9*y0", "product 2 of dw: the factor 9 is no number from -8 to 7"),
        ("dw = 0.1*x0", "the factor 0.1 is no number"),
        ("dw = 2^-8*x0", "needs the power 2^-8"),
        ("dw = 2^9*x0", "needs the power 2^9"),
        ("dw = u0*m1", "the chip has no m1"),
        ("dw = m0*x1", "the chip has no m0"),
        ("dw = x0*(y1 - 0.5)", "the constant -0.5 beside y1 is not a whole number"),
        ("dt = x0*(y1 - 256)", "product 1 of dt: the constant -256 beside y1"),
    ],
)
def test_what_the_chip_can_hold(text, reason):
    can, why = representable(parse(text))
    assert can == (why == "") == (reason == "") and reason in why


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_rules(name):
    assert parse(preset(name))


def test_preset_parameters():
    assert preset("stdp", a_plus=2e-5) == "dw = 2e-05*y0*x1 - 0.01*x0*y1"
    for mistake, message in (
        ({"name": "std"}, "unknown rule 'std'; known: stdp"),
        ({"name": "stdp", "lr": 1}, "stdp has the parameters a_plus, a_minus, not lr"),
        ({"name": "stdp", "a_plus": -1}, "a_plus must be at least 0"),
    ):
        with pytest.raises(ValueError, match=message):
            preset(**mistake)
