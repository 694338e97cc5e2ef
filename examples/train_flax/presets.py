"""Configs that have a name: what the options of the command line start from."""

import dataclasses

from examples.train_flax.config import Config

RESNET110 = Config(  # Huang et al. 2016, section 4, and their code
    run_dir="runs/resnet110",
    data_dir="data/cifar-10-batches-bin",
    validation=5000,
    network="resnet",
    depth=110,
    drop_path_rate=0.5,
    rule="paper",
    mode="batch",
    scale_at="eval",
    epochs=500,
    batch=128,
    schedule="steps",
    weight_decay=1e-4,
    shift=4,
    flip=True,
    pixel_mean=True,
)

PRESETS = {
    "digits": Config(),  # about 1 % test error in a minute on 2 CPU cores
    "few-digits": Config(  # what overfits: docs/example.md has how it was found
        run_dir="runs/few-digits",
        left_out=500,
        train_images=200,
        split_seed=0,
        test_rest=True,
        width=24,
        drop_path_rate=0.6,
        mode="balanced",
        epochs=6,
        passes=10,
        batch=100,
        shift=0,
    ),
    "fashion-mnist": Config(  # a small network, for a CPU
        run_dir="runs/fashion-mnist",
        data_dir="data/fashion-mnist",
        depth=14,
        width=8,
        drop_path_rate=0.1,
        epochs=3,
        batch=128,
        flip=True,
        checkpoint_every=1,
    ),
    "resnet110": RESNET110,
    "resnet110-row": dataclasses.replace(
        RESNET110, run_dir="runs/resnet110-row", mode="row", scale_at="train"
    ),
    "vit": Config(
        run_dir="runs/vit",
        data_dir="data/cifar-10-batches-bin",
        network="vit",
        depth=9,
        width=192,
        mode="balanced",
        groups=8,
        epochs=100,
        batch=256,
        optimizer="adamw",
        learning_rate=1e-3,
        warmup_epochs=5,
        weight_decay=0.05,
        shift=4,
        flip=True,
    ),
    "smoke": Config(  # the tests': learns something, in seconds
        run_dir="runs/smoke", depth=8, width=4, epochs=4, batch=128, checkpoint_every=1
    ),
}
