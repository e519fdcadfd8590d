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
    const uint32_t id = (index + 1) | (entry.generation << 24);
    entry.id.store(id, std::memory_order_release);
    return id;
  }

  struct Removed {
    void* data;
    int64_t bytes;
    bool lent;
    uint32_t device;
    bool pinned;  // the memory is still in use: the last unpin() releases it
  };

  Removed remove(uint32_t id, const char* op) {
    std::lock_guard<std::mutex> lock(mutex_);
    Entry& entry = live(id, op);
    entry.id.store(0, std::memory_order_release);
    if (entry.pins == 0) free_.push_back((id & 0xffffffu) - 1);
    return {entry.data, entry.bytes, entry.lent, entry.device, entry.pins > 0};
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
    const bool in_use = entry->pins > 0 || entry->id.load(std::memory_order_relaxed) == id;
    if (!in_use) free_.push_back(index);
    return {entry->data, entry->bytes, entry->lent, entry->device, in_use};
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
    uint32_t pins = 0;
    uint32_t device = 0, stream = 0;
  };
  static constexpr uint32_t kChunk = 4096, kChunks = 4000;  // 16.4 M storages

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
