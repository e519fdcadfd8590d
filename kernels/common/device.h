// Devices, their streams, events and graphs.
#pragma once
#include <string>

#include "tensor.h"

namespace dg {

inline constexpr uint32_t kStreams = 2;  // of a device: computation, communication

// Provided by each library (device.cpp, device.cu); checked by entry/device.cpp. They work on the current device
// (require_device); a graph knows its own.
uint32_t device_count();
void device_properties(double (&values)[8], std::string& name);
void synchronize_device();
void runtime_stats(double (&values)[8]);
void set_stream(uint32_t stream);

// Events, in the table of entry/device.cpp. elapsed is asked of two that have been recorded, both on the current device.
void* new_event();
void delete_event(void* event);
void record_event(void* event);
void wait_for_event(void* event);  // the current stream
void synchronize_event(void* event);
bool event_done(void* event);
double milliseconds_between(void* start, void* end);

void pin_memory(void* memory, int64_t bytes);
void unpin_memory(void* memory);

void begin_capture();
uint32_t end_capture(double counters);  // checks `counters` itself: the capture ends in any case
void launch_graph(uint32_t graph);
void free_graph(uint32_t graph);

}  // namespace dg
