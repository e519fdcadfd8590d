// Storages and the caching allocator behind them.
#pragma once
#include "tensor.h"

namespace dg {

struct MemoryStats {
  int64_t live = 0, live_bytes = 0, reserved_bytes = 0, peak_live_bytes = 0, peak_reserved_bytes = 0, limit = 0;
  int64_t allocations = 0, cache_hits = 0;
};

// Provided by each library (allocator.cpp, allocator.cu), thread safe: memory of the current device, in the order of its current stream.
void* allocate(int64_t bytes);  // fails with DG_OUT_OF_MEMORY
void release(void* memory, int64_t bytes);
void release_cache();
void set_memory_limit(int64_t bytes);
void reset_peak();
MemoryStats memory_stats();

// Provided by each library (memory.cpp, memory.cu); checked by entry/memory.cpp, which keeps the table of storages. All on the current device.
Region new_storage(int64_t bytes, bool zeroed);
void storage_used(const Region& storage);  // the current stream is about to work on it
void read_storage(void* to, const char* from, int64_t bytes);
void write_storage(char* to, const void* from, int64_t bytes);
// Between any devices of the library.
void transfer_storage(const char* from, uint32_t from_device, char* to, uint32_t to_device, int64_t bytes);

}  // namespace dg
