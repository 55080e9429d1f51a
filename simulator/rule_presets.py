"""Known rules in the language of rule_language.py, by name, with their parameters.

    preset("stdp", a_plus=0.02)     # "dw = 0.02*y0*x1 - 0.01*x0*y1"

Sources: stdp and r_stdp as in Lava's rule library (there a_minus is passed negative); triplet and triplet_full: Pfister
and Gerstner 2006, who take y2 and x2 as they were just before the spike: their last impulse, the gain of the trace, is
subtracted here (`y2_gain`, `x2_gain`), which is right for spikes of 1 and traces below their limit. In r_stdp the tag
collects STDP and decays at a RATE c_e = 1 - exp(-1 / tau_e); the reward is the modulatory trace m1. modulated_stdp, mse
and mse_released are the rules of plasticity.py. The others (weight decay, soft bounds, homeostasis) are textbook forms.
"""

from __future__ import annotations

PRESETS: dict[str, tuple[str, dict[str, float]]] = {  # name: (text, its parameters and their defaults)
    "stdp": ("dw = {a_plus}*y0*x1 - {a_minus}*x0*y1", {"a_plus": 0.01, "a_minus": 0.01}),
    "tutorial": ("dw = x0*(-1)*2^-1*y1 + y0*1*2^1*x1", {}),
    "r_stdp": (
        "dt = {a_plus}*y0*x1 - {a_minus}*x0*y1 - {c_e}*u0*t; dw = {lr}*u0*t*m1",
        {"a_plus": 0.1, "a_minus": 0.1, "c_e": 0.2, "lr": 0.1},
    ),
    "triplet": (
        "dw = {a3_plus}*y0*x1*(y2 - {y2_gain}) - {a2_minus}*x0*y1",
        {"a3_plus": 0.01, "a2_minus": 0.01, "y2_gain": 1.0},
    ),
    "triplet_full": (
        "dw = {a2_plus}*y0*x1 + {a3_plus}*y0*x1*(y2 - {y2_gain})"
        " - {a2_minus}*x0*y1 - {a3_minus}*x0*y1*(x2 - {x2_gain})",
        {"a2_plus": 7.5e-10, "a3_plus": 9.3e-3, "a2_minus": 7e-3, "a3_minus": 2.3e-4, "y2_gain": 1.0, "x2_gain": 1.0},
    ),
    "modulated_triplet": (
        "dw = {a3_plus}*m1*y0*x1*(y2 - {y2_gain}) - {a2_minus}*m1*x0*y1",
        {"a3_plus": 0.01, "a2_minus": 0.01, "y2_gain": 1.0},
    ),
    "weight_decay": ("dw = -{rate}*u4*w", {"rate": 2.0**-6}),
    "soft_bounds": (
        "dw = {a_plus}*y0*x1*({w_max} - w) - {a_minus}*x0*y1*w",
        {"a_plus": 2.0**-7, "a_minus": 2.0**-7, "w_max": 1.0},
    ),
    "homeostatic": ("dw = {lr}*y0*x1 - {lr}*{target}*y0", {"lr": 0.01, "target": 0.2}),
    "modulated_stdp": ("dw = {a_plus}*m1*y0*x1 - {a_minus}*m1*x0*y1", {"a_plus": 0.01, "a_minus": 0.01}),
    "mse": ("dw = {lr}*{alpha}*u0*m1*x1 - {lr}*u0*y1*x1", {"lr": 0.002, "alpha": 1.0}),
    "mse_released": ("dw = {lr}*m0*x1 - {lr}*u0*y1*x1", {"lr": 0.002}),
    "mse_decay": (
        "dw = {lr}*{alpha}*u0*m1*x1 - {lr}*u0*y1*x1 - {rate}*u0*x1*w",
        {"lr": 0.002, "alpha": 1.0, "rate": 0.001},
    ),
    "mse_soft": (
        "dw = {lr}*{alpha}*u0*m1*x1*({w_max} - w) - {lr}*u0*y1*x1*({w_max} + w)",
        {"lr": 0.002, "alpha": 1.0, "w_max": 1.0},
    ),
}


def preset(name: str, **parameters: float) -> str:
    """Return the text of a known rule. Raises ValueError for an unknown name or parameter, or one not finite."""
    if name not in PRESETS:
        raise ValueError(f"unknown rule {name!r}; known: {', '.join(PRESETS)}")
    text, defaults = PRESETS[name]
    unknown = parameters.keys() - defaults.keys()
    if unknown:
        raise ValueError(f"{name} has the parameters {', '.join(defaults) or 'none'}, not {', '.join(sorted(unknown))}")
    return text.format(**{key: _literal(key, value) for key, value in (defaults | parameters).items()})


def _literal(name: str, value: float) -> str:
    if not 0 <= value < float("inf"):
        raise ValueError(f"{name} must be at least 0 and finite, not {value}: the rule has the signs")
    return repr(float(value))
