#include "comm.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>

#include "../../cuda/emulation/external.h"

namespace nccl_emulation {
namespace {

constexpr std::chrono::milliseconds kSlice(1);

const char* name_of(Kind kind) {
  static const char* const names[] = {"ncclAllReduce", "ncclReduce", "ncclBroadcast", "ncclAllGather", "ncclReduceScatter", "ncclSend/ncclRecv"};
  return names[uint32_t(kind)];
}

// Ranks that are connected within a machine do not notice each other's end, as a real one may not.
bool silent() {
  const char* const value = std::getenv("DINOGRAD_EMULATED_NCCL_SILENT");
  return value && *value == '1';
}

}  // namespace

// What a stream holds of a task.
struct Progress {
  std::shared_ptr<Comm> comm;
  std::shared_ptr<Task> task;

  static int32_t run(void* context) {
    auto* const it = static_cast<Progress*>(context);
    if (!it->comm->progress(it->task)) return 0;
    delete it;
    return 1;
  }
};

Comm::~Comm() {
  if (thread_.joinable()) thread_.detach();
}

ncclResult_t Comm::state() {
  std::lock_guard<std::mutex> lock(mutex_);
  return state_;
}

std::string Comm::error_text() {
  std::lock_guard<std::mutex> lock(mutex_);
  return text_;
}

ncclResult_t Comm::fail(ncclResult_t result, const std::string& text) {
  std::lock_guard<std::mutex> lock(mutex_);
  text_ = text;
  return result;
}

// ---- life

ncclResult_t Comm::init() {
  ncclResult_t result = ncclSuccess;
  std::string text;
  try {
    mesh_ = std::make_unique<Mesh>(rank, size, device, root_name_, aborted_);
  } catch (const Unreachable& error) {
    result = ncclRemoteError;
    text = error.text;
  } catch (const Refused& error) {
    result = ncclInvalidUsage;
    text = error.text;
  } catch (const Aborted&) {
    result = ncclInternalError;
    text = "aborted";
  }
  std::lock_guard<std::mutex> lock(mutex_);
  if (result == ncclSuccess) thread_ = std::thread([self = shared_from_this()] { self->work(); });
  text_ = text;
  return state_ = result;
}

void Comm::init_elsewhere() {
  std::thread([self = shared_from_this()] { self->init(); }).detach();
}

void Comm::wait_for_tasks() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (ended_ < issued_ && !aborted_) changed_.wait_for(lock, kSlice);
}

ncclResult_t Comm::finalize() {
  if (blocking) {
    wait_for_tasks();
    return ncclSuccess;
  }
  {
    std::lock_guard<std::mutex> lock(mutex_);
    state_ = ncclInProgress;
  }
  std::thread([self = shared_from_this()] {
    self->wait_for_tasks();
    std::lock_guard<std::mutex> lock(self->mutex_);
    self->state_ = ncclSuccess;
  }).detach();
  return ncclInProgress;
}

void Comm::stop(bool aborted) {
  if (aborted) aborted_ = true;
  else wait_for_tasks();
  std::thread ended;
  {
    std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    ended = std::move(thread_);
  }
  changed_.notify_all();
  if (ended.joinable()) ended.join();
}

// ---- tasks

ncclResult_t Comm::submit(std::vector<std::shared_ptr<Task>> tasks) {
  std::unique_lock<std::mutex> lock(mutex_);
  for (const auto& task : tasks) {
    task->number = issued_++;
    if (task->kind != Kind::messages) task->collective = collectives_++;
  }
  if (blocking || used_) {
    lock.unlock();
    enqueue(tasks);
    return ncclSuccess;
  }
  // Connections to the other ranks are made at the first use; the stream gets the work after that.
  used_ = true;
  state_ = ncclInProgress;
  lock.unlock();
  std::thread([self = shared_from_this(), tasks = std::move(tasks)] {
    std::this_thread::sleep_for(2 * kSlice);
    self->enqueue(tasks);
    std::lock_guard<std::mutex> lock(self->mutex_);
    if (self->state_ == ncclInProgress) self->state_ = ncclSuccess;
  }).detach();
  return ncclInProgress;
}

void Comm::enqueue(const std::vector<std::shared_ptr<Task>>& tasks) {
  for (const auto& task : tasks) dg_emulated_progress(task->stream, &Progress::run, new Progress{shared_from_this(), task});
}

// One call at a time, by whoever drives the emulated streams.
bool Comm::progress(const std::shared_ptr<Task>& shared) {
  Task& task = *shared;
  std::unique_lock<std::mutex> lock(mutex_);
  if (aborted_) {
    ended_ = std::max(ended_, task.number + 1);
    return true;
  }
  switch (task.stage) {
    case Task::waiting:
      if (ended_ < task.number) return false;
      read_operands(task);
      task.stage = Task::running;
      ready_.push_back(shared);
      changed_.notify_all();
      return false;
    case Task::running: return false;
    case Task::exchanged: break;
  }
  write_results(task);
  ended_ = task.number + 1;
  changed_.notify_all();
  return true;
}

void Comm::read_operands(Task& task) {
  const auto read = [&](std::vector<char>& to, const void* from, size_t bytes) {
    dg_emulated_access(from, bytes, 0, name_of(task.kind));
    to.assign(static_cast<const char*>(from), static_cast<const char*>(from) + bytes);
  };
  for (Message& it : task.messages)
    if (it.sends) read(it.content, it.memory, it.bytes);
  if (task.kind == Kind::messages || (task.kind == Kind::broadcast && rank != task.root)) return;
  read(task.input, task.in, task.count * size_of(task.type) * (task.kind == Kind::reduce_scatter ? size_t(size) : 1));
}

void Comm::write_results(Task& task) {
  const auto write = [&](void* to, const std::vector<char>& from) {
    dg_emulated_access(to, from.size(), 1, name_of(task.kind));
    if (!from.empty()) std::memcpy(to, from.data(), from.size());
  };
  for (Message& it : task.messages)
    if (!it.sends) write(it.memory, it.content);
  if (task.kind != Kind::messages && (task.kind != Kind::reduce || rank == task.root)) write(task.out, task.output);
}

// The thread that does what streams have reached.
void Comm::work() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stopping_ || aborted_ || !ready_.empty(); });
    if (aborted_ || ready_.empty()) break;
    const auto task = ready_.front();
    ready_.pop_front();
    lock.unlock();
    std::string lost;
    try {
      exchange(*mesh_, *task);
    } catch (const Unreachable& error) {
      lost = error.text;
    } catch (const Aborted&) {
      lost = "aborted";
    }
    lock.lock();
    if (lost.empty()) {
      task->stage = Task::exchanged;
      continue;
    }
    if (aborted_) break;
    if (!silent()) {  // and the operation stands still until the communicator is aborted
      state_ = ncclRemoteError;
      text_ = lost;
    }
    changed_.wait(lock, [&] { return aborted_.load(); });
    break;
  }
  ready_.clear();
  mesh_.reset();
}

}  // namespace nccl_emulation
