// Loops over tensors of equal sizes and any strides.
#pragma once
#include "../common/loop.h"
#include "parallel.h"

namespace dg {

// out[i] = f(x[i]) in the type that `f` takes.
template <class Out, class In, class F>
void map1(const Tensor& out, const Tensor& x, F f) {
  const Loop<2> loop({&out, &x});
  Out* const o = out.data<Out>();
  const In* const a = x.data<In>();
  const int64_t so = loop.strides[0][loop.rank - 1], sa = loop.strides[1][loop.rank - 1];
  const bool unit = loop.all_unit();
  parallel_for(loop.numel, kGrain, [&](int64_t begin, int64_t end) {
    loop.rows(begin, end, [&](const int64_t* offset, int64_t count) {
      Out* po = o + offset[0];
      const In* pa = a + offset[1];
      if (unit) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) po[i] = f(pa[i]);
      } else {
        for (int64_t i = 0; i < count; i++) po[i * so] = f(pa[i * sa]);
      }
    });
  });
}

// out[i] = f(x[i], y[i]).
template <class Out, class In, class F>
void map2(const Tensor& out, const Tensor& x, const Tensor& y, F f) {
  const Loop<3> loop({&out, &x, &y});
  Out* const o = out.data<Out>();
  const In* const a = x.data<In>();
  const In* const b = y.data<In>();
  const int last = loop.rank - 1;
  const int64_t so = loop.strides[0][last], sa = loop.strides[1][last], sb = loop.strides[2][last];
  parallel_for(loop.numel, kGrain, [&](int64_t begin, int64_t end) {
    loop.rows(begin, end, [&](const int64_t* offset, int64_t count) {
      Out* po = o + offset[0];
      const In* pa = a + offset[1];
      const In* pb = b + offset[2];
      if (so == 1 && sa == 1 && sb == 1) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) po[i] = f(pa[i], pb[i]);
        return;
      }
      if constexpr (std::is_floating_point_v<In>) {  // broadcasts that matter for speed
        if (so == 1 && sa == 1 && sb == 0) {
          const In v = *pb;
#pragma omp simd
          for (int64_t i = 0; i < count; i++) po[i] = f(pa[i], v);
          return;
        }
        if (so == 1 && sa == 0 && sb == 1) {
          const In v = *pa;
#pragma omp simd
          for (int64_t i = 0; i < count; i++) po[i] = f(v, pb[i]);
          return;
        }
      }
      for (int64_t i = 0; i < count; i++) po[i * so] = f(pa[i * sa], pb[i * sb]);
    });
  });
}

}  // namespace dg
