"""One module per family of primitives; each function registers itself in the legality table."""
