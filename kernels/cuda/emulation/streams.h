// Streams and the work that they hold.
#pragma once
#include <deque>

#include "state.h"

namespace emulation {

// A piece of work.
struct Op {
  Work work;
  cudaEvent_t event = nullptr;  // with a generation: wait for it
  uint64_t generation = 0;
  Progress progress = nullptr;  // asked again until it has ended
};

}  // namespace emulation

struct CUgraph_st {
  std::vector<emulation::Op> ops;
};
struct CUgraphExec_st {
  std::vector<emulation::Op> ops;
};
struct CUstream_st {
  int device = 0;
  std::deque<emulation::Op> queue;
  std::unique_ptr<CUgraph_st> capture;
  bool invalidated = false, relaxed = false;
};

namespace emulation {

extern std::vector<cudaStream_t> streams;

// Gives a stream work: does it at once, or later in a random legal order.
cudaError_t push(cudaStream_t stream, Op op);
// Does all that a stream holds.
cudaError_t drain(cudaStream_t stream);

}  // namespace emulation
