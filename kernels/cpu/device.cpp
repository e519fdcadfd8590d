// The one device of this library: work is done when a call returns, so streams mean nothing and events only keep the time.
#include "../common/device.h"

#include <chrono>

#include <omp.h>
#include <sys/sysinfo.h>

#include "parallel.h"

namespace dg {
namespace {

using Clock = std::chrono::steady_clock;

[[noreturn]] void no_graphs() { fail(DG_DEVICE, "capture: the cpu has no graphs, capture on a cuda device"); }

}  // namespace

uint32_t library_device_type() { return 0; }

void require_device(uint32_t index, const char* op) {
  if (index != 0) fail(DG_DEVICE, "%s: there is one cpu device, got index %u", op, index);
}

uint32_t device_count() { return 1; }

void device_properties(double (&values)[8], std::string& name) {
  struct sysinfo info = {};
  sysinfo(&info);
  values[0] = double(info.totalram) * info.mem_unit;
  values[1] = double(info.freeram) * info.mem_unit;
  values[2] = double(omp_get_num_procs());
  name = "cpu";
}

void synchronize_device() {}
void runtime_stats(double (&)[8]) {}
void set_stream(uint32_t) {}

void* new_event() { return new Clock::time_point; }
void delete_event(void* event) { delete static_cast<Clock::time_point*>(event); }
void record_event(void* event) { *static_cast<Clock::time_point*>(event) = Clock::now(); }
void wait_for_event(void*) {}
void synchronize_event(void*) {}
bool event_done(void*) { return true; }
double milliseconds_between(void* start, void* end) {
  const auto between = *static_cast<Clock::time_point*>(end) - *static_cast<Clock::time_point*>(start);
  return std::chrono::duration<double, std::milli>(between).count();
}

void pin_memory(void*, int64_t) { fail(DG_DEVICE, "pin: the cpu library copies nothing to a device"); }
void unpin_memory(void*) { fail(DG_DEVICE, "unpin: the cpu library copies nothing to a device"); }

void begin_capture() { no_graphs(); }
uint32_t end_capture(double) { no_graphs(); }
void launch_graph(uint32_t) { no_graphs(); }
void free_graph(uint32_t) { no_graphs(); }

}  // namespace dg
