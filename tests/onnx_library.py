"""Calls into JAX's library as users write them: name -> function and arguments.

A table rather than drawn programs, for what matters is that each function of the library is there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy as jsp
import ml_dtypes
import numpy as np
from jax import lax
from onnx_programs import COMPLEX, FOURIER, LAX, LINEAR, SHAPES
from onnx_transforms import DTYPES, NARROW, TRANSFORMS, WIDE
from onnx_values import BIG, KEY, SPD, Call, J, K, P, V, X, Y, between, names, normal

#: Functions of numpy's that take one array, with an array that suits them.
ONE = {
    **{
        name: X
        for name in names("""
            abs absolute negative positive sign fabs exp exp2 expm1 sin cos tan sinh cosh tanh
            arctan arcsinh floor ceil rint trunc fix round square sinc degrees radians deg2rad
            rad2deg signbit isfinite isinf isnan isneginf isposinf nan_to_num cbrt reciprocal sum
            prod mean std var max min amax amin ptp median any all argmax argmin argsort sort cumsum
            cumprod nancumsum nancumprod nansum nanprod nanmean nanstd nanvar nanmax nanmin
            nanargmax nanargmin nanmedian ravel transpose matrix_transpose fliplr flipud rot90 flip
            diff ediff1d gradient tril triu diag diagonal trace atleast_1d atleast_2d atleast_3d
            count_nonzero real imag conj angle i0 isreal iscomplex copy zeros_like ones_like
            empty_like squeeze corrcoef cov frexp modf unwrap logical_not
        """)
    },
    **{name: P for name in names("log log2 log10 log1p sqrt arcsin arccos arctanh")},
    "arccosh": BIG,
    "vander": V,
    "bitwise_not": K,
    "invert": K,
    "bitwise_count": K,
}

TWO = {
    **{
        name: (X, Y)
        for name in names("""
            add subtract multiply divide true_divide maximum minimum fmax fmin arctan2 hypot
            copysign logaddexp logaddexp2 heaviside equal not_equal less less_equal greater
            greater_equal isclose allclose array_equal nextafter inner outer kron vdot floor_divide
            mod remainder fmod divmod
        """)
    },
    **{
        name: (K, J)
        for name in names("""
            gcd lcm bitwise_and bitwise_or bitwise_xor left_shift right_shift mod power logical_and
            logical_or logical_xor fmod remainder
        """)
    },
    "float_power": (P, Y),
    "ldexp": (X, J),
    "dot": (X, Y.T),
    "matmul": (X, Y.T),
    "convolve": (V, X[0]),
    "correlate": (V, X[0]),
    "cross": (normal(2, 3), normal(2, 3)),
    "polyval": (V, X),
    "polyadd": (V, X[0]),
    "polymul": (V, X[0]),
    "digitize": (X, np.sort(V)),
    "searchsorted": (np.sort(V), X),
    "append": (X, Y),
    "isin": (K, J),
}

ACTIVATIONS = names("""
            relu relu6 sigmoid softplus soft_sign sparse_plus sparse_sigmoid silu swish log_sigmoid
            leaky_relu hard_sigmoid hard_silu hard_swish hard_tanh elu celu selu gelu glu squareplus
            mish identity softmax log_softmax logsumexp standardize tanh logmeanexp
        """)

SPECIAL = {
    **{
        name: (P,)
        for name in names("""
            digamma entr erf erfc erfinv expit exp1 expi gammaln gamma i0 i0e i1 i1e log_ndtr logit
            ndtr ndtri spence factorial log_softmax softmax logsumexp
        """)
    },
    **{
        name: (P, BIG)
        for name in names("""
            beta betaln gammainc gammaincc kl_div rel_entr xlog1py xlogy poch
        """)
    },
    "zeta": (BIG, P),
    "betainc": (P, BIG, between(0.1, 0.9, 3, 4)),
    "hyp1f1": (P, BIG, between(0.1, 1.5, 3, 4)),
}

DISTRIBUTIONS = {
    "norm": (),
    "expon": (),
    "logistic": (),
    "laplace": (),
    "cauchy": (),
    "uniform": (),
    "gumbel_r": (),
    "t": (2.5,),
    "gamma": (2.5,),
    "beta": (2.0, 1.5),
    "chi2": (3.0,),
    "pareto": (2.0,),
    "truncnorm": (-1.0, 2.0),
    "gennorm": (1.5,),
    "vonmises": (1.5,),
    "wrapcauchy": (0.5,),
}

DRAWS: dict[str, Callable[[Any], Any]] = {
    "normal": lambda k: jax.random.normal(k, (3, 4)),
    "uniform": lambda k: jax.random.uniform(k, (3, 4), minval=-1, maxval=2),
    "bernoulli": lambda k: jax.random.bernoulli(k, 0.3, (7,)),
    "randint": lambda k: jax.random.randint(k, (7,), -5, 90),
    "categorical": lambda k: jax.random.categorical(k, X),
    "choice": lambda k: jax.random.choice(k, 9, (4,)),
    "choice without": lambda k: jax.random.choice(k, 9, (4,), replace=False),
    "permutation": lambda k: jax.random.permutation(k, jnp.arange(11)),
    "exponential": lambda k: jax.random.exponential(k, (5,)),
    "laplace": lambda k: jax.random.laplace(k, (5,)),
    "logistic": lambda k: jax.random.logistic(k, (5,)),
    "gumbel": lambda k: jax.random.gumbel(k, (5,)),
    "cauchy": lambda k: jax.random.cauchy(k, (5,)),
    "truncated_normal": lambda k: jax.random.truncated_normal(k, -1.0, 1.5, (5,)),
    "gamma": lambda k: jax.random.gamma(k, 2.0, (5,)),
    "beta": lambda k: jax.random.beta(k, 2.0, 3.0, (5,)),
    "dirichlet": lambda k: jax.random.dirichlet(k, jnp.ones(3), (2,)),
    "poisson": lambda k: jax.random.poisson(k, 4.0, (5,)),
    "multivariate_normal": lambda k: jax.random.multivariate_normal(k, jnp.zeros(4), SPD, (2,), method="cholesky"),
    "orthogonal": lambda k: jnp.abs(jax.random.orthogonal(k, 3)),
    "rademacher": lambda k: jax.random.rademacher(k, (5,)),
    "maxwell": lambda k: jax.random.maxwell(k, (5,)),
    "rayleigh": lambda k: jax.random.rayleigh(k, 1.0, (5,)),
    "weibull": lambda k: jax.random.weibull_min(k, 1.0, 2.0, (5,)),
    "t": lambda k: jax.random.t(k, 3.0, (5,)),
    "chisquare": lambda k: jax.random.chisquare(k, 3.0, shape=(5,)),
    "f": lambda k: jax.random.f(k, 3.0, 4.0, shape=(5,)),
    "pareto": lambda k: jax.random.pareto(k, 2.0, (5,)),
    "geometric": lambda k: jax.random.geometric(k, 0.3, (5,)),
    "binomial": lambda k: jax.random.binomial(k, 9.0, 0.3, (5,)),
    "double_sided_maxwell": lambda k: jax.random.double_sided_maxwell(k, 0.0, 1.0, (5,)),
    "ball": lambda k: jax.random.ball(k, 3, shape=(2,)),
    "lognormal": lambda k: jax.random.lognormal(k, 1.0, (5,)),
    "triangular": lambda k: jax.random.triangular(k, 0.0, 1.0, 2.0, (5,)),
    "wald": lambda k: jax.random.wald(k, 1.0, (5,)),
    "bits": lambda k: jax.random.bits(k, (5,), "uint8"),
    "split": lambda k: jax.random.key_data(jax.random.split(k, 3)),
    "fold_in": lambda k: jax.random.key_data(jax.random.fold_in(k, 8)),
    "vmap": lambda k: jax.vmap(lambda q: jax.random.normal(q, (3,)))(jax.random.split(k, 2)),
    "scan": lambda k: lax.scan(lambda c, q: (c + jax.random.uniform(q), c), 0.0, jax.random.split(k, 4)),
    "half": lambda k: (jax.random.normal(k, (5,), jnp.bfloat16), jax.random.uniform(k, (5,), jnp.float16)),
}


def _drawn(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda words: function(jax.random.wrap_key_data(words))


def _gradient(function: Callable[..., Any]) -> Callable[..., Any]:
    return jax.grad(lambda v: jnp.sum(function(v) ** 2))


def _distribution(name: str, parameters: tuple[float, ...]) -> Iterator[tuple[str, Call]]:
    module = getattr(jsp.stats, name)
    x = BIG if name == "pareto" else P
    for method in ("pdf", "logpdf", "cdf", "sf", "ppf"):
        function = getattr(module, method, None)
        if function is not None:
            yield f"stats {name} {method}", (lambda v, f=function: f(v, *parameters), (x,))


def calls() -> Iterator[tuple[str, Call]]:
    """Every call with its name; those called ``x64 ...`` want 64-bit types."""
    for name, argument in ONE.items():
        if hasattr(jnp, name):
            yield f"jnp.{name}", (getattr(jnp, name), (argument,))
    for name, arguments in TWO.items():
        if hasattr(jnp, name):
            yield f"jnp.{name} of two", (getattr(jnp, name), arguments)
    for name in ACTIVATIONS:
        function = getattr(jax.nn, name, None)
        if function is not None:
            yield f"nn.{name}", (function, (3 * X,))
            yield f"nn.{name} gradient", (_gradient(function), (3 * X,))
            yield f"nn.{name} bfloat16", (function, (X.astype(ml_dtypes.bfloat16),))
    for name, arguments in SPECIAL.items():
        if hasattr(jsp.special, name):
            yield f"special {name}", (getattr(jsp.special, name), arguments)
    for name, parameters in DISTRIBUTIONS.items():
        yield from _distribution(name, parameters)
    for name, function in DRAWS.items():
        yield f"random {name}", (_drawn(function), (KEY,))
    groups = {
        "linear": LINEAR,
        "complex": COMPLEX,
        "fourier": FOURIER,
        "shapes": SHAPES,
        "lax": LAX,
        "transforms": TRANSFORMS,
    }
    for group, table in groups.items():
        for name, call in table.items():
            yield f"{group} {name}", call
    for name, call in WIDE.items():
        yield f"x64 {name}", call
    for name, function in NARROW.items():
        for dtype in DTYPES:
            yield f"{np.dtype(dtype).name} {name}", (function, (np.asarray(np.round(2 * X), dtype),))
