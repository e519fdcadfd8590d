// The caching allocator: size classes for small blocks, best fit with split and merge for large ones. 64-byte aligned memory.
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <map>
#include <mutex>
#include <set>
#include <vector>

#include "../common/memory.h"

namespace dg {
namespace {

constexpr int64_t kPage = 4096, kHuge = 2 << 20;
constexpr int64_t kSmall = 64 << 10;    // up to here: size classes
constexpr int64_t kSlab = kHuge;        // small blocks are cut from slabs of this size
constexpr int64_t kSegment = 64 << 20;  // large blocks are cut from segments of at least this size
constexpr int kClasses = 44;

// Under the address sanitizer every block is an allocation of its own, so that its bounds are seen.
#ifdef __SANITIZE_ADDRESS__
constexpr bool kEachAlone = true;
#else
constexpr bool kEachAlone = false;
#endif

// Four classes a doubling: 64, 128, 192, 256, 320, 384, 448, 512, 640, ...
int class_of(int64_t bytes) {
  const int64_t units = std::max<int64_t>((bytes + 63) / 64, 1);
  if (units <= 4) return int(units - 1);
  const int log = 63 - __builtin_clzll(uint64_t(units - 1));
  const int64_t step = int64_t(1) << (log - 2);
  return 4 * (log - 1) + int((units - 1 - (int64_t(1) << log)) / step);
}

int64_t class_bytes(int index) {
  if (index < 4) return 64 * (index + 1);
  const int log = index / 4 + 1;
  return 64 * ((int64_t(1) << log) + (int64_t(1) << (log - 2)) * (index % 4 + 1));
}

// One piece of a segment; neighbours are linked so that free ones can merge.
struct Block {
  char* data;
  int64_t bytes;
  Block *before, *after;
  bool free;
  bool whole_segment() const { return !before && !after; }
};

struct BySize {
  bool operator()(const Block* a, const Block* b) const { return a->bytes != b->bytes ? a->bytes < b->bytes : a->data < b->data; }
};

std::mutex mutex;
std::vector<void*> small_free[kClasses];
std::set<Block*, BySize> large_free;
std::map<void*, Block*> large_used;
MemoryStats stats;

char* map_pages(int64_t bytes) {
  // Over-map by one huge page and cut, so that the kernel can back the whole segment with huge pages.
  char* raw = static_cast<char*>(mmap(nullptr, size_t(bytes + kHuge), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  if (raw == MAP_FAILED) return nullptr;
  char* data = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(raw) + kHuge - 1) & ~uintptr_t(kHuge - 1));
  if (data > raw) munmap(raw, size_t(data - raw));
  munmap(data + bytes, size_t(raw + kHuge - data));
  madvise(data, size_t(bytes), MADV_HUGEPAGE);
  stats.reserved_bytes += bytes;
  stats.peak_reserved_bytes = std::max(stats.peak_reserved_bytes, stats.reserved_bytes);
  return data;
}

void unmap_free_segments() {
  for (auto it = large_free.begin(); it != large_free.end();) {
    Block* block = *it;
    if (block->whole_segment()) {
      it = large_free.erase(it);
      munmap(block->data, size_t(block->bytes));
      stats.reserved_bytes -= block->bytes;
      delete block;
    } else {
      ++it;
    }
  }
}

[[noreturn]] void out_of_memory(int64_t bytes) {
  if (stats.limit)
    fail(DG_OUT_OF_MEMORY, "out of memory: %.1f MB asked for, %.1f MB live, limit %.1f MB", double(bytes) / 1e6,
         double(stats.live_bytes) / 1e6, double(stats.limit) / 1e6);
  fail(DG_OUT_OF_MEMORY, "out of memory: %.1f MB asked for, %.1f MB live, the system gives no more", double(bytes) / 1e6,
       double(stats.live_bytes) / 1e6);
}

char* map_or_fail(int64_t bytes) {
  char* data = map_pages(bytes);
  if (!data) {
    unmap_free_segments();
    data = map_pages(bytes);
  }
  if (!data) out_of_memory(bytes);
  return data;
}

void* take_small(int64_t bytes) {
  const int index = class_of(bytes);
  auto& list = small_free[index];
  if (list.empty()) {
    char* slab = map_or_fail(kSlab);
    const int64_t step = class_bytes(index);
    for (int64_t at = (kSlab / step - 1) * step; at >= 0; at -= step) list.push_back(slab + at);
  } else {
    stats.cache_hits++;
  }
  void* memory = list.back();
  list.pop_back();
  return memory;
}

int64_t large_bytes(int64_t bytes) { return (bytes + kPage - 1) / kPage * kPage; }

void* take_large(int64_t bytes) {
  bytes = large_bytes(bytes);
  Block key{nullptr, bytes, nullptr, nullptr, true};
  auto it = large_free.lower_bound(&key);
  Block* block;
  if (it != large_free.end()) {
    block = *it;
    large_free.erase(it);
    stats.cache_hits++;
  } else {
    const int64_t segment = (std::max(bytes, kSegment) + kHuge - 1) / kHuge * kHuge;
    block = new Block{map_or_fail(segment), segment, nullptr, nullptr, true};
  }
  if (block->bytes > bytes) {
    Block* rest = new Block{block->data + bytes, block->bytes - bytes, block, block->after, true};
    if (rest->after) rest->after->before = rest;
    block->after = rest;
    block->bytes = bytes;
    large_free.insert(rest);
  }
  block->free = false;
  large_used[block->data] = block;
  return block->data;
}

// Joins `block` with its successor.
void absorb_after(Block* block) {
  Block* next = block->after;
  block->bytes += next->bytes;
  block->after = next->after;
  if (block->after) block->after->before = block;
  delete next;
}

void give_large(void* memory) {
  auto it = large_used.find(memory);
  if (it == large_used.end()) return;
  Block* block = it->second;
  large_used.erase(it);
  if (block->after && block->after->free) {
    large_free.erase(block->after);
    absorb_after(block);
  }
  if (block->before && block->before->free) {
    block = block->before;
    large_free.erase(block);
    absorb_after(block);
  }
  block->free = true;
  large_free.insert(block);
}

}  // namespace

void* allocate(int64_t bytes) {
  std::lock_guard<std::mutex> lock(mutex);
  if (stats.limit && stats.live_bytes + bytes > stats.limit) out_of_memory(bytes);
  if (bytes > int64_t(1) << 46) out_of_memory(bytes);
  void* memory;
  if (kEachAlone) {
    memory = std::aligned_alloc(64, size_t((std::max<int64_t>(bytes, 1) + 63) / 64 * 64));
    if (!memory) out_of_memory(bytes);
  } else {
    memory = bytes <= kSmall ? take_small(bytes) : take_large(bytes);
  }
  stats.allocations++;
  stats.live++;
  stats.live_bytes += bytes;
  stats.peak_live_bytes = std::max(stats.peak_live_bytes, stats.live_bytes);
  return memory;
}

void release(void* memory, int64_t bytes) {
  std::lock_guard<std::mutex> lock(mutex);
  stats.live--;
  stats.live_bytes -= bytes;
  if (kEachAlone) std::free(memory);
  else if (bytes <= kSmall) small_free[class_of(bytes)].push_back(memory);
  else give_large(memory);
}

void release_cache() {
  std::lock_guard<std::mutex> lock(mutex);
  unmap_free_segments();
}

void set_memory_limit(int64_t bytes) {
  std::lock_guard<std::mutex> lock(mutex);
  stats.limit = bytes;
}

void reset_peak() {
  std::lock_guard<std::mutex> lock(mutex);
  stats.peak_live_bytes = stats.live_bytes;
  stats.peak_reserved_bytes = stats.reserved_bytes;
}

MemoryStats memory_stats() {
  std::lock_guard<std::mutex> lock(mutex);
  return stats;
}

}  // namespace dg
