// Devices, streams, events, graphs.
#include "device.h"

#include <map>

#include "launch.h"
#include "streams.h"

namespace dg {
namespace {

DeviceState states[kMaxDevices];
std::recursive_mutex mutex;  // of the graphs and of the devices' first use
thread_local int current = 0;
thread_local std::string running;  // the call that works on it

int count_devices() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    const std::string text = status == cudaSuccess ? "no CUDA-capable device is detected" : cudaGetErrorString(status);
    cudaGetLastError();
    fail(DG_DEVICE, "cuda: no device can be used: %s", text.c_str());
  }
  return count < kMaxDevices ? count : kMaxDevices;
}

struct Graph {
  uint32_t device;
  cudaGraphExec_t executable;
  Replay* replay;
};
std::map<uint32_t, Graph> graphs;
uint32_t next_graph = 1;

__global__ void next_replay(Replay* replay) { replay->launches++; }

}  // namespace

uint32_t library_device_type() { return 1; }

int current_device() { return current; }

std::string failed_call(const char* what) {
  return (running.empty() || running == what ? "" : running + ": ") + what + " on cuda:" + std::to_string(current);
}

void use_device(uint32_t index, const char* op) {
  static const int count = count_devices();
  if (int64_t(index) >= count)
    fail(DG_DEVICE, "%s: cuda:%u does not exist, this machine has %d CUDA device%s", op, index, count, count == 1 ? "" : "s");
  check_cuda(cudaSetDevice(int(index)), "cudaSetDevice");
  current = int(index);
  running = op;
}

void require_device(uint32_t index, const char* op) { use_device(index, op); }

DeviceState& state_of(uint32_t device, const char* op) {
  use_device(device, op);
  return device_state();
}

DeviceState& device_state() {
  DeviceState& state = states[current];
  if (state.ready) return state;
  std::lock_guard<std::recursive_mutex> lock(mutex);
  if (state.ready) return state;
  for (uint32_t i = 0; i < kStreams; i++) {
    check_cuda(cudaStreamCreateWithFlags(&state.streams[i], cudaStreamNonBlocking), "cudaStreamCreate");
    check_cuda(cudaMalloc(reinterpret_cast<void**>(&state.counters[i]), kCounters * sizeof(unsigned)), "cudaMalloc");
    check_cuda(cudaMemsetAsync(state.counters[i], 0, kCounters * sizeof(unsigned), state.streams[i]), "cudaMemsetAsync");
  }
  check_cuda(cudaMalloc(reinterpret_cast<void**>(&state.slot), sizeof(ReportSlot)), "cudaMalloc");
  check_cuda(cudaHostRegister(&state.mirror, sizeof(ReportSlot), cudaHostRegisterDefault), "cudaHostRegister");
  check_cuda(cudaMemsetAsync(state.slot, 0, sizeof(ReportSlot), state.streams[0]), "cudaMemsetAsync");
  check_cuda(cudaStreamSynchronize(state.streams[0]), "cudaStreamSynchronize");
  state.ready = true;
  return state;
}

cudaStream_t current_stream() {
  DeviceState& state = device_state();
  return state.streams[state.stream];
}

unsigned* counters() {
  DeviceState& state = device_state();
  return state.counters[state.stream];
}

const Replay* replay() { return device_state().replay; }

void synchronise(const char* op) {
  DeviceState& state = device_state();
  if (state.capturing) fail(DG_DEVICE, "%s: a value cannot be read while a step is captured, read it after the replay", op);
  const cudaStream_t stream = current_stream();
  check_cuda(cudaMemcpyAsync(&state.mirror, state.slot, sizeof(ReportSlot), cudaMemcpyDeviceToHost, stream), op);
  state.synchronisations++;
  check_cuda(cudaStreamSynchronize(stream), op);
  raise_reported();
  if (!state.mirror.taken) return;
  const ReportSlot found = state.mirror;
  check_cuda(cudaMemsetAsync(state.slot, 0, sizeof(ReportSlot), stream), op);
  raise_report(found);
}

uint32_t device_count() { return uint32_t(count_devices()); }

void device_properties(double (&values)[8], std::string& name) {
  cudaDeviceProp properties;
  check_cuda(cudaGetDeviceProperties(&properties, current), "cudaGetDeviceProperties");
  size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  int clock = 0;
  check_cuda(cudaDeviceGetAttribute(&clock, cudaDevAttrClockRate, current), "cudaDeviceGetAttribute");
  const double found[8] = {double(total), double(free), double(properties.multiProcessorCount), double(properties.major),
                           double(properties.minor), double(properties.sharedMemPerBlock), double(properties.maxThreadsPerMultiProcessor),
                           double(clock)};
  std::copy(found, found + 8, values);
  name = properties.name;
}

void synchronize_device() {
  DeviceState& state = device_state();
  const int before = state.stream;
  for (state.stream = kStreams - 1; state.stream > 0; state.stream--)
    check_cuda(cudaStreamSynchronize(current_stream()), "synchronize");
  try {
    synchronise("synchronize");
  } catch (...) {
    state.stream = before;
    throw;
  }
  state.stream = before;
}

void runtime_stats(double (&values)[8]) {
  const DeviceState& s = device_state();
  const double found[8] = {s.launches, s.synchronisations, s.to_device, s.from_device, s.graph_launches, s.library_calls, 0, 0};
  std::copy(found, found + 8, values);
}

void set_stream(uint32_t stream) {
  DeviceState& state = device_state();
  if (state.capturing) fail(DG_DEVICE, "set_stream: a step that is captured stays on the compute stream");
  state.stream = int(stream);
}

void* new_event() {
  cudaEvent_t event = nullptr;
  check_cuda(cudaEventCreateWithFlags(&event, cudaEventDefault), "cudaEventCreate");
  return event;
}

void delete_event(void* event) { check_cuda(cudaEventDestroy(static_cast<cudaEvent_t>(event)), "cudaEventDestroy"); }

void record_event(void* event) { check_cuda(cudaEventRecord(static_cast<cudaEvent_t>(event), current_stream()), "cudaEventRecord"); }

void wait_for_event(void* event) {
  check_cuda(cudaStreamWaitEvent(current_stream(), static_cast<cudaEvent_t>(event), 0), "cudaStreamWaitEvent");
}

void synchronize_event(void* event) {
  DeviceState& state = device_state();
  if (state.capturing) fail(DG_DEVICE, "event_synchronize: not while a step is captured");
  state.synchronisations++;
  check_cuda(cudaEventSynchronize(static_cast<cudaEvent_t>(event)), "cudaEventSynchronize");
}

bool event_done(void* event) {
  const cudaError_t status = cudaEventQuery(static_cast<cudaEvent_t>(event));
  if (status != cudaErrorNotReady) check_cuda(status, "cudaEventQuery");
  return status == cudaSuccess;
}

double milliseconds_between(void* start, void* end) {
  const cudaEvent_t from = static_cast<cudaEvent_t>(start), to = static_cast<cudaEvent_t>(end);
  device_state().synchronisations++;
  check_cuda(cudaEventSynchronize(from), "cudaEventSynchronize");
  check_cuda(cudaEventSynchronize(to), "cudaEventSynchronize");
  float value = 0;
  check_cuda(cudaEventElapsedTime(&value, from, to), "cudaEventElapsedTime");
  return value;
}

void pin_memory(void* memory, int64_t bytes) {
  check_cuda(cudaHostRegister(memory, size_t(bytes), cudaHostRegisterDefault), "cudaHostRegister");
}

void unpin_memory(void* memory) { check_cuda(cudaHostUnregister(memory), "cudaHostUnregister"); }

void begin_capture() {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  DeviceState& state = device_state();
  if (state.capturing) fail(DG_DEVICE, "capture: cuda:%d is capturing already", current);
  if (state.stream != 0) fail(DG_DEVICE, "capture: takes the compute stream");
  Replay* counter = nullptr;
  check_cuda(cudaMalloc(reinterpret_cast<void**>(&counter), sizeof(Replay)), "cudaMalloc");
  cudaError_t status = cudaMemsetAsync(counter, 0, sizeof(Replay), current_stream());
  // Relaxed: the allocator may need cudaMalloc.
  if (status == cudaSuccess) status = cudaStreamBeginCapture(current_stream(), cudaStreamCaptureModeRelaxed);
  if (status != cudaSuccess) {
    cudaFree(counter);
    check_cuda(status, "cudaStreamBeginCapture");
  }
  state.replay = counter;
  state.capturing = next_graph++;
}

uint32_t end_capture(double counters_used) {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  DeviceState& state = device_state();
  if (!state.capturing) fail(DG_DEVICE, "capture: cuda:%d is not capturing", current);
  const uint32_t graph_id = state.capturing, device = uint32_t(current);
  Replay* const counter = state.replay;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  try {
    const uint64_t used = uint64_t(whole(counters_used, "capture", "number of random counters"));
    launch("next_replay", next_replay, 1, 1, 0, counter);
    const cudaError_t ended = cudaStreamEndCapture(current_stream(), &graph);
    state.capturing = 0;
    state.replay = nullptr;
    check_cuda(ended, "cudaStreamEndCapture");
    check_cuda(cudaGraphInstantiate(&executable, graph, 0), "cudaGraphInstantiate");
    cudaGraphDestroy(graph);
    graph = nullptr;
    const Replay start = {0, used};
    check_cuda(cudaMemcpyAsync(counter, &start, sizeof start, cudaMemcpyHostToDevice, current_stream()), "cudaMemcpyAsync");
    graphs[graph_id] = {device, executable, counter};
    return graph_id;
  } catch (...) {
    if (state.capturing) cudaStreamEndCapture(current_stream(), &graph);
    state.capturing = 0;
    state.replay = nullptr;
    if (graph) cudaGraphDestroy(graph);
    if (executable) cudaGraphExecDestroy(executable);
    cudaGetLastError();
    cudaFree(counter);
    release_graph_pool(device, graph_id);
    throw;
  }
}

void launch_graph(uint32_t graph) {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  const auto it = graphs.find(graph);
  if (it == graphs.end()) fail(DG_DISPOSED, "graph_launch: graph %u does not exist", graph);
  DeviceState& state = state_of(it->second.device, "graph_launch");
  if (state.capturing) fail(DG_DEVICE, "graph_launch: not while another step is captured");
  state.graph_launches++;
  check_cuda(cudaGraphLaunch(it->second.executable, state.streams[0]), "cudaGraphLaunch");
}

void free_graph(uint32_t graph) {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  const auto it = graphs.find(graph);
  if (it == graphs.end()) fail(DG_DISPOSED, "graph_free: graph %u does not exist", graph);
  const Graph found = it->second;
  DeviceState& state = state_of(found.device, "graph_free");
  graphs.erase(it);
  state.synchronisations++;
  check_cuda(cudaStreamSynchronize(state.streams[0]), "cudaStreamSynchronize");
  check_cuda(cudaGraphExecDestroy(found.executable), "cudaGraphExecDestroy");
  check_cuda(cudaFree(found.replay), "cudaFree");
  release_graph_pool(found.device, graph);
}

}  // namespace dg
