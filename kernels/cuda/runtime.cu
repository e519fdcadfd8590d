// Devices, streams, events, graphs, and errors that only a device can see.
#include <atomic>
#include <bit>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <vector>

#include "device.h"
#include "launch.h"

namespace dg {
namespace {

DeviceState states[kMaxDevices];
std::recursive_mutex mutex;  // of the tables below and of the devices' first use
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

struct Event {
  uint32_t device;
  cudaEvent_t handle;
  bool recorded;
};
std::map<uint32_t, Event> events;
struct Graph {
  uint32_t device;
  cudaGraphExec_t executable;
  Replay* replay;
};
std::map<uint32_t, Graph> graphs;
uint32_t next_id = 1;

Event& event_at(uint32_t id, const char* op) {
  const auto it = events.find(id);
  if (it == events.end()) fail(DG_DISPOSED, "%s: event %u does not exist", op, id);
  return it->second;
}

struct Message {
  dg_status status;
  std::string name, format;
};
std::vector<Message> messages;
std::map<std::pair<std::string, std::string>, unsigned> message_numbers;  // by name and format

__global__ void next_replay(Replay* replay) { replay->launches++; }

}  // namespace

uint32_t library_device_type() { return 1; }

int current_device() { return current; }

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
  for (int i = 0; i < kStreams; i++) {
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

std::string failed_call(const char* what) {
  return (running.empty() || running == what ? "" : running + ": ") + what + " on cuda:" + std::to_string(current);
}

void check_cuda(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  const std::string text = cudaGetErrorString(status);
  cudaGetLastError();
  fail(status == cudaErrorMemoryAllocation ? DG_OUT_OF_MEMORY : DG_DEVICE, "%s: %s", failed_call(what).c_str(), text.c_str());
}

void launched(const char* kernel) {
  device_state().launches++;
  check_cuda(cudaGetLastError(), kernel);
}

void library_called(const char*) { device_state().library_calls++; }

Report report(dg_status status, const std::string& format) {
  std::lock_guard<std::recursive_mutex> lock(mutex);
  const auto [it, added] = message_numbers.try_emplace({call_name(), format}, unsigned(messages.size()));
  if (added) messages.push_back({status, call_name(), format});
  return {device_state().slot, it->second};
}

void synchronise(const char* op) {
  DeviceState& state = device_state();
  if (state.capturing) fail(DG_DEVICE, "%s: a value cannot be read while a step is captured, read it after the replay", op);
  const cudaStream_t stream = current_stream();
  check_cuda(cudaMemcpyAsync(&state.mirror, state.slot, sizeof(ReportSlot), cudaMemcpyDeviceToHost, stream), op);
  state.synchronisations++;
  check_cuda(cudaStreamSynchronize(stream), op);
  if (!state.mirror.taken) return;
  const ReportSlot found = state.mirror;
  check_cuda(cudaMemsetAsync(state.slot, 0, sizeof(ReportSlot), stream), op);
  Message message;
  {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    message = messages[found.message];
  }
  char text[512];
  const char* const format = message.format.c_str();
  if (std::strstr(format, "%g")) std::snprintf(text, sizeof text, format, std::bit_cast<double>(found.values[0]));
  else std::snprintf(text, sizeof text, format, found.values[0], found.values[1], found.values[2]);
  fail(message.status, "%s%s%s", message.name.c_str(), message.name.empty() ? "" : ": ", text);
}

}  // namespace dg

using namespace dg;

int32_t dg_device_count(uint32_t* count) {
  return guard([&] {
    if (!count) fail(DG_RANGE, "device_count: null destination");
    *count = uint32_t(count_devices());
  });
}

int32_t dg_device_properties(uint32_t device, double* out8, char* name, uint32_t capacity) {
  return guard([&] {
    if (!out8 || !name || !capacity) fail(DG_RANGE, "device_properties: null destination");
    use_device(device, "device_properties");
    cudaDeviceProp properties;
    check_cuda(cudaGetDeviceProperties(&properties, int(device)), "cudaGetDeviceProperties");
    size_t free = 0, total = 0;
    check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
    int clock = 0;
    check_cuda(cudaDeviceGetAttribute(&clock, cudaDevAttrClockRate, int(device)), "cudaDeviceGetAttribute");
    const double values[8] = {double(total), double(free), double(properties.multiProcessorCount), double(properties.major),
                              double(properties.minor), double(properties.sharedMemPerBlock), double(properties.maxThreadsPerMultiProcessor),
                              double(clock)};
    std::memcpy(out8, values, sizeof values);
    name[0] = 0;
    std::strncat(name, properties.name, capacity - 1);
  });
}

int32_t dg_synchronize(uint32_t device) {
  return guard([&] {
    DeviceState& state = state_of(device, "synchronize");
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
  });
}

int32_t dg_runtime_stats(uint32_t device, double* out8) {
  return guard([&] {
    if (!out8) fail(DG_RANGE, "runtime_stats: null destination");
    const DeviceState& s = state_of(device, "runtime_stats");
    const double values[8] = {s.launches, s.synchronisations, s.to_device, s.from_device, s.graph_launches, s.library_calls, 0, 0};
    std::memcpy(out8, values, sizeof values);
  });
}

int32_t dg_set_stream(uint32_t device, uint32_t stream) {
  return guard([&] {
    if (stream >= kStreams) fail(DG_RANGE, "set_stream: got stream %u, there are 0 and 1", stream);
    DeviceState& state = state_of(device, "set_stream");
    if (state.capturing) fail(DG_DEVICE, "set_stream: a step that is captured stays on the compute stream");
    state.stream = int(stream);
  });
}

uint32_t dg_event_create(uint32_t device) {
  uint32_t id = 0;
  guard([&] {
    use_device(device, "event_create");
    cudaEvent_t handle = nullptr;
    check_cuda(cudaEventCreateWithFlags(&handle, cudaEventDefault), "cudaEventCreate");
    std::lock_guard<std::recursive_mutex> lock(mutex);
    events[next_id] = {device, handle, false};
    id = next_id++;
  });
  return id;
}

int32_t dg_event_free(uint32_t event) {
  return guard([&] {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    const Event found = event_at(event, "event_free");
    events.erase(event);
    use_device(found.device, "event_free");
    check_cuda(cudaEventDestroy(found.handle), "cudaEventDestroy");
  });
}

int32_t dg_event_record(uint32_t event) {
  return guard([&] {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    Event& it = event_at(event, "event_record");
    use_device(it.device, "event_record");
    check_cuda(cudaEventRecord(it.handle, current_stream()), "cudaEventRecord");
    it.recorded = true;
  });
}

int32_t dg_event_wait(uint32_t event) {
  return guard([&] {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    const Event& it = event_at(event, "event_wait");
    use_device(it.device, "event_wait");
    check_cuda(cudaStreamWaitEvent(current_stream(), it.handle, 0), "cudaStreamWaitEvent");
  });
}

int32_t dg_event_synchronize(uint32_t event) {
  return guard([&] {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    const Event& it = event_at(event, "event_synchronize");
    DeviceState& state = state_of(it.device, "event_synchronize");
    if (state.capturing) fail(DG_DEVICE, "event_synchronize: not while a step is captured");
    state.synchronisations++;
    check_cuda(cudaEventSynchronize(it.handle), "cudaEventSynchronize");
  });
}

int32_t dg_event_query(uint32_t event, uint32_t* done) {
  return guard([&] {
    if (!done) fail(DG_RANGE, "event_query: null destination");
    std::lock_guard<std::recursive_mutex> lock(mutex);
    const Event& it = event_at(event, "event_query");
    use_device(it.device, "event_query");
    const cudaError_t status = cudaEventQuery(it.handle);
    if (status != cudaErrorNotReady) check_cuda(status, "cudaEventQuery");
    *done = status == cudaSuccess;
  });
}

int32_t dg_event_elapsed(uint32_t start, uint32_t end, double* milliseconds) {
  return guard([&] {
    if (!milliseconds) fail(DG_RANGE, "event_elapsed: null destination");
    std::lock_guard<std::recursive_mutex> lock(mutex);
    const Event &from = event_at(start, "event_elapsed"), &to = event_at(end, "event_elapsed");
    if (!from.recorded || !to.recorded) fail(DG_RANGE, "event_elapsed: both events must have been recorded");
    if (from.device != to.device) fail(DG_DEVICE, "event_elapsed: events of cuda:%u and cuda:%u", from.device, to.device);
    DeviceState& state = state_of(to.device, "event_elapsed");
    state.synchronisations++;
    check_cuda(cudaEventSynchronize(from.handle), "cudaEventSynchronize");
    check_cuda(cudaEventSynchronize(to.handle), "cudaEventSynchronize");
    float value = 0;
    check_cuda(cudaEventElapsedTime(&value, from.handle, to.handle), "cudaEventElapsedTime");
    *milliseconds = value;
  });
}

int32_t dg_pin(void* memory, double bytes) {
  return guard([&] {
    const int64_t count = whole(bytes, "pin", "byte count");
    if (!memory || !count) fail(DG_RANGE, "pin: no memory");
    use_device(0, "pin");
    check_cuda(cudaHostRegister(memory, size_t(count), cudaHostRegisterDefault), "cudaHostRegister");
  });
}

int32_t dg_unpin(void* memory) {
  return guard([&] {
    use_device(0, "unpin");
    check_cuda(cudaHostUnregister(memory), "cudaHostUnregister");
  });
}

int32_t dg_capture_begin(uint32_t device) {
  return guard([&] {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    DeviceState& state = state_of(device, "capture");
    if (state.capturing) fail(DG_DEVICE, "capture: cuda:%u is capturing already", device);
    if (state.stream != 0) fail(DG_DEVICE, "capture: takes the compute stream");
    Replay* counter = nullptr;
    check_cuda(cudaMalloc(reinterpret_cast<void**>(&counter), sizeof(Replay)), "cudaMalloc");
    cudaError_t status = cudaMemsetAsync(counter, 0, sizeof(Replay), current_stream());
    if (status == cudaSuccess) status = cudaStreamBeginCapture(current_stream(), cudaStreamCaptureModeRelaxed);  // the allocator may need cudaMalloc
    if (status != cudaSuccess) {
      cudaFree(counter);
      check_cuda(status, "cudaStreamBeginCapture");
    }
    state.replay = counter;
    state.capturing = next_id++;
  });
}

uint32_t dg_capture_end(uint32_t device, double counters_used) {
  uint32_t id = 0;
  guard([&] {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    DeviceState& state = state_of(device, "capture");
    if (!state.capturing) fail(DG_DEVICE, "capture: cuda:%u is not capturing", device);
    const uint32_t graph_id = state.capturing;
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
      id = graph_id;
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
  });
  return id;
}

int32_t dg_graph_launch(uint32_t graph) {
  return guard([&] {
    std::lock_guard<std::recursive_mutex> lock(mutex);
    const auto it = graphs.find(graph);
    if (it == graphs.end()) fail(DG_DISPOSED, "graph_launch: graph %u does not exist", graph);
    DeviceState& state = state_of(it->second.device, "graph_launch");
    if (state.capturing) fail(DG_DEVICE, "graph_launch: not while another step is captured");
    state.graph_launches++;
    check_cuda(cudaGraphLaunch(it->second.executable, state.streams[0]), "cudaGraphLaunch");
  });
}

int32_t dg_graph_free(uint32_t graph) {
  return guard([&] {
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
  });
}

int32_t dg_set_threads(int32_t) {
  return guard([] { fail(DG_DEVICE, "setThreads: threads are the cpu library's"); });
}

int32_t dg_get_threads(void) { return 0; }
