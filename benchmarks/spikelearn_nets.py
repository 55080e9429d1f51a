"""The paper's two networks in spikelearn 0.1.2, the released reference, with what it lacks added from outside.

The released code cannot run the paper's task as it is. Added here: the rule with alpha and the modulatory trace; a
reset that clears the elements' outputs as well (theirs lets a sample's last spikes into the next one); the low-pass of
the modulatory spikes, which is done before they enter. Its learn=False fails, and is not needed here.
"""

from __future__ import annotations

import numpy as np


def reference_net(params, net, sparse: bool = False):
    """Return a spikelearn net with the parameters, weights and connections of our shallow or mushroom_body `net`.

    `sparse` gives it the few weights from glomeruli to Kenyon cells as scipy's csc matrix in place of a dense one.
    """
    from scipy.sparse import csc_matrix
    from spikelearn import OneToOneSynapse, SpikingLayer, SpikingNet, StaticSynapse

    other = SpikingNet()
    other.add_input("x")
    other.add_input("m")
    for name, layer in net.elements.items():
        neuron = layer.neuron
        other.add_layer(SpikingLayer(neuron.n, neuron.tau, neuron.threshold, refr=neuron.refractory), name)
    if params.network == "mushroom_body":
        n, cells = net.input_sizes[0], params.kenyon_cells
        mask = net.elements["kc"].synapses[0].mask

        def static(weights, sign=None):
            return StaticSynapse(weights.shape[1], weights.shape[0], weights, syn_type=sign)

        other.add_synapse("glom", OneToOneSynapse(n, np.full(n, params.w_input_glom)), "x")
        other.add_synapse("glom", static(np.full((n, 1), params.w_lat_glom), "inh"), "lat")
        other.add_synapse("lat", static(np.full((1, n), params.w_input_lat)), "x")
        other.add_synapse("inh", static(np.full((1, n), params.w_glom_inh)), "glom")
        driven = params.w_glom_kenyon * mask.T
        other.add_synapse("kc", static(csc_matrix(driven) if sparse else driven), "glom")
        other.add_synapse("kc", static(np.full((cells, 1), params.w_inh_kenyon), "inh"), "inh")
    _add_plastic(other, params, net, "kc" if params.network == "mushroom_body" else "x")
    return other


def show(other, spikes: np.ndarray, label: int, tau_mod: float) -> np.ndarray:
    """Show one sample, spikes (T, N), with learning on; return the output spikes (K,)."""
    other.reset()
    for element in other._elements.values():
        element.out = np.zeros_like(element.out)
    keep, filtered, counts = np.exp(-1 / tau_mod), 0.0, 0
    target = np.zeros(len(other._elements["o"].out))
    target[label] = 1
    for row in spikes:
        filtered = (1 - keep) * target + keep * filtered
        counts = counts + other(row, filtered)[0]
    return counts


def _add_plastic(other, params, net, source: str) -> None:
    from spikelearn import MSESynapse
    from spikelearn.rules import MSERule
    from spikelearn.transforms import LowPass

    class PaperRule(MSERule):
        def apply_rule(self, xe, xo, xm):
            return params.lr * np.outer(params.alpha * self.tm() - self.to(), self.te())

    weights = net.elements["o"].synapses[0].weights.copy()
    outputs, inputs = weights.shape
    traces = [params.trace(name) for name in ("pre", "post", "mod")]
    options = {"transform": LowPass(inputs, params.tau_input), "rule_params": {"lr": params.lr}, "Wlim": params.w_limit}
    synapse = MSESynapse(inputs, outputs, weights, *traces, **options)
    synapse._set_learning_rule(PaperRule({}, *traces, 10, params.w_limit))
    other.add_synapse("o", synapse, source, "m")
    other.add_output("o")
