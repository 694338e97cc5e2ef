"""Train a residual network with stochastic depth in Flax NNX: `python -m examples.train_flax`.

Read in this order: config.py, presets.py and command.py; data.py, model.py with resnet.py and
vit.py, step.py, devices.py, loop.py; then folder.py, checkpoint.py, metrics.py, masks.py, plots.py,
progress.py, report.py and files.py, which it calls, compare.py, which calls loop.py twice a seed,
and extra.py. Copy the folder and change it: there is no framework here, only functions of a frozen
`Config`.
"""
