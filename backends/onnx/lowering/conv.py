"""conv_general_dilated as Conv or ConvTranspose, in any layout, grouping and number of dimensions."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import onnx_ir as ir
from jax import lax

from .. import dims
from ..context import Context
from ..operand import Operand, constant, is_complex, is_float, stored_type
from ..registry import Refusal, lowers
from .shape import permute, reshape_to, typed

_T = ir.DataType


@lowers("conv_general_dilated", note="integers and float64 as sums of matrix products")
def conv(ctx: Context, eqn: Any, x: Operand, w: Operand) -> Operand:
    if is_complex(eqn.aval.dtype):
        return _complex(ctx, eqn, x, w)
    target = np.dtype(eqn.aval.dtype)
    x, w = (v if np.dtype(v.dtype) == target or _wider(v.dtype, target) else ctx.convert(v, target) for v in (x, w))
    return _Convolution(ctx, eqn, x, w).lower()


def _wider(dtype: Any, target: Any) -> bool:
    return is_float(dtype) and is_float(target) and np.dtype(dtype).itemsize > target.itemsize


class _Convolution:
    """A convolution brought to channels-first order with group counts of features only."""

    def __init__(self, ctx: Context, eqn: Any, x: Operand, w: Operand) -> None:
        self.ctx, self.eqn = ctx, eqn
        numbers = eqn.params["dimension_numbers"]
        self.out_spec = tuple(numbers.out_spec)
        self.strides = tuple(eqn.params["window_strides"])
        self.padding = tuple(eqn.params["padding"])
        self.spread = tuple(eqn.params["lhs_dilation"])
        self.dilation = tuple(eqn.params["rhs_dilation"])
        self.groups = eqn.params["feature_group_count"]
        self.x = permute(ctx, ctx.filled(x), tuple(numbers.lhs_spec))
        self.w = permute(ctx, w if w.is_const else ctx.filled(w), tuple(numbers.rhs_spec))
        self.out_shape = tuple(eqn.aval.shape[k] for k in self.out_spec)
        self.dtype = self.x.dtype
        self._batch_groups_to_features(eqn.params["batch_group_count"])

    def _batch_groups_to_features(self, count: int) -> None:
        """Group g of the batch meets output features of group g only: make its images feature groups."""
        if count == 1:
            return
        if self.groups != 1:
            raise Refusal("a convolution with both batch groups and feature groups")
        ctx, x = self.ctx, self.x
        n, c, *space = x.shape
        x = reshape_to(ctx, typed((count, n // count, c, *space), x.dtype), x)
        x = permute(ctx, x, (1, 0, *range(2, x.rank)))
        self.x = reshape_to(ctx, typed((n // count, count * c, *space), x.dtype), x)
        self.groups = count

    def lower(self) -> Operand:
        rank = len(self.strides)
        if any(isinstance(d, int) and d == 0 for d in (*self.out_shape, *self.x.shape, *self.w.shape)):
            return constant(np.zeros((), self.eqn.aval.dtype), tuple(self.eqn.aval.shape))
        if rank == 0:
            result = self._pointwise()
        elif is_float(self.dtype) and np.dtype(self.dtype) != np.float64 and isinstance(self.groups, int):
            result = self._kernel()
        else:  # also as many groups as there are rows of a batch: the operator's are an attribute
            result = self._products()
        value = self.ctx.build.cast(result, stored_type(self.eqn.aval.dtype))
        placed = self.ctx.result(value, typed(self.out_shape, self.eqn.aval.dtype))
        return permute(self.ctx, placed, tuple(self.out_spec.index(k) for k in range(len(self.out_spec))))

    # -- float32 and narrower --------------------------------------------------------------------------------------

    def _kernel(self) -> ir.Value:
        if any(s != 1 for s in self.spread):
            transposed = self._transposed()
            if transposed is not None:
                return transposed
        self._spread_input()
        self._pad_what_conv_cannot()
        kernel = self.w.shape[2:]
        if not dims.is_static(kernel):
            raise Refusal("a convolution whose kernel has a dynamic size")
        pads = [low for low, _ in self.padding] + [high for _, high in self.padding]
        attributes: dict[str, Any] = {"kernel_shape": list(kernel)}
        if any(s != 1 for s in self.strides):
            attributes["strides"] = list(self.strides)
        if any(pads):
            attributes["pads"] = pads
        if any(d != 1 for d in self.dilation):
            attributes["dilations"] = list(self.dilation)
        if self.groups != 1:
            attributes["group"] = self.groups
        return self.ctx.op("Conv", self.ctx.value(self.x), self.ctx.full(self.w), **attributes)

    def _spread_input(self) -> None:
        """lhs_dilation is interior padding."""
        if all(s == 1 for s in self.spread):
            return
        config = [(0, 0, 0), (0, 0, 0), *((0, 0, s - 1) for s in self.spread)]
        self._pad(config)
        self.spread = (1,) * len(self.spread)

    def _pad(self, config: list[tuple[Any, Any, Any]]) -> None:
        zero = np.zeros((), self.x.dtype)
        self.x = self.ctx.filled(self.ctx.trace_and_lower(lambda a: lax.pad(a, zero, config), self.x)[0])

    def _pad_what_conv_cannot(self) -> None:
        """Negative and symbolic padding happen before the operator."""
        if all(isinstance(p, int) and p >= 0 for pair in self.padding for p in pair):
            return
        config = [(0, 0, 0), (0, 0, 0), *((low, high, 0) for low, high in self.padding)]
        self._pad(config)
        self.padding = ((0, 0),) * len(self.padding)

    def _transposed(self) -> ir.Value | None:
        """A convolution with a spread input and stride 1 is ConvTranspose with the kernel flipped."""
        kernel = self.w.shape[2:]
        if any(s != 1 for s in self.strides) or not dims.is_static(kernel):
            return None
        pads = []
        for (low, high), k, d in zip(self.padding, kernel, self.dilation, strict=True):
            edge = d * (k - 1)
            if not (isinstance(low, int) and isinstance(high, int)) or low > edge:
                return None
            pads.append((edge - low, edge - high))
        extra = [max(0, -high) for _, high in pads]
        if any(e >= s and e > 0 for e, s in zip(extra, self.spread, strict=True)):
            return None
        out, inner = self.w.shape[:2]
        rank = len(kernel)
        axes = tuple(range(2, 2 + rank))
        groups = self.groups

        def flipped(a: Any) -> Any:
            a = lax.rev(a, axes)
            a = lax.reshape(a, (groups, out // groups, inner, *kernel))
            a = lax.transpose(a, (0, 2, 1, *range(3, 3 + rank)))
            return lax.reshape(a, (groups * inner, out // groups, *kernel))

        weights = self._constant_or_traced(flipped)
        attributes: dict[str, Any] = {
            "kernel_shape": list(kernel),
            "strides": list(self.spread),
            "pads": [low for low, _ in pads] + [max(0, high) for _, high in pads],
        }
        if any(extra):
            attributes["output_padding"] = extra
        if any(d != 1 for d in self.dilation):
            attributes["dilations"] = list(self.dilation)
        if groups != 1:
            attributes["group"] = groups
        return self.ctx.op("ConvTranspose", self.ctx.value(self.x), self.ctx.full(weights), **attributes)

    def _constant_or_traced(self, function: Any) -> Operand:
        """The kernel rearranged: now when it is known, at run time otherwise."""
        import jax

        if self.w.is_const and self.w.is_full:
            with jax.default_device(jax.local_devices(backend="cpu")[0]):
                return constant(np.asarray(jax.jit(function)(self.w.const)))
        return self.ctx.trace_and_lower(function, self.w)[0]

    # -- other types -------------------------------------------------------------------------------------------------

    def _pointwise(self) -> ir.Value:
        """No spatial axis: a grouped matrix product."""
        groups, (n, c), (out, inner) = self.groups, self.x.shape, self.w.shape

        def product(a: Any, b: Any) -> Any:
            a = lax.reshape(a, (n, groups, c // groups))
            b = lax.reshape(b, (groups, out // groups, inner))
            y = lax.dot_general(a, b, (((2,), (2,)), ((1,), (0,))))
            return lax.reshape(lax.transpose(y, (1, 0, 2)), (n, out))

        return self.ctx.full(self.ctx.trace_and_lower(product, self.x, self.w)[0])

    def _products(self) -> ir.Value:
        """One matrix product for every position of the kernel, summed: exact for integers, and for float64."""
        self._spread_input()
        config = [(0, 0, 0), (0, 0, 0), *((low, high, 0) for low, high in self.padding)]
        if any(p for pair in self.padding for p in pair):
            self._pad(config)
        kernel, groups = self.w.shape[2:], self.groups
        n, c = self.x.shape[:2]
        out, inner = self.w.shape[:2]
        space = self.out_shape[2:]
        strides, dilation = self.strides, self.dilation

        def products(a: Any, b: Any) -> Any:
            total: Any = None
            for position in itertools.product(*(range(k) for k in kernel)):
                start = [p * d for p, d in zip(position, dilation, strict=True)]
                stop = [s + (m - 1) * t + 1 for s, m, t in zip(start, space, strides, strict=True)]
                part = lax.slice(a, (0, 0, *start), (n, c, *stop), (1, 1, *strides))
                part = lax.reshape(part, (n, groups, c // groups, *space))
                weights = lax.reshape(b[(slice(None), slice(None), *position)], (groups, out // groups, inner))
                product = lax.dot_general(weights, part, (((2,), (2,)), ((0,), (1,))))
                total = product if total is None else total + product
            order = (2, 0, 1, *range(3, 3 + len(space)))
            return lax.reshape(lax.transpose(total, order), (n, out, *space))

        return self.ctx.full(self.ctx.trace_and_lower(products, self.x, self.w)[0])


def with_bias(ctx: Context, eqn: Any, x: Operand, y: Operand) -> Operand | None:
    """A convolution that is used once, plus one known number for each feature: the operator's third input."""
    for k, (a, b) in enumerate(((x, y), (y, x))):
        if b.const is None or not is_float(b.dtype) or len(ctx.uses.get(eqn.invars[k], ())) != 1:
            continue
        made = ctx.origin(a.value)
        moved, perm = (made[1], made[2]) if made is not None and made[0] == "Transpose" else (a, range(a.rank))
        node = None if moved.value is None else moved.value.producer()
        if node is None or node.op_type not in ("Conv", "ConvTranspose") or len(node.inputs) != 2:
            continue
        features = [size if perm[axis] == 1 else 1 for axis, size in enumerate(a.shape)]
        if moved.is_full and list(b.padded) == features:
            attributes = {name: attribute.value for name, attribute in node.attributes.items()}
            inputs = (*node.inputs, ctx.const(np.reshape(b.const, -1)))
            biased = ctx.result(ctx.op(node.op_type, *inputs, **attributes), typed(moved.shape, moved.dtype))
            return permute(ctx, biased, tuple(perm))
    return None


def _complex(ctx: Context, eqn: Any, x: Operand, w: Operand) -> Operand:
    """Four real convolutions."""
    names = (
        "window_strides",
        "padding",
        "lhs_dilation",
        "rhs_dilation",
        "dimension_numbers",
        "feature_group_count",
        "batch_group_count",
    )
    params = {k: eqn.params[k] for k in names}

    def function(a: Any, b: Any) -> Any:
        def conv(p: Any, q: Any) -> Any:
            return lax.conv_general_dilated(p, q, **params)

        re = conv(a.real, b.real) - conv(a.imag, b.imag)
        return lax.complex(re, conv(a.real, b.imag) + conv(a.imag, b.real))

    return ctx.trace_and_lower(function, x, w)[0]
