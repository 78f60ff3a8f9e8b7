"""Lowering forms: one file per family of operations, each with a tuple ``FORMS``."""
