"""The steps of drawn programs that hold a body: control flow, calls, custom derivatives."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from program_steps import ELEMENTARY
from program_writer import Writer, fitted, is_float, is_key, is_number, scalar_from, truth_of

MOST_DEPTH = 2
"""Bodies nest this deep."""

BODY_STEPS = 3
"""Bodies have at most this many steps."""


def write_block(w: Writer, steps: int) -> None:
    """Draws up to ``steps`` steps; any of them may be left out, so that failures shrink step by step."""
    kinds = (_nothing, *ELEMENTARY)
    if w.options.control_flow and w.depth < MOST_DEPTH:
        kinds += BODIED
    for _ in range(steps):
        w.choose(*kinds)(w)


def _nothing(_: Writer) -> None:
    pass


@dataclasses.dataclass(frozen=True)
class Body:
    """A drawn body: ``run(outer values, params)`` gives all its values; ``outs`` are those it may return."""

    writer: Writer
    outs: tuple[int, ...]

    def run(self, outer: Sequence[Any], params: Sequence[Any]) -> list[Any]:
        """The returned values."""
        values = self.writer.run([*outer, *params])
        return [values[i] for i in self.outs]

    def __str__(self) -> str:
        returned = ", ".join(f"v{i}" for i in self.outs)
        return f"{self.writer.lines()} -> {returned}"


def draw_body(w: Writer, params: Sequence[Any], results: int) -> Body:
    """A body of parameters of the given types that closes over any value of ``w`` and returns ``results`` values."""
    child = w.child(params)
    write_block(child, BODY_STEPS)
    outs = tuple(child.pick(lambda _: True) or 0 for _ in range(results))
    return Body(child, outs)


def call(w: Writer) -> None:
    """A body behind `jax.jit`, `jax.checkpoint`, a custom derivative or a composite; called twice, now and then."""
    i, j = w.pick(lambda _: True), w.pick(lambda _: True)
    if i is None or j is None:
        return
    how = w.choose(*CALLS)
    if how == "composite" and w.options.symbolic:  # JAX cannot lower these
        return
    body = draw_body(w, [w.avals[i], w.avals[j]], w.integer(1, 2))
    twice = w.choose(False, True)

    def run(vs: Any) -> list[Any]:
        if how == "composite":  # closes over nothing
            function = CALLS[how](lambda a, b, *outer: body.run(outer, [a, b]))
            return function(vs[i], vs[j], *vs)
        function = CALLS[how](lambda a, b: body.run(vs, [a, b]))
        results = function(vs[i], vs[j])
        return [*results, *function(vs[j], vs[i])] if twice and _same_type(vs[i], vs[j]) else results

    w.add(f"{how}{' twice' if twice else ''}(v{i}, v{j}) {body}", run)


def _same_type(a: Any, b: Any) -> bool:
    return bool(a.shape == b.shape and a.dtype == b.dtype)


def _custom_jvp(fn: Callable[..., Any]) -> Callable[..., Any]:
    function = jax.custom_jvp(fn)

    @function.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        return jax.jvp(fn, primals, tangents)

    return function


def _custom_vjp(fn: Callable[..., Any]) -> Callable[..., Any]:
    function = jax.custom_vjp(fn)
    function.defvjp(lambda *args: (fn(*args), args), lambda args, cotangents: jax.vjp(fn, *args)[1](cotangents))
    return function


CALLS: dict[str, Callable[[Callable[..., Any]], Callable[..., Any]]] = {
    "jit": jax.jit,
    "jit inline": lambda fn: jax.jit(fn, inline=True),
    "checkpoint": jax.checkpoint,
    "custom_jvp": _custom_jvp,
    "custom_vjp": _custom_vjp,
    "composite": lambda fn: lax.composite(fn, "test.drawn"),
    "named_call": lambda fn: jax.named_call(fn, name="drawn"),
}


def scan(w: Writer) -> None:
    """`lax.scan` of zero to three steps with a carry, a result per step, and closures."""
    i, k = w.pick(lambda _: True), w.pick(lambda a: len(a.shape) > 0)
    if i is None:
        return
    over = None if w.choose(False, True) else k
    length, reverse = w.integer(0, 3), w.choose(False, True)
    row = [] if over is None else [jax.ShapeDtypeStruct(w.avals[over].shape[1:], w.avals[over].dtype)]
    body = draw_body(w, [w.avals[i], *row], 2)

    def run(vs: Any) -> list[Any]:
        def step(carry: Any, x: Any) -> Any:
            new, result = body.run(vs, [carry, *([] if x is None else [x])])
            return fitted(new, carry), result

        xs = None if over is None else vs[over]
        return list(lax.scan(step, vs[i], xs, length=length if over is None else None, reverse=reverse))

    xs_text = "" if over is None else f", v{over}"
    w.add(f"scan[{length if over is None else 'rows'}, reverse={reverse}](v{i}{xs_text}) {body}", run)


def while_loop(w: Writer) -> None:
    """`lax.while_loop` or `lax.fori_loop` of at most three steps with a closure."""
    i, k = w.pick(lambda _: True), w.pick(is_number)
    if i is None or k is None:
        return
    count, early = w.integer(0, 3), w.choose(False, True)
    body = draw_body(w, [w.avals[i]], 1)

    def run(vs: Any) -> list[Any]:
        def go_on(state: Any) -> Any:
            n, value = state
            more = n < count
            return more & truth_of(vs[k]) if early and not is_key(value) else more

        def step(state: Any) -> Any:
            n, value = state
            return n + 1, fitted(body.run(vs, [value])[0], value)

        return list(lax.while_loop(go_on, step, (0, vs[i])))

    w.add(f"while[{count}, early={early}](v{i}; v{k}) {body}", run)


def cond(w: Writer) -> None:
    """`lax.cond` or `lax.switch` over one to three branches with closures, some of them shared."""
    i, k = w.pick(lambda _: True), w.pick(is_number)
    if i is None or k is None:
        return
    branches = [draw_body(w, [w.avals[i]], 1) for _ in range(w.integer(1, 2))]
    shared = w.choose(False, True)

    def run(vs: Any) -> Any:
        def branch(body: Body) -> Callable[[Any], Any]:
            return lambda x: fitted(body.run(vs, [x])[0], x)

        functions = [branch(body) for body in branches]
        functions += functions[:1] if shared else []
        if len(functions) == 2:
            return lax.cond(truth_of(vs[k]), functions[0], functions[1], vs[i])
        return lax.switch(truth_of(vs[k]).astype(jnp.int32), functions, vs[i])

    bodies = " ".join(map(str, branches))
    w.add(f"switch(v{k}, shared={shared})(v{i}) {bodies}", run)


def gradient(w: Writer) -> None:
    """The gradient of a body with respect to one value."""
    i = w.pick(is_float)
    if i is None:
        return
    body = draw_body(w, [w.avals[i]], 1)

    def run(vs: Any) -> Any:
        def loss(x: Any) -> Any:
            result = scalar_from(body.run(vs, [x])[0])
            return result if is_float(result) else result.astype(x.dtype)

        return jax.grad(loss)(vs[i])

    w.add(f"grad(v{i}) {body}", run)


def mapped(w: Writer) -> None:
    """`jax.vmap` of a body over the first axis."""
    i = w.pick(lambda a: len(a.shape) > 0)
    if i is None:
        return
    body = draw_body(w, [jax.ShapeDtypeStruct(w.avals[i].shape[1:], w.avals[i].dtype)], 1)
    w.add(f"vmap(v{i}) {body}", lambda vs: jax.vmap(lambda x: body.run(vs, [x])[0])(vs[i]))


BODIED: tuple[Callable[[Writer], None], ...] = (call, call, scan, while_loop, cond, gradient, mapped)
