// Cooperation of the threads of a block: reductions in a fixed order, and blocks that finish what others began.
#pragma once
#include "launch.h"

namespace dg {

// Sum-like reduction over the 32 lanes of a warp; every lane gets the result. `join` must be commutative.
template <class T, class Join>
__device__ T warp_reduce(T value, Join join) {
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value = join(value, __shfl_xor_sync(0xffffffffu, value, distance));
  return value;
}

// Over a block of a multiple of 32 threads (one axis, up to 1024), in an order that depends on the block size alone; every thread gets the
// result. All threads must call it. T is at most 8 bytes or has its shuffles done member by member (see Pair).
template <class T, class Join>
__device__ T block_reduce(T value, T identity, Join join) {
  DG_SHARED(T[32], partial);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  value = warp_reduce(value, join);
  __syncthreads();  // partial may still be read from a previous call
  if (lane == 0) partial[warp] = value;
  __syncthreads();
  value = lane < warps ? partial[lane] : identity;
  return warp_reduce(value, join);
}

template <class T>
struct Plus {
  __device__ T operator()(T a, T b) const { return a + b; }
};

// True in the block that arrives last of `blocks` that share a counter of counters(); it sees what the others wrote to global memory before.
// All threads must call it. The counter is 0 again afterwards.
__device__ inline bool last_block(unsigned* counter, unsigned blocks) {
  DG_SHARED(bool, last);
  __threadfence();
  __syncthreads();
  if (threadIdx.x + threadIdx.y + threadIdx.z == 0) last = atomicInc(counter, blocks - 1) == blocks - 1;
  __syncthreads();
  if (last) __threadfence();
  return last;
}

}  // namespace dg
