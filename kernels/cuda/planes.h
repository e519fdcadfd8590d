// Kernels over [N, C, spatial...]: a thread works on up to N neighbouring channels of one position, so that what a position costs to find is
// shared, and takes them in one access where they are adjacent in memory. Neighbouring threads work on neighbours in memory.
#pragma once
#include <initializer_list>

#include "../common/planes.h"
#include "map.h"

namespace dg {

// The position and channels [c, c + count) of a thread.
struct Place {
  int64_t n, c, at[3];
  int count;
};

// Channels a thread: an access of 16 bytes.
template <class T>
inline constexpr int kChannels = 16 / int(sizeof(T));

template <int N>
struct Places {
  int64_t size[3] = {1, 1, 1}, channels, groups, count;
  bool inside, packed;  // channels innermost; in packs of N

  // `written` has the positions to walk through, `all` the tensors to access, the written one among them.
  Places(const Tensor& written, std::initializer_list<const Tensor*> all)
      : channels(written.sizes[1]), groups((channels + N - 1) / N), inside(true), packed(channels % N == 0) {
    for (int a = 2; a < written.rank; a++) size[a + 3 - written.rank] = written.sizes[a];
    count = written.sizes[0] * groups * size[0] * size[1] * size[2];
    for (const Tensor* t : all) {
      inside = inside && t->strides[1] == 1;
      const int64_t bytes = dtype_size(t->dtype);
      packed = packed && (reinterpret_cast<uintptr_t>(t->storage_data) + uintptr_t(t->offset * bytes)) % uintptr_t(N * bytes) == 0;
      for (int a = 0; a < t->rank; a++)
        if (a != 1 && t->sizes[a] > 1) packed = packed && t->strides[a] % N == 0;
    }
    packed = packed && inside;
  }

  // The place of item i in [0, count).
  __device__ Place place(int64_t i) const {
    Place p;
    uint64_t rest = uint64_t(i), group = 0;
    const auto digit = [&](int64_t size) {
      const uint64_t next = rest / uint64_t(size), low = rest - next * uint64_t(size);
      rest = next;
      return int64_t(low);
    };
    if (inside) group = uint64_t(digit(groups));
    p.at[2] = digit(size[2]);
    p.at[1] = digit(size[1]);
    p.at[0] = digit(size[0]);
    if (!inside) group = uint64_t(digit(groups));
    p.n = int64_t(rest);
    p.c = int64_t(group) * N;
    p.count = channels - p.c < N ? int(channels - p.c) : N;
    return p;
  }

  __device__ static int64_t offset(const Place& p, const PlaneView& view, int64_t d, int64_t h, int64_t w) {
    return p.n * view.n + p.c * view.c + view.offset(d, h, w);
  }
  __device__ static int64_t offset(const Place& p, const PlaneView& view) { return offset(p, view, p.at[0], p.at[1], p.at[2]); }
};

inline __device__ int64_t thread_item() { return int64_t(blockIdx.x) * blockDim.x + threadIdx.x; }

// Threads of a block for `count` items: few for few.
inline unsigned threads_for(int64_t count) { return count < kThreads ? unsigned((count + 31) / 32 * 32) : unsigned(kThreads); }

// The N channels of a place as values of type C; of those beyond p.count nothing is read or written.
template <class C, class T, int N>
__device__ void load_channels(const Places<N>& places, const Place& p, const T* from, int64_t stride, C (&value)[N]) {
  if (places.packed) {
    const Pack<T, N> pack = *reinterpret_cast<const Pack<T, N>*>(from);
#pragma unroll
    for (int j = 0; j < N; j++) value[j] = C(pack.at[j]);
  } else {
#pragma unroll
    for (int j = 0; j < N; j++) value[j] = j < p.count ? C(from[j * stride]) : C(0);
  }
}

template <class C, class T, int N>
__device__ void store_channels(const Places<N>& places, const Place& p, T* to, int64_t stride, const C (&value)[N]) {
  if (places.packed) {
    Pack<T, N> pack;
#pragma unroll
    for (int j = 0; j < N; j++) pack.at[j] = T(value[j]);
    *reinterpret_cast<Pack<T, N>*>(to) = pack;
  } else {
#pragma unroll
    for (int j = 0; j < N; j++)
      if (j < p.count) to[j * stride] = T(value[j]);
  }
}

}  // namespace dg
