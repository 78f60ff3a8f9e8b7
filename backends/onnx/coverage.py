"""Writes the table of primitives into the documentation: ``python -m xlapass.backends.onnx.coverage [FILE]``."""

from __future__ import annotations

import sys
from pathlib import Path

from ...core.files import write_atomically
from .registry import table

_BEGIN, _END = "<!-- coverage -->", "<!-- /coverage -->"
_DOCUMENT = Path(__file__).parents[2] / "docs" / "onnx.md"


def coverage_table() -> str:
    """The legality table as Markdown, one row for each primitive."""
    rows = ["| primitive | how | note |", "| --- | --- | --- |"]
    for name, row in sorted(table().items()):
        rows.append(f"| `{name}` | {row.kind} | {row.note} |")
    return "\n".join(rows)


def with_table(document: str) -> str:
    """A document with the table between its two markers."""
    before, _, rest = document.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}\n{coverage_table()}\n{_END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1]) if len(sys.argv) > 1 else _DOCUMENT
    write_atomically(path, with_table(path.read_text(encoding="utf-8")).encode())
