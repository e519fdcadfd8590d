// Work on rows: groups of threads that share one row each, several groups a block.
#pragma once
#include <bit>

#include "block.h"

namespace dg {

// The exchange of warp_reduce for any trivial type, in words of 4 bytes.
template <class T>
__device__ T exchange(T value, int distance) {
  if constexpr (std::is_arithmetic_v<T>) {
    return __shfl_xor_sync(0xffffffffu, value, distance);
  } else {
    static_assert(sizeof(T) % 4 == 0);
    uint32_t words[sizeof(T) / 4];
    memcpy(words, &value, sizeof value);
#pragma unroll
    for (uint32_t& word : words) word = __shfl_xor_sync(0xffffffffu, word, distance);
    memcpy(&value, words, sizeof value);
    return value;
  }
}

// `lanes` threads work on a row, `groups` rows on a block; both are powers of two. Neighbouring threads take neighbouring elements of a row or,
// in columns, neighbouring rows: whichever lie next to each other in memory.
struct Groups {
  int lanes, groups;
  bool columns;

  int threads() const { return lanes * groups; }
  __device__ int lane() const { return columns ? int(threadIdx.x) / groups : int(threadIdx.x) % lanes; }
  __device__ int group() const { return columns ? int(threadIdx.x) % groups : int(threadIdx.x) / lanes; }
};

inline int power_of_two(int64_t at_least, int limit) { return int(std::bit_ceil(uint64_t(std::clamp<int64_t>(at_least, 1, limit)))); }

// For `rows` rows of `count` elements that are read `pack` at a time: about 8 packs a thread, and no more threads than the work needs.
inline Groups groups_for(int64_t rows, int64_t count, bool columns, int pack) {
  const int wanted = power_of_two((count - 1) / (8 * pack) + 1, kThreads);
  const int lanes = columns ? std::min(wanted, kThreads / power_of_two(rows, 32)) : rows >= 4096 && count <= 4096 ? std::min(wanted, 32) : wanted;
  return {lanes, std::max(power_of_two(rows, kThreads / lanes), lanes < 32 ? 32 / lanes : 1), columns};  // whole warps
}

// Joins the parts of a group's lanes in a fixed order; lane 0 gets the result, and every lane if join(a, b) and join(b, a) are the same bits.
// All threads of the block must call it.
template <class Part, class Join>
__device__ Part group_reduce(Part part, const Groups& g, Join join) {
  DG_SHARED(Part[kThreads], parts);
  const int thread = int(threadIdx.x);
  if (g.lanes == 1) return part;
  if (g.columns) {
    __syncthreads();  // parts may still be read from a previous call
    parts[thread] = part;
    __syncthreads();
    for (int half = g.lanes / 2; half > 0; half /= 2) {
      if (g.lane() < half) parts[thread] = join(parts[thread], parts[thread + half * g.groups]);
      __syncthreads();
    }
    return parts[g.group()];
  }
  for (int distance = std::min(g.lanes, 32) / 2; distance > 0; distance /= 2) part = join(part, exchange(part, distance));
  if (g.lanes <= 32) return part;
  const int warps = g.lanes / 32, first = thread / g.lanes * warps;
  __syncthreads();
  if (thread % 32 == 0) parts[thread / 32] = part;
  __syncthreads();
  part = parts[first];
  for (int i = 1; i < warps; i++) part = join(part, parts[first + i]);
  return part;
}

}  // namespace dg
