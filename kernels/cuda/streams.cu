// Streams and marks for native code that gives a device work of its own, and what that code reports.
#include "streams.h"

#include <cstring>
#include <map>
#include <memory>
#include <mutex>

#include "../streams.h"
#include "device.h"

namespace dg {
namespace {

// Held by whoever uses it, so that freeing takes effect when the last has done so.
struct Mark {
  uint32_t device;
  cudaEvent_t event = nullptr;
  explicit Mark(uint32_t device) : device(device) {}
  Mark(const Mark&) = delete;
  Mark& operator=(const Mark&) = delete;
  ~Mark() {
    if (event) cudaEventDestroy(event);
  }
};

// Never held while a device is waited for.
std::mutex mutex;
auto& marks = *new std::map<uint32_t, std::shared_ptr<Mark>>;  // never destroyed: threads may be at work while the process ends
uint32_t next_mark = 1;

struct Reported {
  int32_t status = DG_OK;
  std::string text;
};
Reported* const reports = new Reported[kMaxDevices];

std::shared_ptr<Mark> mark_at(uint32_t id, const char* op) {
  std::lock_guard<std::mutex> lock(mutex);
  const auto it = marks.find(id);
  if (it == marks.end()) fail(DG_DISPOSED, "%s: mark %u does not exist", op, id);
  return it->second;
}

cudaStream_t stream_at(uint32_t device, uint32_t stream, const char* op) {
  DeviceState& state = state_of(device, op);
  if (stream >= kStreams && stream != DG_NONE) fail(DG_RANGE, "%s: got stream %u, there are 0 and 1", op, stream);
  if (state.capturing) fail(DG_DEVICE, "%s: not while a step is captured, call it after the replay", op);
  return state.streams[stream == DG_NONE ? uint32_t(state.stream) : stream];
}

}  // namespace

void raise_reported() {
  Reported found;
  {
    std::lock_guard<std::mutex> lock(mutex);
    std::swap(found, reports[current_device()]);
  }
  if (found.status != DG_OK) throw Error{dg_status(found.status), found.text};
}

}  // namespace dg

using namespace dg;

int32_t dg_stream_handle(uint32_t device, uint32_t stream, void** handle) {
  return guard([&] {
    if (!handle) fail(DG_RANGE, "stream_handle: null destination");
    *handle = stream_at(device, stream, "stream_handle");
  });
}

uint32_t dg_mark_create(uint32_t device) {
  uint32_t id = 0;
  guard([&] {
    use_device(device, "mark_create");
    const auto mark = std::make_shared<Mark>(device);
    check_cuda(cudaEventCreateWithFlags(&mark->event, cudaEventDisableTiming), "cudaEventCreate");
    std::lock_guard<std::mutex> lock(mutex);
    while (next_mark == 0 || marks.count(next_mark)) next_mark++;
    marks[next_mark] = mark;
    id = next_mark++;
  });
  return id;
}

int32_t dg_mark_free(uint32_t id) {
  return guard([&] {
    const auto mark = mark_at(id, "mark_free");
    std::lock_guard<std::mutex> lock(mutex);
    marks.erase(id);
  });
}

int32_t dg_mark_record(uint32_t id, uint32_t stream) {
  return guard([&] {
    const auto mark = mark_at(id, "mark_record");
    check_cuda(cudaEventRecord(mark->event, stream_at(mark->device, stream, "mark_record")), "cudaEventRecord");
  });
}

int32_t dg_mark_wait(uint32_t id, uint32_t stream) {
  return guard([&] {
    const auto mark = mark_at(id, "mark_wait");
    check_cuda(cudaStreamWaitEvent(stream_at(mark->device, stream, "mark_wait"), mark->event, 0), "cudaStreamWaitEvent");
  });
}

int32_t dg_mark_done(uint32_t id, uint32_t* done) {
  return guard([&] {
    if (!done) fail(DG_RANGE, "mark_done: null destination");
    const auto mark = mark_at(id, "mark_done");
    const cudaError_t status = cudaEventQuery(mark->event);
    if (status != cudaErrorNotReady) check_cuda(status, "cudaEventQuery");
    *done = status == cudaSuccess;
  });
}

int32_t dg_report(uint32_t device, int32_t status, const char* text) {
  return guard([&] {
    if (!text) fail(DG_RANGE, "report: null text");
    if (status == DG_OK) fail(DG_RANGE, "report: status %d is no failure", status);
    use_device(device, "report");
    std::lock_guard<std::mutex> lock(mutex);
    if (reports[device].status == DG_OK) reports[device] = {status, std::string(text, strnlen(text, 1000))};
  });
}
