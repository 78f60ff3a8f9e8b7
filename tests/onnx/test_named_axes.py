"""Named axes of ``jax.vmap``, which become axes of arrays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xlapass
from jax import lax
from xlapass.core.errors import UnsupportedError

X = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)

FORMS = {
    "sum": lambda x: lax.psum(x, "i"),
    "mean": lambda x: x - lax.pmean(x, "i"),
    "extrema": lambda x: lax.pmax(x, "i") - lax.pmin(x, "i"),
    "tree": lambda x: lax.psum({"a": x, "b": x.sum(), "n": 1}, "i"),
    "integers": lambda x: lax.psum((x > 0).astype(jnp.int32), "i"),
    "batch statistics": lambda x: (x - lax.pmean(x, "i")) * lax.rsqrt(lax.pmean(x * x, "i") + 1e-3),
    "all of them": lambda x: lax.all_gather(x, "i").sum(0) + lax.axis_index("i"),
    "shifted": lambda x: lax.ppermute(x, "i", [(0, 1), (1, 2), (2, 0)]),
}


@pytest.mark.parametrize("name", FORMS)
def test_axes_of_vmap(agrees, name):
    agrees(jax.vmap(FORMS[name], axis_name="i"), X)


def test_two_axes(agrees):
    inner = jax.vmap(lambda x: x - lax.pmean(x, ("i", "j")), axis_name="j")
    agrees(jax.vmap(inner, axis_name="i"), X)


def test_as_many_as_there_are():
    function = jax.vmap(lambda x: x - lax.psum(x, "i"), axis_name="i")
    run = xlapass.compile(function, X, pipeline="onnx", dynamic="b, ...").executable()
    for x in (X, X[:2]):
        np.testing.assert_allclose(run(x), function(x), rtol=1e-4, atol=1e-5)


def test_axes_of_devices_are_refused():
    mesh = jax.make_mesh((1,), ("i",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = jax.sharding.PartitionSpec("i")
    function = jax.shard_map(lambda x: lax.psum(x, "i"), mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    with pytest.raises(UnsupportedError, match="communicates between devices"):
        xlapass.compile(function, X[:1], pipeline="onnx")
