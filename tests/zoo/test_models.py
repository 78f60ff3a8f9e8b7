"""The zoo's models are the published ones, and the two layouts of a model are the same function."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import zoo
from zoo.efficientnet import STAGES as EFFICIENTNET_STAGES
from zoo.gpt2 import GPT2
from zoo.layers import Layout
from zoo.mobilenet import V2_STAGES, V3_LARGE_BLOCKS
from zoo.model import QUICK_COMPILE, draw_params, is_conv_kernel, token_input

# Where the paper rounds, the count is that of its reference implementation or of torchvision, timm and transformers.
PARAMETERS = {
    "mobilenet-v2": 3_504_872,
    "mobilenet-v3": 5_483_032,
    "efficientnet-b0": 5_288_548,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "convnext-t": 28_589_128,
    "densenet121": 7_978_856,
    "unet": 31_037_698,
    "vit-s16": 22_050_664,
    "mlp-mixer-s16": 18_528_264,
    "swin-t": 28_288_354,
    "bert-base": 109_482_240,
    "gpt2-prefill": 124_439_808,
    "gpt2-decode": 124_439_808,
    "lstm": 2 * 10_000 * 650 + 10_000 + 2 * 4 * 650 * (650 + 650 + 1),
    "cnn-training": 11_689_512,
}

# Every kind of block, once or so, on small inputs.
SMALL = {
    "mobilenet-v2": {"size": 64, "stages": tuple((*stage[:2], 1, stage[3]) for stage in V2_STAGES[:5])},
    "mobilenet-v3": {"size": 64, "blocks": tuple(V3_LARGE_BLOCKS[index] for index in (0, 1, 3, 6, 8, 10))},
    "efficientnet-b0": {"size": 64, "stages": tuple((*stage[:2], 1, *stage[3:]) for stage in EFFICIENTNET_STAGES[:4])},
    "resnet18": {"size": 64, "stages": (1, 1)},
    "resnet50": {"size": 64, "stages": (2, 1)},
    "convnext-t": {"size": 64, "depths": (1, 1, 1, 1)},
    "densenet121": {"size": 64, "blocks": (1, 2)},
    "unet": {"size": 32, "widths": (8, 16, 32)},
    "wavenet": {"length": 64, "cycles": 2, "depth": 3},
    "conv-autoencoder": {"size": 32},
    "vit-s16": {"size": 64, "depth": 1},
    "mlp-mixer-s16": {"size": 64, "depth": 1},
    "swin-t": {"size": 128, "window": 2, "depths": (2, 2, 2, 2)},
    "cnn-training": {"size": 64, "batch": 4, "stages": (1, 1)},
}

TWO_LAYOUTS = [name for name in zoo.names() if "nchw" in zoo.layouts(name)]


def channels_last(path, leaf):
    names = tuple(str(getattr(key, "key", key)) for key in path)
    if is_conv_kernel(names):
        return np.transpose(leaf, (*range(2, leaf.ndim), 1, 0))
    return leaf


@pytest.mark.parametrize("name", zoo.names())
def test_model_traces_and_has_the_published_size(name, monkeypatch):
    # Sizes do not depend on the statistics, which take a compilation to compute.
    monkeypatch.setattr("zoo.model.batch_statistics", lambda module, params, inputs: params["batch_stats"])
    model = zoo.load(name)
    assert (model.name, model.family) == (name, zoo.family(name))
    outputs = jax.tree.leaves(jax.eval_shape(model.fn, model.params, *model.inputs))
    assert all(output.size > 0 for output in outputs)
    if name in PARAMETERS:
        assert model.parameter_count == PARAMETERS[name]


def test_every_layout_of_every_small_model_is_listed():
    assert set(SMALL) == set(TWO_LAYOUTS)


@functools.cache
def small_outputs(name, layout):
    model = zoo.load(name, layout=layout, **{"batch": 2} | SMALL[name])
    return jax.jit(model.fn, compiler_options=QUICK_COMPILE)(model.params, *model.inputs)


@pytest.mark.parametrize("name", TWO_LAYOUTS)
def test_layouts_are_the_same_function(name):
    expected, actual = small_outputs(name, "nhwc"), small_outputs(name, "nchw")
    if isinstance(actual, jax.Array) and actual.ndim > 2:
        actual = jnp.moveaxis(actual, 1, -1)
    actual = jax.tree_util.tree_map_with_path(channels_last, actual)
    for wanted, got in zip(jax.tree.leaves(expected), jax.tree.leaves(actual), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("name", [name for name in TWO_LAYOUTS if name != "cnn-training"])
def test_outputs_are_of_order_one_and_follow_the_input(name):
    outputs = np.asarray(small_outputs(name, "nhwc"))
    assert 0.1 < np.abs(outputs).max() < 10
    assert np.abs(outputs[0] - outputs[1]).max() > 0.1 * np.abs(outputs).max()


def test_bound_model_closes_over_the_parameters():
    model = zoo.load("conv-autoencoder", size=32)
    expected = jax.jit(model.fn)(model.params, *model.inputs)
    np.testing.assert_allclose(jax.jit(model.bind())(*model.inputs), expected, rtol=0, atol=1e-5)


def test_decoding_after_a_prefill_continues_it():
    module = GPT2(vocabulary=50, context=16, width=16, depth=2, heads=2)
    tokens = token_input(50, 2, 5)
    params = draw_params(module, (tokens,))
    run = jax.jit(module.apply, compiler_options=QUICK_COMPILE)
    expected, _ = run(params, tokens)
    _, caches = run(params, tokens[:, :4])
    padded = jax.tree.map(lambda leaf: jnp.pad(leaf, ((0, 0), (0, 4), (0, 0), (0, 0))), caches)
    logits, _ = run(params, tokens[:, 4:], 4, padded)
    np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-5)


def test_training_steps_reduce_the_loss():
    model = zoo.load("transformer-training", batch=2, length=16, depth=1)
    step = jax.jit(model.fn)
    state, first = step(model.params, *model.inputs)
    for _ in range(5):
        state, last = step(state, *model.inputs)
    assert last < first


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"no model 'resnet'.*resnet18"):
        zoo.load("resnet")
    with pytest.raises(ValueError, match="layout must be"):
        Layout("nwhc")
