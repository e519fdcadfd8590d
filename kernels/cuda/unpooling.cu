// Max unpooling, as the CPU's unpooling.cpp. Of equal indices the last one wins: positions of y find their owner by an atomic maximum, then each
// takes its element. With `accumulate` a warp walks through a plane in order, so that sums come out the same every time.
#include "../common/pooling.h"
#include "planes.h"

namespace dg {
namespace {

constexpr int kGroup = 4;  // channels a thread

// Where the owner of position `at` of a plane is kept: in the order of y, so that neighbours stay neighbours.
struct Owners {
  unsigned long long* data;
  int64_t channels, plane;
  bool inside;
  __device__ unsigned long long* of(int64_t n, int64_t c, int64_t at) const {
    return data + (inside ? (n * plane + at) * channels + c : (n * channels + c) * plane + at);
  }
};

__global__ void unpool_mark(Places<kGroup> places, Owners owners, const int64_t* indices, Planes vi, Report bad) {
  const int64_t item = thread_item();
  if (item >= places.count) return;
  const Place p = places.place(item);
  int64_t index[kGroup];
  load_channels(places, p, indices + places.offset(p, vi), vi.c, index);
  const int64_t here = (p.at[0] * vi.size[1] + p.at[1]) * vi.size[2] + p.at[2];
#pragma unroll
  for (int j = 0; j < kGroup; j++) {
    if (j >= p.count) continue;
    if (index[j] < 0 || index[j] >= owners.plane) bad();
    else atomicMax(owners.of(p.n, p.c + j, index[j]), static_cast<unsigned long long>(here + 1));
  }
}

// T is any type of the size of an element.
template <class T>
__global__ void unpool_take(Places<kGroup> places, Owners owners, T* y, Planes vy, const T* x, Planes vx) {
  const int64_t item = thread_item();
  if (item >= places.count) return;
  const Place p = places.place(item);
  const int64_t here = (p.at[0] * vy.size[1] + p.at[1]) * vy.size[2] + p.at[2];
  T value[kGroup];
#pragma unroll
  for (int j = 0; j < kGroup; j++) {
    const unsigned long long owner = j < p.count ? *owners.of(p.n, p.c + j, here) : 0;
    value[j] = owner ? x[p.n * vx.n + (p.c + j) * vx.c + vx.flat_offset(int64_t(owner) - 1)] : T(0);
  }
  store_channels(places, p, y + places.offset(p, vy), vy.c, value);
}

template <class T>
__global__ void unpool_add(int64_t planes, int64_t channels, T* y, Planes vy, const T* x, Planes vx, const int64_t* indices, Planes vi, Report bad) {
  using C = compute_t<T>;
  const int64_t plane = thread_item() / 32;
  const int lane = int(threadIdx.x % 32);
  if (plane >= planes) return;
  const int64_t n = plane / channels, c = plane % channels;
  y += n * vy.n + c * vy.c;
  x += n * vx.n + c * vx.c;
  indices += n * vi.n + c * vi.c;
  for (int64_t at = lane; at < vy.count; at += 32) y[vy.flat_offset(at)] = T(0.0f);
  for (int64_t base = 0; base < vx.count; base += 32) {
    const int64_t o = base + lane;
    int64_t at = -1;
    C value = 0;
    if (o < vx.count) {
      at = indices[vi.flat_offset(o)];
      value = C(x[vx.flat_offset(o)]);
      if (at < 0 || at >= vy.count) {
        bad();
        at = -1;
      }
    }
    __syncwarp();
    T* const target = y + vy.flat_offset(at < 0 ? 0 : at);
    T sum = at < 0 ? T(0.0f) : *target;
    bool first = at >= 0;  // the first lane of those with one target adds up for all of them
    for (int l = 0; l < 32; l++) {
      const int64_t other = __shfl_sync(0xffffffffu, at, l);
      const C v = __shfl_sync(0xffffffffu, value, l);
      if (other != at) continue;
      first = first && l >= lane;
      sum = T(C(sum) + v);
    }
    __syncwarp();
    if (first) *target = sum;
  }
}

template <class T>
__global__ void unpool_gather_kernel(Places<kGroup> places, T* y, Planes vy, const T* x, Planes vx, const int64_t* indices, Planes vi, Report bad) {
  const int64_t item = thread_item();
  if (item >= places.count) return;
  const Place p = places.place(item);
  int64_t index[kGroup];
  T value[kGroup];
  load_channels(places, p, indices + places.offset(p, vi), vi.c, index);
#pragma unroll
  for (int j = 0; j < kGroup; j++) {
    value[j] = T(0);
    if (j >= p.count) continue;
    if (index[j] < 0 || index[j] >= vx.count) bad();
    else value[j] = x[p.n * vx.n + (p.c + j) * vx.c + vx.flat_offset(index[j])];
  }
  store_channels(places, p, y + places.offset(p, vy), vy.c, value);
}

Report outside(const char* op, const Tensor& full) { return report(DG_RANGE, outside_plane(op, full)); }

// Calls f(tag<unsigned type of the size of an element>{}) for a floating-point dtype.
template <class F>
void dispatch_bits(uint32_t dtype, const char* op, F&& f) {
  dispatch_floats(dtype, op, [&](auto in) {
    constexpr int bytes = int(sizeof(typename decltype(in)::type));
    f(tag<std::conditional_t<bytes == 2, uint16_t, std::conditional_t<bytes == 4, uint32_t, uint64_t>>>{});
  });
}

}  // namespace

void unpool_scatter(const Tensor& y, const Tensor& x, const Tensor& indices, bool accumulate) {
  const char* const name = "unpool_scatter";
  if (y.numel == 0) return;
  if (accumulate) {
    dispatch_floats(x.dtype, name, [&](auto in) {
      using T = typename decltype(in)::type;
      const int64_t planes = y.sizes[0] * y.sizes[1];
      const unsigned threads = threads_for(planes * 32);
      launch(name, unpool_add<T>, blocks_for(planes * 32, threads), threads, 0, planes, y.sizes[1], y.data<T>(), Planes(y), x.data<T>(), Planes(x),
             indices.data<int64_t>(), Planes(indices), outside(name, y));
    });
    return;
  }
  dispatch_bits(x.dtype, name, [&](auto in) {
    using T = typename decltype(in)::type;
    const Scratch scratch(y.numel * 8);
    const Owners owners{scratch.as<unsigned long long>(), y.sizes[1], Planes(y).count, y.strides[1] == 1};
    check_cuda(cudaMemsetAsync(owners.data, 0, size_t(y.numel) * 8, current_stream()), name);
    const Places<kGroup> from(indices, {&indices}), to(y, {&y});
    if (from.count > 0) {
      const unsigned threads = threads_for(from.count);
      launch("unpool_mark", unpool_mark, blocks_for(from.count, threads), threads, 0, from, owners, indices.data<int64_t>(), Planes(indices),
             outside(name, y));
    }
    const unsigned threads = threads_for(to.count);
    launch("unpool_take", unpool_take<T>, blocks_for(to.count, threads), threads, 0, to, owners, y.data<T>(), Planes(y), x.data<T>(), Planes(x));
  });
}

void unpool_gather(const Tensor& y, const Tensor& x, const Tensor& indices) {
  const char* const name = "unpool_gather";
  dispatch_bits(x.dtype, name, [&](auto in) {
    using T = typename decltype(in)::type;
    const Places<kGroup> places(y, {&y, &indices});
    if (places.count == 0) return;
    const unsigned threads = threads_for(places.count);
    launch(name, unpool_gather_kernel<T>, blocks_for(places.count, threads), threads, 0, places, y.data<T>(), Planes(y), x.data<T>(), Planes(x),
           indices.data<int64_t>(), Planes(indices), outside(name, x));
  });
}

}  // namespace dg
