// A communicator of the stand-in for NCCL: ranks are threads of one or of several processes of this machine, data travels over Unix sockets.
//
// What a call asks for becomes a Task. Its progress function runs on the emulated stream: it reads the operands when the stream gets there and the tasks before
// it on the communicator have ended, and writes the results when the communicator's thread has exchanged the data, so that a missing wait on either side shows.
#pragma once
#include <atomic>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "../api.h"
#include "transport.h"

namespace nccl_emulation {

enum class Kind : uint32_t { all_reduce, reduce, broadcast, all_gather, reduce_scatter, messages };

// One side of a message between two ranks.
struct Message {
  bool sends;
  int peer;
  void* memory;  // only read if it sends
  size_t bytes;
  std::vector<char> content;
};

struct Task {
  Kind kind = Kind::messages;
  ncclDataType_t type = ncclUint8;
  ncclRedOp_t op = ncclSum;
  int root = 0;
  size_t count = 0;
  const void* in = nullptr;
  void* out = nullptr;
  cudaStream_t stream = nullptr;
  std::vector<Message> messages;

  uint64_t number = 0, collective = 0;  // within the communicator; among its collectives
  enum Stage { waiting, running, exchanged } stage = waiting;
  std::vector<char> input, output;
};

class Comm : public std::enable_shared_from_this<Comm> {
 public:
  Comm(int rank, int size, int device, bool blocking, std::string root_name)
      : rank(rank), size(size), device(device), blocking(blocking), root_name_(std::move(root_name)) {}
  ~Comm();
  const int rank, size, device;
  const bool blocking;

  // Meets the other ranks. For a communicator that does not block, on a thread of its own.
  ncclResult_t init();
  void init_elsewhere();
  // Gives the tasks to their streams, in order.
  ncclResult_t submit(std::vector<std::shared_ptr<Task>> tasks);
  // Ends when all tasks have; for a communicator that does not block, elsewhere.
  ncclResult_t finalize();
  // Ends the thread; `aborted`: what is under way, too.
  void stop(bool aborted);

  ncclResult_t state();
  std::string error_text();
  ncclResult_t fail(ncclResult_t result, const std::string& text);

 private:
  friend struct Progress;
  bool progress(const std::shared_ptr<Task>& task);
  void enqueue(const std::vector<std::shared_ptr<Task>>& tasks);
  void work();
  void wait_for_tasks();
  void read_operands(Task& task);
  void write_results(Task& task);

  const std::string root_name_;
  std::mutex mutex_;  // of all below
  std::condition_variable changed_;
  ncclResult_t state_ = ncclInProgress;
  std::string text_;
  bool used_ = false, stopping_ = false;
  uint64_t issued_ = 0, ended_ = 0, collectives_ = 0;
  std::deque<std::shared_ptr<Task>> ready_;
  std::atomic<bool> aborted_{false};
  std::unique_ptr<Mesh> mesh_;
  std::thread thread_;
};

// Does a task over the mesh: from task.input, or its messages' contents, to task.output or theirs.
void exchange(Mesh& mesh, Task& task);
size_t size_of(ncclDataType_t type);

}  // namespace nccl_emulation
