// The one device of this library: work is done when a call returns, so streams and events only keep the time.
#include <chrono>
#include <cstring>
#include <map>
#include <mutex>

#include <sys/sysinfo.h>

#include "../common/tensor.h"
#include "parallel.h"

namespace dg {

uint32_t library_device_type() { return 0; }

void require_device(uint32_t index, const char* op) {
  if (index != 0) fail(DG_DEVICE, "%s: there is one cpu device, got index %u", op, index);
}

namespace {

std::mutex mutex;
std::map<uint32_t, double> events;  // milliseconds of the last record, -1 before it
uint32_t next_event = 1;

double milliseconds() { return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

double& event_at(uint32_t id, const char* op) {
  const auto it = events.find(id);
  if (it == events.end()) fail(DG_DISPOSED, "%s: event %u does not exist", op, id);
  return it->second;
}

int32_t with_event(uint32_t id, const char* op) {
  return guard([&] {
    std::lock_guard<std::mutex> lock(mutex);
    event_at(id, op);
  });
}

[[noreturn]] void no_graphs() { fail(DG_DEVICE, "capture: the cpu has no graphs, capture on a cuda device"); }

}  // namespace
}  // namespace dg

using namespace dg;

int32_t dg_device_count(uint32_t* count) {
  return guard([&] {
    if (!count) fail(DG_RANGE, "device_count: null destination");
    *count = 1;
  });
}

int32_t dg_device_properties(uint32_t device, double* out8, char* name, uint32_t capacity) {
  return guard([&] {
    require_device(device, "device_properties");
    if (!out8 || !name || !capacity) fail(DG_RANGE, "device_properties: null destination");
    struct sysinfo info = {};
    sysinfo(&info);
    const double values[8] = {double(info.totalram) * info.mem_unit, double(info.freeram) * info.mem_unit, double(omp_get_num_procs()), 0, 0, 0, 0, 0};
    std::memcpy(out8, values, sizeof values);
    name[0] = 0;
    std::strncat(name, "cpu", capacity - 1);
  });
}

int32_t dg_synchronize(uint32_t device) {
  return guard([&] { require_device(device, "synchronize"); });
}

int32_t dg_runtime_stats(uint32_t device, double* out8) {
  return guard([&] {
    require_device(device, "runtime_stats");
    if (!out8) fail(DG_RANGE, "runtime_stats: null destination");
    std::fill(out8, out8 + 8, 0.0);
  });
}

int32_t dg_set_stream(uint32_t device, uint32_t stream) {
  return guard([&] {
    require_device(device, "set_stream");
    if (stream > 1) fail(DG_RANGE, "set_stream: got stream %u, there are 0 and 1", stream);
  });
}

uint32_t dg_event_create(uint32_t device) {
  uint32_t id = 0;
  guard([&] {
    require_device(device, "event_create");
    std::lock_guard<std::mutex> lock(mutex);
    events[next_event] = -1;
    id = next_event++;
  });
  return id;
}

int32_t dg_event_free(uint32_t event) {
  return guard([&] {
    std::lock_guard<std::mutex> lock(mutex);
    if (!events.erase(event)) fail(DG_DISPOSED, "event_free: event %u does not exist", event);
  });
}

int32_t dg_event_record(uint32_t event) {
  return guard([&] {
    std::lock_guard<std::mutex> lock(mutex);
    event_at(event, "event_record") = milliseconds();
  });
}

int32_t dg_event_wait(uint32_t event) { return with_event(event, "event_wait"); }

int32_t dg_event_synchronize(uint32_t event) { return with_event(event, "event_synchronize"); }

int32_t dg_event_query(uint32_t event, uint32_t* done) {
  return guard([&] {
    if (!done) fail(DG_RANGE, "event_query: null destination");
    std::lock_guard<std::mutex> lock(mutex);
    event_at(event, "event_query");
    *done = 1;
  });
}

int32_t dg_event_elapsed(uint32_t start, uint32_t end, double* result) {
  return guard([&] {
    if (!result) fail(DG_RANGE, "event_elapsed: null destination");
    std::lock_guard<std::mutex> lock(mutex);
    const double from = event_at(start, "event_elapsed"), to = event_at(end, "event_elapsed");
    if (from < 0 || to < 0) fail(DG_RANGE, "event_elapsed: both events must have been recorded");
    *result = to - from;
  });
}

int32_t dg_pin(void*, double) {
  return guard([] { fail(DG_DEVICE, "pin: the cpu library copies nothing to a device"); });
}

int32_t dg_unpin(void*) {
  return guard([] { fail(DG_DEVICE, "unpin: the cpu library copies nothing to a device"); });
}

int32_t dg_capture_begin(uint32_t device) {
  return guard([&] {
    require_device(device, "capture");
    no_graphs();
  });
}

uint32_t dg_capture_end(uint32_t device, double) {
  guard([&] {
    require_device(device, "capture");
    no_graphs();
  });
  return 0;
}

int32_t dg_graph_launch(uint32_t) {
  return guard([] { no_graphs(); });
}

int32_t dg_graph_free(uint32_t) {
  return guard([] { no_graphs(); });
}
