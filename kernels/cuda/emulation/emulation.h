// CUDA's device language on the host: every thread of a grid is run by execution.cpp, one after the other, in a fibre of its own where it has to
// wait for others. Loads and stores of kernels are checked through the compiler's instrumentation (see checks.cpp).
#pragma once
#include <cuda_runtime.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <tuple>
#include <type_traits>
#include <vector>

inline constexpr int warpSize = 32;

namespace emulation {

// What the running thread sees of itself.
struct Place {
  uint3 thread, block;
  dim3 block_size, grid_size;
};
#ifdef DG_EMULATION_IMPLEMENTATION
[[gnu::visibility("hidden")]] extern Place place;
#else
[[gnu::visibility("hidden")]] extern const Place place;  // does not change while a thread runs: need not be read again, nor checked
#endif

// A kernel with its arguments: `run` gets a copy of the `arguments`.
struct Call {
  const char* name;
  dim3 grid, block;
  size_t shared;
  void (*run)(const void* arguments);
  std::vector<char> arguments;
};
void launch_call(cudaStream_t stream, Call call);

template <class... P>
struct Bound {
  void (*kernel)(P...);
  std::tuple<P...> arguments;
};

template <class... P, class... A>
void launch(const char* name, void (*kernel)(P...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream, A&&... args) {
  static_assert((std::is_trivially_copyable_v<P> && ...));
  const Bound<P...> bound{kernel, {static_cast<P>(std::forward<A>(args))...}};
  std::vector<char> bytes(sizeof bound);
  std::memcpy(bytes.data(), static_cast<const void*>(&bound), sizeof bound);
  const auto run = [](const void* memory) {
    const auto& call = *static_cast<const Bound<P...>*>(memory);
    std::apply(call.kernel, call.arguments);
  };
  launch_call(stream, {name, grid, block, shared, run, std::move(bytes)});
}

// Shared memory of the running block: one piece a declaration, told apart by `site`.
void* shared_memory(const void* site, size_t bytes, size_t alignment);
template <class T, class Site>
T& shared(Site) {
  static const char site = 0;  // one a declaration: every lambda has a type of its own
  return *static_cast<T*>(shared_memory(&site, sizeof(T), alignof(T) < 16 ? 16 : alignof(T)));
}
void* dynamic_shared();

// A barrier of the block that adds up `value`; an exchange of 8 bytes between the lanes of `mask`, as 32 values.
unsigned barrier(unsigned value, int line);
const uint64_t* exchange(unsigned mask, uint64_t value, const char* op);
extern unsigned took_part;  // the lanes of the last exchange
void require_lane(unsigned source, const char* op);
unsigned lane();
// An atomic access is checked as a read and a write, and orders what the block sees of other blocks.
void atomic_access(const void* address, size_t bytes);
// Checks an access of `bytes` that the instrumentation cannot see (library calls, tensor cores).
void check_access(const void* address, size_t bytes, bool write, const char* what);
[[noreturn]] void fail_kernel(const char* text);

// Memory as the allocator sees it: `bytes` of device memory have been handed out, or taken back. In stream order.
void handed_out(void* memory, int64_t bytes, cudaStream_t stream);
void taken_back(void* memory, int64_t bytes, cudaStream_t stream);
// What cudaMalloc gave and nobody has freed, one a line.
std::string leaks();
// Does `work`, a library call of that name, in stream order.
using Work = std::function<void()>;
cudaError_t enqueue(cudaStream_t stream, const char* name, Work work);
// Work that takes time: `progress` is called, in stream order, until it returns true; what is behind it in the stream waits.
using Progress = std::function<bool()>;
cudaError_t enqueue_progress(cudaStream_t stream, Progress progress);

template <class T>
uint64_t to_bits(T value) {
  static_assert(sizeof(T) <= 8, "a warp exchange carries 8 bytes");
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  return bits;
}
template <class T>
T from_bits(uint64_t bits) {
  T value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <class T>
T shuffle(unsigned mask, T value, int source, bool inside, const char* op) {
  const uint64_t* lanes = exchange(mask, to_bits(value), op);
  if (!inside) return value;
  require_lane(source & 31, op);
  return from_bits<T>(lanes[source & 31]);
}

template <class T, class F>
[[gnu::no_sanitize_thread]] T atomic(T* address, F change) {  // atomic_access does the check
  atomic_access(address, sizeof(T));
  T old;
  std::memcpy(&old, address, sizeof old);
  const T next = change(old);
  std::memcpy(address, &next, sizeof next);
  return old;
}

}  // namespace emulation

#define threadIdx emulation::place.thread
#define blockIdx emulation::place.block
#define blockDim emulation::place.block_size
#define gridDim emulation::place.grid_size

inline void __syncthreads(int line = __builtin_LINE()) { emulation::barrier(0, line); }
inline int __syncthreads_count(int predicate, int line = __builtin_LINE()) { return int(emulation::barrier(predicate != 0, line)); }
inline int __syncthreads_or(int predicate, int line = __builtin_LINE()) { return emulation::barrier(predicate != 0, line) != 0; }
inline int __syncthreads_and(int predicate, int line = __builtin_LINE()) { return emulation::barrier(predicate == 0, line) == 0; }
inline void __threadfence() {}
inline void __threadfence_block() {}
inline void __syncwarp(unsigned mask = 0xffffffffu) { emulation::exchange(mask, 0, "__syncwarp"); }
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32) {
  const int lane = int(emulation::lane());
  return emulation::shuffle(mask, value, (lane & -width) | (source & (width - 1)), true, "__shfl_sync");
}
template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  const int lane = int(emulation::lane()), source = lane - int(distance);
  return emulation::shuffle(mask, value, source, source >= (lane & -width), "__shfl_up_sync");
}
template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned distance, int width = 32) {
  const int lane = int(emulation::lane()), source = lane + int(distance);
  return emulation::shuffle(mask, value, source, source < (lane & -width) + width, "__shfl_down_sync");
}
template <class T>
T __shfl_xor_sync(unsigned mask, T value, int with, int width = 32) {
  const int lane = int(emulation::lane()), source = lane ^ with;
  return emulation::shuffle(mask, value, source, source < (lane & -width) + width, "__shfl_xor_sync");
}
inline unsigned __ballot_sync(unsigned mask, int predicate) {
  const uint64_t* lanes = emulation::exchange(mask, predicate != 0, "__ballot_sync");
  unsigned result = 0;
  for (int i = 0; i < 32; i++)
    if (emulation::took_part >> i & 1 && lanes[i] == 1) result |= 1u << i;
  return result;
}
inline int __any_sync(unsigned mask, int predicate) { return __ballot_sync(mask, predicate) != 0; }
inline int __all_sync(unsigned mask, int predicate) { return __ballot_sync(mask, !predicate) == 0; }

template <class T> T atomicAdd(T* p, std::type_identity_t<T> v) { return emulation::atomic(p, [v](T o) { return T(o + v); }); }
template <class T> T atomicMax(T* p, std::type_identity_t<T> v) { return emulation::atomic(p, [v](T o) { return o < v ? v : o; }); }
template <class T> T atomicMin(T* p, std::type_identity_t<T> v) { return emulation::atomic(p, [v](T o) { return v < o ? v : o; }); }
template <class T> T atomicOr(T* p, std::type_identity_t<T> v) { return emulation::atomic(p, [v](T o) { return T(o | v); }); }
template <class T> T atomicAnd(T* p, std::type_identity_t<T> v) { return emulation::atomic(p, [v](T o) { return T(o & v); }); }
template <class T> T atomicExch(T* p, std::type_identity_t<T> v) { return emulation::atomic(p, [v](T) { return v; }); }
template <class T> T atomicCAS(T* p, std::type_identity_t<T> expected, std::type_identity_t<T> v) {
  return emulation::atomic(p, [=](T o) { return o == expected ? v : o; });
}
inline unsigned atomicInc(unsigned* p, unsigned limit) {
  return emulation::atomic(p, [limit](unsigned o) { return o >= limit ? 0u : o + 1; });
}

inline int __popc(unsigned x) { return std::popcount(x); }
inline int __popcll(unsigned long long x) { return std::popcount(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __clz(int x) { return std::countl_zero(unsigned(x)); }
inline int __clzll(long long x) { return std::countl_zero(uint64_t(x)); }
template <class T> T __ldg(const T* p) { return *p; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
using std::max;
using std::min;
