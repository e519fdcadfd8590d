// Running counts of the positions of a list for which something holds: nonzero and unique are made of it.
#pragma once
#include "block.h"

namespace dg {

inline constexpr int kFlagItems = 8, kFlagChunk = kThreads * kFlagItems;

// Turns values[0 .. count) into the sums of those before each; returns the sum of all. All threads of the block must call it.
__device__ inline int64_t block_exclusive_sums(int64_t* values, int64_t count) {
  DG_SHARED(int64_t[32], warps);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int64_t total = 0;
  for (int64_t base = 0; base < count; base += blockDim.x) {
    const int64_t at = base + threadIdx.x, own = at < count ? values[at] : 0;
    int64_t sum = own;
    for (int distance = 1; distance < 32; distance *= 2) {
      const int64_t other = __shfl_up_sync(0xffffffffu, sum, distance);
      if (lane >= distance) sum += other;
    }
    if (lane == 31) warps[warp] = sum;
    __syncthreads();
    int64_t before = total;
    for (int i = 0; i < int(blockDim.x / 32); i++) {
      if (i < warp) before += warps[i];
      total += warps[i];
    }
    if (at < count) values[at] = before + sum - own;
    __syncthreads();
  }
  return total;
}

// How many of a chunk's positions flag(i) holds for come before each of the thread's, which are base + k * blockDim.x + threadIdx.x; returns the
// chunk's number.
template <class Flag>
__device__ int chunk_flags(int64_t base, int64_t count, const Flag& flag, bool (&held)[kFlagItems], int (&before)[kFlagItems]) {
  DG_SHARED(int[kFlagItems * 8], sums);  // by item and warp, in the order of positions
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
#pragma unroll
  for (int k = 0; k < kFlagItems; k++) {
    const int64_t i = base + int64_t(k) * blockDim.x + threadIdx.x;
    held[k] = i < count && flag(i);
    const unsigned votes = __ballot_sync(0xffffffffu, held[k]);
    before[k] = __popc(votes & ((1u << lane) - 1));
    if (lane == 0) sums[k * warps + warp] = __popc(votes);
  }
  __syncthreads();
  int total = 0;
#pragma unroll
  for (int k = 0; k < kFlagItems; k++)
    for (int w = 0; w < warps; w++) {
      if (w == warp) before[k] += total;
      total += sums[k * warps + w];
    }
  __syncthreads();
  return total;
}

// starts[c] = how many positions before chunk c hold; the number of all goes to total where given.
template <class Flag>
__global__ void count_flags(int64_t count, int64_t chunks, Flag flag, int64_t* starts, int64_t* total, unsigned* counter) {
  for (int64_t c = blockIdx.x; c < chunks; c += gridDim.x) {
    bool held[kFlagItems];
    int before[kFlagItems];
    const int number = chunk_flags(c * (int64_t(blockDim.x) * kFlagItems), count, flag, held, before);
    if (threadIdx.x == 0) starts[c] = number;
  }
  if (!last_block(counter, gridDim.x)) return;
  const int64_t sum = block_exclusive_sums(starts, chunks);
  if (threadIdx.x == 0 && total) *total = sum;
}

// Calls visit(i, whether flag(i) holds, how many positions before i it holds for) for every position, and visit.total(the number of all) once.
template <class Flag, class Visit>
__global__ void visit_flags(int64_t count, int64_t chunks, Flag flag, Visit visit, const int64_t* starts) {
  for (int64_t c = blockIdx.x; c < chunks; c += gridDim.x) {
    const int64_t base = c * (int64_t(blockDim.x) * kFlagItems), start = chunks == 1 ? 0 : starts[c];
    bool held[kFlagItems];
    int before[kFlagItems];
    const int number = chunk_flags(base, count, flag, held, before);
#pragma unroll
    for (int k = 0; k < kFlagItems; k++) {
      const int64_t i = base + int64_t(k) * blockDim.x + threadIdx.x;
      if (i < count) visit(i, held[k], start + before[k]);
    }
    if (c == chunks - 1 && threadIdx.x == 0) visit.total(start + number);
  }
}

struct FlagGrid {
  int threads;
  int64_t chunks;
  explicit FlagGrid(int64_t count) : threads(count <= 32 * kFlagItems ? 32 : kThreads), chunks(std::max<int64_t>(1, (count - 1) / (int64_t(threads) * kFlagItems) + 1)) {}
  unsigned blocks() const { return blocks_for(chunks, 1); }
};

template <class Flag>
void launch_count_flags(const char* name, int64_t count, const Flag& flag, int64_t* starts, int64_t* total) {
  const FlagGrid grid(count);
  const unsigned blocks = std::min(grid.blocks(), 4096u);
  launch(name, count_flags<Flag>, blocks, grid.threads, 0, count, grid.chunks, flag, starts, total, counters());
}

template <class Flag, class Visit>
void run_over_flags(const char* name, int64_t count, const Flag& flag, const Visit& visit) {
  const FlagGrid grid(count);
  const Scratch starts(grid.chunks == 1 ? 8 : grid.chunks * 8);
  if (grid.chunks > 1) launch_count_flags("count_flags", count, flag, starts.as<int64_t>(), nullptr);
  launch(name, visit_flags<Flag, Visit>, grid.blocks(), grid.threads, 0, count, grid.chunks, flag, visit, starts.as<int64_t>());
}

}  // namespace dg
