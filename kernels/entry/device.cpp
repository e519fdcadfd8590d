// Devices, streams, events and graphs.
#include "../common/device.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <mutex>

namespace dg {
namespace {

struct Event {
  uint32_t device;
  void* handle;
  bool recorded;
};

std::mutex mutex;
std::map<uint32_t, Event>& events = *new std::map<uint32_t, Event>;  // never destroyed: calls may come during process exit
uint32_t next_event = 1;

Event& event_at(uint32_t id, const char* op) {
  const auto it = events.find(id);
  if (it == events.end()) fail(DG_DISPOSED, "%s: event %u does not exist", op, id);
  return it->second;
}

// Calls f with an event, whose device becomes the current one.
template <class F>
int32_t with_event(uint32_t id, const char* op, F&& f) {
  return guard([&] {
    std::lock_guard<std::mutex> lock(mutex);
    Event& event = event_at(id, op);
    require_device(event.device, op);
    f(event);
  });
}

}  // namespace
}  // namespace dg

using namespace dg;

int32_t dg_device_count(uint32_t* count) {
  return guard([&] {
    if (!count) fail(DG_RANGE, "device_count: null destination");
    *count = device_count();
  });
}

int32_t dg_device_properties(uint32_t device, double* out8, char* name, uint32_t capacity) {
  return guard([&] {
    if (!out8 || !name || !capacity) fail(DG_RANGE, "device_properties: null destination");
    require_device(device, "device_properties");
    double values[8] = {};
    std::string text;
    device_properties(values, text);
    std::copy(values, values + 8, out8);
    name[0] = 0;
    std::strncat(name, text.c_str(), capacity - 1);
  });
}

int32_t dg_synchronize(uint32_t device) {
  return guard([&] {
    require_device(device, "synchronize");
    synchronize_device();
  });
}

int32_t dg_runtime_stats(uint32_t device, double* out8) {
  return guard([&] {
    if (!out8) fail(DG_RANGE, "runtime_stats: null destination");
    require_device(device, "runtime_stats");
    double values[8] = {};
    runtime_stats(values);
    std::copy(values, values + 8, out8);
  });
}

int32_t dg_set_stream(uint32_t device, uint32_t stream) {
  return guard([&] {
    require_device(device, "set_stream");
    if (stream >= kStreams) fail(DG_RANGE, "set_stream: got stream %u, there are 0 and 1", stream);
    set_stream(stream);
  });
}

uint32_t dg_event_create(uint32_t device) {
  uint32_t id = 0;
  guard([&] {
    require_device(device, "event_create");
    std::lock_guard<std::mutex> lock(mutex);
    events[next_event] = {device, new_event(), false};
    id = next_event++;
  });
  return id;
}

int32_t dg_event_free(uint32_t event) {
  return with_event(event, "event_free", [&](const Event& it) {
    void* const handle = it.handle;
    events.erase(event);
    delete_event(handle);
  });
}

int32_t dg_event_record(uint32_t event) {
  return with_event(event, "event_record", [](Event& it) {
    record_event(it.handle);
    it.recorded = true;
  });
}

int32_t dg_event_wait(uint32_t event) {
  return with_event(event, "event_wait", [](const Event& it) { wait_for_event(it.handle); });
}

int32_t dg_event_synchronize(uint32_t event) {
  return with_event(event, "event_synchronize", [](const Event& it) { synchronize_event(it.handle); });
}

int32_t dg_event_query(uint32_t event, uint32_t* done) {
  return with_event(event, "event_query", [&](const Event& it) {
    if (!done) fail(DG_RANGE, "event_query: null destination");
    *done = event_done(it.handle);
  });
}

int32_t dg_event_elapsed(uint32_t start, uint32_t end, double* milliseconds) {
  return with_event(end, "event_elapsed", [&](const Event& to) {
    if (!milliseconds) fail(DG_RANGE, "event_elapsed: null destination");
    const Event& from = event_at(start, "event_elapsed");
    if (!from.recorded || !to.recorded) fail(DG_RANGE, "event_elapsed: both events must have been recorded");
    if (from.device != to.device) fail(DG_DEVICE, "event_elapsed: events of cuda:%u and cuda:%u", from.device, to.device);
    *milliseconds = milliseconds_between(from.handle, to.handle);
  });
}

int32_t dg_pin(void* memory, double bytes) {
  return guard([&] {
    const int64_t count = whole(bytes, "pin", "byte count");
    if (!memory || !count) fail(DG_RANGE, "pin: no memory");
    require_device(0, "pin");
    pin_memory(memory, count);
  });
}

int32_t dg_unpin(void* memory) {
  return guard([&] {
    require_device(0, "unpin");
    unpin_memory(memory);
  });
}

int32_t dg_capture_begin(uint32_t device) {
  return guard([&] {
    require_device(device, "capture");
    begin_capture();
  });
}

uint32_t dg_capture_end(uint32_t device, double counters) {
  uint32_t id = 0;
  guard([&] {
    require_device(device, "capture");
    id = end_capture(counters);
  });
  return id;
}

int32_t dg_graph_launch(uint32_t graph) {
  return guard([&] { launch_graph(graph); });
}

int32_t dg_graph_free(uint32_t graph) {
  return guard([&] { free_graph(graph); });
}
