"""A small image classifier in Equinox.

    xlapass --pipeline=cpu examples/equinox_cnn.py

Equinox layers take one example, channels first; the model maps itself over the batch.
"""

import equinox as eqx
import jax


class Classifier(eqx.Module):
    stem: eqx.nn.Conv2d
    depthwise: eqx.nn.Conv2d
    pointwise: eqx.nn.Conv2d
    norm: eqx.nn.GroupNorm
    pool: eqx.nn.MaxPool2d
    head: eqx.nn.MLP

    def __init__(self, key: jax.Array):
        keys = jax.random.split(key, 4)
        self.stem = eqx.nn.Conv2d(3, 32, kernel_size=3, stride=2, padding=1, key=keys[0])
        self.depthwise = eqx.nn.Conv2d(32, 32, kernel_size=5, padding=2, groups=32, key=keys[1])
        self.pointwise = eqx.nn.Conv2d(32, 64, kernel_size=1, key=keys[2])
        self.norm = eqx.nn.GroupNorm(groups=8, channels=64)
        self.pool = eqx.nn.MaxPool2d(kernel_size=2, stride=2)
        self.head = eqx.nn.MLP(64, 10, width_size=128, depth=1, key=keys[3])

    def classify(self, image: jax.Array) -> jax.Array:
        x = jax.nn.silu(self.stem(image))
        x = jax.nn.silu(self.norm(self.pointwise(self.depthwise(x))))
        return self.head(self.pool(x).mean(axis=(1, 2)))

    def __call__(self, images: jax.Array) -> jax.Array:
        """Logits `[batch, 10]` of `images` `[batch, 3, height, width]`."""
        return jax.vmap(self.classify)(images)


model = Classifier(jax.random.key(0))
example_inputs = (jax.random.normal(jax.random.key(1), (4, 3, 64, 64)),)
