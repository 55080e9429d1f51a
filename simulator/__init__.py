"""The streamnet simulator: graphs of spiking elements with on-chip learning rules, in numpy and numba, without torch.

    from simulator.networks import build
    from simulator.params import StreamnetParams
    from simulator.run import Images, run

    net = build(StreamnetParams(network="mushroom_body"), n_inputs=784, n_classes=10, seed=0)
    run(net, Images(images, labels, steps=8, seed=0), learn=True, precision="float32")  # images (B, 784) uint8
    record = run(net, Images(others, None, steps=8, seed=1), learn=False, precision="float32")
    record.counts.argmax(axis=1)  # classes
    net.save("net.npz")

streamnet.py    the graph: StreamNet, Element, Function, Monitor
neurons.py      LIF neurons; Layer, the element of neurons and their synapses
synapses.py     static, one-to-one, sparse and plastic synapses, filters
plasticity.py   traces and learning rules
rule_language.py, rule_presets.py   Loihi's rules as text: the parser, what the chip can hold, known rules
programmed.py   synapses that follow a rule given as text; awake_kernel.py, rule_kernel.py: the same, compiled
memristor.py    synapses made of VTEAM memristors
more_neurons.py adaptive, conductance-based and recurrent neurons
torch_element.py    a torch module as an element; the only one that imports torch, when one is made
description.py  a net as JSON, and back
encoders.py     spike generators
networks.py     the paper's two networks, built from params.py, their learning rules by chosen_rules.py
run.py          many samples at once; *_kernel.py, lowering.py, fast.py: the compiled paths behind it
compiled.py     the cache of the kernels
objective.py    one trial of a search: learn once, evaluate
bits.py         a net whose learnt weights are rounded to few bits

It imports nothing from the repository's root, and of models/ only the estimate of energy and the check of parameters,
neither of which needs torch. `step()` in plain numpy
defines what a net does; the compiled paths are tested against it.

Letters in shapes: B samples, T steps, N neurons or channels, E presynaptic and P postsynaptic neurons, K classes, C
configurations of a batch, W words of 64 bits.
"""
