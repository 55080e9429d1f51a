"""The streamnet simulator: graphs of spiking elements with on-chip learning rules, in numpy and numba, without torch.

It imports nothing from the repository's root. `step()` in plain numpy defines what a net does (streamnet.py);
`run()` (run.py) does the same with compiled kernels where it knows the graph.

Letters in shapes: B samples, T steps, N neurons or channels, E presynaptic and P postsynaptic neurons, K classes.
"""
