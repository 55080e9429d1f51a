"""Graphs of elements: what a step means, what is refused, monitors, saved states, generators."""

import numpy as np
import pytest

from simulator.encoders import Periodic, Poisson, Sequence, draws, encode_images, step_key
from simulator.neurons import LIF, Layer
from simulator.plasticity import MSE, STDP, Decay
from simulator.streamnet import Element, Function, StreamNet
from simulator.synapses import Filter, OneToOne, Plastic, Sparse, Static


def chain(length=3):
    """Functions that add 1, one after the other: what is put in shows when it comes out."""
    net = StreamNet({"x": 1})
    for i in range(length):
        net.add(f"e{i}", Function(lambda v: v + 1, (1,), (1,)), "x" if i == 0 else f"e{i - 1}")
    net.expose(f"e{length - 1}")
    return net


def small_layer():
    return Layer(LIF(2, tau=2.0, threshold=0.1), [Plastic(np.full((2, 3), 0.4), MSE(0.05), tau=1.5)])


def small_net():
    net = StreamNet({"x": 3, "m": 2})
    net.add("o", small_layer(), "x", "m")
    net.expose("o")
    return net


def test_every_edge_takes_one_step_and_inputs_are_seen_at_once():
    # x = 10 in the first step: e0 puts out 11 at once, e1 sees that a step later, e2 two steps later.
    net = chain()
    assert [float(net.step([x])[0][0]) for x in (10, 0, 0, 0)] == [1, 2, 13, 3]


def test_nested_net_equals_the_flat_one_and_works_before_its_first_step():
    inner, outer, flat = chain(2), StreamNet({"x": 1}), chain(3)
    outer.add("net", inner, "x")
    outer.add("last", Function(lambda v: v + 1, (1,), (1,)), "net")
    outer.expose("last")
    for x in (10, 0, 5, 0, 0):
        assert outer.step([x])[0] == flat.step([x])[0]
    assert list(small_nested().state())[0] == "net/o/v"


def small_nested():
    outer = StreamNet({"x": 3, "m": 2})
    outer.add("net", small_net(), "x", "m")
    outer.expose("net")
    return outer


def test_loop_of_two_elements():
    # a reads b's last output and b reads a's: from zeros, (a, b) = (1, 1), (2, 2), (3, 3).
    net = StreamNet({})
    net.add("a", Function(lambda v: v + 1, (1,), (1,)))
    net.add("b", Function(lambda v: v + 1, (1,), (1,)), "a")
    net.connect("b", "a")
    net.expose("a")
    assert [float(net.step()[0][0]) for _ in range(3)] == [1, 2, 3]


def test_several_output_ports():
    net = StreamNet({"x": 2})
    net.add("split", Function(lambda v: (v[:1], v[1:] * 2), (2,), (1, 1)), "x")
    net.add("late", Function(lambda v: v, (1,), (1,)), ("split", 1))
    net.expose("split", 1)
    net.expose("late")
    assert [[float(v[0]) for v in net.step([1, 4])] for _ in range(2)] == [[8, 0], [8, 8]]


def test_reset_clears_outputs_but_not_weights():
    net = small_net()
    for _ in range(5):
        net.step([1, 1, 0], [1, 0])
    weights = net.state()["o/synapse0/weights"].copy()
    assert net.outputs[0].any() and not np.array_equal(weights, np.full((2, 3), 0.4))
    net.reset()
    assert not net.outputs[0].any() and not net.state()["o/spikes"].any() and not net.state()["o/v"].any()
    assert not net.state()["o/synapse0/trace_pre"].any() and not net.state()["o/synapse0/filter_value"].any()
    np.testing.assert_array_equal(net.state()["o/synapse0/weights"], weights)


def test_learning_off_moves_traces_and_leaves_weights():
    learning, frozen = small_net(), small_net()
    for _ in range(4):
        learning.step([1, 0, 1], [1, 0])
        frozen.step([1, 0, 1], [1, 0], learn=False)
    assert (frozen.state()["o/synapse0/weights"] == 0.4).all()
    assert (learning.state()["o/synapse0/weights"] != 0.4).any()
    np.testing.assert_array_equal(frozen.state()["o/synapse0/trace_pre"], learning.state()["o/synapse0/trace_pre"])


def test_swap_takes_only_the_same_ports():
    net = small_net()
    old = net.elements["o"]
    assert net.swap("o", Function(lambda x, m: m, (3, 2), (2,))) is old
    np.testing.assert_array_equal(net.step([1, 1, 1], [1, 0])[0], [1, 0])
    with pytest.raises(
        ValueError, match=r"'o' has input and output ports of sizes \(\(3, 2\), \(2,\)\).*\(\(3,\), \(2,\)"
    ):
        net.swap("o", Function(lambda x: x, (3,), (2,)))


def connected(*sources):
    net = StreamNet({"x": 3, "m": 2})
    net.add("o", small_layer(), *sources)
    return net


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: connected("m"), "'m' puts out 2 values, but port 0 of 'o' takes 3"),
        (lambda: connected("x", "y"), "unknown source 'y'; names in this net: x, m, o"),
        (lambda: connected("x", ("o", 1)), "'o' has 1 output ports, counted from 0; there is no 1"),
        (lambda: connected("x", "m", "m"), "'o' has 2 input ports, but 3 sources"),
        (lambda: connected("x").connect("x", "o"), "port 0 of 'o' already has the source 'x'; a second is 'x'"),
        (lambda: connected("x").connect("m", "o", 2), "'o' has input ports 0 to 1, not 2"),
        (lambda: connected().connect("x", "p"), "unknown element 'p'; elements: o"),
        (lambda: connected().expose("x"), "unknown element 'x'"),
        (lambda: connected().add("o", small_layer()), "the name 'o' is taken"),
        (lambda: connected().add("x", small_layer()), "the name 'x' is taken"),
        (lambda: connected().add("a/b", small_layer()), "without '/'"),
        (lambda: connected().add("f", np.exp), "'f' must be an Element, not ufunc; wrap a callable in Function"),
        (lambda: connected("x").step([1, 1, 1], [0, 1]), "no source is connected to port 1 of 'o'"),
        (lambda: small_net().step([1, 1, 1]), "inputs are x, m; 1 vectors given"),
        (lambda: small_net().step([1, 1], [0, 1]), r"input 'x' takes a vector of 3 values, not shape \(2,\)"),
        (lambda: small_net().monitor("o/w"), "nothing is called 'o/w'; choose from: o/v, o/spikes"),
        (lambda: Function(lambda v: v, (1,), (2,)).step(np.ones(1)), r"returned shapes \(1,\).*sizes \(2,\)"),
        (lambda: Function(3, (1,), (2,)), "needs a callable, not 3"),
        (lambda: Layer(LIF(3, 1.0), [OneToOne(np.ones(2))]), "synapse 0 reaches 2 neurons, but the layer has 3"),
        (lambda: LIF(3, 0.0), "tau of LIF must be above 0"),
        (lambda: LIF(3, 1.0, threshold=0), "threshold of LIF must be above 0"),
        (lambda: Static(np.ones(3)), r"weights must have the shape \(neurons, inputs\), not \(3,\)"),
        (lambda: Static(-np.ones((2, 3)), "inhibitory"), "weights of inhibitory synapses must be at least 0"),
        (lambda: Static(np.ones((2, 3)), "exc"), "sign must be one of hybrid, excitatory, inhibitory, not 'exc'"),
        (
            lambda: Plastic(np.ones((2, 3)), "mse"),
            "rule must be one of STDP, ModulatedSTDP, MSE, ReleasedMSE, not 'mse'",
        ),
        (lambda: Plastic(np.ones((2, 3)), STDP(), bounds=(-0.5, 0.5)), "outside the bounds -0.5 to 0.5"),
        (lambda: Plastic(np.ones((2, 3)), STDP(), bounds=(1, 1)), "low < high"),
        (lambda: Plastic(np.ones((2, 3)), STDP(), bounds=(-1, 1), sign="excitatory"), "at least 0, not -1"),
        (lambda: Sparse(2, 3, 1.5, 1.0, seed=0), "connection probability must be from 0 to 1, not 1.5"),
        (lambda: Filter(2, tau=-1), "tau of a filter must be at least 0"),
        (lambda: Filter(2, delay=-1), "delay of a filter"),
        (lambda: Decay(0.5, 1.5), "keep of a trace must be from 0 to 1, not 1.5"),
        (
            lambda: Poisson(3, rates=np.ones(2), seed=0),
            r"rates of 3 spike trains must have the shape \(3,\), not \(2,\)",
        ),
        (lambda: Sequence(np.ones(3)), r"a sequence has the shape \(steps, trains\), not \(3,\)"),
    ],
)
def test_what_does_not_fit_is_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    "build, message",
    [
        (lambda: StreamNet(["x"]), r"inputs must be \{name: size\}, not \['x'\]"),
        (lambda: StreamNet({"x": 2.5}), "size of an input port must be a whole number of at least 1, not 2.5"),
        (lambda: connected(None), "a source is a name or .*, not None"),
        (lambda: connected(("x", 0, 1)), r"a source is a name or .*, not \('x', 0, 1\)"),
        (lambda: connected("x", ("o", 0.5)), "number of an output port must be a whole number"),
        (lambda: small_net().monitor("o/v", every=0), "every must be a whole number of at least 1, not 0"),
        (lambda: Layer(LIF(3, 1.0), OneToOne(np.ones(3))), "synapses of a layer must be a list, not OneToOne"),
        (lambda: LIF(2.5, 1.0), "n of LIF must be a whole number of at least 1, not 2.5"),
        (lambda: LIF(2, np.inf), "tau of LIF must be above 0 steps and finite, not inf"),
        (lambda: MSE(lr=np.nan), "lr of MSE must be a finite number, not nan"),
        (lambda: Decay(limit=np.inf), "limit of a trace must be above 0 and finite, not inf"),
        (lambda: Plastic(np.ones((2, 3)), STDP(), pre=0.5), r"pre must be a trace such as Decay.of\(0.3\), not 0.5"),
        (lambda: Plastic(np.ones((2, 3)), STDP(), bounds=1.0), r"bounds must be finite numbers \(low, high\).*not 1.0"),
        (lambda: Plastic(np.ones((2, 3)), STDP(), bounds=(0, np.inf)), "bounds must be finite numbers"),
        (lambda: Sparse(0, 3, 0.5, 1.0, seed=0), "n_pre of Sparse must be a whole number of at least 1, not 0"),
        (lambda: Poisson(2, rates=np.array([0.1, np.nan]), seed=0), "rates must be at least 0 and finite"),
        (lambda: Poisson(2, seed=-1), "seed of Poisson must be a whole number of at least 0, not -1"),
        (lambda: Sparse(2, 3, 0.5, 1.0, seed=None), "seed of Sparse must be a whole number of at least 0, not None"),
        (lambda: Sequence([[1.0, np.nan]]), "a sequence must be finite numbers"),
        (lambda: MSE(lr=None), "lr of MSE must be a finite number, not None"),
        (lambda: Plastic(np.ones((2, 3)), Derived()), "rule must be one of STDP, .*, not Derived"),
        (lambda: Plastic(np.ones((0, 3)), STDP()), r"weights must have the shape \(neurons, inputs\), not \(0, 3\)"),
        (lambda: OneToOne([]), r"weights of OneToOne must be a vector, not of shape \(0,\)"),
        (lambda: Layer(3), "the neurons of a layer must be LIF, not int"),
        (lambda: Layer(LIF(3, 1.0), [LIF(3, 1.0)]), "synapse 0 must be one of synapses.py, not LIF"),
        (lambda: connected("x").connect("m", "o", 0.5), "number of an input port must be a whole number .*, not 0.5"),
    ],
)
def test_wrong_values_are_named(build, message):
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize("element", [lambda: Poisson(3), lambda: Sparse(3, 3, 0.5, 1.0)])
def test_random_elements_ask_for_their_seed(element):
    with pytest.raises(TypeError, match="seed"):
        element()


class Derived(STDP):
    """A rule of another class, which no kernel knows."""


def one_layer(neuron=None, synapse=None):
    return Layer(neuron or LIF(3, 2.0, 0.1), [synapse or OneToOne(np.ones(3))])


def test_elements_share_no_neurons_synapses_or_nested_layers():
    neuron, synapse, layer = LIF(3, 2.0), OneToOne(np.ones(3)), one_layer()
    net, inner = StreamNet({"x": 3}), StreamNet({"x": 3})
    inner.add("layer", layer, "x")
    net.add("inner", inner, "x")
    net.add("a", one_layer(neuron, synapse), "x")
    for element, kind in (
        (one_layer(neuron), "LIF"),
        (one_layer(synapse=synapse), "OneToOne"),
        (layer, "Layer"),
        (Layer(LIF(3, 2.0), [twice := OneToOne(np.ones(3)), twice]), "OneToOne"),
    ):
        with pytest.raises(ValueError, match=f"'b' shares its {kind} with an element here"):
            net.add("b", element)
    net.swap("a", one_layer(neuron, synapse))  # in their own place they may stay
    assert list(net.elements) == ["inner", "a"]


def test_layer_shared_through_a_nested_net_is_found_before_a_step():
    net, inner, layer = StreamNet({"x": 3}), StreamNet({"x": 3}), one_layer()
    net.add("inner", inner, "x")
    net.add("a", layer, "x")
    inner.add("b", layer, "x")  # the inner net does not know who else has it
    with pytest.raises(ValueError, match="two elements share one Layer"):
        net.step(np.ones(3))


def test_unconnected_port_of_a_nested_net_is_named_by_its_path():
    outer, inner = StreamNet({"x": 3, "m": 2}), StreamNet({"x": 3})
    inner.add("o", small_layer(), "x")
    inner.expose("o")
    outer.add("inner", inner, "x")
    outer.expose("inner")
    with pytest.raises(ValueError, match="no source is connected to port 1 of 'inner/o'"):
        outer.step(np.ones(3), np.ones(2))


def test_swap_within_a_nested_net_shows_outside_at_once():
    outer = small_nested()
    for _ in range(5):
        outer.step([1, 1, 0], [1, 0])
    assert outer.outputs[0].any()
    outer.elements["net"].swap("o", small_layer())
    assert not outer.outputs[0].any()  # the new layer has put out nothing yet


def test_monitored_array_that_a_swap_removed_is_named():
    net = small_net()
    net.monitor("o/v")
    net.swap("o", Function(lambda x, m: m, (3, 2), (2,)))
    with pytest.raises(ValueError, match="the monitored 'o/v' is gone.*left: o/output0"):
        net.step([1, 1, 1], [1, 0])


def test_function_may_write_into_its_inputs():
    def double(v):
        v *= 2
        return v

    net = StreamNet({"x": 1})
    net.add("one", Sequence([[1.0]]))
    net.add("double", Function(double, (1,), (1,)), ["one", 0])  # a source from JSON is a list
    net.add("other", Function(lambda v: v, (1,), (1,)), "one")
    net.expose("double")
    net.expose("other")
    assert [[float(v[0]) for v in net.step([0])] for _ in range(2)] == [[0, 0], [2, 1]]


def test_a_net_cannot_hold_itself_or_an_element_twice():
    net, layer = StreamNet({"x": 3, "m": 2}), small_layer()
    outer = StreamNet({})
    outer.add("net", net)
    net.add("o", layer)
    for element, message in ((net, "part of itself"), (outer, "part of itself"), (layer, "shares its Layer")):
        with pytest.raises(ValueError, match=message):
            net.add("again", element)
    assert list(net.elements) == ["o"]


def test_monitors_record_spikes_potentials_traces_and_weights():
    net = small_nested()
    paths = ("net/o/spikes", "net/o/v", "net/o/synapse0/trace_pre", "net/o/synapse0/weights")
    monitors = [net.monitor(path) for path in paths]
    rare = net.monitor("net/o/v", every=3)
    outputs = [net.step([1, 0, 1], [1, 0])[0] for _ in range(7)]
    spikes, v, trace, weights = (monitor.array() for monitor in monitors)
    np.testing.assert_array_equal(spikes, outputs)
    np.testing.assert_array_equal(rare.array(), v[[2, 5]])
    assert weights.shape == (7, 2, 3)
    np.testing.assert_allclose(trace[:, 0], 1 - 0.5 ** np.arange(1, 8))  # t' = (1 + t) / 2 with a spike in each step


def test_saved_state_continues_exactly(tmp_path):
    net, other = small_nested(), small_nested()
    for _ in range(5):
        kept = net.step([1, 0, 1], [1, 0])[0]
    before = kept.copy()
    net.save(tmp_path / "state.npz")
    expected = [net.step([0, 1, 1], [0, 1])[0] for _ in range(6)]
    other.restore(tmp_path / "state.npz")
    np.testing.assert_array_equal(other.outputs[0], before)
    np.testing.assert_array_equal([other.step([0, 1, 1], [0, 1])[0] for _ in range(6)], expected)
    net.restore(tmp_path / "state.npz")
    np.testing.assert_array_equal(kept, before)  # what was handed out does not change
    np.testing.assert_array_equal([net.step([0, 1, 1], [0, 1])[0] for _ in range(6)], expected)
    with pytest.raises(ValueError, match="another net.*net/o/v"):
        small_net().restore(tmp_path / "state.npz")


def sparse_net(seed):
    net = StreamNet({"x": 20})
    net.add("o", Layer(LIF(20, 2.0, 0.1), [Sparse(20, 20, 0.3, 1.0, seed)]), "x")
    net.expose("o")
    return net


def test_state_of_other_connections_and_broken_files_are_refused(tmp_path):
    sparse_net(0).save(tmp_path / "state")  # exactly this name
    sparse_net(0).restore(tmp_path / "state")
    with pytest.raises(ValueError, match="another net, with other fixed weights or connections"):
        sparse_net(1).restore(tmp_path / "state")
    for content in (b"", b"nothing of the kind", (tmp_path / "state").read_bytes()[:300]):
        (tmp_path / "broken").write_bytes(content)
        with pytest.raises(ValueError, match="broken is not a saved state"):
            sparse_net(0).restore(tmp_path / "broken")
    np.savez(tmp_path / "pickle.npz", a=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="is not a saved state"):
        sparse_net(0).restore(tmp_path / "pickle.npz")


def test_counters_by_hand():
    # Two inputs spike in each of 3 steps, at static weights (2, 3) with one 0 (5 of 6), 3 + 2 - 1 = 3 ops a step;
    # tau = 1, threshold 0.5: with I = 2 both neurons cross at once in each step.
    weights = np.array([[1.0, 1.0, 9.0], [0.0, 2.0, 9.0]])
    layer = Layer(LIF(2, tau=1.0, threshold=0.5), [Static(weights)])
    for _ in range(3):
        layer.step(np.array([1.0, 1.0, 0.0]))
    np.testing.assert_array_equal(layer.counters, [6, 9])


def test_sparse_synapse_is_a_static_one_with_its_mask():
    sparse = Sparse(40, 30, 0.2, 0.7, seed=3, sign="inhibitory", tau=1.3, delay=2)
    static = Static(0.7 * sparse.mask.T, sign="inhibitory", tau=1.3, delay=2)
    assert 180 < sparse.mask.sum() < 300  # 240 expected, standard deviation 14
    np.testing.assert_array_equal(sparse.mask, Sparse(40, 30, 0.2, 1.0, seed=3).mask)
    x = np.random.default_rng(0).random((6, 40)) < 0.3
    for row in x.astype(float):
        np.testing.assert_allclose(sparse.current(row), static.current(row), atol=1e-14)


def test_filter_low_pass_and_delay():
    # tau = 1 / ln 2 keeps a half: an impulse gives 1/2, 1/4, 1/8; a delay of two steps puts two zeros before it.
    impulse = np.array([1.0, 0, 0, 0, 0])
    for delay, expected in ((0, [0.5, 0.25, 0.125, 0.0625, 0.03125]), (2, [0, 0, 0.5, 0.25, 0.125])):
        low_pass = Filter(1, tau=1 / np.log(2), delay=delay)
        assert [low_pass.step(x[None])[0] for x in impulse] == pytest.approx(expected, abs=1e-15)
    assert [Filter(1).step(x[None])[0] for x in impulse] == list(impulse)


def python_draw(seed, t, channel):
    """The documented hash in Python's whole numbers."""
    z = ((seed + 1) * 0x9E3779B97F4A7C15 + t) % 2**64
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    h = (channel * 0x9E3779B9 + ((z ^ (z >> 31)) >> 32)) % 2**32
    h = (h ^ (h >> 16)) * 0x7FEB352D % 2**32
    h = (h ^ (h >> 15)) * 0x846CA68B % 2**32
    return h ^ (h >> 16)


def test_draws_are_the_documented_hash():
    for seed, t in ((0, 0), (1, 12345), (2**40, 7)):
        assert [int(h) for h in draws(seed, t, 50)] == [python_draw(seed, t, channel) for channel in range(50)]
    assert step_key(0, 0) == 0xE220A839  # the first output of splitmix64 from 0 is E220A8397B1DCDAF (published)


def test_poisson_rates_and_independence():
    pixels = np.repeat(np.array([0, 51, 128, 255], dtype=np.uint8), 200)[None]
    spikes = encode_images(np.repeat(pixels, 50, axis=0), steps=8, seed=5)
    rates = spikes.reshape(50 * 8, 4, 200).mean(axis=(0, 2))  # 80,000 draws each
    np.testing.assert_allclose(rates, [0, 0.2, 128 / 255, 1], atol=0.007)
    lag = np.corrcoef(spikes[:, :-1, 400:600].ravel(), spikes[:, 1:, 400:600].ravel())[0, 1]
    neighbours = np.corrcoef(spikes[:, :, 400:599].ravel(), spikes[:, :, 401:600].ravel())[0, 1]
    seeds = np.corrcoef(spikes[..., 400:600].ravel(), encode_images(pixels.repeat(50, 0), 8, 6)[..., 400:600].ravel())
    assert max(abs(lag), abs(neighbours), abs(seeds[0, 1])) < 0.02


def test_poisson_element_equals_the_encoded_image_and_goes_on_after_a_reset():
    image = np.random.default_rng(0).integers(0, 256, (3, 60)).astype(np.uint8)
    element = Poisson(60, seed=9)
    expected = encode_images(image, steps=4, seed=9)
    for sample in range(3):
        for t in range(4):
            np.testing.assert_array_equal(element.step(image[sample] / 255)[0], expected[sample, t])
        element.reset()
    assert not element.outputs[0].any()


def test_periodic_keeps_its_rate_and_sequence_repeats():
    periodic = Periodic(3, rates=np.array([0.3, 1.0, 0.0]))
    trains = np.array([periodic.step()[0] for _ in range(100)])
    np.testing.assert_allclose(trains.sum(axis=0), [30, 100, 0], atol=1)
    driven = Periodic(1)  # a rate above 1 is one spike per step, and leaves none for later
    assert [driven.step(np.array([rate]))[0][0] for rate in (2.5, 2.5, 0, 0)] == [1, 1, 0, 0]
    sequence = Sequence([[1, 0], [0, 1], [0, 0]])
    assert [list(sequence.step()[0]) for _ in range(4)] == [[1, 0], [0, 1], [0, 0], [1, 0]]
    sequence.reset()
    assert list(sequence.step()[0]) == [1, 0]


def test_element_without_step():
    with pytest.raises(NotImplementedError):
        Element((1,), (1,)).step(np.zeros(1))
