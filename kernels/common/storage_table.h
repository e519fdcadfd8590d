// The table of live storages: ids that the caller holds, addresses that only the library knows.
#pragma once
#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "status.h"
#include "tensor.h"

namespace dg {

// An id is index + 1 in the low 24 bits and a generation above, so that a stale id is recognised after its entry was reused.
class StorageTable {
 public:
  uint32_t add(void* data, int64_t bytes, bool lent, uint32_t device = 0, uint32_t stream = 0) {
    std::lock_guard<std::mutex> lock(mutex_);
    return insert(data, bytes, lent, device, stream, 0);
  }

  // Another id for the memory of a storage, which stays until both have ended.
  uint32_t alias(uint32_t id, const char* op) {
    std::lock_guard<std::mutex> lock(mutex_);
    Entry& entry = live(id, op);
    const uint32_t other = insert(entry.data, entry.bytes, entry.lent, entry.device, entry.stream, id);
    entry.aliases++;
    return other;
  }

  struct Removed {
    void* data;
    int64_t bytes;
    bool lent;
    uint32_t device;
    bool in_use;        // the memory is: the last unpin() or alias releases it
    uint32_t alias_of;  // the id whose memory it shared
  };

  Removed remove(uint32_t id, const char* op) {
    std::lock_guard<std::mutex> lock(mutex_);
    Entry& entry = live(id, op);
    entry.id.store(0, std::memory_order_release);
    const bool in_use = entry.pins + entry.aliases > 0;
    if (!in_use) free_.push_back((id & 0xffffffu) - 1);
    return {entry.data, entry.bytes, entry.lent, entry.device, in_use || entry.alias_of != 0, in_use ? 0 : entry.alias_of};
  }

  // Keeps the memory of a storage, even past remove(), until as many calls of unpin().
  Region pin(uint32_t id, const char* op) {
    std::lock_guard<std::mutex> lock(mutex_);
    Entry& entry = live(id, op);
    entry.pins++;
    return {entry.data, entry.bytes, entry.device, entry.stream};
  }

  // The memory to release, `pinned` unless this was the last pin of a removed storage.
  Removed unpin(uint32_t id, const char* op) {
    std::lock_guard<std::mutex> lock(mutex_);
    const uint32_t index = (id & 0xffffffu) - 1;
    Entry* chunk = id != 0 && index < kChunk * kChunks ? chunks_[index / kChunk].load(std::memory_order_acquire) : nullptr;
    Entry* entry = chunk ? &chunk[index % kChunk] : nullptr;
    if (!entry || entry->pins == 0 || entry->generation != id >> 24) fail(DG_RANGE, "%s: storage %u is not pinned", op, id);
    entry->pins--;
    return ended(*entry, index);
  }

  // An alias of `id` has ended.
  Removed unalias(uint32_t id) {
    std::lock_guard<std::mutex> lock(mutex_);
    const uint32_t index = (id & 0xffffffu) - 1;
    Entry& entry = chunks_[index / kChunk].load(std::memory_order_acquire)[index % kChunk];
    entry.aliases--;
    return ended(entry, index);
  }

  Region find(uint32_t id, const char* op) {
    const Entry& entry = live(id, op);
    return {entry.data, entry.bytes, entry.device, entry.stream};
  }

 private:
  struct Entry {
    std::atomic<uint32_t> id{0};
    uint32_t generation = 0;
    char* data = nullptr;
    int64_t bytes = 0;
    bool lent = false;
    uint32_t pins = 0, aliases = 0, alias_of = 0;
    uint32_t device = 0, stream = 0;
  };
  static constexpr uint32_t kChunk = 4096, kChunks = 4000;  // 16.4 M storages

  // With the lock held, as the rest.
  uint32_t insert(void* data, int64_t bytes, bool lent, uint32_t device, uint32_t stream, uint32_t alias_of) {
    uint32_t index;
    if (!free_.empty()) {
      index = free_.back();
      free_.pop_back();
    } else {
      if (count_ == kChunk * kChunks) fail(DG_OUT_OF_MEMORY, "more than %u storages are live", count_);
      if (count_ % kChunk == 0) chunks_[count_ / kChunk].store(new Entry[kChunk], std::memory_order_release);
      index = count_++;
    }
    Entry& entry = chunks_[index / kChunk].load(std::memory_order_relaxed)[index % kChunk];
    entry.generation = entry.generation % 255 + 1;
    entry.data = static_cast<char*>(data);
    entry.bytes = bytes;
    entry.lent = lent;
    entry.device = device;
    entry.stream = stream;
    entry.alias_of = alias_of;
    const uint32_t id = (index + 1) | (entry.generation << 24);
    entry.id.store(id, std::memory_order_release);
    return id;
  }
  Removed ended(const Entry& entry, uint32_t index) {
    const bool in_use = entry.pins + entry.aliases > 0 || entry.id.load(std::memory_order_relaxed) != 0;
    if (!in_use) free_.push_back(index);
    return {entry.data, entry.bytes, entry.lent, entry.device, in_use || entry.alias_of != 0, in_use ? 0 : entry.alias_of};
  }

  Entry& live(uint32_t id, const char* op) {
    const uint32_t index = (id & 0xffffffu) - 1;
    if (id != 0 && index < kChunk * kChunks) {
      Entry* chunk = chunks_[index / kChunk].load(std::memory_order_acquire);
      if (chunk && chunk[index % kChunk].id.load(std::memory_order_acquire) == id) return chunk[index % kChunk];
    }
    fail(DG_DISPOSED, "%s: a tensor's memory has been freed", op);
  }

  std::mutex mutex_;
  std::atomic<Entry*> chunks_[kChunks] = {};
  std::vector<uint32_t> free_;
  uint32_t count_ = 0;
};

}  // namespace dg
