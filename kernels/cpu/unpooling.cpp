// Max unpooling. scatter: y = 0, then y[n, c, indices[n, c, o]] = x[n, c, o] (or += with `accumulate`), in the order of o, so that of equal
// indices the last one wins whatever the number of threads. gather: y[n, c, o] = x[n, c, indices[n, c, o]].
#include <atomic>

#include "pooling.h"

namespace dg {
namespace {

// Calls element(n, c, pooled position) for every element; positions of one plane in order and on one thread.
template <class F>
void each(const Tensor& pooled, int64_t plane, F&& element) {
  const int64_t channels = pooled.sizes[1], width = pooled.strides[1] == 1 ? 16 : 1, groups = (channels + width - 1) / width;
  parallel_for(pooled.sizes[0] * groups, kGrain / std::max<int64_t>(plane * width, 1), [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; job++) {
      const int64_t c0 = job % groups * width, c1 = std::min(channels, c0 + width);
      for (int64_t o = 0; o < plane; o++)
        for (int64_t c = c0; c < c1; c++) element(job / groups, c, o);
    }
  });
}

void check_inside(const char* op, const Tensor& full, const Tensor& pooled, const Tensor& indices) {
  if (pooled.numel == 0) return;
  const Planes index(indices), large(full);
  std::atomic<bool> bad{false};
  each(pooled, index.count, [&](int64_t n, int64_t c, int64_t o) {
    const int64_t at = indices.data<int64_t>()[n * index.n + c * index.c + index.flat_offset(o)];
    if (at < 0 || at >= large.count) bad.store(true, std::memory_order_relaxed);
  });
  if (bad.load()) fail(DG_RANGE, "%s", outside_plane(op, full).c_str());
}

}  // namespace

void unpool_scatter(const Tensor& y, const Tensor& x, const Tensor& indices, bool accumulate) {
  const char* const name = "unpool_scatter";
  check_inside(name, y, x, indices);
  dispatch_floats(x.dtype, name, [&](auto in) {
    using T = typename decltype(in)::type;
    map1<T, T>(y, y, [](T) { return T(0.0f); });
    if (x.numel == 0) return;
    const Planes px(x), py(y), index(indices);
    each(x, px.count, [&](int64_t n, int64_t c, int64_t o) {
      const int64_t at = indices.data<int64_t>()[n * index.n + c * index.c + index.flat_offset(o)];
      T& target = y.data<T>()[n * py.n + c * py.c + py.flat_offset(at)];
      const T v = x.data<T>()[n * px.n + c * px.c + px.flat_offset(o)];
      target = accumulate ? T(compute_t<T>(target) + compute_t<T>(v)) : v;
    });
  });
}

void unpool_gather(const Tensor& y, const Tensor& x, const Tensor& indices) {
  const char* const name = "unpool_gather";
  check_inside(name, x, y, indices);
  if (y.numel == 0) return;
  dispatch_floats(x.dtype, name, [&](auto in) {
    using T = typename decltype(in)::type;
    const Planes px(x), py(y), index(indices);
    each(y, py.count, [&](int64_t n, int64_t c, int64_t o) {
      const int64_t at = indices.data<int64_t>()[n * index.n + c * index.c + index.flat_offset(o)];
      y.data<T>()[n * py.n + c * py.c + py.flat_offset(o)] = x.data<T>()[n * px.n + c * px.c + px.flat_offset(at)];
    });
  });
}

}  // namespace dg
