// Storages of the devices and the caching allocator behind them: cudaMalloc waits for the device, so blocks are kept and cut.
// A block belongs to the stream that it was allocated for: freed there, it is free for what that stream is given next. If another stream used it, the
// owner first waits for that stream. Blocks that a graph uses stay with the graph.
#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "../common/storage_table.h"
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
  int64_t live = 0, live_bytes = 0, reserved = 0, peak_live = 0, peak_reserved = 0, limit = 0, allocations = 0, hits = 0;
};

std::recursive_mutex mutex;
using Lock = std::lock_guard<std::recursive_mutex>;
Heap heaps[kMaxDevices];

StorageTable& table() {
  static StorageTable* instance = new StorageTable;  // never destroyed: calls may come during process exit
  return *instance;
}

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
        heap.reserved -= block->bytes;
        cudaFree(block->data);
        delete block;
      }
    }
}

[[noreturn]] void out_of_memory(const Heap& heap, int64_t bytes) {
  if (heap.limit && heap.live_bytes + bytes > heap.limit)
    fail(DG_OUT_OF_MEMORY, "out of memory on cuda:%d: %.1f MB asked for, %.1f MB live, limit %.1f MB", current_device(), double(bytes) / 1e6,
         double(heap.live_bytes) / 1e6, double(heap.limit) / 1e6);
  fail(DG_OUT_OF_MEMORY, "out of memory on cuda:%d: %.1f MB asked for, %.1f MB live, the device gives no more", current_device(), double(bytes) / 1e6,
       double(heap.live_bytes) / 1e6);
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
  heap.reserved += bytes;
  heap.peak_reserved = std::max(heap.peak_reserved, heap.reserved);
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

void* take_memory(int64_t bytes) {
  DeviceState& state = device_state();
  Lock lock(mutex);
  Heap& heap = heaps[current_device()];
  if (heap.limit && heap.live_bytes + bytes > heap.limit) out_of_memory(heap, bytes);
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
    heap.hits++;
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
  heap.allocations++;
  heap.live++;
  heap.live_bytes += bytes;
  heap.peak_live = std::max(heap.peak_live, heap.live_bytes);
#ifdef DG_EMULATION
  emulation::handed_out(block->data, bytes, current_stream());
#endif
  return block->data;
}

void give_memory(void* memory, int64_t bytes) {
  DeviceState& state = device_state();
  Lock lock(mutex);
  Heap& heap = heaps[current_device()];
  const auto it = heap.used.find(memory);
  if (it == heap.used.end()) return;
  Block* block = it->second;
  heap.live--;
  heap.live_bytes -= bytes;
  const uint32_t pool = block->pool;
  if (state.capturing && pool != kStreams + state.capturing) {
    heap.held[state.capturing].push_back({memory, bytes});  // the graph may refer to it
    return;
  }
  const cudaStream_t owner = state.streams[pool < kStreams ? pool : 0];
  for (int i = 0; i < kStreams; i++) {
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
    heap.live++;
    heap.live_bytes += bytes;
    give_memory(memory, bytes);
  }
}

void release_cached(uint32_t device) {
  use_device(device, "memory_release_cache");
  Lock lock(mutex);
  trim(heaps[device]);
}

Scratch::Scratch(int64_t bytes) : data_(take_memory(bytes)), bytes_(bytes) {}
Scratch::~Scratch() {
  try {
    give_memory(data_, bytes_);
  } catch (...) {
    return;  // a device that failed has nothing to give back to
  }
}

Region storage_region(uint32_t storage, const char* op) {
  const Region region = table().find(storage, op);
  if (call_device == int(region.device)) {
    const DeviceState& state = device_state();
    if (int(region.stream) != state.stream && !state.capturing) used_on_stream(region.data, state.stream);
  }
  return region;
}

namespace {

char* checked_range(uint32_t storage, double offset, double bytes, const char* op, uint32_t* device) {
  const Region region = table().find(storage, op);
  const int64_t start = whole(offset, op, "offset"), count = whole(bytes, op, "byte count");
  if (start > region.bytes || count > region.bytes - start)
    fail(DG_RANGE, "%s: bytes %lld to %lld are outside a storage of %lld bytes", op, static_cast<long long>(start),
         static_cast<long long>(start + count), static_cast<long long>(region.bytes));
  *device = region.device;
  use_device(region.device, op);
  const DeviceState& state = device_state();
  if (int(region.stream) != state.stream && !state.capturing) used_on_stream(region.data, state.stream);
  return region.data + start;
}

}  // namespace
}  // namespace dg

using namespace dg;

uint32_t dg_alloc(double bytes, uint32_t zeroed, uint32_t device) {
  uint32_t id = 0;
  guard([&] {
    const int64_t count = whole(bytes, "alloc", "byte count");
    DeviceState& state = state_of(device, "alloc");
    void* memory = take_memory(count);
    try {
      if (zeroed && count) check_cuda(cudaMemsetAsync(memory, 0, size_t(count), current_stream()), "cudaMemsetAsync");
      id = table().add(memory, count, false, device, uint32_t(state.stream));
    } catch (...) {
      give_memory(memory, count);
      throw;
    }
  });
  return id;
}

uint32_t dg_wrap(void*, double) {
  guard([] { fail(DG_DEVICE, "wrap: host memory cannot be used on a cuda device, copy it there with .to(\"cuda\")"); });
  return 0;
}

int32_t dg_free(uint32_t storage) {
  return guard([&] {
    const auto removed = table().remove(storage, "free");
    use_device(removed.device, "free");
    give_memory(removed.data, removed.bytes);
  });
}

int32_t dg_read(uint32_t storage, double offset_bytes, void* destination, double bytes) {
  return guard([&] {
    uint32_t device;
    const char* from = checked_range(storage, offset_bytes, bytes, "read", &device);
    if (bytes > 0 && !destination) fail(DG_RANGE, "read: null destination");
    DeviceState& state = device_state();
    if (!state.capturing && bytes > 0) {
      state.from_device += bytes;
      check_cuda(cudaMemcpyAsync(destination, from, size_t(bytes), cudaMemcpyDeviceToHost, current_stream()), "read");
    }
    synchronise("read");
  });
}

int32_t dg_write(uint32_t storage, double offset_bytes, const void* source, double bytes) {
  return guard([&] {
    uint32_t device;
    char* to = checked_range(storage, offset_bytes, bytes, "write", &device);
    if (bytes > 0 && !source) fail(DG_RANGE, "write: null source");
    DeviceState& state = device_state();
    if (state.capturing) fail(DG_DEVICE, "write: values cannot be copied to the device while a step is captured, copy them into an existing tensor before");
    state.to_device += bytes;
    if (bytes > 0) check_cuda(cudaMemcpyAsync(to, source, size_t(bytes), cudaMemcpyHostToDevice, current_stream()), "write");
  });
}

int32_t dg_transfer(uint32_t to, double to_offset_bytes, uint32_t from, double from_offset_bytes, double bytes) {
  return guard([&] {
    uint32_t target_device, source_device;
    const char* source = checked_range(from, from_offset_bytes, bytes, "transfer", &source_device);
    const cudaStream_t source_stream = current_stream();
    char* target = checked_range(to, to_offset_bytes, bytes, "transfer", &target_device);
    if (bytes == 0) return;
    if (target_device == source_device)
      return check_cuda(cudaMemcpyAsync(target, source, size_t(bytes), cudaMemcpyDeviceToDevice, current_stream()), "transfer");
    // The source's stream does the copy; the target's waits for it, and the copy for what the target's was given before.
    const cudaStream_t target_stream = current_stream();
    cudaEvent_t ready = nullptr, done = nullptr;
    check_cuda(cudaEventCreateWithFlags(&ready, cudaEventDisableTiming), "cudaEventCreate");
    check_cuda(cudaEventRecord(ready, target_stream), "cudaEventRecord");
    use_device(source_device, "transfer");
    check_cuda(cudaStreamWaitEvent(source_stream, ready, 0), "cudaStreamWaitEvent");
    check_cuda(cudaMemcpyPeerAsync(target, int(target_device), source, int(source_device), size_t(bytes), source_stream), "cudaMemcpyPeerAsync");
    check_cuda(cudaEventCreateWithFlags(&done, cudaEventDisableTiming), "cudaEventCreate");
    check_cuda(cudaEventRecord(done, source_stream), "cudaEventRecord");
    use_device(target_device, "transfer");
    check_cuda(cudaStreamWaitEvent(target_stream, done, 0), "cudaStreamWaitEvent");
    cudaEventDestroy(ready);
    cudaEventDestroy(done);
  });
}

int32_t dg_memory_stats(uint32_t device, double* out8) {
  return guard([&] {
    if (!out8) fail(DG_RANGE, "memory_stats: null destination");
    use_device(device, "memory_stats");
    std::lock_guard<std::recursive_mutex> lock(dg::mutex);
    const Heap& h = heaps[device];
    const int64_t values[8] = {h.live, h.live_bytes, h.reserved, h.peak_live, h.peak_reserved, h.limit, h.allocations, h.hits};
    for (int i = 0; i < 8; i++) out8[i] = double(values[i]);
  });
}

int32_t dg_memory_limit(uint32_t device, double bytes) {
  return guard([&] {
    const int64_t limit = whole(bytes, "memory_limit", "byte count");
    use_device(device, "memory_limit");
    std::lock_guard<std::recursive_mutex> lock(dg::mutex);
    heaps[device].limit = limit;
  });
}

int32_t dg_memory_reset_peak(uint32_t device) {
  return guard([&] {
    use_device(device, "memory_reset_peak");
    std::lock_guard<std::recursive_mutex> lock(dg::mutex);
    Heap& heap = heaps[device];
    heap.peak_live = heap.live_bytes;
    heap.peak_reserved = heap.reserved;
  });
}

int32_t dg_memory_release_cache(uint32_t device) {
  return guard([&] { release_cached(device); });
}
