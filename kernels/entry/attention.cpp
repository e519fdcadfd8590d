// Scaled dot-product attention and its gradients.
#include "../common/attention.h"
#include "optional.h"

using namespace dg;

namespace {

void require_shape(const Tensor& t, const char* what, const Tensor& like, int64_t heads, int64_t rows, int64_t columns, const char* name) {
  const int lead = like.rank - 2;
  bool fits = t.rank == (columns < 0 ? like.rank - 1 : like.rank) && t.sizes[lead - 1] == heads && t.sizes[lead] == rows;
  if (fits && columns >= 0) fits = t.sizes[lead + 1] == columns;
  for (int i = 0; fits && i < lead - 1; i++) fits = t.sizes[i] == like.sizes[i];
  if (!fits) fail(DG_SHAPE, "%s: %s %s does not fit queries %s", name, what, shape_text(t).c_str(), shape_text(like).c_str());
}

Attention decoded(const char* name, const dg_tensor* t, uint32_t out_slot, uint32_t sum_slot, uint32_t q_slot, uint32_t k_slot, uint32_t v_slot,
                  uint32_t mask_slot, uint32_t causal, double scale, bool forward) {
  const Access access = forward ? Access::write : Access::read;
  Attention a;
  a.out = tensor_at(t, out_slot, name, access), a.log_sum = tensor_at(t, sum_slot, name, access);
  a.q = tensor_at(t, q_slot, name), a.k = tensor_at(t, k_slot, name), a.v = tensor_at(t, v_slot, name);
  a.masked = present(mask_slot), a.causal = causal != 0, a.scale = scale;
  const Tensor& q = a.q;
  require_float(q, name);
  if (q.rank < 3 || a.k.rank != q.rank || a.v.rank != q.rank)
    fail(DG_SHAPE, "%s: queries, keys and values must have one rank of at least 3, got %d, %d and %d", name, q.rank, a.k.rank, a.v.rank);
  a.heads = q.size(-3), a.groups = a.k.size(-3), a.rows = q.size(-2), a.keys = a.k.size(-2), a.depth = q.size(-1), a.width = a.v.size(-1);
  if (q.numel == 0 || a.k.numel == 0 || a.v.numel == 0) fail(DG_SHAPE, "%s: takes tensors with elements", name);
  if (a.heads % a.groups != 0)
    fail(DG_SHAPE, "%s: %lld heads of keys do not divide %lld of queries", name, static_cast<long long>(a.groups), static_cast<long long>(a.heads));
  a.items = q.numel / (a.rows * a.depth);
  require_shape(a.k, "keys", q, a.groups, a.keys, a.depth, name);
  require_shape(a.v, "values", q, a.groups, a.keys, a.width, name);
  require_shape(a.out, "the output", q, a.heads, a.rows, a.width, name);
  require_shape(a.log_sum, "the sums", q, a.heads, a.rows, -1, name);
  for (const Tensor* x : {&a.k, &a.v, &a.out}) require_dtype(*x, q.dtype, name, "each of queries, keys, values and output");
  require_dtype(a.log_sum, q.dtype == DG_F64 ? DG_F64 : DG_F32, name, "the sums");
  for (const Tensor* x : {&a.q, &a.k, &a.v}) require_finite_work(*x, name);
  // Memory bounds the work, unless keys are one and the same.
  if (a.keys > 1 && a.k.stride(-2) == 0 && a.v.stride(-2) == 0 && double(a.items) * double(a.rows) * double(a.keys) > double(int64_t(1) << 36))
    fail(DG_SHAPE, "%s: %lld broadcast keys are too many to read one by one", name, static_cast<long long>(a.keys));
  if (a.masked) {
    a.mask = tensor_at(t, mask_slot, name);
    require_shape(a.mask, "the mask", q, a.heads, a.rows, a.keys, name);
    if (a.mask.dtype != DG_BOOL && a.mask.dtype != q.dtype && a.mask.dtype != DG_F32)
      fail(DG_DTYPE, "%s: the mask must be bool, float32 or %s, got %s", name, dtype_name(q.dtype), dtype_name(a.mask.dtype));
  }
  return a;
}

}  // namespace

int32_t dg_attention(const dg_tensor* t, uint32_t out_slot, uint32_t sum_slot, uint32_t q_slot, uint32_t k_slot, uint32_t v_slot, uint32_t mask_slot,
                     uint32_t causal, double scale) {
  return guard([&] { attention(decoded("attention", t, out_slot, sum_slot, q_slot, k_slot, v_slot, mask_slot, causal, scale, true)); });
}

int32_t dg_attention_backward(const dg_tensor* t, uint32_t dq_slot, uint32_t dk_slot, uint32_t dv_slot, uint32_t dout_slot, uint32_t out_slot,
                              uint32_t sum_slot, uint32_t q_slot, uint32_t k_slot, uint32_t v_slot, uint32_t mask_slot, uint32_t causal, double scale) {
  return guard([&] {
    const char* const name = "attention_backward";
    const Attention a = decoded(name, t, out_slot, sum_slot, q_slot, k_slot, v_slot, mask_slot, causal, scale, false);
    const Tensor dout = tensor_at(t, dout_slot, name);
    const Optional dq(t, dq_slot, name, Access::write), dk(t, dk_slot, name, Access::write), dv(t, dv_slot, name, Access::write);
    const auto require_like = [&](const Tensor* gradient, const Tensor& x) {
      if (!gradient) return;
      require_same_sizes(*gradient, x, name);
      require_dtype(*gradient, x.dtype, name, "each gradient");
    };
    require_like(&dout, a.out);
    require_like(dq, a.q);
    require_like(dk, a.k);
    require_like(dv, a.v);
    attention_backward(a, dq, dk, dv, dout);
  });
}
