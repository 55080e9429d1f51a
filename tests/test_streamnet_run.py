"""run(): compiled kernels give what step() gives, on random graphs and on the two networks; which path ran is said."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.sparse

from benchmarks import spikelearn_nets, streamnet
from simulator.drive_kernel import SEGMENT, count_spiking, pack_masks
from simulator.encoders import Periodic, Poisson
from simulator.networks import build
from simulator.neurons import LIF, Layer
from simulator.params import StreamnetParams
from simulator.plasticity import MSE, STDP, Decay, ModulatedSTDP, ReleasedMSE
from simulator.run import Images, Trains, run, run_batch
from simulator.streamnet import Element, Function, StreamNet
from simulator.synapses import OneToOne, Plastic, Sparse, Static

RULES = (STDP(0.05, 0.03), ModulatedSTDP(0.05, 0.03), MSE(0.03, 1.7), ReleasedMSE(0.03))


def random_synapse(rng, n_pre, n_post):
    """Any kind of synapse, filtered or not; returns it and whether it takes a modulatory input."""
    sign = str(rng.choice(["hybrid", "excitatory", "inhibitory"], p=[0.4, 0.5, 0.1]))
    options = {"sign": sign, "tau": float(rng.choice([0.0, 0.8, 2.5])), "delay": int(rng.integers(3))}
    low = -0.3 if sign == "hybrid" else 0.0
    kind = rng.integers(4 if n_pre == n_post else 3)
    if kind == 3:
        return OneToOne(rng.uniform(low, 1.5, n_pre), **options), False
    if kind == 2:
        return Sparse(n_pre, n_post, 0.4, rng.uniform(0, 0.8), int(rng.integers(99)), **options), False
    weights = rng.uniform(low, 0.9, (n_post, n_pre))
    if kind == 1:
        return Static(weights, **options), False
    rule = RULES[rng.integers(len(RULES))]
    traces = [Decay(rng.uniform(0.1, 1), rng.uniform(0.1, 1)) for _ in range(3)]
    bounds = (low * 1.5, 0.9)
    return Plastic(weights, rule, *traces, bounds, tau_mod=float(rng.choice([0.0, 1.5])), **options), rule.modulated


def random_graph(seed, nest=True):
    """Two to five layers with up to three synapses each, loops included, beside generators and maybe a nested net."""
    rng = np.random.default_rng(seed)
    net = StreamNet({"x": 5, "m": 3})
    sizes = {"x": 5, "m": 3, "noise": 4, "clock": 3}
    net.add("noise", Poisson(4, rates=rng.random(4), seed=seed))
    net.add("clock", Periodic(3, rates=rng.random(3)))
    net.add("double", Function(lambda x: 2 * x, (5,), (5,)), "x")
    names = [f"layer{i}" for i in range(rng.integers(2, 6))]
    sizes |= {"double": 5} | {name: int(rng.integers(1, 7)) for name in names}
    if nest:
        inner = random_graph(seed + 1000, nest=False)
        net.add("inner", inner, "x", "m")
        sizes["inner"] = inner.output_sizes[0]
    wiring = []
    for name in names:
        synapses, sources = [], []
        for _ in range(rng.integers(1, 4)):
            source = str(rng.choice(list(sizes)))
            synapse, modulated = random_synapse(rng, sizes[source], sizes[name])
            synapses.append(synapse)
            sources.append(source)
            if modulated:
                sources.append(str(rng.choice([other for other in sizes if sizes[other] == sizes[name]])))
        neuron = LIF(sizes[name], rng.uniform(1, 5), rng.uniform(0.05, 0.3), bool(rng.integers(2)))
        net.add(name, Layer(neuron, synapses))
        wiring.append((name, sources))
    for name, sources in wiring:
        for port, source in enumerate(sources):
            net.connect(source, name, port)
    for name in names:
        net.expose(name)
    return net


def trains(seed, samples=6, steps=9):
    rng = np.random.default_rng(seed)
    return tuple((rng.random((samples, steps, size)) < 0.4).astype(float) for size in (5, 3))


def assert_equal_states(net, other):
    mine, theirs = net.state(), other.state()
    assert mine.keys() == theirs.keys()
    for name in mine:
        if name.endswith(("spikes", "counters", "/t")):
            np.testing.assert_array_equal(mine[name], theirs[name], err_msg=name)
        else:
            np.testing.assert_allclose(mine[name], theirs[name], rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("seed", range(24))
def test_compiled_graph_equals_step(seed):
    stepped, compiled = random_graph(seed), random_graph(seed)
    for part, (reset, learn) in enumerate([(True, True), (False, True), (True, False)]):
        samples = Trains(trains(seed + part), reset)
        expected = run(stepped, samples, learn, backend="step")
        record = run(compiled, samples, learn)
        assert (expected.backend, record.backend) == ("step", "graph")
        for mine, theirs in zip(record.outputs, expected.outputs, strict=True):
            np.testing.assert_array_equal(mine, theirs)
        assert (record.spikes, record.operations) == (expected.spikes, expected.operations)
        assert_equal_states(compiled, stepped)
        np.testing.assert_array_equal(np.concatenate(compiled.outputs), np.concatenate(stepped.outputs))


def test_random_graphs_are_alive():
    spikes = [run(random_graph(seed), Trains(trains(seed))).spikes for seed in range(24)]
    assert sum(total > 20 for total in spikes) > 18


SMALL = StreamnetParams(
    kenyon_cells=613, probability=0.1, w_input_glom=5.0, w_glom_kenyon=0.5, w_glom_inh=0.03, w_limit=1.5, lr=0.02,
    init=1.0, tau_out=1.5, a_plus=0.01, a_minus=0.01, keep_pre=0.7, steps=6,
)  # fmt: skip


def pictures(samples=40, pixels=70, seed=0):
    rng = np.random.default_rng(seed)
    images = np.where(rng.random((samples, pixels)) < 0.3, rng.integers(0, 256, (samples, pixels)), 0).astype(np.uint8)
    return images, rng.integers(0, 3, samples)


@pytest.mark.parametrize("rule", ["mse", "mse_released", "modulated_stdp", "stdp"])
@pytest.mark.parametrize("reset", [True, False])
@pytest.mark.parametrize("network", ["shallow", "mushroom_body"])
def test_fast_networks_equal_step(network, reset, rule):
    task = "unsupervised" if rule == "stdp" else "supervised"
    params = replace(SMALL, network=network, task=task, rule=rule, refractory=rule == "mse_released")
    stepped, fast = build(params, 70, 3, seed=1), build(params, 70, 3, seed=1)
    images, labels = pictures()
    for part, learn in enumerate([True, False, True]):
        samples = Images(images, labels if learn else None, 6, seed=part, scale=0.9, reset=reset)
        expected, record = run(stepped, samples, learn, backend="step"), run(fast, samples, learn)
        assert record.backend == network
        np.testing.assert_array_equal(record.counts, expected.counts)
        assert (record.spikes, record.operations) == (expected.spikes, expected.operations)
        assert_equal_states(fast, stepped)
    assert record.counts.sum() > 60


@pytest.mark.parametrize("network", ["shallow", "mushroom_body"])
def test_single_precision_and_batches(network):
    images, labels = pictures(60)
    samples = Images(images, labels, 6, seed=3)
    variants = [replace(SMALL, network=network, lr=lr) for lr in (0.005, 0.01, 0.02)]
    single = [build(params, 70, 3) for params in variants]
    batch = [build(params, 70, 3) for params in variants]
    exact = [run(build(params, 70, 3), samples) for params in variants]
    records = run_batch(batch, samples)
    for net, record, mine, double in zip(single, records, batch, exact, strict=True):
        alone = run(net, samples, precision="float32")
        np.testing.assert_array_equal(alone.counts, record.counts)
        np.testing.assert_array_equal(net.elements["o"].synapses[0].weights, mine.elements["o"].synapses[0].weights)
        assert np.abs(record.counts - double.counts).sum() <= 0.01 * double.counts.sum()


def test_mushroom_body_counts_more_than_a_byte_of_glomeruli():
    # 300 glomeruli that all reach all cells: 200 are counted in a byte, 300 are refused with the reason.
    images = np.full((2, 300), 255, np.uint8)
    images[1, 200:] = 0
    params = replace(SMALL, network="mushroom_body", kenyon_cells=20, probability=1.0, w_glom_kenyon=0.01)
    with pytest.raises(ValueError, match="a Kenyon cell has 300 inputs, more than 255"):
        run(build(params, 300, 3), Images(images, None), backend="fast")
    assert run(build(params, 300, 3), Images(images, None)).backend == "graph"
    few = Images(images[1:, :200], None, 4)
    exact = run(build(params, 200, 3), few, backend="step")
    np.testing.assert_array_equal(run(build(params, 200, 3), few, backend="fast").spikes, exact.spikes)


@pytest.mark.parametrize("cells", [5, 512, 613, 9000])
def test_bit_sliced_counts_are_sums(cells):
    rng = np.random.default_rng(cells)
    mask = rng.random((300, cells)) < 0.4
    masks = pack_masks(mask)
    planes, counts = np.zeros(8 * SEGMENT, np.uint64), np.zeros((8, masks.shape[1]), np.uint64)
    for n in (0, 1, 8, 100, 255):
        active = np.zeros(300, np.uint64)
        active[:n] = rng.permutation(300)[:n]
        count_spiking(masks, active, n, planes, counts)
        found = counts.reshape(-1).view(np.uint8)[:cells]
        np.testing.assert_array_equal(found, mask[active[:n].astype(int)].sum(axis=0))


def test_wide_kenyon_layer_is_counted_in_segments():
    params = replace(SMALL, network="mushroom_body", kenyon_cells=8192 + 700)
    samples = Images(*pictures(4), 4)
    exact, fast = run(build(params, 70, 3), samples, backend="step"), run(build(params, 70, 3), samples)
    assert (fast.backend, fast.spikes, fast.operations) == ("mushroom_body", exact.spikes, exact.operations)


def test_which_path_ran_and_why():
    images, labels = pictures(3)
    net = build(SMALL, 70, 3)
    assert run(net, Images(images, labels)).backend == "shallow"
    assert run(net, Images(images, labels), backend="graph").backend == "graph"
    net.monitor("o/v")
    record = run(net, Images(images, labels))
    assert (record.backend, record.reason) == ("step", "its monitors record every step")
    net = build(SMALL, 70, 3)
    net.add("f", Function(lambda s: s, (3,), (3,)), "o")
    record = run(net, Images(images, labels))
    assert record.backend == "step" and "'f' (Function) depends on a layer" in record.reason


def no_inputs():
    net = StreamNet({})
    net.add("clock", Periodic(2, rates=np.ones(2)))
    net.expose("clock")
    return net


class Counting(Element):
    """Passes on what it gets and counts the steps in which it may learn."""

    def __init__(self):
        super().__init__((3,), (3,))
        self.learnt = np.zeros(1)

    def step(self, x, learn=True):
        self.learnt += learn
        self.outputs = (x.copy(),)
        return self.outputs

    def state(self):
        return super().state() | {"learnt": self.learnt}


class Restless(Layer):
    """A layer that spikes whatever it gets."""

    def step(self, *inputs, learn=True):
        self.outputs = (np.ones(3),)
        return self.outputs


class Doubled(StreamNet):
    """A net that moves twice in a step."""

    def step(self, *inputs, learn=True):
        super().step(*inputs, learn=learn)
        return super().step(*inputs, learn=learn)


class Tireless(StreamNet):
    """A net that no reset reaches."""

    def reset(self):
        """Leave everything as it is."""


def before_a_layer(element):
    net = StreamNet({"x": 3})
    net.add("own", element, "x")
    net.add("o", Layer(LIF(3, 2.0, 0.1), [OneToOne(np.ones(3))]), "own")
    net.expose("o")
    return net


def nested(kind):
    net = kind({"x": 3})
    net.add("l", Layer(LIF(3, 2.0, 0.5), [OneToOne(np.full(3, 0.8))]), "x")
    net.expose("l")
    return net


OWN_CLASSES = [
    Counting,
    lambda: Restless(LIF(3, 2.0), [OneToOne(np.ones(3))]),
    lambda: nested(Doubled),
    lambda: nested(Tireless),
]


@pytest.mark.parametrize("make", OWN_CLASSES)
@pytest.mark.parametrize("learn", [True, False])
def test_elements_of_a_users_own_class_run_as_they_step(make, learn):
    nets = [before_a_layer(make()), before_a_layer(make())]
    samples = Trains((np.ones((2, 4, 3)),))
    records = [run(net, samples, learn, backend=backend) for net, backend in zip(nets, ("auto", "step"), strict=True)]
    np.testing.assert_array_equal(records[0].outputs[0], records[1].outputs[0])
    assert records[1].counts.any()
    assert_equal_states(*nets)


def crossed(kind=StreamNet, sources=("m", "x")):
    """The shallow net with its inputs the other way round."""
    net = kind({"x": 3, "m": 3})
    net.add("o", Layer(LIF(3, 2.0, 0.1), [Plastic(np.full((3, 3), 0.3), MSE(0.05))]), *sources)
    net.expose("o")
    return net


def three_lateral_neurons():
    net = StreamNet({"x": 3, "m": 3})
    glom = [OneToOne(np.full(3, 5.0), "excitatory"), Static(np.full((3, 3), 0.8), "inhibitory")]
    net.add("glom", Layer(LIF(3, 2.0), glom), "x")
    net.add("lat", Layer(LIF(3, 1.0), [Static(np.full((3, 3), 0.8), "excitatory")]), "x")
    net.add("inh", Layer(LIF(1, 1.0), [Static(np.full((1, 3), 0.1), "excitatory")]), "glom")
    kenyon = [Sparse(3, 40, 0.4, 0.9, 0, "excitatory"), Static(np.full((40, 1), 0.2), "inhibitory")]
    net.add("kc", Layer(LIF(40, 1.0), kenyon), "glom", "inh")
    net.connect("lat", "glom", 1)
    net.add("o", Layer(LIF(3, 2.0), [Plastic(np.full((3, 40), 0.2), MSE(0.01))]), "kc", "m")
    net.expose("o")
    return net


@pytest.mark.parametrize("make", [crossed, three_lateral_neurons, lambda: crossed(Doubled, ("x", "m"))])
def test_nets_that_only_look_like_the_known_ones_run_as_they_step(make):
    x = np.random.default_rng(0).integers(0, 256, (10, 3)).astype(np.uint8)
    samples = Images(x, np.arange(10) % 3)
    found, expected = run(make(), samples), run(make(), samples, backend="step")
    assert found.spikes == expected.spikes > 0
    np.testing.assert_array_equal(found.counts, expected.counts)


def test_weights_learnt_in_single_precision_stay_within_their_bounds():
    net = build(replace(SMALL, lr=0.5, w_limit=0.3), 70, 3)
    run(net, Images(*pictures()), precision="float32")
    weights = net.elements["o"].synapses[0].weights
    assert np.abs(weights).max() == 0.3


@pytest.mark.parametrize("network", ["shallow", "mushroom_body"])
def test_evaluation_in_single_precision_leaves_the_weights(network):
    net = build(replace(SMALL, network=network), 70, 3)
    before = net.elements["o"].synapses[0].weights.copy()
    run(net, Images(*pictures()), learn=False, precision="float32")
    np.testing.assert_array_equal(net.elements["o"].synapses[0].weights, before)


@pytest.mark.parametrize(
    "wrong, message",
    [
        (lambda net, x, y: run(net, Images(x[:, :9], y)), r"images must be uint8 \(B, 70\), not uint8 \(3, 9\)"),
        (
            lambda net, x, y: run(net, Images(x, y + 3)),
            r"labels must be 3 whole numbers from 0 to 2, not \(3,\) from 3",
        ),
        (lambda net, x, y: run(net, Images(x, y, steps=0)), "steps must be a whole number of at least 1, not 0"),
        (lambda net, x, y: run(net, Images(x, y), precision="half"), "precision must be float32 or float64"),
        (lambda net, x, y: run(net, Images(x, y), backend="gpu"), "backend must be one of auto, step, graph, fast"),
        (lambda net, x, y: run(net, Trains((np.zeros((2, 3, 70)),))), r"sizes \(70, 3\); they have shapes"),
        (lambda net, x, y: run(random_graph(0), Trains(trains(0)), precision="float32"), "no fast float32 kernel"),
        (
            lambda net, x, y: run_batch([net, build(replace(SMALL, network="mushroom_body"), 70, 3)], Images(x, y)),
            "net 1 cannot run in this batch: it is mushroom_body, the first is shallow",
        ),
        (lambda net, x, y: run_batch([net, net], Images(x, y)), "net 1 .* in the batch already"),
        (lambda net, x, y: run_batch([net], Trains(trains(0))), r"sizes \(70, 3\)"),
        (lambda net, x, y: run(net, Images(x, y, seed=-1)), "seed must be a whole number of at least 0, not -1"),
        (lambda net, x, y: run(net, Images(x, y, first=-1)), "first must be a whole number of at least 0, not -1"),
        (lambda net, x, y: run(net, Images(x, y, scale=np.nan)), "scale must be at least 0 and finite, not nan"),
        (lambda net, x, y: run(net, Images(x, y + 0.5)), r"whole numbers from 0 to 2, not float64 \(3,\)"),
        (lambda net, x, y: run(net, Images(x, y), kenyon=True), "no Kenyon cells' spikes for this net: it has no"),
        (lambda net, x, y: run(net, Images(x, y), precision="float32", backend="step"), "'step' was asked for"),
        (lambda net, x, y: run(net, (x, y)), "samples must be Images or Trains, not tuple"),
        (lambda net, x, y: run(no_inputs(), Trains(())), "this one has none: use step"),
        (lambda net, x, y: run(random_graph(0), Trains(trains(0, steps=0))), "trains must be"),
        (lambda net, x, y: run(random_graph(0), Trains((trains(0)[0] * np.nan, trains(0)[1]))), "finite numbers"),
    ],
)
def test_samples_that_do_not_fit_are_named(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong(build(SMALL, 70, 3), *pictures(3))


def test_the_benchmark_names_both_ratios(monkeypatch):
    """Against the reference as it is, dense, and with scipy's sparse product; a clock of our own, so by hand."""
    clock, cost = [0.0], {streamnet.REFERENCE: 12.0, streamnet.SPARSE: 3.0, "float64 run": 0.5}

    def variant(name):
        def show():
            clock[0] += 10 * cost[name]
            return 10

        return show

    monkeypatch.setattr(streamnet, "make_variants", lambda *args: {name: variant(name) for name in cost})
    monkeypatch.setattr(streamnet.time, "process_time", lambda: clock[0])
    rows = streamnet.measure("mushroom_body", np.zeros((1, 4)), np.zeros(1), turns=3)
    ratios = {(row["name"], row.get("against")): row.get("ratio") for row in rows}
    assert ratios == {
        ("mushroom_body: spikelearn 0.1.2", None): None,
        ("mushroom_body: spikelearn 0.1.2, scipy's csc", "spikelearn 0.1.2"): 4,
        ("mushroom_body: float64 run", "spikelearn 0.1.2"): 24,
        ("mushroom_body: float64 run", "spikelearn 0.1.2, scipy's csc"): 6,
    }


def test_the_sparse_reference_is_the_dense_one(monkeypatch):
    """The released package, stood in for: what reaches the Kenyon cells is scipy's product with the same weights."""
    added = []

    class Net:
        def add_synapse(self, name, synapse, *sources):
            added.append((name, synapse))

        add_input = add_layer = lambda self, *args: None

    stand_in = SimpleNamespace(
        SpikingNet=Net,
        SpikingLayer=lambda *sizes, refr: None,
        OneToOneSynapse=lambda n, weights: weights,
        StaticSynapse=lambda inputs, outputs, weights, syn_type: weights,
    )
    monkeypatch.setitem(sys.modules, "spikelearn", stand_in)
    monkeypatch.setattr(spikelearn_nets, "_add_plastic", lambda *args: None)
    params = StreamnetParams(network="mushroom_body", kenyon_cells=30, probability=0.2)
    net = build(params, 20, 3)
    for sparse in (False, True):
        spikelearn_nets.reference_net(params, net, sparse)
    dense, csc = (synapse for name, synapse in added if name == "kc" and synapse.shape == (30, 20))
    assert scipy.sparse.issparse(csc) and csc.format == "csc" and csc.nnz == net.elements["kc"].synapses[0].mask.sum()
    spikes = np.arange(20.0) % 3
    np.testing.assert_allclose(csc @ spikes, dense @ spikes)
