import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given
from jax import lax
from programs import programs
from xlapass.core.text import canonical_text, program_text
from xlapass.core.tracing import trace

X = np.ones((2, 3), np.float32)


def test_everything_that_a_program_is_made_of():
    table = np.asarray([1.0, 0.1, np.inf], np.float32)
    large = jnp.ones((9,))

    def fn(x, n):
        values, _ = lax.top_k(x + table, 1)
        y = jax.jit(lambda v: v * 2.0 + large[0])(values)
        return lax.cond(n > 0, jnp.sin, lambda v: v, y), 1.5, True

    assert program_text(trace(fn, X, 3)) == canonical_text(
        """
        program(a:f32[2,3], b:~i32[]):
          const c:f32[3] = [1.0, 0.1, inf]
          e:f32[1,3] = broadcast_in_dim[broadcast_dimensions=(1) shape=(1,3)] c
          f:f32[2,3] = add a e
          g:f32[2,1], _:i32[2,1] = top_k[axis=1 k=1] f
          h:f32[2,1] = jit[name=<lambda>] g
            jaxpr(j:f32[2,1]):
              const i:f32[9]
              k:f32[2,1] = mul j 2.0:f32[]
              l:f32[1] = slice[limit_indices=(1) start_indices=(0)] i
              m:f32[] = squeeze[dimensions=(0)] l
              n:f32[2,1] = add k m
              return n
          o:~bool[] = gt b 0:i32[]
          p:i32[] = convert_element_type[new_dtype=int32] o
          q:f32[2,1] = cond p h
            branches.0(r:f32[2,1]):
              return r
            branches.1(s:f32[2,1]):
              t:f32[2,1] = sin s
              return t
          return q, 1.5:f32[], True:bool[]
        """
    )


def test_small_dtypes_keys_and_nothing():
    assert program_text(trace(lambda: ())) == "program():\n  return"
    key = jax.random.key(7)
    assert program_text(trace(lambda x: (x.astype(jnp.bfloat16) * 0.1, key), X[0, 0])) == canonical_text(
        """
        program(a:f32[]):
          const k:key<fry>[] = [0, 7]
          b:bf16[] = convert_element_type[new_dtype=bfloat16] a
          c:bf16[] = mul b 0.1:bf16[]
          return c, k
        """
    )


def test_numbers_are_as_short_as_their_dtype_allows():
    largest = np.finfo(np.float32).max
    fn = lambda x: (x * largest, x * -largest, x * 1e-7, x * float("nan"), x * np.inf, x * -0.0, x * (1 / 3))  # noqa: E731
    text = program_text(trace(fn, X))
    for number in ("3.4028235e+38:", " -3.4028235e+38:", "1e-07:", "nan:", "inf:", "-0.0:", "0.33333334:"):
        assert number in text


def test_symbolic_sizes():
    program = trace(lambda x: x.reshape(-1), X, dynamic="rows, cols")
    assert program_text(program) == canonical_text(
        """
        program(q:f32[rows,cols]):
          z:f32[cols*rows] = reshape[new_sizes=(cols*rows)] q
          return z
        """
    )


def test_canonical_names():
    text = "program( x1:f32[] ,nan_count:i32[]):\n\n sin:f32[] =  sin   x1\n"
    text += "e:f32[]=add sin 1e-05:f32[]\nreturn e, nan:f32[]"
    assert canonical_text(text).splitlines() == [
        "program( a:f32[] ,b:i32[]):",
        "  c:f32[] = c a",
        "  d:f32[]=add c 1e-05:f32[]",
        "  return d, nan:f32[]",
    ]


def test_many_variables_and_brackets():
    def fn(x):
        for _ in range(60):
            x = x + 1.0
        return x

    lines = program_text(trace(fn, X)).splitlines()
    assert lines[26:28] == ["  a1:f32[2,3] = add z 1.0:f32[]", "  b1:f32[2,3] = add a1 1.0:f32[]"]
    assert canonical_text("program(k:f32[k]):\n b:f32[k] = f[k=(k) x=[k]] k\n return b").splitlines()[1] == (
        "  b:f32[k] = f[k=(k) x=[k]] a"
    )


def test_functions_addresses_and_unset_parameters_are_left_out():
    def fn(x):
        jax.debug.callback(print, x)
        return jax.nn.relu(x)

    text = program_text(trace(fn, X))
    assert "0x" not in text and "sharding" not in text and "None" not in text and "False" not in text


def test_stablehlo():
    from xlapass.core.lowering import lower_to_stablehlo

    assert "stablehlo.sine" in program_text(lower_to_stablehlo(trace(jnp.sin, X)))


@given(programs(effects=True))
def test_the_text_of_drawn_programs_is_canonical(drawn):
    """... and the same for two traces, which share no variable."""
    text = program_text(drawn.jaxpr())
    assert canonical_text(text) == text
    assert program_text(drawn.jaxpr()) == text


@given(programs(symbolic=True))
def test_the_text_of_symbolic_programs_is_canonical(drawn):
    text = program_text(drawn.jaxpr())
    assert canonical_text(text) == text
