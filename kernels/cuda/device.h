// State of the devices, shared by device.cu, library.cu, allocator.cu and memory.cu.
#pragma once
#include <mutex>

#include "../common/device.h"
#include "runtime.h"

namespace dg {

inline constexpr int kMaxDevices = 64;

struct DeviceState {
  bool ready = false;
  cudaStream_t streams[kStreams] = {};
  unsigned* counters[kStreams] = {};
  ReportSlot* slot = nullptr;
  ReportSlot mirror = {};  // page-locked copy of the slot
  int stream = 0;          // the current one
  uint32_t capturing = 0;  // id of the graph that is being captured
  Replay* replay = nullptr;
  double launches = 0, synchronisations = 0, to_device = 0, from_device = 0, graph_launches = 0, library_calls = 0;
};

// Names the call that works on the current device from now on, for failed_call().
void call_runs(const char* op);

// The current device's state, with its streams made.
DeviceState& device_state();
DeviceState& state_of(uint32_t device, const char* op);

// Waits for the current stream; raises what kernels reported.
void synchronise(const char* op);

// Fails with what a kernel left in the slot.
[[noreturn]] void raise_report(const ReportSlot& found);

// The allocator. Pools: the streams' numbers, and kStreams + a graph's id for memory that belongs to a graph.
void used_on_stream(void* memory, int stream);
void release_graph_pool(uint32_t device, uint32_t graph);

}  // namespace dg
