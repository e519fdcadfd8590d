// Matrix products.
#include "../common/matmul.h"

using namespace dg;

namespace {

// The rows of consecutive matrices follow one another, so that the batch is one tall matrix.
bool stacked(const Tensor& t) { return t.strides[0] == t.sizes[1] * t.strides[1]; }

}  // namespace

int32_t dg_matmul(const dg_tensor* t, uint32_t out_slot, uint32_t a_slot, uint32_t b_slot, uint32_t bias_slot) {
  return guard([&] {
    const char* const name = "matmul";
    MatmulShape s;
    s.out = tensor_at(t, out_slot, name, Access::write), s.a = tensor_at(t, a_slot, name), s.b = tensor_at(t, b_slot, name);
    s.biased = present(bias_slot);
    const Tensor &out = s.out, &a = s.a, &b = s.b;
    if ((out.rank != 2 && out.rank != 3) || a.rank != out.rank || b.rank != out.rank)
      fail(DG_SHAPE, "%s: operands and result must all have 2 or 3 axes, got %d, %d and %d", name, a.rank, b.rank, out.rank);
    s.batch = out.rank == 3 ? out.sizes[0] : 1, s.m = out.size(-2), s.n = out.size(-1), s.k = a.size(-1);
    if (a.size(-2) != s.m || b.size(-1) != s.n || b.size(-2) != s.k || (out.rank == 3 && (a.sizes[0] != s.batch || b.sizes[0] != s.batch)))
      fail(DG_SHAPE, "%s: sizes do not fit: %s @ %s into %s", name, shape_text(a).c_str(), shape_text(b).c_str(), shape_text(out).c_str());
    require_dtype(a, out.dtype, name, "the first operand");
    require_dtype(b, out.dtype, name, "the second operand");
    if (s.biased) {
      s.bias = tensor_at(t, bias_slot, name);
      require_same_sizes(s.bias, out, name);
      require_dtype(s.bias, out.dtype, name, "the bias");
    }
    require_numbers(out, name);
    if (out.numel == 0) return;
    if (out.rank == 3 && b.strides[0] == 0 && stacked(a) && stacked(out) && (!s.biased || stacked(s.bias))) {
      s.m *= s.batch;
      s.batch = 1;
    }
    matmul(s);
  });
}

int32_t dg_set_tf32(uint32_t on) {
  return guard([&] { set_tf32(on != 0); });
}

uint32_t dg_get_tf32(void) { return get_tf32(); }
