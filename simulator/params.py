"""StreamnetParams: the hyperparameters of the objective `streamnet`; the defaults learn MNIST with the shallow net.

The search spaces follow arXiv 2302.13210: streamnet_mnist is its Table I, streamnet_mnist_mushroom its Table II. Where
the paper's text is lost or silent the choice is ours:
- lr: the lower bound is lost; 1e-4, logarithmic.
- traces: the symbols are lost, one range 0.05 to 1 is left. Searched is the growth `trace_*`; 1 - trace_* stays.
  `keep_*` sets that apart, for a search with two numbers per trace.
- weights are hybrid, between -w_limit and w_limit, and begin at `init` of that.
- 5,000 Kenyon cells (50,000 learning synapses, ten outputs); w_inh_kenyon, 0 to 2, has no row in Table II.
- reset: not reported; here a sample begins at rest.
- refractory: not named, but the paper's 4 output spikes in 8 steps need it in the shallow network, and its 6 exclude it
  in the complex one. streamnet_mnist has it; [true, false] there searches both, and without it accuracies are higher.
streamnet_mnist_mushroom20 is ours: 20 steps, the hidden layers fixed at the defaults below (most draws from Table II's
ranges leave them silent or saturated), Table II's ranges for the learning synapses, two numbers per trace.
streamnet_digits is ours: Table I with larger weights, for 64 pixels instead of 784, and longer samples.
streamnet_digits_rules is ours, too: a choice of learning rules, each with its own parameters; see chosen_rules.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.params import Range, check

BUILT_IN_RULES = ("mse", "mse_released", "stdp", "modulated_stdp")
TEXT_RULES = ("mse_decay", "mse_soft", "modulated_triplet", "r_stdp", "memristor", "text")  # see chosen_rules.py
CHOICES = {
    "network": ("shallow", "mushroom_body"),
    "task": ("supervised", "unsupervised"),
    "rule": (*BUILT_IN_RULES, *TEXT_RULES),
    "precision": ("float32", "float64"),
    "resistance": ("exponential", "linear"),
}
MAGIC_VOLTS = (-1.5, 0.3)  # v_on and v_off of the device "magic" [V]: pulses lie outside
COUNT, POSITIVE, NOT_NEGATIVE = Range(1), Range(0, above=True), Range(0)
FRACTION, SOME_FRACTION = Range(0, 1), Range(0, 1, above=True)
RANGES = {
    **dict.fromkeys(("steps", "kenyon_cells"), COUNT),
    **dict.fromkeys(("tau_out", "tau_glom", "tau_lat", "tau_kenyon", "tau_inh", "w_limit"), POSITIVE),
    **dict.fromkeys(("trace_pre", "trace_post", "trace_mod", "probability"), SOME_FRACTION),
    **dict.fromkeys(("keep_pre", "keep_post", "keep_mod", "init"), FRACTION),
    **dict.fromkeys(("samples", "scale", "tau_input", "tau_mod", "lr", "alpha", "a_plus", "a_minus"), NOT_NEGATIVE),
    **dict.fromkeys(("w_input_glom", "w_input_lat", "w_lat_glom"), NOT_NEGATIVE),
    **dict.fromkeys(("decay", "triplet_plus", "triplet_minus", "tag_plus", "tag_minus", "pulse_least"), NOT_NEGATIVE),
    **dict.fromkeys(("up_seconds", "down_seconds"), NOT_NEGATIVE),
    **{"trace_slow": SOME_FRACTION, "tag_decay": FRACTION, "up_volts": Range(-9, 0)},
    "down_volts": Range(MAGIC_VOLTS[1], 9, above=True),
    **dict.fromkeys(("w_glom_inh", "w_inh_kenyon", "w_glom_kenyon"), NOT_NEGATIVE),
}


@dataclass(frozen=True)
class StreamnetParams:
    """A network, its task and its learning rule. `__post_init__` raises ValueError naming field, value and rule."""

    network: str = "shallow"  # shallow | mushroom_body
    task: str = "supervised"  # supervised: accuracy | unsupervised: l2 distance between input and projection
    steps: int = 8  # steps that a sample is shown
    samples: int = 0  # samples learnt, in one pass; 0 is all of the training part
    reset: bool = True  # return to rest before each sample
    scale: float = 1.0  # input spikes per step of a white pixel
    precision: str = "float32"  # of the compiled kernels
    # the learning synapses and their neurons
    rule: str = "mse"  # mse (the paper's) | mse_released (the released code's) | stdp | modulated_stdp | TEXT_RULES
    text: str = ""  # rule "text": the rule in the language of rule_language.py
    tau_out: float = 3.95  # decay time of the output neurons' potential [steps]
    refractory: bool = False  # output neurons are silent in the step after a spike
    tau_input: float = 0.95  # low-pass of the presynaptic spikes [steps]; 0 passes them through
    tau_mod: float = 3.2  # low-pass of the modulatory spikes [steps]; 0 passes them through
    trace_pre: float = 0.19  # growth of the presynaptic trace per spike
    trace_post: float = 0.48  # growth of the postsynaptic trace per spike
    trace_mod: float = 0.074  # growth of the modulatory trace per unit of the low-passed modulatory spikes
    keep_pre: float = 0.0  # fraction of the presynaptic trace that stays after a step; 0 means 1 - trace_pre
    keep_post: float = 0.0  # the same for the postsynaptic trace
    keep_mod: float = 0.0  # the same for the modulatory trace
    lr: float = 0.0017  # learning rate of mse and mse_released
    alpha: float = 4.0  # weight of the modulatory trace in mse
    a_plus: float = 0.001  # stdp: gain per presynaptic trace at an output spike
    a_minus: float = 0.001  # stdp: loss per postsynaptic trace at an input spike
    decay: float = 0.1  # mse_decay: weight lost per presynaptic trace, in units of lr
    triplet_plus: float = 1.0  # modulated_triplet: gain, in units of lr
    triplet_minus: float = 0.5  # its loss
    trace_slow: float = 0.1  # growth of the slow postsynaptic trace
    tag_plus: float = 0.1  # r_stdp: gain of the tag per presynaptic trace at an output spike
    tag_minus: float = 0.05  # loss of the tag per postsynaptic trace at an input spike
    tag_decay: float = 0.2  # fraction of the tag lost per step
    up_volts: float = -2.0  # memristor: pulse that makes a weight larger [V],
    up_seconds: float = 2e-11  # its width [s]
    down_volts: float = 1.0  # pulse that makes a weight smaller [V],
    down_seconds: float = 2e-11  # its width [s]
    pulse_least: float = 0.1  # smallest change of the rule, in units of lr, that brings a pulse
    resistance: str = "exponential"  # of the state: exponential | linear
    w_limit: float = 0.24  # weights stay within -w_limit..w_limit
    init: float = 0.1  # initial weights are uniform in -init * w_limit..init * w_limit
    # mushroom body
    kenyon_cells: int = 5000  # neurons in the sparse layer
    probability: float = 0.04  # that a glomerulus reaches a Kenyon cell
    tau_glom: float = 1.0  # decay times of the potentials [steps]: glomeruli,
    tau_lat: float = 4.3  # lateral neuron,
    tau_kenyon: float = 1.2  # Kenyon cells,
    tau_inh: float = 1.5  # inhibitory neuron
    w_input_glom: float = 3.26  # synaptic weights: input to its glomerulus,
    w_input_lat: float = 0.0829  # input to the lateral neuron,
    w_lat_glom: float = 0.0901  # lateral neuron to glomeruli (inhibits),
    w_glom_inh: float = 0.009  # glomeruli to the inhibitory neuron,
    w_inh_kenyon: float = 0.4  # inhibitory neuron to Kenyon cells (inhibits); not in the paper's table,
    w_glom_kenyon: float = 0.2  # glomeruli to Kenyon cells

    def __post_init__(self):
        self._check_text()
        check(self, CHOICES | {"text": (self.text,)}, RANGES)
        if self.up_volts >= MAGIC_VOLTS[0]:
            raise ValueError(f"up_volts must be below {MAGIC_VOLTS[0]} to move anything, not {self.up_volts}")
        if self.task == "unsupervised" and self.rule != "stdp":
            raise ValueError(f"rule must be stdp where task is unsupervised, not {self.rule!r}: it gets no labels")
        if self.task == "supervised" and self.rule == "stdp":
            raise ValueError("rule must be a modulated one where task is supervised, not 'stdp': it sees no labels")

    def _check_text(self) -> None:
        """Raise ValueError for a text that is no rule, and for one where another rule is chosen."""
        from simulator.rule_language import RuleError, names, parse

        if self.rule != "text":
            if self.text:
                raise ValueError(f"text must be left out where rule is {self.rule!r}, not {self.text!r}")
            return
        try:
            found = names(parse(self.text))
        except RuleError as error:
            raise ValueError(f"text: {error}") from None
        if not {"m0", "m1"} & found:
            raise ValueError(f"text must have m0 or m1 as a factor, not {self.text!r}: it sees no labels")

    @property
    def run_precision(self) -> str:
        """The precision of the kernel that runs it: rules given as text know float64 only."""
        return "float64" if self.rule in TEXT_RULES else self.precision

    def trace(self, name: str) -> tuple[float, float]:
        """Return (gain, keep) of the trace "pre", "post" or "mod"."""
        gain, keep = getattr(self, f"trace_{name}"), getattr(self, f"keep_{name}")
        return gain, keep if keep > 0 else 1 - gain
