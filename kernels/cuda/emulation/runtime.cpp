// Streams, events, graphs, and the rest of the run-time API.
#include "state.h"

#include <sys/mman.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <deque>
#include <thread>

using namespace emulation;

struct CUevent_st {
  int device = 0;
  uint64_t recorded = 0, done = 0;
  double time = 0;
  bool destroyed = false;  // goes when it has been passed
};

namespace {

struct Op {
  Work work;
  cudaEvent_t event = nullptr;  // with a generation: wait for it
  uint64_t generation = 0;
  Progress progress = nullptr;  // asked again until it has ended
};

}  // namespace

struct CUgraph_st {
  std::vector<Op> ops;
};
struct CUgraphExec_st {
  std::vector<Op> ops;
};
struct CUstream_st {
  int device = 0;
  std::deque<Op> queue;
  std::unique_ptr<CUgraph_st> capture;
  bool invalidated = false, relaxed = false;
};

namespace {

std::vector<cudaStream_t> streams;
bool unloading = false;  // the process ends: threads that are still there find nothing to do

struct AtExit {
  ~AtExit() {
    Lock lock(mutex);
    unloading = true;
  }
};
std::map<uintptr_t, size_t> pinned;

bool runnable(cudaStream_t stream) {
  if (stream->queue.empty()) return false;
  const Op& op = stream->queue.front();
  return !op.event || op.event->done >= op.generation;
}

// Does the first piece of work of a stream; false if that has not ended yet.
bool run_front(cudaStream_t stream) {
  if (stream->queue.front().progress && !stream->queue.front().progress()) return false;
  Op op = std::move(stream->queue.front());
  stream->queue.pop_front();
  if (op.work) op.work();
  return true;
}

// Does one piece of waiting work of a random stream; false if there is none that can be done now.
bool step() {
  if (unloading) return false;
  std::vector<cudaStream_t> able;
  for (cudaStream_t stream : streams)
    if (runnable(stream)) able.push_back(stream);
  while (!able.empty()) {
    const auto it = able.begin() + ptrdiff_t(random_source()() % able.size());
    if (run_front(*it)) return true;
    able.erase(it);
  }
  return false;
}

// The same, and waits for work that takes time; false if none is under way.
bool step_or_wait() {
  if (step()) return true;
  const auto under_way = [](cudaStream_t stream) { return runnable(stream) && stream->queue.front().progress; };
  if (std::none_of(streams.begin(), streams.end(), under_way)) return false;
  mutex.unlock();  // held once: by the function of the run time that waits
  std::this_thread::sleep_for(std::chrono::microseconds(100));
  mutex.lock();
  return true;
}

cudaError_t push(cudaStream_t stream, Op op) {
  if (unloading) return cudaErrorCudartUnloading;
  if (!stream) return error(cudaErrorInvalidResourceHandle);
  if (stream->capture) {
    stream->capture->ops.push_back(std::move(op));
    return cudaSuccess;
  }
  stream->queue.push_back(std::move(op));
  if (!settings().random_streams) {
    while (runnable(stream) && run_front(stream)) continue;
  } else {
    while (random_source()() % 3 == 0 && step()) continue;
  }
  return cudaSuccess;
}

cudaError_t drain(cudaStream_t stream) {
  if (!stream) return error(cudaErrorInvalidResourceHandle);
  if (stream->capture) {
    stream->invalidated = true;
    return error(cudaErrorStreamCaptureUnsupported);
  }
  while (!stream->queue.empty())
    if (!step_or_wait()) return error(cudaErrorLaunchFailure);
  return pending;
}

double now() { return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Deletes an event that has been passed.
void forget(cudaEvent_t event) {
  for (cudaStream_t stream : streams)
    for (Op& op : stream->queue)
      if (op.event == event) op.event = nullptr;
  delete event;
}

bool inside(const void* memory, size_t bytes) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(memory);
  return in_arena(at) && bytes <= arena_end - at && all_allocated(state_at(at), bytes);
}

bool is_pinned(const void* memory, size_t bytes) {
  const uintptr_t at = reinterpret_cast<uintptr_t>(memory);
  auto next = pinned.upper_bound(at);
  return next != pinned.begin() && at + bytes <= std::prev(next)->first + std::prev(next)->second;
}

void copy_states(void* to, const void* from, size_t bytes) {
  std::memmove(state_at(reinterpret_cast<uintptr_t>(to)), state_at(reinterpret_cast<uintptr_t>(from)), bytes);
}

void bad_copy(const char* what, const void* memory, size_t bytes) {
  report(text("%s: %zu bytes of device memory are not live, %s", what, bytes, where(reinterpret_cast<uintptr_t>(memory)).c_str()));
}

}  // namespace

namespace emulation {

void launch_call(cudaStream_t stream, Call call) {
  Lock lock(mutex);
  const dim3 &g = call.grid, &b = call.block;
  const uint64_t threads = uint64_t(b.x) * b.y * b.z;
  if (!stream || !threads || threads > kMaxThreads || b.z > 64 || !g.x || !g.y || !g.z || g.x > 0x7fffffffu || g.y > 65535 || g.z > 65535 ||
      call.shared > kShared - 1024 || fails(call.name)) {
    error(cudaErrorInvalidConfiguration);
    return;
  }
  const int device = stream->device;
  const auto shared_call = std::make_shared<Call>(std::move(call));
  push(stream, {[shared_call, device] { run_grid(*shared_call, device); }});
}

cudaError_t enqueue(cudaStream_t stream, const char*, Work work) {
  Lock lock(mutex);
  return push(stream, {std::move(work)});
}

cudaError_t enqueue_progress(cudaStream_t stream, Progress progress) {
  Lock lock(mutex);
  Op op;
  op.progress = std::move(progress);
  return push(stream, std::move(op));
}

void handed_out(void* memory, int64_t bytes, cudaStream_t stream) {
  Lock lock(mutex);
  const uintptr_t at = reinterpret_cast<uintptr_t>(memory);
  push(stream, {[at, bytes] {
    mark(at, bytes, kFresh);
    live[at] = bytes;
  }});
}

void taken_back(void* memory, int64_t bytes, cudaStream_t stream) {
  Lock lock(mutex);
  const uintptr_t at = reinterpret_cast<uintptr_t>(memory);
  push(stream, {[at, bytes] {
    mark(at, bytes, kFreed);
    live.erase(at);
  }});
}

}  // namespace emulation

// ---- the run time

cudaError_t cudaGetDeviceCount(int* count) {
  *count = settings().devices;
  return settings().devices > 0 && start() ? cudaSuccess : error(cudaErrorNoDevice);
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (device < 0 || device >= settings().devices) return error(cudaErrorInvalidDevice);
  *properties = {};
  std::snprintf(properties->name, sizeof properties->name, "emulated CUDA device");
  properties->totalGlobalMem = size_t(settings().memory);
  properties->sharedMemPerBlock = 48 << 10;
  properties->multiProcessorCount = 4;
  properties->major = 9;
  properties->maxThreadsPerMultiProcessor = 2048;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr, int device) {
  if (device < 0 || device >= settings().devices) return error(cudaErrorInvalidDevice);
  *value = 1000000;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= settings().devices || !start()) return error(cudaErrorInvalidDevice);
  current = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  *device = current;
  return cudaSuccess;
}

cudaError_t cudaDeviceSynchronize() {
  Lock lock(mutex);
  for (cudaStream_t stream : std::vector(streams))
    if (stream->device == current && !stream->capture)
      if (const cudaError_t status = drain(stream)) return status;
  return pending;
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  Lock lock(mutex);
  *total = size_t(settings().memory);
  *free = size_t(settings().memory - devices[current].used);
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  Lock lock(mutex);
  if (!start()) return error(cudaErrorMemoryAllocation);
  for (cudaStream_t stream : streams)  // only a relaxed capture allows it
    if (stream->capture && !stream->relaxed) return error(cudaErrorStreamCaptureUnsupported);
  Device& device = devices[current];
  const int64_t wanted = int64_t((bytes + kGuard + 511) / 512 * 512);
  if (device.used + int64_t(bytes) > settings().memory) return error(cudaErrorMemoryAllocation);
  uintptr_t at = arena + uintptr_t(current) * device_span + 4096;
  for (const auto& [start, size] : device.segments) {
    if (start - at >= uintptr_t(wanted)) break;
    at = start + uintptr_t(size) + kGuard;
    at = (at + 511) / 512 * 512;
  }
  if (at + uintptr_t(wanted) > arena + uintptr_t(current + 1) * device_span) return error(cudaErrorMemoryAllocation);
  device.segments[at] = int64_t(bytes);
  device.used += int64_t(bytes);
  mark(at, int64_t(bytes), kFresh);
  live[at] = int64_t(bytes);
  *memory = reinterpret_cast<void*>(at);
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  Lock lock(mutex);
  if (!memory) return cudaSuccess;
  const uintptr_t at = reinterpret_cast<uintptr_t>(memory);
  if (!in_arena(at)) return error(cudaErrorInvalidValue);
  Device& device = devices[device_of(at)];
  const auto it = device.segments.find(at);
  if (it == device.segments.end()) return error(cudaErrorInvalidValue);
  for (cudaStream_t stream : std::vector(streams))
    if (!stream->capture) drain(stream);  // cudaFree waits for the device
  mark(at, it->second, kFreed);
  live.erase(at);
  device.used -= it->second;
  const uintptr_t page = (at + 4095) & ~uintptr_t(4095), end = (at + uintptr_t(it->second)) & ~uintptr_t(4095);
  if (end > page) madvise(reinterpret_cast<void*>(page), end - page, MADV_DONTNEED);
  device.segments.erase(it);
  return cudaSuccess;
}

cudaError_t cudaHostRegister(void* memory, size_t bytes, unsigned) {
  Lock lock(mutex);
  if (!memory || !bytes) return error(cudaErrorInvalidValue);
  if (is_pinned(memory, 1)) return error(cudaErrorHostMemoryAlreadyRegistered);
  pinned[reinterpret_cast<uintptr_t>(memory)] = bytes;
  return cudaSuccess;
}

cudaError_t cudaHostUnregister(void* memory) {
  Lock lock(mutex);
  return pinned.erase(reinterpret_cast<uintptr_t>(memory)) ? cudaSuccess : error(cudaErrorHostMemoryNotRegistered);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  Lock lock(mutex);
  if (!stream) return error(cudaErrorInvalidResourceHandle);
  if (bytes == 0) return cudaSuccess;
  if (kind == cudaMemcpyHostToDevice) {
    if (is_pinned(from, bytes))
      return push(stream, {[=] {
        if (!inside(to, bytes)) return bad_copy("copy to the device", to, bytes);
        std::memcpy(to, from, bytes);
        mark(reinterpret_cast<uintptr_t>(to), int64_t(bytes), kWritten);
      }});
    if (stream->capture) return error(cudaErrorStreamCaptureUnsupported);
    // Pageable memory is staged before the call returns.
    const auto staged = std::make_shared<std::vector<char>>(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
    return push(stream, {[=] {
      if (!inside(to, bytes)) return bad_copy("copy to the device", to, bytes);
      std::memcpy(to, staged->data(), bytes);
      mark(reinterpret_cast<uintptr_t>(to), int64_t(bytes), kWritten);
    }});
  }
  if (kind == cudaMemcpyDeviceToHost) {
    const bool waits = !is_pinned(to, bytes);
    if (waits && stream->capture) return error(cudaErrorStreamCaptureUnsupported);
    push(stream, {[=] {
      if (!inside(from, bytes)) return bad_copy("copy from the device", from, bytes);
      std::memcpy(to, from, bytes);
    }});
    return waits ? drain(stream) : cudaSuccess;
  }
  if (kind != cudaMemcpyDeviceToDevice) return error(cudaErrorInvalidValue);
  return push(stream, {[=] {
    if (!inside(from, bytes)) return bad_copy("copy", from, bytes);
    if (!inside(to, bytes)) return bad_copy("copy", to, bytes);
    std::memmove(to, from, bytes);
    copy_states(to, from, bytes);
  }});
}

cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes, cudaStream_t stream) {
  return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, stream);
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  Lock lock(mutex);
  if (bytes == 0) return cudaSuccess;
  return push(stream, {[=] {
    if (!inside(memory, bytes)) return bad_copy("memset", memory, bytes);
    std::memset(memory, value, bytes);
    mark(reinterpret_cast<uintptr_t>(memory), int64_t(bytes), kWritten);
  }});
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  Lock lock(mutex);
  static AtExit before_the_globals;
  *stream = new CUstream_st;
  (*stream)->device = current;
  streams.push_back(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  Lock lock(mutex);
  const auto it = std::find(streams.begin(), streams.end(), stream);
  if (it == streams.end()) return error(cudaErrorInvalidResourceHandle);
  drain(stream);
  streams.erase(it);
  delete stream;
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  Lock lock(mutex);
  return drain(stream);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  Lock lock(mutex);
  if (!event) return error(cudaErrorInvalidResourceHandle);
  if (event->recorded == 0) return cudaSuccess;
  return push(stream, {nullptr, event, event->recorded});
}

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  Lock lock(mutex);
  if (!stream || stream->capture) return error(cudaErrorInvalidValue);
  drain(stream);
  stream->capture = std::make_unique<CUgraph_st>();
  stream->invalidated = false;
  stream->relaxed = mode == cudaStreamCaptureModeRelaxed;
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  Lock lock(mutex);
  *graph = nullptr;
  if (!stream || !stream->capture) return error(cudaErrorInvalidValue);
  auto captured = std::move(stream->capture);
  if (stream->invalidated) return error(cudaErrorStreamCaptureInvalidated);
  *graph = captured.release();
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  Lock lock(mutex);
  *status = !stream->capture ? cudaStreamCaptureStatusNone : stream->invalidated ? cudaStreamCaptureStatusInvalidated : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  *executable = new CUgraphExec_st{graph->ops};
  return cudaSuccess;
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  Lock lock(mutex);
  for (const Op& op : executable->ops)
    if (const cudaError_t status = push(stream, op)) return status;
  return cudaSuccess;
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  delete executable;
  return cudaSuccess;
}

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned) {
  *event = new CUevent_st;
  (*event)->device = current;
  return cudaSuccess;
}

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  Lock lock(mutex);
  if (unloading) return cudaErrorCudartUnloading;
  if (event->done < event->recorded) event->destroyed = true;
  else forget(event);
  return cudaSuccess;
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  Lock lock(mutex);
  if (!event) return error(cudaErrorInvalidResourceHandle);
  const uint64_t generation = ++event->recorded;
  return push(stream, {[=] {
    event->done = std::max(event->done, generation);
    event->time = now();
    if (event->destroyed && event->done == event->recorded) forget(event);
  }});
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  Lock lock(mutex);
  while (event->done < event->recorded)
    if (!step_or_wait()) return error(cudaErrorLaunchFailure);
  return pending;
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  Lock lock(mutex);
  if (settings().random_streams) step();
  else while (step()) continue;
  return event->done >= event->recorded ? cudaSuccess : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  Lock lock(mutex);
  if (!start->recorded || !end->recorded) return error(cudaErrorInvalidResourceHandle);
  if (start->done < start->recorded || end->done < end->recorded) return cudaErrorNotReady;
  *milliseconds = float(end->time - start->time);
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  Lock lock(mutex);
  return std::exchange(pending, cudaSuccess);
}

const char* cudaGetErrorString(cudaError_t code) {
  switch (code) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorMemoryAllocation: return "out of memory";
    case cudaErrorInvalidConfiguration: return "invalid configuration argument";
    case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
    case cudaErrorNoDevice: return "no CUDA-capable device is detected";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorInvalidResourceHandle: return "invalid resource handle";
    case cudaErrorNotReady: return "device not ready";
    case cudaErrorIllegalAddress: return report_text.c_str();
    case cudaErrorHostMemoryAlreadyRegistered: return "part or all of the requested memory range is already mapped";
    case cudaErrorHostMemoryNotRegistered: return "pointer does not correspond to a registered memory region";
    case cudaErrorStreamCaptureUnsupported: return "operation not permitted when stream is capturing";
    case cudaErrorStreamCaptureInvalidated: return "operation failed due to a previous error during capture";
    default: return "unspecified launch failure";
  }
}
