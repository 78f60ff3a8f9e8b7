"""Published architectures in Flax linen with random weights: what the benchmark measures.

import zoo
model = zoo.load("mobilenet-v2", layout="nchw")
outputs = model.fn(model.params, *model.inputs)
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

from .model import ZooModel as ZooModel

# Family -> name -> module and function, imported when the model is loaded.
_BUILDERS = {
    "conv": {
        "mobilenet-v2": "mobilenet:build_v2",
        "mobilenet-v3": "mobilenet:build_v3",
        "efficientnet-b0": "efficientnet:build",
        "resnet18": "resnet:build_resnet18",
        "resnet50": "resnet:build_resnet50",
        "convnext-t": "convnext:build",
        "densenet121": "densenet:build",
        "unet": "unet:build",
        "wavenet": "wavenet:build",
        "conv-autoencoder": "autoencoder:build",
    },
    "transformer": {
        "vit-s16": "vit:build_vit",
        "swin-t": "swin:build",
        "bert-base": "bert:build",
        "gpt2-prefill": "gpt2:build_prefill",
        "gpt2-decode": "gpt2:build_decode",
    },
    "mlp": {"mlp-mixer-s16": "vit:build_mixer"},
    "recurrent": {"lstm": "lstm:build"},
    "training": {
        "cnn-training": "training:build_cnn",
        "transformer-training": "training:build_transformer",
    },
}
_FAMILY = {name: family for family, models in _BUILDERS.items() for name in models}


def names() -> tuple[str, ...]:
    """The models that `load` knows."""
    return tuple(_FAMILY)


def family(name: str) -> str:
    """The family of a model, without building it."""
    if name not in _FAMILY:
        raise ValueError(f"no model {name!r} in the zoo; there are: {', '.join(_FAMILY)}")
    return _FAMILY[name]


def layouts(name: str) -> tuple[str, ...]:
    """The layouts a model can be built in; only `nhwc` for a model without images or signals."""
    return ("nhwc", "nchw") if "layout" in inspect.signature(_builder(name)).parameters else ("nhwc",)


def load(name: str, **options: Any) -> ZooModel:
    """Builds a model; `options` are those of its build function: `batch`, `layout`, `size`, `length`, ..."""
    return _builder(name)(**options)


def _builder(name: str) -> Callable[..., ZooModel]:
    module, function = _BUILDERS[family(name)][name].split(":")
    builder: Callable[..., ZooModel] = getattr(importlib.import_module(f".{module}", __name__), function)
    return builder
