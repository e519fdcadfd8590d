// State of the devices, shared by runtime.cu and memory.cu.
#pragma once
#include <mutex>

#include "runtime.h"

namespace dg {

inline constexpr int kMaxDevices = 64, kStreams = 2;

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

// The current device's state, with its streams made.
DeviceState& device_state();
DeviceState& state_of(uint32_t device, const char* op);

// Waits for the current stream; raises what kernels reported.
void synchronise(const char* op);

// The allocator (memory.cu). Pools: the streams' numbers, and kStreams + a graph's id for memory that belongs to a graph.
void* take_memory(int64_t bytes);
void give_memory(void* memory, int64_t bytes);
void used_on_stream(void* memory, int stream);
void release_graph_pool(uint32_t device, uint32_t graph);
void release_cached(uint32_t device);

}  // namespace dg
