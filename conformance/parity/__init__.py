"""One small network, trained in PyTorch and in JAX from the same key: the losses must agree."""
