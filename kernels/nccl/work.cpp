#include "work.h"

#include <algorithm>

#include "libraries.h"

namespace dg::comm {
namespace {

constexpr uint32_t kCommunication = 1;  // the stream
using Milliseconds = std::chrono::duration<double, std::milli>;

}  // namespace

DeviceWork::DeviceWork(uint32_t device, std::string label, uint64_t sequence, double timeout, bool host)
    : device(device),
      label(std::move(label)),
      sequence(sequence),
      timeout(timeout),
      deadline(std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(Milliseconds(timeout))),
      host_(host) {}

DeviceWork::~DeviceWork() {
  if (mark_) cuda().dg_mark_free(mark_);
}

void DeviceWork::launched() {
  std::lock_guard<std::mutex> lock(mutex_);
  mark_ = cuda().dg_mark_create(device);
  if (!mark_) check_device(DG_DEVICE);
  check_device(cuda().dg_mark_record(mark_, kCommunication));
  launched_ = true;
}

bool DeviceWork::poll() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (outcome_.status != DG_COMM_PENDING) return true;
  if (!launched_) return false;
  uint32_t done = 0;
  const int32_t status = cuda().dg_mark_done(mark_, &done);
  if (status != DG_OK) {
    outcome_ = {status, -1, label + ": " + device_error()};
  } else if (done) {
    outcome_ = {DG_OK, -1, ""};
  } else {
    return false;
  }
  ended_.notify_all();
  return true;
}

bool DeviceWork::end(Failure outcome) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (outcome_.status != DG_COMM_PENDING) return false;
  outcome_ = std::move(outcome);
  ended_.notify_all();
  return joined_;
}

int32_t DeviceWork::wait(double milliseconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(Milliseconds(milliseconds));
  auto slice = std::chrono::microseconds(20);
  while (!poll()) {
    const auto now = std::chrono::steady_clock::now();
    if (now >= end) return DG_COMM_PENDING;
    std::unique_lock<std::mutex> lock(mutex_);
    ended_.wait_for(lock, std::min<std::chrono::steady_clock::duration>(slice, end - now), [&] { return outcome_.status != DG_COMM_PENDING; });
    slice = std::min(slice * 2, std::chrono::microseconds(500));
  }
  release();
  std::lock_guard<std::mutex> lock(mutex_);
  return outcome_.status;
}

int32_t DeviceWork::join() {
  if (host_) return wait(1e9);
  if (poll()) return wait(0);
  std::lock_guard<std::mutex> lock(mutex_);
  if (outcome_.status != DG_COMM_PENDING) return outcome_.status;
  const int32_t status = cuda().dg_mark_wait(mark_, DG_NONE);
  if (status != DG_OK) return status;
  joined_ = true;
  return DG_OK;
}

Failure DeviceWork::outcome() {
  std::lock_guard<std::mutex> lock(mutex_);
  return outcome_;
}

void DeviceWork::release() {
  uint32_t mark = 0;
  Pins held;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    std::swap(mark, mark_);
    held = std::move(pins);
  }
  if (mark) cuda().dg_mark_free(mark);
}

}  // namespace dg::comm
