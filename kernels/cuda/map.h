// Elementwise kernels: out[i] = f(in[i]...) over tensors of equal sizes and any strides. f is a small struct with a __device__ operator().
#pragma once
#include <type_traits>

#include "../common/loop.h"
#include "launch.h"

namespace dg {

// A vector of N elements that is loaded and stored at once.
template <class T, int N>
struct alignas(sizeof(T) * N) Pack {
  T at[N];
};

template <class... T>
constexpr int widest() {
  int bytes = 1;
  ((bytes = int(sizeof(T)) > bytes ? int(sizeof(T)) : bytes), ...);
  return bytes;
}

// Calls go(f); a family of ops has with(go) instead, which calls go with the function of its op, so that a thread branches once and not for
// every element.
template <class F, class Go>
__device__ void with_op(const F& f, Go&& go) {
  if constexpr (requires { f.with(go); }) f.with(go);
  else go(f);
}

template <int N, class F, class Out, class... In>
__device__ void packed_loop(const F& f, int64_t count, Out* out, const In*... in) {
  const int64_t packs = count / N, stride = int64_t(gridDim.x) * blockDim.x, first = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  for (int64_t i = first; i < packs; i += stride) {
    [&](Pack<In, N>... x) {
      Pack<Out, N> y;
#pragma unroll
      for (int j = 0; j < N; j++) y.at[j] = f(x.at[j]...);
      reinterpret_cast<Pack<Out, N>*>(out)[i] = y;
    }(reinterpret_cast<const Pack<In, N>*>(in)[i]...);
  }
  for (int64_t i = packs * N + first; i < count; i += stride) {
    const Out y = f(in[i]...);  // not straight into memory: the emulator does not see where a call leaves its result
    out[i] = y;
  }
}

// Gapless operands in one memory order: N elements a thread, each operand by one load of at most 16 bytes.
template <int N, class F, class Out, class... In>
__global__ void map_packed(F family, int64_t count, Out* out, const In*... in) {
  with_op(family, [&](const auto& f) { packed_loop<N>(f, count, out, in...); });
}

// A loop nest as kernels take it; I is uint32_t where all positions and offsets fit, else uint64_t.
template <int K, class I>
struct Nest {
  int rank;
  I count, sizes[DG_MAX_RANK], strides[K][DG_MAX_RANK];

  explicit Nest(const Loop<K>& loop) : rank(loop.rank), count(I(loop.numel)) {
    for (int i = 0; i < rank; i++) {
      sizes[i] = I(loop.sizes[i]);
      for (int k = 0; k < K; k++) strides[k][i] = I(loop.strides[k][i]);
    }
  }

  // Offsets of the K operands at position `at` of the nest.
  __device__ void offsets(I at, I (&offset)[K]) const {
#pragma unroll
    for (int k = 0; k < K; k++) offset[k] = 0;
    for (int i = rank - 1; i > 0; i--) {
      const I next = at / sizes[i], digit = at - next * sizes[i];
      at = next;
#pragma unroll
      for (int k = 0; k < K; k++) offset[k] += digit * strides[k][i];
    }
#pragma unroll
    for (int k = 0; k < K; k++) offset[k] += at * strides[k][0];
  }
};

template <int K>
bool fits_32_bits(const Loop<K>& loop) {
  constexpr int64_t limit = int64_t(1) << 31;
  if (loop.numel >= limit) return false;
  for (int k = 0; k < K; k++) {
    int64_t reach = 0;
    for (int i = 0; i < loop.rank; i++) reach += (loop.sizes[i] - 1) * loop.strides[k][i];
    if (reach >= limit) return false;
  }
  return true;
}

template <class I, class F, class Out, class... In>
__device__ void strided_loop(const F& f, const Nest<1 + sizeof...(In), I>& nest, Out* out, const In*... in) {
  const uint64_t stride = uint64_t(gridDim.x) * blockDim.x;
  for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < nest.count; i += stride) {
    I offset[1 + sizeof...(In)];
    nest.offsets(I(i), offset);
    const Out y = [&]<size_t... k>(std::index_sequence<k...>) { return f(in[offset[k + 1]]...); }(std::index_sequence_for<In...>{});
    out[offset[0]] = y;
  }
}

template <class I, class F, class Out, class... In>
__global__ void map_strided(F family, const __grid_constant__ Nest<1 + sizeof...(In), I> nest, Out* out, const In*... in) {
  with_op(family, [&](const auto& f) { strided_loop(f, nest, out, in...); });
}

// Packs of every operand lie on their own size.
template <int N, class... T>
DG_HD bool packs_fit(const T*... pointers) {
  return ((reinterpret_cast<uintptr_t>(pointers) % (sizeof(T) * N) == 0) && ...);
}

// Whether a family is worth a kernel that works on packs: long functions say `static constexpr bool packed = false`, which spares their compilation
// for every element of a pack.
template <class F>
constexpr bool packed() {
  if constexpr (requires { F::packed; }) return F::packed;
  else return true;
}

// out = f(in...) with element types Out and In...; sizes must be equal (checked by the caller), out may be one of the inputs.
template <class Out, class... In, class F, class... Tensors>
void map(const char* name, F f, const Tensor& out, const Tensors&... in) {
  static_assert(sizeof...(In) == sizeof...(Tensors));
  if (out.numel == 0) return;
  constexpr int K = 1 + sizeof...(In), N = 16 / widest<Out, In...>();
  const Loop<K> loop({&out, &in...});
  if constexpr (packed<F>()) {
    if (loop.rank == 1 && loop.all_unit() && packs_fit<N>(out.template data<Out>(), in.template data<In>()...))
      return launch(name, map_packed<N, F, Out, In...>, blocks_for(loop.numel, int64_t(kThreads) * N), kThreads, 0, f, loop.numel,
                    out.template data<Out>(), in.template data<In>()...);
  }
  if (fits_32_bits(loop)) {
    launch(name, map_strided<uint32_t, F, Out, In...>, blocks_for(loop.numel, kThreads), kThreads, 0, f, Nest<K, uint32_t>(loop),
           out.template data<Out>(), in.template data<In>()...);
  } else {
    launch(name, map_strided<uint64_t, F, Out, In...>, blocks_for(loop.numel, kThreads), kThreads, 0, f, Nest<K, uint64_t>(loop),
           out.template data<Out>(), in.template data<In>()...);
  }
}

}  // namespace dg
