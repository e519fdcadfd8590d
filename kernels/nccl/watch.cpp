// The thread of a group: connections, time-outs, failures, and the end of the NCCL communicator.
#include <algorithm>
#include <thread>

#include "communicator.h"

namespace dg::comm {
namespace {

constexpr int kBusy = 5, kIdle = 250;                     // milliseconds between looks at works, at nothing
constexpr int kLeaving = 400;                             // milliseconds for the others to have read the goodbye
constexpr std::chrono::milliseconds kOthersFirst(500);     // for the monitor to name the rank behind an error of NCCL
constexpr std::chrono::milliseconds kFinalize(500);
constexpr std::chrono::milliseconds kAnswer(1000);         // beyond the grace that rank 0 gives the others

}  // namespace

void Communicator::watch() {
  try {
    monitor_->start(root_.monitor);
    start_nccl();
  } catch (const Failure& failure) {
    declare(failure, true);
  } catch (const Error& error) {
    declare({error.status, rank, error.text}, true);
  }
  for (;;) {
    bool busy, closing;
    {
      std::lock_guard<std::mutex> lock(mutex_);
      busy = !pending_.empty() || (connecting_ && !connected_) || (cause_ && !torn_);
      dozing_ = !busy;
      closing = closing_;
    }
    pump(closing ? 0 : busy ? kBusy : kIdle);
    look_at_connection();
    look_at_works();
    if (closing) break;
    if (!cause()) {
      look_at_ranks_that_left();
      look_at_nccl();
      look_at_time();
    }
    if (const auto why = cause(); why && !torn_) {
      torn_ = true;
      deliver();
      end_all(*why);
      end_nccl(false);
    }
  }
  bool unfinished;
  Packet goodbye;
  goodbye.topic = Topic::goodbye;
  goodbye.rank = rank;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    unfinished = !pending_.empty() || !connected_;
    goodbye.sequence = completed_;
  }
  tell(goodbye);
  deliver();
  end_all({DG_COMM_CLOSED, -1, ""});
  end_nccl(!unfinished && !torn_);
  monitor_->leave(kLeaving);
  std::lock_guard<std::mutex> lock(mutex_);
  finished_ = true;
  changed_.notify_all();
}

void Communicator::start_nccl() {
  void* stream = nullptr;
  check_device(cuda().dg_stream_handle(device_, 1, &stream));  // makes the device this thread's
  ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
  config.blocking = 0;
  std::lock_guard<std::mutex> lock(nccl_mutex_);
  const ncclResult_t result = nccl().ncclCommInitRankConfig(&comm_, size, root_.id, rank, &config);
  if (result != ncclSuccess && result != ncclInProgress) throw Failure{DG_DEVICE, rank, "connecting on " + rank_text(rank) + ": NCCL: " + nccl_text(result)};
}

void Communicator::end_nccl(bool gracefully) {
  std::unique_lock<std::mutex> lock(nccl_mutex_);
  ncclComm_t comm = std::exchange(comm_, nullptr);
  lock.unlock();
  if (!comm) return;
  if (gracefully) {
    ncclResult_t result = nccl().ncclCommFinalize(comm);
    const auto end = Clock::now() + kFinalize;
    while (result == ncclInProgress && Clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
      if (const ncclResult_t asked = nccl().ncclCommGetAsyncError(comm, &result); asked != ncclSuccess) result = asked;
    }
    if (result == ncclSuccess) {
      nccl().ncclCommDestroy(comm);
      return;
    }
  }
  nccl().ncclCommAbort(comm);
}

void Communicator::end_all(const Failure& failure) {
  WorkList works;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    works.swap(pending_);
    if (connecting_ && !connected_) works.push_back(connecting_);
  }
  bool unseen = false;
  const bool closed = failure.status == DG_COMM_CLOSED;
  for (const auto& work : works) {
    Failure own = failure;
    if (closed) own.text = work->label + ": the process group was closed on this rank before it ended";
    unseen |= work->end(own);
  }
  // The device was made to wait for it and will go on with values that nobody has computed.
  if (unseen) cuda().dg_report(device_, failure.status, failure.text.c_str());
  std::lock_guard<std::mutex> lock(mutex_);
  ended_.insert(ended_.end(), works.begin(), works.end());
}

// ---- what is looked at

std::string Communicator::doing() {
  std::lock_guard<std::mutex> lock(mutex_);
  if (connecting_ && !connected_) return "connecting on " + rank_text(rank) + ": ";
  return pending_.empty() ? "" : pending_.front()->label + " on " + rank_text(rank) + ": ";
}

void Communicator::look_at_connection() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (!connecting_ || connected_ || cause_) return;
  }
  ncclResult_t result = ncclSuccess;
  {
    std::lock_guard<std::mutex> lock(nccl_mutex_);
    if (!comm_) return;
    if (const ncclResult_t asked = nccl().ncclCommGetAsyncError(comm_, &result); asked != ncclSuccess) result = asked;
  }
  if (result == ncclSuccess && monitor_->connected()) {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      connected_ = true;
    }
    connecting_->end({DG_OK, -1, ""});
    return;
  }
  const std::string head = "connecting on " + rank_text(rank);
  if (result != ncclSuccess && result != ncclInProgress) return declare({DG_DEVICE, -1, head + ": NCCL: " + nccl_text(result)});
  if (Clock::now() < connecting_->deadline) return;
  const std::vector<int> missing = monitor_->missing();
  const int first = missing.empty() ? -1 : missing.front();
  declare({DG_COMM_TIMEOUT, first,
           head + " timed out after " + std::to_string(int64_t(connecting_->timeout)) + " ms: " +
               (first >= 0 ? rank_text(first) + " did not connect" : "NCCL has not connected all ranks")});
}

void Communicator::look_at_works() {
  WorkList works;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    works = pending_;
  }
  std::optional<Failure> failed;
  WorkList left;
  size_t ended = 0;
  for (const auto& work : works) {
    if (!work->poll()) break;  // they end in order
    ended++;
    const Failure outcome = work->outcome();
    if (outcome.status != DG_OK && !failed) failed = outcome;
  }
  if (ended > 0) {
    std::lock_guard<std::mutex> lock(mutex_);
    for (size_t i = 0; i < ended && !pending_.empty() && pending_.front() == works[i]; i++) {
      if (works[i]->outcome().status == DG_OK) completed_ = std::max(completed_, works[i]->sequence);
      ended_.push_back(works[i]);
      pending_.erase(pending_.begin());
    }
  }
  if (failed) declare({failed->status, rank, failed->text});
}

void Communicator::look_at_nccl() {
  ncclResult_t result = ncclSuccess;
  std::string text;
  {
    std::lock_guard<std::mutex> lock(nccl_mutex_);
    if (!comm_) return;
    if (const ncclResult_t asked = nccl().ncclCommGetAsyncError(comm_, &result); asked != ncclSuccess) result = asked;
    if (result != ncclSuccess && result != ncclInProgress) text = nccl_text(result);
  }
  if (text.empty()) return;
  const auto now = Clock::now();
  if (!nccl_failed_) nccl_failed_ = now;
  if (now - *nccl_failed_ >= kOthersFirst) declare({DG_COMM_LOST, -1, doing() + "NCCL: " + text});
}

void Communicator::look_at_time() {
  std::shared_ptr<DeviceWork> late;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto now = Clock::now();
    for (const auto& work : pending_)
      if (now >= work->deadline) {
        late = work;
        break;
      }
  }
  if (!late) {
    asked_about_ = nullptr;
  } else if (late != asked_about_) {
    asked_about_ = late;
    asked_ = Clock::now();
    Packet packet;
    packet.topic = Topic::stuck;
    packet.rank = late->peer;
    packet.milliseconds = uint32_t(std::min(late->timeout, 4e9));
    packet.sequence = late->sequence;
    packet.text = late->label + " on " + rank_text(rank) + " timed out after " + std::to_string(int64_t(late->timeout)) + " ms: ";
    if (rank == 0) received(0, packet);
    else monitor_->send(0, packet);
  } else if (rank != 0 && Clock::now() - *asked_ >= grace_of(late->timeout) + kAnswer) {
    declare({DG_COMM_TIMEOUT, 0,
             late->label + " on " + rank_text(rank) + " timed out after " + std::to_string(int64_t(late->timeout)) + " ms: rank 0 does not answer"});
  }
  if (!referee_) return;
  if (const auto verdict = referee_->verdict()) declare(*verdict);
}

void Communicator::look_at_ranks_that_left() {
  Failure failure;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    for (const auto& [other, completed] : left_) {
      for (const auto& work : pending_) {
        if (work->sequence > completed || work->peer == other)
          failure = {DG_COMM_LOST, other, rank_text(other) + " has closed the process group, which " + work->label + " on " + rank_text(rank) + " still needs"};
        if (failure.status != DG_OK) break;
      }
      if (failure.status != DG_OK) break;
    }
  }
  if (failure.status != DG_OK) declare(failure);
}

// ---- what comes from the others

void Communicator::pump(int milliseconds) {
  std::vector<Packet> own;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    own.swap(own_packets_);
  }
  for (const Packet& packet : own) received(0, packet);
  monitor_->run(milliseconds, [this](int from, const Packet& packet) { received(from, packet); }, [this](int other) { lost(other); });
}

void Communicator::deliver() {
  const auto end = Clock::now() + std::chrono::milliseconds(200);
  while (!monitor_->flushed(0) && Clock::now() < end) pump(1);
}

void Communicator::received(int from, const Packet& packet) {
  Packet answer;
  switch (packet.topic) {
    case Topic::called:
      if (!referee_) break;
      if (const auto failure = referee_->called(from, packet.descriptor)) declare(*failure);
      break;
    case Topic::stuck:
      if (referee_) referee_->stuck(from, packet);
      break;
    case Topic::pong:
      if (referee_) referee_->answered(from);
      break;
    case Topic::ping:
      answer.topic = Topic::pong;
      if (rank != 0) monitor_->send(0, answer);
      break;
    case Topic::failed:
      if (rank == 0 && !cause()) tell(packet, from);
      declare({packet.status, packet.rank, packet.text}, true);
      break;
    case Topic::goodbye: {
      const int other = rank == 0 ? from : packet.rank;
      {
        std::lock_guard<std::mutex> lock(mutex_);
        left_[other] = packet.sequence;
      }
      answer = packet;
      answer.rank = other;
      if (rank == 0) tell(answer, from);
      break;
    }
    case Topic::hello: break;
  }
}

void Communicator::lost(int other) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    if (left_.count(other)) return;
  }
  declare({DG_COMM_LOST, other, doing() + "the connection to " + rank_text(other) + " was lost: its process ended or the network failed"});
}

}  // namespace dg::comm
