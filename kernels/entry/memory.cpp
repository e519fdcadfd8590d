// Storages: allocation, lending, copies from and to the caller, statistics.
#include "../common/memory.h"

#include "../common/storage_table.h"

namespace dg {
namespace {

StorageTable& table() {
  static StorageTable* instance = new StorageTable;  // never destroyed: calls may come during process exit
  return *instance;
}

// Bytes of a storage whose device becomes the current one.
struct Range {
  char* data;
  int64_t bytes;
  uint32_t device;

  Range(uint32_t storage, double offset, double byte_count, const char* op) {
    const Region region = table().find(storage, op);
    const int64_t start = whole(offset, op, "offset");
    bytes = whole(byte_count, op, "byte count");
    if (start > region.bytes || bytes > region.bytes - start)
      fail(DG_RANGE, "%s: bytes %lld to %lld are outside a storage of %lld bytes", op, static_cast<long long>(start),
           static_cast<long long>(start + bytes), static_cast<long long>(region.bytes));
    data = region.data + start;
    device = region.device;
    require_device(device, op);
    storage_used(region);
  }
};

// The memory of a storage that has ended, unless somebody has a part in it.
void give_back(const StorageTable::Removed& removed, const char* op) {
  if (removed.alias_of) return give_back(table().unalias(removed.alias_of), op);
  if (removed.lent || removed.in_use) return;
  require_device(removed.device, op);
  release(removed.data, removed.bytes);
}

}  // namespace

Region storage_region(uint32_t storage, const char* op) {
  const Region region = table().find(storage, op);
  if (call_device == int(region.device)) storage_used(region);
  return region;
}

}  // namespace dg

using namespace dg;

uint32_t dg_alloc(double bytes, uint32_t zeroed, uint32_t device) {
  uint32_t id = 0;
  guard([&] {
    const int64_t count = whole(bytes, "alloc", "byte count");
    require_device(device, "alloc");
    const Region made = new_storage(count, zeroed != 0);
    try {
      id = table().add(made.data, made.bytes, false, made.device, made.stream);
    } catch (...) {
      release(made.data, made.bytes);
      throw;
    }
  });
  return id;
}

uint32_t dg_wrap(void* memory, double bytes) {
  uint32_t id = 0;
  guard([&] {
    if (library_device_type() != 0)
      fail(DG_DEVICE, "wrap: host memory cannot be used on a cuda device, copy it there with .to(\"cuda\")");
    const int64_t count = whole(bytes, "wrap", "byte count");
    if (!memory && count) fail(DG_RANGE, "wrap: null memory of %lld bytes", static_cast<long long>(count));
    id = table().add(memory, count, true);
  });
  return id;
}

uint32_t dg_storage_alias(uint32_t storage) {
  uint32_t id = 0;
  guard([&] { id = table().alias(storage, "storage_alias"); });
  return id;
}

int32_t dg_free(uint32_t storage) {
  return guard([&] { give_back(table().remove(storage, "free"), "free"); });
}

int32_t dg_storage_pin(uint32_t storage, dg_region* out) {
  return guard([&] {
    if (!out) fail(DG_RANGE, "storage_pin: null destination");
    const Region region = table().pin(storage, "storage_pin");
    *out = {region.data, double(region.bytes), region.device, region.stream};
  });
}

int32_t dg_storage_unpin(uint32_t storage) {
  return guard([&] { give_back(table().unpin(storage, "storage_unpin"), "storage_unpin"); });
}

int32_t dg_read(uint32_t storage, double offset_bytes, void* destination, double bytes) {
  return guard([&] {
    const Range from(storage, offset_bytes, bytes, "read");
    if (from.bytes > 0 && !destination) fail(DG_RANGE, "read: null destination");
    read_storage(destination, from.data, from.bytes);
  });
}

int32_t dg_write(uint32_t storage, double offset_bytes, const void* source, double bytes) {
  return guard([&] {
    const Range to(storage, offset_bytes, bytes, "write");
    if (to.bytes > 0 && !source) fail(DG_RANGE, "write: null source");
    write_storage(to.data, source, to.bytes);
  });
}

int32_t dg_transfer(uint32_t to, double to_offset_bytes, uint32_t from, double from_offset_bytes, double bytes) {
  return guard([&] {
    const Range source(from, from_offset_bytes, bytes, "transfer"), target(to, to_offset_bytes, bytes, "transfer");
    if (source.bytes == 0) return;
    transfer_storage(source.data, source.device, target.data, target.device, source.bytes);
  });
}

int32_t dg_memory_stats(uint32_t device, double* out8) {
  return guard([&] {
    if (!out8) fail(DG_RANGE, "memory_stats: null destination");
    require_device(device, "memory_stats");
    const MemoryStats s = memory_stats();
    const int64_t values[8] = {s.live, s.live_bytes, s.reserved_bytes, s.peak_live_bytes, s.peak_reserved_bytes, s.limit, s.allocations,
                               s.cache_hits};
    std::copy(values, values + 8, out8);
  });
}

int32_t dg_memory_limit(uint32_t device, double bytes) {
  return guard([&] {
    const int64_t limit = whole(bytes, "memory_limit", "byte count");
    require_device(device, "memory_limit");
    set_memory_limit(limit);
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
