"""`executable(buckets=...)`: batches of any size give what the program gives, and compile for a few sizes only."""

from __future__ import annotations

import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from xlapass.core.batched import BatchedExecutable
from xlapass.core.recompilation import RecompilationWarning

RNG = np.random.default_rng(0)
W = RNG.standard_normal((6, 4)).astype(np.float32)
BIG = RNG.standard_normal((6, 5000)).astype(np.float32)
X = RNG.standard_normal((3, 6)).astype(np.float32)


def model(x: Any) -> Any:
    return {"y": jax.nn.softmax(jnp.tanh(x @ W)), "best": (x.argmax(-1), jnp.float32(7))}


def compiled(fn: Any, *args: Any, dynamic: Any = "batch, ...", buckets: Any = (2, 4), **options: Any) -> Any:
    batch = options.pop("batch", None)
    artifact = xlapass.compile(fn, *args, dynamic=dynamic, **options)
    return artifact.executable(buckets=buckets, batch=batch)


def rows(count: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(count).standard_normal((count, 6)).astype(np.float32)


def close(a: Any, b: Any) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def executable() -> Any:
    return compiled(model, X)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5, 8, 11])
@pytest.mark.parametrize("kind", [np.asarray, jnp.asarray])
def test_any_size_gives_what_the_model_gives(executable: BatchedExecutable, count: int, kind: Any) -> None:
    result = executable(kind(rows(count)))
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(result))
    close(result, model(jnp.asarray(rows(count))))


def test_only_the_buckets_are_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    executable = compiled(model, X, buckets=[4, 2, 2])
    assert executable.buckets == (2, 4)
    executable.warm_up()
    count = len(executable._compiled)
    misses = []
    monkeypatch.setattr(executable, "_compile_at", lambda sizes: misses.append(sizes))
    for size in range(12):
        executable(rows(size))
    assert count == len(executable._compiled) == 2 and not misses


def test_samples_are_assembled_and_come_back_in_order(executable: BatchedExecutable) -> None:
    samples = rows(11)
    expected = model(jnp.asarray(samples))
    results = list(executable.map(iter(samples)))
    assert len(results) == 11
    assert isinstance(results[0]["y"], np.ndarray) and results[0]["y"].shape == (4,)
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *results)
    np.testing.assert_allclose(stacked["y"], expected["y"], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(stacked["best"][0], expected["best"][0])
    assert list(executable.map([])) == []


def test_results_of_map_are_not_written_over() -> None:
    identity = compiled(lambda x: x, X)
    results = list(identity.map(rows(23)))
    np.testing.assert_array_equal(np.stack(results), rows(23))


def test_several_arguments_axes_and_dimensions() -> None:
    def attend(q: Any, kv: Any, scale: Any) -> Any:
        scores = jnp.einsum("nbd,bmd->bnm", q, kv["k"]) * scale
        return jnp.einsum("bnm,bmd->nbd", jax.nn.softmax(scores), kv["v"])

    q, k = rows(12).reshape(2, 6, 6)[:, :3], rows(30).reshape(3, 10, 6)
    dynamic = ("n, batch, ...", {"k": "batch, m, ...", "v": "batch, m, ..."}, None)
    executable = compiled(attend, q, {"k": k, "v": k + 1}, np.float32(0.5), dynamic=dynamic)
    for n, b, m in [(2, 3, 10), (1, 1, 4), (5, 6, 2)]:
        q = RNG.standard_normal((n, b, 6)).astype(np.float32)
        k = RNG.standard_normal((b, m, 6)).astype(np.float32)
        close(executable(q, {"k": k, "v": k + 1}, 0.25), attend(q, {"k": k, "v": k + 1}, np.float32(0.25)))
    executable.warm_up(n=2, m=3)
    with pytest.raises(xlapass.UsageError, match=r"other dimensions \['m', 'n'\]"):
        executable.warm_up()
    with pytest.raises(xlapass.UsageError, match="'batch' of attend is 3 in input 'q' and 2 in"):
        executable(np.ones((1, 3, 6), np.float32), {"k": np.ones((2, 4, 6), np.float32)} | {"v": k}, 1.0)
    with pytest.raises(xlapass.UsageError, match="input 'scale' of attend has no batch"):
        next(executable.map([(q[:, 0], {"k": k[0], "v": k[0]}, 1.0)]))


def test_samples_of_several_arguments() -> None:
    executable = compiled(lambda x, y: (x * 2, x @ W + y.sum((0, 2))[:, None]), X, rows(6).reshape(2, 3, 6),
                          dynamic=("b, ...", "n, b, ..."))  # fmt: skip
    xs, ys = rows(7), RNG.standard_normal((7, 2, 6)).astype(np.float32)
    for index, (double, total) in enumerate(executable.map(zip(xs, ys, strict=True))):
        np.testing.assert_allclose(double, xs[index] * 2)
        np.testing.assert_allclose(total, xs[index] @ W + ys[index].sum(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "samples, message",
    [
        ([np.ones(6, np.float32), np.ones(5, np.float32)], r"is float32\[5\], where float32\[6\] is expected"),
        ([np.ones(6, complex)], "is complex128"),
        ([{"a": np.ones(6)}], "has the structure"),
        ([np.ones(5, np.float32)], "has shape"),
    ],
)
def test_samples_that_do_not_fit(executable: BatchedExecutable, samples: Any, message: str) -> None:
    with pytest.raises(xlapass.UsageError, match=message):
        list(executable.map(samples))


def test_weights_are_held_once() -> None:
    executable = compiled(lambda x: x @ jnp.asarray(BIG), X, buckets=(1, 2, 4))
    executable.warm_up()
    held = [array for array in jax.live_arrays() if array.shape == BIG.shape and array.committed]
    assert len(held) == 1
    close(executable(X), jnp.asarray(X) @ BIG)


def test_donated_arguments_are_consumed_when_they_fit() -> None:
    executable = compiled(lambda x: x * 2, X, donate_argnums=0, buckets=(2, 3))
    x = jnp.asarray(X)
    np.testing.assert_allclose(executable(x), X * 2)
    assert x.is_deleted()
    for count in (1, 7):
        x = jnp.asarray(rows(count))
        np.testing.assert_allclose(executable(x), rows(count) * 2)


def test_a_donated_argument_without_rows_serves_every_part() -> None:
    executable = compiled(lambda x, table: (x * 2, table + 1), X, np.ones(6, np.float32), dynamic=("b, ...", None),
                          donate_argnums=1, buckets=(2,))  # fmt: skip
    doubled, table = executable(rows(7), jnp.ones(6))
    np.testing.assert_allclose(doubled, rows(7) * 2)
    np.testing.assert_allclose(table, 2 * np.ones(6))


def test_random_keys_and_wide_types() -> None:
    with jax.enable_x64(True):
        keys = jax.random.split(jax.random.key(0), 5)
        executable = compiled(lambda x, k: (x * 2, k), X.astype(np.float64), keys[:3], dynamic=("b, ...", "b"))
        doubled, same = executable(rows(5).astype(np.float64), keys)
    assert doubled.dtype == np.float64 and doubled.shape == (5, 6)
    np.testing.assert_array_equal(jax.random.key_data(same), jax.random.key_data(keys))
    assert executable(np.zeros((0, 6)), keys[:0])[1].shape == (0,)


def test_forms_are_chosen_for_each_bucket() -> None:
    def pool(x: Any) -> Any:
        return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")

    image = RNG.standard_normal((1, 16, 16, 8)).astype(np.float32)
    artifact = xlapass.compile(pool, image, dynamic="b, ...")
    assert artifact.origin is not None
    specialized = artifact.origin.compile(xlapass.core.specialize.specialize(artifact.origin.program, {"b": 2}))
    assert "reduce_window_max" not in str(specialized.program)
    executable = artifact.executable(buckets=2)
    three = np.concatenate([image, image * 2, image * 3])
    np.testing.assert_array_equal(executable(three), pool(three))


def test_threads_share_what_is_compiled() -> None:
    executable, seen, real = compiled(model, X), [], None
    real = executable._compile_at
    executable._compile_at = lambda sizes: seen.append(dict(sizes)) or real(sizes)
    results: dict[int, Any] = {}
    threads = [
        threading.Thread(target=lambda n=n: results.update({n: executable(rows(n))})) for n in (1, 2, 3, 4, 5, 6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(size["batch"] for size in seen) == [2, 4]
    for n, result in results.items():
        close(result, model(jnp.asarray(rows(n))))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"buckets": ()}, "buckets are positive sizes"),
        ({"buckets": (0,)}, "buckets are positive sizes"),
        ({"buckets": (True,)}, "buckets are positive sizes"),
        ({"batch": "rows"}, "no symbolic dimension 'rows'"),
        ({"dynamic": None}, "fixed size"),
    ],
)
def test_wrong_options(options: Any, message: str) -> None:
    with pytest.raises(xlapass.UsageError, match=message):
        compiled(model, X, **options)


def test_other_refusals() -> None:
    with pytest.raises(xlapass.UsageError, match="cannot be computed apart"):
        compiled(lambda x: x - x.mean(0), X)
    with pytest.raises(xlapass.UsageError, match="batch= says which"):
        xlapass.compile(model, X, dynamic="b, ...").executable(batch="b")


def test_an_input_that_keeps_changing_is_named() -> None:
    plain = xlapass.compile(lambda x, y: x * y, X, np.float32(1), dynamic=("b, ...", None)).executable()
    with pytest.warns(RecompilationWarning, match=r"'x' keeps changing: \[5, 6\].*buckets="):
        for count in range(1, 10):
            plain(rows(count), 2.0)
    executable = compiled(lambda x: x * 2, X, dynamic="b, n", batch="b", buckets=(1,))
    with pytest.warns(RecompilationWarning, match="'dimension n' keeps changing.*only the dimension 'b' has buckets"):
        for count in range(1, 10):
            executable(np.ones((2, count), np.float32))
