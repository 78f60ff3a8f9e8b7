"""A training step in plain JAX: forward, loss, gradient and update compiled as one program.

xlapass --pipeline=cpu examples/train_step.py
python examples/train_step.py      # runs it operation by operation and compiled, and compares the two
"""

import statistics
import time

import jax
import jax.numpy as jnp

LAYERS = (784, 512, 256, 10)
BATCH = 64
LEARNING_RATE = 0.1


def init_params(key):
    """A list of weights `[inputs, outputs]` and biases `[outputs]`."""
    keys = jax.random.split(key, len(LAYERS) - 1)
    shapes = zip(keys, LAYERS[:-1], LAYERS[1:], strict=True)
    return [(jax.random.normal(k, (m, n)) * (2 / m) ** 0.5, jnp.zeros(n)) for k, m, n in shapes]


def predict(params, images):
    x = images
    for weights, bias in params[:-1]:
        x = jax.nn.relu(x @ weights + bias)
    weights, bias = params[-1]
    return x @ weights + bias


def loss(params, images, labels):
    """The mean cross-entropy of logits against `labels`, int32 `[batch]`."""
    likelihoods = jax.nn.log_softmax(predict(params, images))
    return -jnp.take_along_axis(likelihoods, labels[:, None], axis=1).mean()


def train_step(params, images, labels):
    """New parameters after one step of gradient descent, and the loss before it."""
    value, gradients = jax.value_and_grad(loss)(params, images, labels)
    return jax.tree.map(lambda p, g: p - LEARNING_RATE * g, params, gradients), value


model = train_step


def example_inputs():
    params_key, image_key, label_key = jax.random.split(jax.random.key(0), 3)
    images = jax.random.uniform(image_key, (BATCH, LAYERS[0]))
    labels = jax.random.randint(label_key, (BATCH,), 0, LAYERS[-1])
    return init_params(params_key), images, labels


def milliseconds(step, inputs, repeats):
    """The median time of a call."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(step(*inputs))
        times.append(1e3 * (time.perf_counter() - start))
    return statistics.median(times)


def main():
    import xlapass  # the model itself is plain JAX

    inputs = example_inputs()
    compiled = xlapass.jit(train_step)
    params, value = train_step(*inputs)
    compiled_params, compiled_value = compiled(*inputs)
    pairs = zip(jax.tree.leaves(params), jax.tree.leaves(compiled_params), strict=True)
    difference = max(float(jnp.abs(a - b).max()) for a, b in pairs)
    print(f"loss: eager {value:.6f}, compiled {compiled_value:.6f}; largest difference of a weight: {difference:.1e}")
    eager_ms = milliseconds(train_step, inputs, repeats=10)
    compiled_ms = milliseconds(compiled, inputs, repeats=50)
    print(f"step: eager {eager_ms:.2f} ms, compiled {compiled_ms:.2f} ms: {eager_ms / compiled_ms:.1f} times faster")

    params = inputs[0]
    for _ in range(100):
        params, value = compiled(params, *inputs[1:])
    print(f"loss after 100 more compiled steps on this batch: {value:.6f}")


if __name__ == "__main__":
    main()
