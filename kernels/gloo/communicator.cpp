#include "communicator.h"

#include <signal.h>

#include <cstring>

namespace dg::comm {
namespace {

constexpr milliseconds kLinger(1000);  // what ranks that are behind are given to finish before this one ends its connections

// What is sent ahead of a message, on a slot of its own: messages that differ in it do not meet, and this tells why.
struct Header {
  int64_t numel = 0;
  uint32_t dtype = 0, tag = 0;
};

uint32_t mixed(int64_t numel, uint32_t dtype) {
  uint64_t x = (uint64_t(numel) * 8 + dtype) * 0x9e3779b97f4a7c15u;
  x ^= x >> 32;
  return uint32_t(x * 0xd6e8feb86659fd93u >> 32);
}

uint64_t header_slot(uint32_t tag) { return kHeader | tag; }
uint64_t data_slot(uint32_t tag, int64_t numel, uint32_t dtype) { return kData | uint64_t(tag) << 32 | mixed(numel, dtype); }

Call call_of(std::string label, uint64_t sequence, double timeout) {
  Call call;
  call.label = std::move(label);
  call.sequence = sequence;
  call.timeout = timeout;
  call.deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double, std::milli>(timeout));
  return call;
}

}  // namespace

Communicator::Communicator(int rank, int size, const std::string& address) : Group(rank, size) {
  if (alone()) {
    blob_.assign(1, 0);
    return;
  }
  mesh_ = std::make_unique<Mesh>(rank, size, address);
  blob_ = mesh_->blob();
  agreement_ = std::make_unique<Agreement>(*mesh_);
}

// ---- threads

void Communicator::start(void (Communicator::*loop)()) {
  threads_++;
  // Signals of the process are for its own threads.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    std::thread([self = shared_from_this(), loop] { ((*self).*loop)(); }).detach();
  } catch (const std::exception&) {
    threads_--;
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    fail(DG_OUT_OF_MEMORY, "the system starts no thread for the process group");
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Communicator::run(Task& task) {
  current_call = &task.call;
  auto failed = [&](const Failure& failure) {
    if (failure.status != DG_COMM_CLOSED) mesh_->declare(failure);
    task.work->end(failure.status, failure.rank, failure.text);
  };
  try {
    const bool broken_before = mesh_->broken();
    try {
      mesh_->check();
    } catch (const Failure& failure) {
      if (failure.status == DG_COMM_CLOSED) throw;
      throw Failure{failure.status, failure.rank,
                    task.call.label + (broken_before ? " cannot run, the process group has failed: " : " cannot run: ") + failure.text};
    }
    task.body();
    task.work->end(DG_OK);
  } catch (const Failure& failure) {
    failed(failure);
  } catch (const Error& error) {
    failed({error.status, rank, error.text});
  } catch (const std::bad_alloc&) {
    failed({DG_OUT_OF_MEMORY, rank, task.call.label + " on rank " + std::to_string(rank) + ": out of memory"});
  } catch (const std::exception& error) {
    failed({DG_INTERNAL, rank, task.call.label + " on rank " + std::to_string(rank) + ": " + error.what()});
  }
  current_call = nullptr;
  task.body = nullptr;
}

void Communicator::run_in_order() {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto due = [&] { return closing_ || !collectives_.empty(); };
  bool hung_up = false;
  for (;;) {
    if (!mesh_->broken() || hung_up) {
      changed_.wait(lock, [&] { return due() || (mesh_->broken() && !hung_up); });
      if (!due()) continue;
    } else if (!changed_.wait_for(lock, std::chrono::seconds(1), due)) {  // by now the others have read the cause
      lock.unlock();
      mesh_->hang_up();
      lock.lock();
      hung_up = true;
      continue;
    }
    if (collectives_.empty()) break;
    Task task = std::move(collectives_.front());
    collectives_.pop_front();
    lock.unlock();
    run(task);  // those left when it is closed fail at once
    lock.lock();
  }
  changed_.notify_all();
  changed_.wait(lock, [&] { return threads_ == 1; });
  lock.unlock();
  if (ready_) {
    mesh_->farewell();
    mesh_->linger(kLinger);
  }
  agreement_.reset();
  mesh_.reset();
  lock.lock();
  threads_ = 0;
  finished_ = true;
  changed_.notify_all();
}

void Communicator::run_messages() {
  std::unique_lock<std::mutex> lock(mutex_);
  for (;;) {
    idle_++;
    changed_.wait(lock, [&] { return closing_ || !messages_.empty(); });
    idle_--;
    if (messages_.empty()) break;
    Task task = std::move(messages_.front());
    messages_.pop_front();
    lock.unlock();
    run(task);
    lock.lock();
    changed_.notify_all();
  }
  threads_--;
  changed_.notify_all();
}

void Communicator::close() {
  std::unique_lock<std::mutex> lock(mutex_);
  closing_ = true;
  if (!mesh_) return;
  mesh_->close();
  if (threads_ == 0 && !finished_) {  // never connected
    finished_ = true;
    agreement_.reset();
    mesh_.reset();
    return;
  }
  changed_.notify_all();
  changed_.wait_for(lock, kLinger + milliseconds(500), [&] { return finished_; });
}

void Communicator::abort(const std::string& text) {
  std::unique_lock<std::mutex> lock(mutex_);
  if (!mesh_ || closing_ || finished_) return;
  SignalGuard guard;
  mesh_->declare({DG_COMM_ABORTED, rank, text});
}

// ---- calls

void Communicator::require_connected(const char* what) {
  if (closing_) fail(DG_DISPOSED, "%s: the communicator was closed", what);
  if (!connected_) fail(DG_RANGE, "%s: the communicator is not connected", what);
}

std::shared_ptr<Work> Communicator::connect(std::vector<char> blobs, double timeout) {
  auto work = std::make_shared<HostWork>();
  std::lock_guard<std::mutex> lock(mutex_);
  if (closing_) fail(DG_DISPOSED, "connect: the communicator was closed");
  if (connected_) fail(DG_RANGE, "connect: the communicator is connected already");
  if (alone()) {
    connected_ = true;
    work->end(DG_OK);
    return work;
  }
  start(&Communicator::run_in_order);
  connected_ = true;
  collectives_.push_back({work, call_of("connecting", 0, timeout), [this, blobs = std::move(blobs)] {
                            mesh_->connect(blobs);
                            agreement_->start();
                            ready_ = true;
                          }});
  changed_.notify_all();
  return work;
}

std::shared_ptr<Work> Communicator::collective(Operation operation, Pins pins, double timeout) {
  auto work = std::make_shared<HostWork>();
  if (alone()) {
    const Tensor &out = operation.out, &x = operation.x;
    if (out.storage && x.storage && memory_of(out) != memory_of(x) && x.numel > 0) std::memcpy(memory_of(out), memory_of(x), size_t(bytes_of(x)));
    work->end(DG_OK);
    return work;
  }
  std::lock_guard<std::mutex> lock(mutex_);
  require_connected("collective");
  work->pins = std::move(pins);
  Descriptor& descriptor = operation.descriptor;
  descriptor.sequence = ++sequence_;
  collectives_.push_back({work, call_of(text_of(descriptor), descriptor.sequence, timeout), [this, operation] {
                            const Descriptor& d = operation.descriptor;
                            if (agreement_->direct(d)) return agreement_->run(operation);
                            agreement_->reach(d, [&](uint32_t tag) {
                              if (d.numel > 0 || d.kind == Kind::barrier) run_collective(*mesh_, operation, tag);
                            });
                          }});
  changed_.notify_all();
  return work;
}

std::shared_ptr<Work> Communicator::message(Task task) {
  auto work = task.work;
  messages_.push_back(std::move(task));
  if (idle_ < int(messages_.size())) start(&Communicator::run_messages);
  changed_.notify_all();
  return work;
}

namespace {

struct Message {
  Header header;
  std::unique_ptr<Buffer> announcement, data;
};

}  // namespace

std::shared_ptr<Work> Communicator::send(Tensor content, Pins pins, int target, uint32_t tag, double timeout) {
  std::lock_guard<std::mutex> lock(mutex_);
  require_connected("send");
  if (!ready_) fail(DG_RANGE, "send: the communicator is still connecting");
  auto work = std::make_shared<HostWork>();
  work->pins = std::move(pins);
  auto message = std::make_shared<Message>();
  message->header = {content.numel, content.dtype, tag};
  const size_t bytes = size_t(bytes_of(content));
  Task task{work,
            call_of("send of " + content_text(content.numel, content.dtype) + " to rank " + std::to_string(target) + " (tag " + std::to_string(tag) + ")", 0, timeout),
            [message] {
              message->announcement->waitSend();
              message->data->waitSend();
            }};
  // Posted here, in the order of the calls: messages of one tag do not overtake each other.
  current_call = &task.call;
  try {
    SignalGuard guard;
    message->announcement = mesh_->buffer(&message->header, sizeof(Header));
    message->data = mesh_->buffer(memory_of(content), bytes);
    message->announcement->send(target, header_slot(tag));
    message->data->send(target, data_slot(tag, content.numel, content.dtype));
  } catch (const Failure& failure) {
    task.body = [failure] { throw failure; };
  }
  current_call = nullptr;
  return this->message(std::move(task));
}

std::shared_ptr<Work> Communicator::recv(Tensor content, Pins pins, int source, uint32_t tag, double timeout) {
  std::lock_guard<std::mutex> lock(mutex_);
  require_connected("recv");
  if (!ready_) fail(DG_RANGE, "recv: the communicator is still connecting");
  auto work = std::make_shared<HostWork>();
  work->pins = std::move(pins);
  auto message = std::make_shared<Message>();
  const size_t bytes = size_t(bytes_of(content));
  const std::string from = source < 0 ? "any rank" : "rank " + std::to_string(source);
  const std::string wanted = content_text(content.numel, content.dtype);
  const uint64_t slot = data_slot(tag, content.numel, content.dtype);
  Task task{work, call_of("recv of " + wanted + " from " + from + " (tag " + std::to_string(tag) + ")", 0, timeout),
            [this, message, work = work.get(), source, wanted, content, slot] {
              int rank = source;
              message->announcement->waitRecv(&rank);
              const Header& header = message->header;
              if (header.numel != content.numel || header.dtype != content.dtype)
                throw Failure{DG_COMM_MISMATCH, rank,
                              "rank " + std::to_string(rank) + " sent " + content_text(header.numel, std::min<uint32_t>(header.dtype, 8)) + " with tag " +
                                  std::to_string(header.tag) + " to rank " + std::to_string(this->rank) + ", which receives " + wanted};
              if (source < 0) message->data->recv(rank, slot);
              message->data->waitRecv();
              work->from = rank;
            }};
  current_call = &task.call;
  try {
    SignalGuard guard;
    message->announcement = mesh_->buffer(&message->header, sizeof(Header));
    message->data = mesh_->buffer(memory_of(content), bytes);
    if (source < 0) {
      std::vector<int> others;
      for (int i = 0; i < size; i++)
        if (i != rank) others.push_back(i);
      message->announcement->recv(others, header_slot(tag), 0, sizeof(Header));
    } else {
      message->announcement->recv(source, header_slot(tag));
      message->data->recv(source, slot);
    }
  } catch (const Failure& failure) {
    task.body = [failure] { throw failure; };
  }
  current_call = nullptr;
  return this->message(std::move(task));
}

}  // namespace dg::comm
