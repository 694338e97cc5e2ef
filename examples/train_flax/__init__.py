"""Train a residual network with stochastic depth in Flax NNX: `python -m examples.train_flax`.

Read in this order: config.py, data.py, model.py, step.py, loop.py; then checkpoint.py, metrics.py
and plots.py, which loop.py calls, and compare.py, which calls loop.py twice. Copy the folder and
change it: there is no framework here, only functions of a frozen `Config`.
"""
