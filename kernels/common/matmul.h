// Headers of a matrix product.
#pragma once
#include "tensor.h"

namespace dg {

// out [batch, m, n] = a [batch, m, k] @ b [batch, k, n] (+ bias with the sizes of out); without the batch where rank == 2.
struct MatmulShape {
  Tensor out, a, b, bias;
  bool biased;
  int64_t batch, m, n, k;

  MatmulShape(const dg_tensor* t, uint32_t out_slot, uint32_t a_slot, uint32_t b_slot, uint32_t bias_slot, const char* name)
      : out(tensor_at(t, out_slot, name, Access::write)), a(tensor_at(t, a_slot, name)), b(tensor_at(t, b_slot, name)), biased(present(bias_slot)) {
    if ((out.rank != 2 && out.rank != 3) || a.rank != out.rank || b.rank != out.rank)
      fail(DG_SHAPE, "%s: operands and result must all have 2 or 3 axes, got %d, %d and %d", name, a.rank, b.rank, out.rank);
    batch = out.rank == 3 ? out.sizes[0] : 1, m = out.size(-2), n = out.size(-1), k = a.size(-1);
    if (a.size(-2) != m || b.size(-1) != n || b.size(-2) != k || (out.rank == 3 && (a.sizes[0] != batch || b.sizes[0] != batch)))
      fail(DG_SHAPE, "%s: sizes do not fit: %s @ %s into %s", name, shape_text(a).c_str(), shape_text(b).c_str(), shape_text(out).c_str());
    require_dtype(a, out.dtype, name, "the first operand");
    require_dtype(b, out.dtype, name, "the second operand");
    if (biased) {
      bias = tensor_at(t, bias_slot, name);
      require_same_sizes(bias, out, name);
      require_dtype(bias, out.dtype, name, "the bias");
    }
    if (out.rank == 3 && b.strides[0] == 0 && stacked(a) && stacked(out) && (!biased || stacked(bias))) {
      m *= batch;
      batch = 1;
    }
  }

 private:
  // The rows of consecutive matrices follow one another, so that the batch is one tall matrix.
  static bool stacked(const Tensor& t) { return t.strides[0] == t.sizes[1] * t.strides[1]; }
};

}  // namespace dg
