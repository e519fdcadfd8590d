// maxPool(), its gradient and its gather.
#include "../common/pooling.h"
#include "optional.h"

using namespace dg;

namespace {

void check_codes(const char* op, const Pool& pool, const Tensor& codes, const Tensor& pooled) {
  require_same_sizes(codes, pooled, op);
  const int64_t most = codes.dtype == DG_U8 ? 256 : INT32_MAX;
  if (codes.dtype != DG_U8 && codes.dtype != DG_I32)
    fail(DG_DTYPE, "%s: window positions must be uint8 or int32, got %s", op, dtype_name(codes.dtype));
  if (pool.exact_extent() > double(most))
    fail(DG_RANGE, "%s: a window of %g positions does not fit %s", op, pool.exact_extent(), dtype_name(codes.dtype));
}

void check_indices(const char* op, const Pool& pool, const Tensor& indices, const Tensor& pooled) {
  require_dtype(indices, DG_I64, op, "indices");
  require_same_sizes(indices, pooled, op);
  if (pool.exact_extent() > double(INT32_MAX)) fail(DG_RANGE, "%s: a window of %g positions is too large", op, pool.exact_extent());
}

}  // namespace

int32_t dg_max_pool(const dg_tensor* t, uint32_t y_slot, uint32_t indices_slot, uint32_t codes_slot, uint32_t x_slot, uint32_t k0, uint32_t k1,
                    uint32_t k2, uint32_t s0, uint32_t s1, uint32_t s2, uint32_t p0, uint32_t p1, uint32_t p2, uint32_t d0, uint32_t d1,
                    uint32_t d2) {
  return guard([&] {
    const char* const name = "max_pool";
    const Tensor y = tensor_at(t, y_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    const Pool pool = pool_of(name, x, y, {{k0, k1, k2}, {s0, s1, s2}, {p0, p1, p2}, {d0, d1, d2}}, true);
    require_dtype(y, x.dtype, name, "the output");
    const Optional indices(t, indices_slot, name, Access::write), codes(t, codes_slot, name, Access::write);
    if (indices.get()) check_indices(name, pool, *indices.get(), y);
    if (codes.get()) check_codes(name, pool, *codes.get(), y);
    require_float(x, name);
    max_pool(y, indices, codes, x, pool);
  });
}

int32_t dg_max_pool_backward(const dg_tensor* t, uint32_t dx_slot, uint32_t dy_slot, uint32_t codes_slot, uint32_t k0, uint32_t k1, uint32_t k2,
                             uint32_t s0, uint32_t s1, uint32_t s2, uint32_t p0, uint32_t p1, uint32_t p2, uint32_t d0, uint32_t d1,
                             uint32_t d2) {
  return guard([&] {
    const char* const name = "max_pool_backward";
    const Tensor dx = tensor_at(t, dx_slot, name, Access::write), dy = tensor_at(t, dy_slot, name), codes = tensor_at(t, codes_slot, name);
    const Pool pool = pool_of(name, dx, dy, {{k0, k1, k2}, {s0, s1, s2}, {p0, p1, p2}, {d0, d1, d2}}, true);
    require_dtype(dy, dx.dtype, name, "the gradient of the output");
    check_codes(name, pool, codes, dy);
    require_float(dx, name);
    max_pool_backward(dx, dy, codes, pool);
  });
}

int32_t dg_max_pool_gather(const dg_tensor* t, uint32_t y_slot, uint32_t x_slot, uint32_t codes_slot, uint32_t k0, uint32_t k1, uint32_t k2,
                           uint32_t s0, uint32_t s1, uint32_t s2, uint32_t p0, uint32_t p1, uint32_t p2, uint32_t d0, uint32_t d1,
                           uint32_t d2) {
  return guard([&] {
    const char* const name = "max_pool_gather";
    const Tensor y = tensor_at(t, y_slot, name, Access::write), x = tensor_at(t, x_slot, name), codes = tensor_at(t, codes_slot, name);
    const Pool pool = pool_of(name, x, y, {{k0, k1, k2}, {s0, s1, s2}, {p0, p1, p2}, {d0, d1, d2}}, true);
    require_dtype(y, x.dtype, name, "the output");
    check_codes(name, pool, codes, y);
    require_float(x, name);
    max_pool_gather(y, x, codes, pool);
  });
}
