// A communicator: its connections, the thread that runs its collectives in order, and the threads that wait for messages between two ranks.
#pragma once
#include <deque>
#include <functional>
#include <thread>

#include "collectives.h"
#include "work.h"

namespace dg::comm {

class Communicator : public std::enable_shared_from_this<Communicator> {
 public:
  Communicator(int rank, int size, const std::string& address);

  const int rank, size;
  bool alone() const { return size == 1; }
  const std::vector<char>& blob() const { return blob_; }

  std::shared_ptr<Work> connect(std::vector<char> blobs, double timeout);
  // Runs `body` in the order of these calls, after the ranks have agreed on `descriptor`, whose sequence is filled in here. x: of an allReduce.
  std::shared_ptr<Work> collective(Descriptor descriptor, Pins pins, double timeout, std::function<void(Mesh&, uint32_t tag)> body, void* x = nullptr);
  std::shared_ptr<Work> send(const void* x, Descriptor content, Pins pins, int target, uint32_t tag, double timeout);
  std::shared_ptr<Work> recv(void* out, Descriptor content, Pins pins, int source, uint32_t tag, double timeout);
  void abort(const std::string& text);
  void close();

 private:
  struct Task {
    std::shared_ptr<Work> work;
    Call call;
    std::function<void()> body;
  };

  void start(void (Communicator::*loop)());
  void run_in_order();
  void run_messages();
  void run(Task& task);
  std::shared_ptr<Work> message(Task task);
  void require_connected(const char* what);

  std::vector<char> blob_;
  std::unique_ptr<Mesh> mesh_;
  std::unique_ptr<Agreement> agreement_;
  std::mutex mutex_;  // of all below
  std::condition_variable changed_;
  std::deque<Task> collectives_, messages_;
  std::atomic<bool> ready_{false};
  uint64_t sequence_ = 0;
  int threads_ = 0, idle_ = 0;
  bool connected_ = false, closing_ = false, finished_ = false;
};

}  // namespace dg::comm
