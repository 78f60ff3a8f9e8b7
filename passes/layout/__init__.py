"""`layout`: convert a whole program to channels-last or channels-first."""

from __future__ import annotations

from .pass_ import Layout as Layout
