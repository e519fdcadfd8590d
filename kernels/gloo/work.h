// What a call of the interface leaves behind: a work, the memory that it has pinned, and tables of works and communicators by id.
#pragma once
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "../common/status.h"
#include "../communicator.h"

namespace dg::comm {

// Storages that a call has named: in use until it lets them go.
class Pins {
 public:
  Pins() = default;
  Pins(Pins&& other) noexcept : ids_(std::move(other.ids_)) { other.ids_.clear(); }
  Pins& operator=(Pins&& other) noexcept {
    ids_.swap(other.ids_);
    return *this;
  }
  ~Pins() { clear(); }
  void add(uint32_t id) { ids_.push_back(id); }
  void clear() {
    for (uint32_t id : ids_) dg_storage_unpin(id);
    ids_.clear();
  }

 private:
  std::vector<uint32_t> ids_;
};

class Work {
 public:
  Pins pins;
  int32_t source = -1;  // written before the end

  void end(int32_t status, int32_t rank = -1, std::string text = "") {
    pins.clear();
    std::lock_guard<std::mutex> lock(mutex_);
    if (status_ != DG_COMM_PENDING) return;
    status_ = status;
    rank_ = rank;
    text_ = std::move(text);
    ended_.notify_all();
  }

  int32_t wait(double milliseconds) {
    std::unique_lock<std::mutex> lock(mutex_);
    ended_.wait_for(lock, std::chrono::duration<double, std::milli>(milliseconds), [&] { return status_ != DG_COMM_PENDING; });
    return status_;
  }

  int32_t status(int32_t& rank, std::string& text) {
    std::lock_guard<std::mutex> lock(mutex_);
    rank = rank_;
    text = text_;
    return status_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable ended_;
  int32_t status_ = DG_COMM_PENDING, rank_ = -1;
  std::string text_;
};

// Objects by id; an id is never used again.
template <class T>
class Table {
 public:
  uint32_t add(std::shared_ptr<T> object) {
    std::lock_guard<std::mutex> lock(mutex_);
    do {
      if (++last_ == 0) last_ = 1;
    } while (objects_.count(last_));
    objects_[last_] = std::move(object);
    return last_;
  }

  std::shared_ptr<T> find(uint32_t id, const char* what) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto it = objects_.find(id);
    if (it == objects_.end()) fail(DG_DISPOSED, "%s %u does not exist (any more)", what, id);
    return it->second;
  }

  std::shared_ptr<T> remove(uint32_t id, const char* what) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto it = objects_.find(id);
    if (it == objects_.end()) fail(DG_DISPOSED, "%s %u does not exist (any more)", what, id);
    auto object = std::move(it->second);
    objects_.erase(it);
    return object;
  }

 private:
  std::mutex mutex_;
  std::unordered_map<uint32_t, std::shared_ptr<T>> objects_;
  uint32_t last_ = 0;
};

}  // namespace dg::comm
