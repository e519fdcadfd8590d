// The bytes of storages, copied in the order of streams.
#include "../common/memory.h"

#include "device.h"

namespace dg {

Region new_storage(int64_t bytes, bool zeroed) {
  void* const memory = allocate(bytes);
  try {
    if (zeroed && bytes) check_cuda(cudaMemsetAsync(memory, 0, size_t(bytes), current_stream()), "cudaMemsetAsync");
  } catch (...) {
    release(memory, bytes);
    throw;
  }
  return {static_cast<char*>(memory), bytes, uint32_t(current_device()), uint32_t(device_state().stream)};
}

void storage_used(const Region& storage) {
  const DeviceState& state = device_state();
  if (int(storage.stream) != state.stream && !state.capturing) used_on_stream(storage.data, state.stream);
}

void read_storage(void* to, const char* from, int64_t bytes) {
  DeviceState& state = device_state();
  if (!state.capturing && bytes > 0) {
    state.from_device += double(bytes);
    check_cuda(cudaMemcpyAsync(to, from, size_t(bytes), cudaMemcpyDeviceToHost, current_stream()), "read");
  }
  synchronise("read");
}

void write_storage(char* to, const void* from, int64_t bytes) {
  DeviceState& state = device_state();
  if (state.capturing)
    fail(DG_DEVICE, "write: values cannot be copied to the device while a step is captured, copy them into an existing tensor before");
  state.to_device += double(bytes);
  if (bytes > 0) check_cuda(cudaMemcpyAsync(to, from, size_t(bytes), cudaMemcpyHostToDevice, current_stream()), "write");
}

void transfer_storage(const char* from, uint32_t from_device, char* to, uint32_t to_device, int64_t bytes) {
  if (from_device == to_device)
    return check_cuda(cudaMemcpyAsync(to, from, size_t(bytes), cudaMemcpyDeviceToDevice, current_stream()), "transfer");
  // The source's stream does the copy; the target's waits for it, and the copy for what the target's was given before.
  const cudaStream_t target_stream = current_stream();
  cudaEvent_t ready = nullptr, done = nullptr;
  check_cuda(cudaEventCreateWithFlags(&ready, cudaEventDisableTiming), "cudaEventCreate");
  check_cuda(cudaEventRecord(ready, target_stream), "cudaEventRecord");
  use_device(from_device, "transfer");
  const cudaStream_t source_stream = current_stream();
  check_cuda(cudaStreamWaitEvent(source_stream, ready, 0), "cudaStreamWaitEvent");
  check_cuda(cudaMemcpyPeerAsync(to, int(to_device), from, int(from_device), size_t(bytes), source_stream), "cudaMemcpyPeerAsync");
  check_cuda(cudaEventCreateWithFlags(&done, cudaEventDisableTiming), "cudaEventCreate");
  check_cuda(cudaEventRecord(done, source_stream), "cudaEventRecord");
  use_device(to_device, "transfer");
  check_cuda(cudaStreamWaitEvent(target_stream, done, 0), "cudaStreamWaitEvent");
  cudaEventDestroy(ready);
  cudaEventDestroy(done);
}

}  // namespace dg
