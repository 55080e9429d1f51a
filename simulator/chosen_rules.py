"""From StreamnetParams to the learning synapses that they ask for: built-in rules, rules given as text, memristors.

Rules given as text all scale with `lr`. `memristor` is mse_soft's sign alone: where it asks for a change above
`pulse_least`, a VTEAM device of the set "magic" gets a pulse of the given amplitudes and widths. With a resistance
linear in the state all weights above the middle lie within 0.3 % of the state's range: pulses are coarse. Slow traces
grow by `trace_slow` and keep 1 - trace_slow.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from simulator.memristor import DEVICES, Memristive, Pulses
from simulator.params import BUILT_IN_RULES, StreamnetParams
from simulator.plasticity import MSE, STDP, Decay, ModulatedSTDP, ReleasedMSE
from simulator.programmed import Programmed, TextRule
from simulator.rule_presets import preset
from simulator.synapses import Plastic


def plastic_synapse(params: StreamnetParams, weights: np.ndarray) -> Plastic:
    """Return the learning synapses with these first weights (P, E)."""
    limit, traces = params.w_limit, [Decay(*params.trace(name)) for name in ("pre", "post", "mod")]
    options = {"bounds": (-limit, limit), "tau": params.tau_input, "tau_mod": params.tau_mod}
    if params.rule in BUILT_IN_RULES:
        return Plastic(weights, _built_in(params), *traces, **options)
    slow = Decay.of(params.trace_slow)
    rule = TextRule(rule_text(params), x2=slow, y2=slow, y3=slow)
    if params.rule != "memristor":
        return Programmed(weights, rule, *traces, **options)
    pulses = Pulses(
        params.up_volts, params.up_seconds, params.down_volts, params.down_seconds, least=params.lr * params.pulse_least
    )
    return Memristive(
        weights, rule, *traces, device=replace(DEVICES["magic"], resistance=params.resistance), pulses=pulses, **options
    )


def rule_text(params: StreamnetParams) -> str:
    """Return the rule that is not built in as text."""
    lr, limit = params.lr, params.w_limit
    if params.rule == "text":
        return params.text
    if params.rule == "mse_decay":
        return preset("mse_decay", lr=lr, alpha=params.alpha, rate=lr * params.decay)
    if params.rule in ("mse_soft", "memristor"):
        return preset("mse_soft", lr=lr / limit, alpha=params.alpha, w_max=limit)
    if params.rule == "modulated_triplet":
        plus, minus = lr * params.triplet_plus, lr * params.triplet_minus
        return preset("modulated_triplet", a3_plus=plus, a2_minus=minus, y2_gain=params.trace_slow)
    return preset("r_stdp", a_plus=params.tag_plus, a_minus=params.tag_minus, c_e=params.tag_decay, lr=lr)


def _built_in(params: StreamnetParams):
    if params.rule in ("stdp", "modulated_stdp"):
        return (STDP if params.rule == "stdp" else ModulatedSTDP)(params.a_plus, params.a_minus)
    return MSE(params.lr, params.alpha) if params.rule == "mse" else ReleasedMSE(params.lr)
