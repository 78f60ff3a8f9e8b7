"""Training steps: forward, loss, gradients and update as one function of state and batch."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from .gpt2 import GPT2
from .layers import Layout
from .model import ZooModel, channels_first_params, draw_params, normal_input, token_input
from .resnet import STAGES_18, BasicBlock, ResNet

CLASSES = 1000
CHARACTERS = 65


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The mean negative log likelihood of `labels`, one for each row of `logits`."""
    likelihoods = jnp.take_along_axis(nn.log_softmax(logits), labels[..., None], axis=-1)
    return -likelihoods.mean()


def momentum_step(module: nn.Module, state: Any, images: jax.Array, labels: jax.Array) -> tuple[Any, jax.Array]:
    """One step of SGD with momentum 0.9 and weight decay; BatchNorm uses and updates batch statistics."""

    def loss(params: Any) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": state["batch_stats"]}
        logits, updated = module.apply(variables, images, mutable=["batch_stats"])
        return cross_entropy(logits, labels), updated["batch_stats"]

    (value, batch_stats), grads = jax.value_and_grad(loss, has_aux=True)(state["params"])
    velocity = jax.tree.map(lambda v, g, p: 0.9 * v + g + 1e-4 * p, state["velocity"], grads, state["params"])
    params = jax.tree.map(lambda p, v: p - 0.1 * v, state["params"], velocity)
    return {"params": params, "velocity": velocity, "batch_stats": batch_stats}, value


def adam_step(module: nn.Module, state: Any, tokens: jax.Array) -> tuple[Any, jax.Array]:
    """One step of Adam (Kingma and Ba, 2014) on next-token prediction over `tokens` `[batch, length + 1]`."""

    def loss(params: Any) -> jax.Array:
        logits, _ = module.apply({"params": params}, tokens[:, :-1])
        return cross_entropy(logits, tokens[:, 1:])

    value, grads = jax.value_and_grad(loss)(state["params"])
    step: jax.Array = state["step"] + 1
    first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, state["first"], grads)
    second = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g * g, state["second"], grads)

    def update(p: jax.Array, m: jax.Array, v: jax.Array) -> jax.Array:
        return p - 1e-3 * (m / (1 - 0.9**step)) / (jnp.sqrt(v / (1 - 0.99**step)) + 1e-8)

    params = jax.tree.map(update, state["params"], first, second)
    return {"params": params, "first": first, "second": second, "step": step}, value


def build_cnn(layout: str = "nhwc", batch: int = 8, size: int = 96, stages: tuple[int, ...] = STAGES_18) -> ZooModel:
    """ResNet-18 in training mode."""
    target = Layout(layout)
    images = normal_input(batch, size, size, 3)
    state = draw_params(ResNet(BasicBlock, stages, Layout("nhwc"), CLASSES), (images,))
    if target.channels_first:
        state = channels_first_params(state)
    state["velocity"] = jax.tree.map(jnp.zeros_like, state["params"])
    module = ResNet(BasicBlock, stages, target, CLASSES, train=True)
    inputs = (target.from_channels_last(images), token_input(CLASSES, batch))
    step = functools.partial(momentum_step, module)
    return ZooModel("cnn-training", "training", step, state, inputs, layout)


def build_transformer(batch: int = 4, length: int = 128, depth: int = 6) -> ZooModel:
    """A character-level GPT of 384 channels and 6 heads."""
    module = GPT2(CHARACTERS, context=256, width=384, depth=depth, heads=6, last_only=False)
    tokens = token_input(CHARACTERS, batch, length + 1)
    params = draw_params(module, (tokens[:, :-1],))["params"]
    # The state of the middle of a training: at the first step Adam takes the sign even of a gradient that is only
    # rounding error, and two correct programs could not be compared.
    first = jax.tree.map(jnp.zeros_like, params)
    second = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e-4), params)
    state = {"params": params, "first": first, "second": second, "step": jnp.asarray(1000, jnp.int32)}
    step = functools.partial(adam_step, module)
    return ZooModel("transformer-training", "training", step, state, (tokens,))
