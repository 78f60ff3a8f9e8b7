"""`simplify`: algebraic identities, and operations that do nothing; one module per family of rules."""

from .pass_ import Simplify as Simplify
