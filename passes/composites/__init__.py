"""Composites that come with xlapass: one file per operation or family."""
