"""An example of a plugin for xlapass."""
