// The caching allocator behind dg_alloc: size classes for small blocks, best fit with split and merge for large ones.
#pragma once
#include <cstddef>
#include <cstdint>

namespace dg {

struct MemoryStats {
  int64_t live = 0, live_bytes = 0, reserved_bytes = 0, peak_live_bytes = 0, peak_reserved_bytes = 0, limit = 0;
  int64_t allocations = 0, cache_hits = 0;
};

// 64-byte aligned memory of at least `bytes`; throws Error(DG_OUT_OF_MEMORY). Thread safe, as all of these.
void* allocate(int64_t bytes);
void release(void* memory, int64_t bytes);
void release_cache();
void set_memory_limit(int64_t bytes);
void reset_peak();
MemoryStats memory_stats();

// Work space of one native call, from the same cache.
class Scratch {
 public:
  explicit Scratch(int64_t bytes) : bytes_(bytes), memory_(allocate(bytes)) {}
  ~Scratch() { release(memory_, bytes_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T> T* as() const { return static_cast<T*>(memory_); }

 private:
  int64_t bytes_;
  void* memory_;
};

}  // namespace dg
