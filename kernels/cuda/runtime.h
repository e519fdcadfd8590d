// What the kernels of this library need of the run time: streams, work space, errors that only the device can see.
#pragma once
#include <cuda_runtime.h>

#include "../common/tensor.h"
#ifndef __CUDACC__
#include "emulation/emulation.h"
#endif

namespace dg {

// Device and stream that the current call works on; set by the first header that it validates (or by use_device).
int current_device();
cudaStream_t current_stream();
void use_device(uint32_t index, const char* op);

// Fails with DG_DEVICE (or DG_OUT_OF_MEMORY) when a call of the CUDA run time did; `what` names it.
void check_cuda(cudaError_t status, const char* what);

// "op: what on cuda:0", for the errors of libraries.
std::string failed_call(const char* what);
// After each kernel launch: counts it and fails with DG_DEVICE, naming kernel and device, when it could not start.
void launched(const char* kernel);
// After each call of a library (cuBLAS): counts it.
void library_called(const char* name);

// Device memory for the length of a call. Its blocks go back to the stream's cache, so work already given to the stream may still use them.
class Scratch {
 public:
  explicit Scratch(int64_t bytes);
  ~Scratch();
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T> T* as() const { return static_cast<T*>(data_); }

 private:
  void* data_;
  int64_t bytes_;
};

// Counters at 0 for kernels whose last block finishes the work (see last_block); each kernel leaves them at 0. At most kCounters.
inline constexpr int kCounters = 65536;
unsigned* counters();

// Where kernels leave the first error that depends on data. It is raised by the next call that waits for the device.
struct ReportSlot {
  unsigned taken, message;
  long long values[3];
};
struct Report {
  ReportSlot* slot;
  unsigned message;
  __device__ void operator()(int64_t a = 0, int64_t b = 0, int64_t c = 0) const {
    if (atomicCAS(&slot->taken, 0u, 1u) != 0u) return;
    slot->message = message;
    slot->values[0] = a;
    slot->values[1] = b;
    slot->values[2] = c;
  }
};
// `format` is a printf format of which up to three %lld stand for the values of the report, or one %g for a double whose bits are the first value;
// it may hold text known on the host already.
// The name that dg_name_call() gave the running call is put before it.
Report report(dg_status status, const std::string& format);

// While a step is captured into a graph: how often the graph has been launched since, and how many random counters one launch uses. Null otherwise.
struct Replay {
  unsigned long long launches, counters;
};
const Replay* replay();

// Number of blocks for `work` items at `per_block` each: at least 1, at most 2^31 - 1 (kernels loop with the grid's stride).
inline unsigned blocks_for(int64_t work, int64_t per_block) {
  const int64_t blocks = work <= 0 ? 1 : (work - 1) / per_block + 1;
  return unsigned(blocks < 0x7fffffff ? blocks : 0x7fffffff);
}

}  // namespace dg
