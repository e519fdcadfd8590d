// Reductions over any set of axes.
#include "../common/op_codes.h"

#include "elementwise.h"

using namespace dg;

int32_t dg_reduce(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, uint32_t axes, uint32_t op) {
  return guard([&] {
    const char* const name = "reduce";
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    if (op >= unsigned(ReduceOp::count)) fail(DG_RANGE, "%s: op code %u does not exist", name, op);
    if (out.rank != x.rank) fail(DG_SHAPE, "%s: rank of the output", name);
    Tensor spread = out;
    for (int i = 0; i < x.rank; i++) {
      const bool reduced = axes >> i & 1;
      if (out.sizes[i] != (reduced ? 1 : x.sizes[i])) fail(DG_SHAPE, "%s: sizes of the output", name);
      spread.sizes[i] = x.sizes[i];
      if (reduced) spread.strides[i] = 0;
    }
    spread.numel = x.numel;
    require_dtype(out, x.dtype, name, "the output");
    dispatch_all(x.dtype, name, [&](auto kind) {
      using T = typename decltype(kind)::type;
      map1<T, T>(out, out, [](T) { return T(0); });
      const Loop<2> loop({&spread, &x});
      const int last = loop.rank - 1;
      loop.rows(0, loop.numel, [&](const int64_t* offset, int64_t count) {
        T* o = out.data<T>() + offset[0];
        const T* a = x.data<T>() + offset[1];
        for (int64_t i = 0; i < count; i++) {
          T& sum = o[i * loop.strides[0][last]];
          const T v = a[i * loop.strides[1][last]];
          if constexpr (std::is_same_v<T, bool>) sum = sum || v;
          else sum = op == unsigned(ReduceOp::any) ? T(sum != T(0) || v != T(0)) : T(sum + v);
        }
      });
    });
  });
}
