"""The command ``xlapass``. It knows no concrete pass and no concrete backend."""

from .command import main as main
