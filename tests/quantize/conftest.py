"""What the tests of quantization share: two small networks, trained on scikit-learn's handwritten digits."""

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from sklearn.datasets import load_digits

TRAINING = 1297
"""Images to train on, of 1797; the other 500 measure accuracy."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """A function of a batch of images ``[batch, 8, 8, 1]`` that returns logits, and data to use it on.

    Its training took so many ``seconds`` of CPU time.
    """

    model: Any
    calibration: list[tuple[Any, ...]]
    images: np.ndarray
    labels: np.ndarray
    convolutional: bool
    seconds: float

    def accuracy(self, logits):
        """Percent of the test images."""
        return 100 * float((np.asarray(logits).argmax(-1) == self.labels).mean())


@pytest.fixture(scope="session")
def digits():
    """Images and labels, shuffled: to train on, and to test."""
    images, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(images))
    images = (images[order].reshape(-1, 8, 8, 1) / 16).astype(np.float32)
    labels = labels[order]
    return images[:TRAINING], labels[:TRAINING], images[TRAINING:], labels[TRAINING:]


def trained(digits, params, apply, *, steps, rate, noise, convolutional):
    """Minimizes cross-entropy by Adam, on images with noise."""
    start = time.process_time()
    images, labels, test_images, test_labels = digits
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def loss(params, x, y):
        return optax.softmax_cross_entropy_with_integer_labels(apply(params, x), y).mean()

    @jax.jit  # a step at a time: XLA:CPU computes convolutions inside a loop on one thread, and slowly
    def step(params, state, x, y):
        updates, state = optimizer.update(jax.grad(loss)(params, x, y), state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    rng = np.random.default_rng(1)
    for _ in range(steps):
        rows = rng.integers(0, TRAINING, 128)
        noisy = images[rows] + np.float32(noise) * rng.standard_normal((128, *images.shape[1:]), np.float32)
        params, state = step(params, state, noisy, labels[rows])
    batches = [(images[:500],), (images[500:1000],)]
    return Trained(
        lambda x: apply(params, x), batches, test_images, test_labels, convolutional, time.process_time() - start
    )


def drawn(key, *shape):
    return jax.random.normal(key, shape) * np.sqrt(2 / np.prod(shape[:-1]))


@pytest.fixture(scope="session")
def cnn(digits):
    """Convolutions with a residual connection, max pooling, a mean and a dense layer."""
    keys = jax.random.split(jax.random.key(0), 5)
    params = {
        "stem": drawn(keys[0], 3, 3, 1, 16),
        "first": drawn(keys[1], 3, 3, 16, 16),
        "second": drawn(keys[2], 3, 3, 16, 16),
        "wide": drawn(keys[3], 3, 3, 16, 32),
        "dense": drawn(keys[4], 32, 10),
        "bias": {"stem": jnp.zeros(16), "first": jnp.zeros(16), "second": jnp.zeros(16), "wide": jnp.zeros(32)},
        "logits": jnp.zeros(10),
    }

    def convolution(params, name, x):
        numbers = ("NHWC", "HWIO", "NHWC")
        y = jax.lax.conv_general_dilated(x, params[name], (1, 1), "SAME", dimension_numbers=numbers)
        return y + params["bias"][name]

    def apply(params, x):
        x = jax.nn.relu(convolution(params, "stem", x))
        y = jax.nn.relu(convolution(params, "first", x))
        x = jax.nn.relu(x + convolution(params, "second", y))
        x = jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        x = jax.nn.relu(convolution(params, "wide", x))
        return x.mean((1, 2)) @ params["dense"] + params["logits"]

    return trained(digits, params, apply, steps=400, rate=5e-3, noise=0.0, convolutional=True)


@pytest.fixture(scope="session")
def transformer(digits):
    """Two layers of attention over the eight rows of an image."""
    keys = iter(jax.random.split(jax.random.key(1), 20))
    width, heads = 64, 2
    params = {
        "embed": drawn(next(keys), 8, width),
        "position": 0.1 * drawn(next(keys), 8, width),
        "layers": [
            {
                "qkv": drawn(next(keys), width, 3 * width),
                "out": drawn(next(keys), width, width) * 0.5,
                "up": drawn(next(keys), width, 2 * width),
                "down": drawn(next(keys), 2 * width, width) * 0.5,
                "biases": [jnp.zeros(3 * width), jnp.zeros(width), jnp.zeros(2 * width), jnp.zeros(width)],
                "scales": [jnp.ones(width), jnp.ones(width)],
            }
            for _ in range(2)
        ],
        "head": drawn(next(keys), width, 10),
        "logits": jnp.zeros(10),
    }

    def norm(x, scale):
        mean = x.mean(-1, keepdims=True)
        return (x - mean) * jax.lax.rsqrt(x.var(-1, keepdims=True) + 1e-5) * scale

    def attention(layer, x):
        batch, length, _ = x.shape
        qkv = (x @ layer["qkv"] + layer["biases"][0]).reshape(batch, length, 3, heads, -1)
        query, key, value = (qkv[:, :, k].transpose(0, 2, 1, 3) for k in range(3))
        shares = jax.nn.softmax(query @ key.transpose(0, 1, 3, 2) / np.sqrt(width // heads), axis=-1)
        mixed = (shares @ value).transpose(0, 2, 1, 3).reshape(batch, length, width)
        return mixed @ layer["out"] + layer["biases"][1]

    def apply(params, x):
        x = x.reshape(-1, 8, 8) @ params["embed"] + params["position"]
        for layer in params["layers"]:
            x = x + attention(layer, norm(x, layer["scales"][0]))
            y = jax.nn.gelu(norm(x, layer["scales"][1]) @ layer["up"] + layer["biases"][2])
            x = x + y @ layer["down"] + layer["biases"][3]
        return x.mean(1) @ params["head"] + params["logits"]

    return trained(digits, params, apply, steps=600, rate=3e-3, noise=0.3, convolutional=False)
