// Kept and reduced axes of a reduction.
#pragma once
#include "tensor.h"

namespace dg {

// Refuses an output dtype that does not store numbers of type A (float, double or int64_t).
template <class A>
void require_stored_as(const Tensor& out, const char* op) {
  const bool whole = out.dtype >= DG_I32;
  const bool fits = std::is_same_v<A, int64_t> ? whole : std::is_same_v<A, double> ? out.dtype == DG_F64 : !whole && out.dtype != DG_F64;
  if (!fits) fail(DG_DTYPE, "%s: the output cannot be %s", op, dtype_name(out.dtype));
}

// What a reduction walks: the kept axes (of x and of the output) and the reduced ones, each merged and in memory order.
struct Plan {
  Tensor kept_x, kept_out, reduced;
  int64_t outputs = 1, count = 1;

  Plan(const Tensor& out, const Tensor& x, uint32_t axes, const char* op) {
    if (out.rank != x.rank || (x.rank < 32 && axes >> x.rank))
      fail(DG_SHAPE, "%s: the output has rank %d, the input %d, axes are %x", op, out.rank, x.rank, axes);
    require_finite_work(x, op);
    for (Tensor* t : {&kept_x, &reduced}) {
      *t = x;
      t->rank = 0;
    }
    kept_out = out;
    kept_out.rank = 0;
    for (int i = 0; i < x.rank; i++) {
      const bool gone = axes >> i & 1;
      if (out.sizes[i] != (gone ? 1 : x.sizes[i]))
        fail(DG_SHAPE, "%s: sizes of the output %s do not follow from %s", op, shape_text(out).c_str(), shape_text(x).c_str());
      if (gone) {
        append(reduced, x, i);
        count *= x.sizes[i];
      } else {
        append(kept_x, x, i);
        append(kept_out, out, i);
        outputs *= x.sizes[i];
      }
    }
    kept_x.numel = kept_out.numel = outputs;
    reduced.numel = count;
  }

 private:
  static void append(Tensor& t, const Tensor& from, int axis) {
    t.sizes[t.rank] = from.sizes[axis];
    t.strides[t.rank++] = from.strides[axis];
  }
};

// The lines of x and of the output along an axis, whose length may differ between them.
inline Plan lines_along(uint32_t axis, Tensor out, const Tensor& x, const char* op) {
  out.sizes[axis] = 1;
  out.numel = 1;
  for (int i = 0; i < out.rank; i++) out.numel *= out.sizes[i];
  return Plan(out, x, 1u << axis, op);
}

inline void require_axis(const Tensor& x, uint32_t axis, const char* op) {
  if (axis >= uint32_t(x.rank)) fail(DG_RANGE, "%s: axis %u does not exist in %s", op, axis, shape_text(x).c_str());
}

// The outputs of a call that picks elements along an axis: positions, and the values where they are wanted.
inline void require_picks(const Tensor& indices, const Tensor* values, const Tensor& x, const char* op) {
  require_dtype(indices, DG_I64, op, "the output of positions");
  if (!values) return;
  require_dtype(*values, x.dtype, op, "the output of values");
  require_same_sizes(*values, indices, op);
  if (!same_strides(*values, indices)) fail(DG_SHAPE, "%s: the strides of values and positions differ", op);
}

}  // namespace dg
