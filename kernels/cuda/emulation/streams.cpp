// Streams, events and graphs.
#include "streams.h"

#include <algorithm>
#include <chrono>
#include <thread>

using namespace emulation;

struct CUevent_st {
  int device = 0;
  uint64_t recorded = 0, done = 0;
  double time = 0;
  bool destroyed = false;  // goes when it has been passed
};

std::vector<cudaStream_t> emulation::streams;

namespace {

bool unloading = false;  // the process ends: threads that are still there find nothing to do

struct AtExit {
  ~AtExit() {
    Lock lock(mutex);
    unloading = true;
  }
};

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

double now() { return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

// Deletes an event that has been passed.
void forget(cudaEvent_t event) {
  for (cudaStream_t stream : streams)
    for (Op& op : stream->queue)
      if (op.event == event) op.event = nullptr;
  delete event;
}

}  // namespace

namespace emulation {

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
