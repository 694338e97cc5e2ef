"""Models of timm, torchvision and transformers, one by one; `python -m benchmarks.models`."""
