// The caching allocator: cudaMalloc waits for the device, so blocks are kept and cut.
// A block belongs to the stream that it was allocated for: freed there, it is free for what that stream is given next. If another stream used it, the
// owner first waits for that stream. Blocks that a graph uses stay with the graph.
#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "../common/memory.h"
#include "device.h"

namespace dg {
namespace {

constexpr int64_t kUnit = 512, kSmall = 1 << 20, kSmallSegment = 2 << 20, kLargeSegment = 20 << 20;
#ifdef DG_EMULATION
constexpr int64_t kRedZone = 64;  // bytes behind every block that no kernel may touch
#else
constexpr int64_t kRedZone = 0;
#endif

struct Block {
  char* data;
  int64_t bytes;
  uint32_t pool;
  Block *before, *after;
  bool free, small;
  unsigned foreign_streams;  // bits of the streams other than the owner that have used it
};

struct BySize {
  bool operator()(const Block* a, const Block* b) const { return a->bytes != b->bytes ? a->bytes < b->bytes : a->data < b->data; }
};
using FreeSet = std::set<Block*, BySize>;

struct Heap {
  std::map<uint32_t, FreeSet> free[2];  // large, small: by pool
  std::map<void*, Block*> used;
  std::map<uint32_t, std::vector<std::pair<void*, int64_t>>> held;  // by graph: freed while it was captured
  MemoryStats stats;
};

std::recursive_mutex mutex;
using Lock = std::lock_guard<std::recursive_mutex>;
Heap heaps[kMaxDevices];

uint32_t current_pool(const DeviceState& state) { return state.capturing ? kStreams + state.capturing : uint32_t(state.stream); }

void mark_segment(void* memory, int64_t bytes) {
#ifdef DG_EMULATION
  emulation::taken_back(memory, bytes, device_state().streams[0]);
  if (device_state().capturing == 0) emulation::taken_back(memory, bytes, current_stream());
#else
  (void)memory, (void)bytes;
#endif
}

// Gives whole free segments of a heap back to the system.
void trim(Heap& heap) {
  for (auto& pools : heap.free)
    for (auto& [pool, blocks] : pools) {
      if (pool >= kStreams) continue;
      for (auto it = blocks.begin(); it != blocks.end();) {
        Block* block = *it;
        if (block->before || block->after) {
          ++it;
          continue;
        }
        it = blocks.erase(it);
        heap.stats.reserved_bytes -= block->bytes;
        cudaFree(block->data);
        delete block;
      }
    }
}

[[noreturn]] void out_of_memory(const Heap& heap, int64_t bytes) {
  if (heap.stats.limit && heap.stats.live_bytes + bytes > heap.stats.limit)
    fail(DG_OUT_OF_MEMORY, "out of memory on cuda:%d: %.1f MB asked for, %.1f MB live, limit %.1f MB", current_device(), double(bytes) / 1e6,
         double(heap.stats.live_bytes) / 1e6, double(heap.stats.limit) / 1e6);
  fail(DG_OUT_OF_MEMORY, "out of memory on cuda:%d: %.1f MB asked for, %.1f MB live, the device gives no more", current_device(), double(bytes) / 1e6,
       double(heap.stats.live_bytes) / 1e6);
}

char* new_segment(Heap& heap, int64_t asked, int64_t bytes) {
  void* memory = nullptr;
  cudaError_t status = cudaMalloc(&memory, size_t(bytes));
  if (status != cudaSuccess) {
    cudaGetLastError();
    trim(heap);
    status = cudaMalloc(&memory, size_t(bytes));
  }
  if (status != cudaSuccess) {
    cudaGetLastError();
    out_of_memory(heap, asked);
  }
  heap.stats.reserved_bytes += bytes;
  heap.stats.peak_reserved_bytes = std::max(heap.stats.peak_reserved_bytes, heap.stats.reserved_bytes);
  mark_segment(memory, bytes);
  return static_cast<char*>(memory);
}

void absorb_after(Block* block) {
  Block* next = block->after;
  block->bytes += next->bytes;
  block->after = next->after;
  if (block->after) block->after->before = block;
  delete next;
}

void put_free(Heap& heap, Block* block) {
  FreeSet& set = heap.free[block->small][block->pool];
  if (block->after && block->after->free && block->after->pool == block->pool) {
    set.erase(block->after);
    absorb_after(block);
  }
  if (block->before && block->before->free && block->before->pool == block->pool) {
    block = block->before;
    set.erase(block);
    absorb_after(block);
  }
  block->free = true;
  set.insert(block);
}

}  // namespace

void* allocate(int64_t bytes) {
  DeviceState& state = device_state();
  Lock lock(mutex);
  Heap& heap = heaps[current_device()];
  if (heap.stats.limit && heap.stats.live_bytes + bytes > heap.stats.limit) out_of_memory(heap, bytes);
  if (bytes > int64_t(1) << 46) out_of_memory(heap, bytes);
  const int64_t wanted = (std::max<int64_t>(bytes, 1) + kRedZone + kUnit - 1) / kUnit * kUnit;
  const bool small = wanted <= kSmall;
  const uint32_t pool = current_pool(state);
  FreeSet& set = heap.free[small][pool];
  Block key{nullptr, wanted, pool, nullptr, nullptr, true, small, 0};
  const auto it = set.lower_bound(&key);
  Block* block;
  if (it != set.end()) {
    block = *it;
    set.erase(it);
    heap.stats.cache_hits++;
  } else {
    const int64_t segment = small ? kSmallSegment : wanted < kLargeSegment / 2 ? kLargeSegment : (wanted + kSmallSegment - 1) / kSmallSegment * kSmallSegment;
    block = new Block{new_segment(heap, bytes, segment), segment, pool, nullptr, nullptr, true, small, 0};
  }
  if (block->bytes > wanted) {
    Block* rest = new Block{block->data + wanted, block->bytes - wanted, pool, block, block->after, true, small, 0};
    if (rest->after) rest->after->before = rest;
    block->after = rest;
    block->bytes = wanted;
    set.insert(rest);
  }
  block->free = false;
  block->foreign_streams = 0;
  heap.used[block->data] = block;
  heap.stats.allocations++;
  heap.stats.live++;
  heap.stats.live_bytes += bytes;
  heap.stats.peak_live_bytes = std::max(heap.stats.peak_live_bytes, heap.stats.live_bytes);
#ifdef DG_EMULATION
  emulation::handed_out(block->data, bytes, current_stream());
#endif
  return block->data;
}

void release(void* memory, int64_t bytes) {
  DeviceState& state = device_state();
  Lock lock(mutex);
  Heap& heap = heaps[current_device()];
  const auto it = heap.used.find(memory);
  if (it == heap.used.end()) return;
  Block* block = it->second;
  heap.stats.live--;
  heap.stats.live_bytes -= bytes;
  const uint32_t pool = block->pool;
  if (state.capturing && pool != kStreams + state.capturing) {
    heap.held[state.capturing].push_back({memory, bytes});  // the graph may refer to it
    return;
  }
  const cudaStream_t owner = state.streams[pool < kStreams ? pool : 0];
  for (uint32_t i = 0; i < kStreams; i++) {
    if (!(block->foreign_streams >> i & 1)) continue;
    cudaEvent_t event;
    if (cudaEventCreateWithFlags(&event, cudaEventDisableTiming) != cudaSuccess) continue;
    cudaEventRecord(event, state.streams[i]);
    cudaStreamWaitEvent(owner, event, 0);
    cudaEventDestroy(event);
  }
#ifdef DG_EMULATION
  emulation::taken_back(memory, bytes, owner);
#endif
  heap.used.erase(it);
  put_free(heap, block);
}

void used_on_stream(void* memory, int stream) {
  Lock lock(mutex);
  Heap& heap = heaps[current_device()];
  const auto it = heap.used.find(memory);
  if (it != heap.used.end() && it->second->pool != uint32_t(stream)) it->second->foreign_streams |= 1u << stream;
}

void release_graph_pool(uint32_t device, uint32_t graph) {
  use_device(device, "graph_free");
  Lock lock(mutex);
  Heap& heap = heaps[device];
  const uint32_t pool = kStreams + graph;
  for (auto& [memory, block] : heap.used)
    if (block->pool == pool) block->pool = 0;
  for (auto& pools : heap.free) {
    const auto it = pools.find(pool);
    if (it == pools.end()) continue;
    const std::vector<Block*> blocks(it->second.begin(), it->second.end());
    pools.erase(it);
    for (Block* block : blocks) {
      block->pool = 0;
      block->free = false;
    }
    for (Block* block : blocks) put_free(heap, block);
  }
  const auto held = heap.held.find(graph);
  if (held == heap.held.end()) return;
  const auto list = std::move(held->second);
  heap.held.erase(held);
  for (const auto& [memory, bytes] : list) {
    heap.stats.live++;
    heap.stats.live_bytes += bytes;
    release(memory, bytes);
  }
}

void release_cache() {
  Lock lock(mutex);
  trim(heaps[current_device()]);
}

void set_memory_limit(int64_t bytes) {
  Lock lock(mutex);
  heaps[current_device()].stats.limit = bytes;
}

void reset_peak() {
  Lock lock(mutex);
  MemoryStats& stats = heaps[current_device()].stats;
  stats.peak_live_bytes = stats.live_bytes;
  stats.peak_reserved_bytes = stats.reserved_bytes;
}

MemoryStats memory_stats() {
  Lock lock(mutex);
  return heaps[current_device()].stats;
}

Scratch::Scratch(int64_t bytes) : data_(allocate(bytes)), bytes_(bytes) {}
Scratch::~Scratch() {
  try {
    release(data_, bytes_);
  } catch (...) {
    return;  // a device that failed has nothing to give back to
  }
}

}  // namespace dg
