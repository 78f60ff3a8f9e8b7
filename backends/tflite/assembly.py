"""From a converter's model to the file: names, metadata, and composites that are one operator."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...core.errors import CompileError
from . import flatbuffer
from .interface import Interface
from .operators import replace_composites
from .peephole import simplify_reshapes

METADATA = "xlapass"
"""Name of the metadata entry that says how the file was made: JSON."""


def assemble(model: bytes, interface: Interface, facts: Mapping[str, Any], *, symbolic: bool = False) -> bytes:
    """The file.

    Args:
      model: what a converter made, with one signature of inputs ``x0...`` and outputs ``y0...``.
      interface: the names that the file shall have.
      facts: about the making, for the metadata; JSON-able.
      symbolic: whether the converter did not know all sizes.
    """
    made = flatbuffer.read(model)
    replace_composites(made)
    if not symbolic:
        simplify_reshapes(made)
    _rename(made, interface)
    _describe(made, facts)
    return flatbuffer.write(made)


def _rename(model: Any, interface: Interface) -> None:
    """Gives the signature, its inputs and outputs, and their tensors the program's names."""
    (signature,) = model.signatureDefs
    signature.signatureKey = interface.signature
    subgraph = model.subgraphs[signature.subgraphIndex]
    subgraph.name = interface.signature
    for maps, prefix, names in (
        (signature.outputs, "y", interface.outputs),
        (signature.inputs, "x", interface.inputs),  # last: an output that is an input keeps the input's name
    ):
        found = {_text(entry.name): entry for entry in maps}
        if sorted(found) != sorted(f"{prefix}{number}" for number in range(len(names))):
            raise CompileError(f"the converter left {', '.join(sorted(found))} of {', '.join(names)}")
        for number, name in enumerate(names):
            entry = found[f"{prefix}{number}"]
            entry.name = name
            subgraph.tensors[entry.tensorIndex].name = name
        maps[:] = [found[f"{prefix}{number}"] for number in range(len(names))]


def _describe(model: Any, facts: Mapping[str, Any]) -> None:
    model.description = f"xlapass {facts['xlapass']}"
    kept = [entry for entry in model.metadata or [] if _text(entry.name) != METADATA]
    data = json.dumps(facts, sort_keys=True).encode()
    buffer = flatbuffer.schema().BufferT()
    buffer.data = np.frombuffer(data, np.uint8)
    entry = flatbuffer.schema().MetadataT()
    entry.name, entry.buffer = METADATA, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*kept, entry]


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def facts_of(model: bytes) -> dict[str, Any]:
    """What the metadata of a file says; empty for a file that xlapass did not write."""
    read = flatbuffer.read(model)
    for entry in read.metadata or []:
        if _text(entry.name) == METADATA:
            facts: dict[str, Any] = json.loads(bytes(read.buffers[entry.buffer].data))
            return facts
    return {}
