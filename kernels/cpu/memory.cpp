// Storages: allocation, lending, copies from and to the caller, statistics.
#include <cmath>
#include <cstring>

#include "../common/storage_table.h"
#include "allocator.h"
#include "parallel.h"

namespace dg {
namespace {

StorageTable& table() {
  static StorageTable* instance = new StorageTable;  // never destroyed: calls may come during process exit
  return *instance;
}

// Copies large blocks with all threads.
void copy_bytes(char* to, const char* from, int64_t bytes) {
  parallel_for(bytes, 1 << 20, [&](int64_t begin, int64_t end) { std::memcpy(to + begin, from + begin, size_t(end - begin)); });
}

char* checked_range(uint32_t storage, double offset, double bytes, const char* op) {
  const Region region = storage_region(storage, op);
  const int64_t start = whole(offset, op, "offset"), count = whole(bytes, op, "byte count");
  if (start > region.bytes || count > region.bytes - start)
    fail(DG_RANGE, "%s: bytes %lld to %lld are outside a storage of %lld bytes", op, static_cast<long long>(start),
         static_cast<long long>(start + count), static_cast<long long>(region.bytes));
  return region.data + start;
}

}  // namespace

Region storage_region(uint32_t storage, const char* op) { return table().find(storage, op); }

}  // namespace dg

using namespace dg;

uint32_t dg_alloc(double bytes, uint32_t zeroed, uint32_t device) {
  uint32_t id = 0;
  guard([&] {
    require_device(device, "alloc");
    const int64_t count = whole(bytes, "alloc", "byte count");
    void* memory = allocate(count);
    if (zeroed)
      parallel_for(count, 1 << 20, [&](int64_t b, int64_t e) { std::memset(static_cast<char*>(memory) + b, 0, size_t(e - b)); });
    try {
      id = table().add(memory, count, false);
    } catch (...) {
      release(memory, count);
      throw;
    }
  });
  return id;
}

uint32_t dg_wrap(void* memory, double bytes) {
  uint32_t id = 0;
  guard([&] {
    const int64_t count = whole(bytes, "wrap", "byte count");
    if (!memory && count) fail(DG_RANGE, "wrap: null memory of %lld bytes", static_cast<long long>(count));
    id = table().add(memory, count, true);
  });
  return id;
}

int32_t dg_transfer(uint32_t to, double to_offset_bytes, uint32_t from, double from_offset_bytes, double bytes) {
  return guard([&] {
    char* target = checked_range(to, to_offset_bytes, bytes, "transfer");
    const char* source = checked_range(from, from_offset_bytes, bytes, "transfer");
    std::memmove(target, source, size_t(bytes));
  });
}

int32_t dg_free(uint32_t storage) {
  return guard([&] {
    const auto removed = table().remove(storage, "free");
    if (!removed.lent) release(removed.data, removed.bytes);
  });
}

int32_t dg_read(uint32_t storage, double offset_bytes, void* destination, double bytes) {
  return guard([&] {
    const char* from = checked_range(storage, offset_bytes, bytes, "read");
    if (bytes > 0 && !destination) fail(DG_RANGE, "read: null destination");
    copy_bytes(static_cast<char*>(destination), from, int64_t(bytes));
  });
}

int32_t dg_write(uint32_t storage, double offset_bytes, const void* source, double bytes) {
  return guard([&] {
    char* to = checked_range(storage, offset_bytes, bytes, "write");
    if (bytes > 0 && !source) fail(DG_RANGE, "write: null source");
    copy_bytes(to, static_cast<const char*>(source), int64_t(bytes));
  });
}

int32_t dg_memory_stats(uint32_t device, double* out8) {
  return guard([&] {
    require_device(device, "memory_stats");
    if (!out8) fail(DG_RANGE, "memory_stats: null destination");
    const MemoryStats s = memory_stats();
    const int64_t values[8] = {s.live, s.live_bytes, s.reserved_bytes, s.peak_live_bytes, s.peak_reserved_bytes, s.limit, s.allocations, s.cache_hits};
    for (int i = 0; i < 8; i++) out8[i] = double(values[i]);
  });
}

int32_t dg_memory_limit(uint32_t device, double bytes) {
  return guard([&] {
    require_device(device, "memory_limit");
    set_memory_limit(whole(bytes, "memory_limit", "byte count"));
  });
}

int32_t dg_memory_reset_peak(uint32_t device) {
  return guard([&] {
    require_device(device, "memory_reset_peak");
    reset_peak();
  });
}

int32_t dg_memory_release_cache(uint32_t device) {
  return guard([&] {
    require_device(device, "memory_release_cache");
    release_cache();
  });
}
