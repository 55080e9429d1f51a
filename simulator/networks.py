"""The two networks of arXiv 2302.13210, for any number of inputs and classes.

shallow (section III-C1): inputs x reach one output neuron per class by plastic synapses.
mushroom_body (section III-C2, figure 2): x excites one glomerulus each and one lateral neuron, which inhibits all
glomeruli. Glomeruli reach Kenyon cells by sparse synapses, and an inhibitory neuron that inhibits all of these. Kenyon
cells reach the output neurons by plastic synapses. In both, a modulatory input m tells the class, one channel each.
Initial weights, the number of Kenyon cells and the weight of their inhibition are ours: the paper does not give them.
"""

from __future__ import annotations

import numpy as np

from simulator.chosen_rules import plastic_synapse
from simulator.neurons import LIF, Layer
from simulator.params import StreamnetParams
from simulator.streamnet import StreamNet
from simulator.synapses import OneToOne, Sparse, Static


def shallow(params: StreamnetParams, n_inputs: int, n_classes: int, seed: int = 0) -> StreamNet:
    """Return the net with inputs x (n_inputs) and m (n_classes), and the output neurons "o"."""
    net = StreamNet({"x": n_inputs, "m": n_classes})
    _add_output(net, params, "x", n_inputs, n_classes, seed)
    return net


def mushroom_body(params: StreamnetParams, n_inputs: int, n_classes: int, seed: int = 0) -> StreamNet:
    """Return the net with inputs x and m, and the layers "glom", "lat", "inh", "kc" and "o"."""
    cells = params.kenyon_cells
    net = StreamNet({"x": n_inputs, "m": n_classes})
    excited = OneToOne(np.full(n_inputs, params.w_input_glom), "excitatory")
    inhibited = Static(np.full((n_inputs, 1), params.w_lat_glom), "inhibitory")
    net.add("glom", Layer(LIF(n_inputs, params.tau_glom), [excited, inhibited]), "x")
    net.add("lat", _one_neuron(n_inputs, params.w_input_lat, params.tau_lat), "x")
    net.add("inh", _one_neuron(n_inputs, params.w_glom_inh, params.tau_inh), "glom")
    driven = Sparse(n_inputs, cells, params.probability, params.w_glom_kenyon, seed, "excitatory")
    damped = Static(np.full((cells, 1), params.w_inh_kenyon), "inhibitory")
    net.add("kc", Layer(LIF(cells, params.tau_kenyon), [driven, damped]), "glom", "inh")
    net.connect("lat", "glom", 1)
    _add_output(net, params, "kc", cells, n_classes, seed)
    return net


NETWORKS = {"shallow": shallow, "mushroom_body": mushroom_body}


def build(params: StreamnetParams, n_inputs: int, n_classes: int, seed: int = 0) -> StreamNet:
    """Return the network that `params` names."""
    return NETWORKS[params.network](params, n_inputs, n_classes, seed)


def _one_neuron(n_inputs: int, weight: float, tau: float) -> Layer:
    return Layer(LIF(1, tau), [Static(np.full((1, n_inputs), weight), "excitatory")])


def _add_output(net: StreamNet, params: StreamnetParams, source: str, n_pre: int, n_classes: int, seed: int) -> None:
    """Add and expose the output neurons "o" with their plastic synapses from `source` and, if modulated, from m."""
    limit = params.w_limit
    weights = np.random.default_rng([seed, 1]).uniform(-limit, limit, (n_classes, n_pre)) * params.init
    plastic = plastic_synapse(params, weights)
    layer = Layer(LIF(n_classes, params.tau_out, refractory=params.refractory), [plastic])
    net.add("o", layer, source, *(["m"] if plastic.rule.modulated else []))
    net.expose("o")
