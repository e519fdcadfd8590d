// A communicator: its connections, the thread that runs its collectives in order, and the threads that wait for messages between two ranks.
#pragma once
#include <deque>
#include <functional>
#include <thread>

#include "collectives.h"
#include "work.h"

namespace dg::comm {

class Communicator final : public Group, public std::enable_shared_from_this<Communicator> {
 public:
  Communicator(int rank, int size, const std::string& address);

  const std::vector<char>& blob() const override { return blob_; }
  std::shared_ptr<Work> connect(std::vector<char> blobs, double timeout) override;
  // Runs in the order of these calls, after the ranks have agreed on the descriptor, whose sequence is filled in here.
  std::shared_ptr<Work> collective(Operation operation, Pins pins, double timeout) override;
  std::shared_ptr<Work> send(Tensor content, Pins pins, int target, uint32_t tag, double timeout) override;
  std::shared_ptr<Work> recv(Tensor content, Pins pins, int source, uint32_t tag, double timeout) override;
  void abort(const std::string& text) override;
  void close() override;

 private:
  struct Task {
    std::shared_ptr<HostWork> work;
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
