"""What a zoo model is, and how its weights are drawn."""

from __future__ import annotations

import dataclasses
import math
import zlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from .layers import Layout

SEED = 2024

# For a program that runs once: XLA:CPU without the optimizations that take time.
QUICK_COMPILE = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


@dataclasses.dataclass(frozen=True)
class ZooModel:
    """A model as a pure function `fn(params, *inputs)`, with its parameters and example inputs."""

    name: str
    family: str
    fn: Callable[..., Any]
    params: Any
    inputs: tuple[Any, ...]
    layout: str = "nhwc"

    def bind(self) -> Callable[..., Any]:
        """The model as a function of the inputs alone, weights closed over."""
        fn, params = self.fn, self.params

        def model(*inputs: Any) -> Any:
            return fn(params, *inputs)

        model.__name__ = self.name.replace("-", "_")
        return model

    @property
    def parameter_count(self) -> int:
        """The number of trainable scalars: without running statistics and optimizer state."""
        return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(self.params["params"]))


def linen_model(
    name: str,
    family: str,
    module_for: Callable[[Layout], nn.Module],
    inputs: tuple[Any, ...],
    *,
    layout: str = "nhwc",
) -> ZooModel:
    """A zoo model of a Flax module, in inference mode; image-like `inputs` are given channels last.

    `module_for(layout)` makes the module. Both layouts get the same weights, up to the transpose of the kernels.
    """
    target = Layout(layout)
    module = module_for(Layout("nhwc"))
    params = draw_params(module, inputs)
    if "batch_stats" in params:
        params = params | {"batch_stats": batch_statistics(module, params, inputs)}
    if target.channels_first:
        params = channels_first_params(params)
        inputs = tuple(target.from_channels_last(x) if x.ndim > 2 else x for x in inputs)
    return ZooModel(name, family, module_for(target).apply, params, inputs, layout)


def normal_input(*shape: int) -> jax.Array:
    """A float32 array of standard normal values, the same at each call."""
    return jnp.asarray(np.random.default_rng(SEED).standard_normal(shape, np.float32))


def token_input(vocabulary: int, *shape: int) -> jax.Array:
    """An int32 array of token numbers below `vocabulary`, the same at each call."""
    return jnp.asarray(np.random.default_rng(SEED).integers(0, vocabulary, shape, np.int32))


def draw_params(module: nn.Module, inputs: tuple[Any, ...]) -> Any:
    """Random variables for `module`, kernels with variance `1 / fan_in`.

    Running `module.init` would compile hundreds of small random programs; here only the shapes come from it.
    """
    shapes = jax.eval_shape(module.init, jax.random.key(0), *inputs)
    return jax.tree_util.tree_map_with_path(lambda path, leaf: _draw(_names(path), leaf.shape), shapes)


def batch_statistics(module: nn.Module, params: Any, inputs: tuple[Any, ...]) -> Any:
    """Running statistics as training leaves them: mean and variance of what each BatchNorm sees of `inputs`.

    With statistics drawn at random the activations of a deep network vanish or explode.
    """

    def record(call: Any, args: tuple[Any, ...], kwargs: dict[str, Any], context: Any) -> Any:
        if isinstance(context.module, nn.BatchNorm) and context.method_name == "__call__":
            axes = tuple(range(args[0].ndim - 1))
            context.module.put_variable("batch_stats", "mean", args[0].mean(axes))
            context.module.put_variable("batch_stats", "var", args[0].var(axes))
        return call(*args, **kwargs)

    def run(params: Any, *inputs: Any) -> Any:
        with nn.intercept_methods(record):
            return module.apply(params, *inputs, mutable=["batch_stats"])[1]["batch_stats"]

    return jax.jit(run, compiler_options=QUICK_COMPILE)(params, *inputs)


def channels_first_params(params: Any) -> Any:
    """The same weights with convolution kernels `[*window, in, out]` turned into `[out, in, *window]`."""

    def convert(path: Any, leaf: jax.Array) -> jax.Array:
        if not is_conv_kernel(_names(path)):
            return leaf
        # In NumPy: JAX would compile a program for each shape.
        return jnp.asarray(np.transpose(leaf, (leaf.ndim - 1, leaf.ndim - 2, *range(leaf.ndim - 2))))

    return jax.tree_util.tree_map_with_path(convert, params)


def is_conv_kernel(names: tuple[str, ...]) -> bool:
    """Whether the variable with this path of names is the kernel of a convolution."""
    return len(names) > 1 and names[-1] == "kernel" and names[-2].startswith("Conv")


def _names(path: Any) -> tuple[str, ...]:
    return tuple(str(key.key) for key in path)


def _draw(names: tuple[str, ...], shape: tuple[int, ...]) -> jax.Array:
    # One generator per variable, so that a draw depends on its name and not on the order of the tree.
    rng = np.random.default_rng([SEED, zlib.crc32("/".join(names).encode())])
    name = names[-1]
    if name == "kernel":
        values = rng.standard_normal(shape, np.float32) * np.float32(math.sqrt(1 / _fan_in(names, shape)))
    elif name in ("scale", "var", "layer_scale"):
        # Away from 0, not all 1; a layer scale as trained networks have it.
        low, high = {"scale": (0.7, 1.1), "var": (0.5, 1.5), "layer_scale": (0.1, 0.5)}[name]
        values = rng.uniform(low, high, shape).astype(np.float32)
    elif name in ("bias", "mean"):
        values = 0.1 * rng.standard_normal(shape, np.float32)
    else:
        # Embeddings, position tables and class tokens: the deviation that GPT-2, BERT and ViT start from.
        values = 0.02 * rng.standard_normal(shape, np.float32)
    return jnp.asarray(values)


def _fan_in(names: tuple[str, ...], shape: tuple[int, ...]) -> float:
    if names[-2] in ("query", "key", "value"):
        return shape[0]
    if names[-2].startswith("ConvTranspose"):
        # At the zoo's stride 2 an output sample meets every second tap along each axis.
        return math.prod(shape[:-1]) / 4
    return math.prod(shape[:-1])
