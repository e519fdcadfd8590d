// avg_pool() and its gradient.
#include "../common/pooling.h"

using namespace dg;

int32_t dg_avg_pool(const dg_tensor* t, uint32_t y_slot, uint32_t x_slot, uint32_t k0, uint32_t k1, uint32_t k2, uint32_t s0, uint32_t s1,
                    uint32_t s2, uint32_t p0, uint32_t p1, uint32_t p2, uint32_t count_include_pad, double divisor_override) {
  return guard([&] {
    const char* const name = "avg_pool";
    const Tensor y = tensor_at(t, y_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    const Pool pool = pool_of(name, x, y, {{k0, k1, k2}, {s0, s1, s2}, {p0, p1, p2}, {1, 1, 1}}, false);
    require_dtype(y, x.dtype, name, "the output");
    require_float(x, name);
    avg_pool(y, x, pool, {count_include_pad != 0, divisor_override});
  });
}

int32_t dg_avg_pool_backward(const dg_tensor* t, uint32_t dx_slot, uint32_t dy_slot, uint32_t k0, uint32_t k1, uint32_t k2, uint32_t s0,
                             uint32_t s1, uint32_t s2, uint32_t p0, uint32_t p1, uint32_t p2, uint32_t count_include_pad,
                             double divisor_override) {
  return guard([&] {
    const char* const name = "avg_pool_backward";
    const Tensor dx = tensor_at(t, dx_slot, name, Access::write), dy = tensor_at(t, dy_slot, name);
    const Pool pool = pool_of(name, dx, dy, {{k0, k1, k2}, {s0, s1, s2}, {p0, p1, p2}, {1, 1, 1}}, false);
    require_dtype(dy, dx.dtype, name, "the gradient of the output");
    require_float(dx, name);
    avg_pool_backward(dx, dy, pool, {count_include_pad != 0, divisor_override});
  });
}
