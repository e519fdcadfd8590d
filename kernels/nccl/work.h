// A work on a device: a mark on the communication stream, passed when it has ended.
#pragma once
#include <chrono>
#include <condition_variable>
#include <mutex>

#include "../communicator/group.h"

namespace dg::comm {

class DeviceWork final : public Work {
 public:
  using Time = std::chrono::steady_clock::time_point;
  // host: join() waits for the end as well.
  DeviceWork(uint32_t device, std::string label, uint64_t sequence, double timeout, bool host = false);
  ~DeviceWork() override;

  const uint32_t device;
  const std::string label;
  const uint64_t sequence;  // 0 for what is not a collective
  const double timeout;
  const Time deadline;
  int peer = -1;  // of a message
  Pins pins;
  int32_t from = -1;

  int32_t wait(double milliseconds) override;
  int32_t join() override;
  Failure outcome() override;
  int32_t source() const override { return from; }

  // Records the mark behind what the communication stream has been given.
  void launched();
  // Whether it has ended; asks the device. Never waits for anything that waits for the device.
  bool poll();
  // The first end stays. True if the device had been made to wait for it: nobody has seen that it failed.
  bool end(Failure outcome);
  // Lets go of memory and mark once it has ended. Not for the thread of the group, which must not wait for the allocator.
  void release();

 private:
  const bool host_;
  std::mutex mutex_;  // of all below
  std::condition_variable ended_;
  uint32_t mark_ = 0;
  bool launched_ = false, joined_ = false;
  Failure outcome_{DG_COMM_PENDING, -1, ""};
};

}  // namespace dg::comm
