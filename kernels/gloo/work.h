// A work on the host: a thread of its communicator ends it.
#pragma once
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "../communicator/group.h"

namespace dg::comm {

class HostWork final : public Work {
 public:
  Pins pins;
  int32_t from = -1;  // written before the end

  void end(int32_t status, int32_t rank = -1, std::string text = "") {
    pins.clear();
    std::lock_guard<std::mutex> lock(mutex_);
    if (outcome_.status != DG_COMM_PENDING) return;
    outcome_ = {status, rank, std::move(text)};
    ended_.notify_all();
  }

  int32_t wait(double milliseconds) override {
    std::unique_lock<std::mutex> lock(mutex_);
    ended_.wait_for(lock, std::chrono::duration<double, std::milli>(milliseconds), [&] { return outcome_.status != DG_COMM_PENDING; });
    return outcome_.status;
  }

  int32_t join() override {
    while (wait(1e9) == DG_COMM_PENDING) continue;
    return outcome().status;
  }

  Failure outcome() override {
    std::lock_guard<std::mutex> lock(mutex_);
    return outcome_;
  }

  int32_t source() const override { return from; }

 private:
  std::mutex mutex_;
  std::condition_variable ended_;
  Failure outcome_{DG_COMM_PENDING, -1, ""};
};

}  // namespace dg::comm
