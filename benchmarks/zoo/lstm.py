"""The medium LSTM language model of Zaremba et al. (2014): 2 layers of 650 units over 35 words."""

from __future__ import annotations

import flax.linen as nn
import jax

from .model import ZooModel, draw_params, token_input


class LanguageModel(nn.Module):
    """Logits `[batch, length, vocabulary]` of the next word at each place of `tokens` `[batch, length]`."""

    vocabulary: int = 10000
    width: int = 650
    depth: int = 2

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        x = nn.Embed(self.vocabulary, self.width)(tokens)
        for _ in range(self.depth):
            x = nn.RNN(nn.OptimizedLSTMCell(self.width))(x)
        return nn.Dense(self.vocabulary)(x)


def build(batch: int = 1, length: int = 35) -> ZooModel:
    module = LanguageModel()
    inputs = (token_input(module.vocabulary, batch, length),)
    return ZooModel("lstm", "recurrent", module.apply, draw_params(module, inputs), inputs)
