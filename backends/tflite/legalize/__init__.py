"""Legalization: programs in the operations and types that TFLite has."""

from .pass_ import LegalizeTFLite as LegalizeTFLite
