// A group over NCCL. What it is asked for goes onto the communication stream of its device in the calling thread, so that all groups of a device have one
// order; a thread of its own talks to the other ranks, sees to time-outs and failures, and is the only one that ends the NCCL communicator.
#pragma once
#include <condition_variable>
#include <functional>
#include <map>
#include <mutex>
#include <optional>

#include "libraries.h"
#include "monitor.h"
#include "referee.h"
#include "work.h"

namespace dg::comm {

class Communicator final : public Group, public std::enable_shared_from_this<Communicator> {
 public:
  Communicator(int rank, int size, const std::string& address, uint32_t device);

  const std::vector<char>& blob() const override { return blob_; }
  std::shared_ptr<Work> connect(std::vector<char> blobs, double timeout) override;
  std::shared_ptr<Work> collective(Operation operation, Pins pins, double timeout) override;
  std::shared_ptr<Work> send(Tensor x, Pins pins, int target, uint32_t tag, double timeout) override;
  std::shared_ptr<Work> recv(Tensor out, Pins pins, int source, uint32_t tag, double timeout) override;
  void abort(const std::string& text) override;
  void close() override;

 private:
  using WorkList = std::vector<std::shared_ptr<DeviceWork>>;
  using Launch = std::function<ncclResult_t(ncclComm_t, cudaStream_t)>;
  // What each rank gives the others to connect with; rank 0's holds.
  struct Blob {
    uint64_t magic;
    ncclUniqueId id;
    MonitorAddress monitor;
  };

  // ---- in the calling thread
  void require_connected(const char* what, const Tensor& x);
  // Ends a work of a group that has failed.
  bool refused(DeviceWork& work);
  std::shared_ptr<Work> launch(std::shared_ptr<DeviceWork> work, Pins pins, const Launch& body);
  ncclResult_t run(const Launch& body, cudaStream_t stream);
  std::shared_ptr<Work> copied(const Operation& operation, double timeout);
  std::shared_ptr<Work> message(bool sends, const Tensor& x, Pins pins, int other, uint32_t tag, double timeout);
  void drop_ended();
  Launch body_of(const Operation& operation) const;

  // ---- in either
  // The first failure stays; the others are told unless `quiet`.
  void declare(Failure failure, bool quiet = false);
  std::optional<Failure> cause();
  std::string nccl_text(ncclResult_t result);
  void tell(const Packet& packet, int except = -1);

  // ---- in the group's thread
  void watch();
  void start_nccl();
  void look_at_connection();
  void look_at_works();
  void look_at_nccl();
  void look_at_time();
  void look_at_ranks_that_left();
  void received(int from, const Packet& packet);
  void lost(int rank);
  // "<call> on rank 0: " of the oldest work under way; empty if there is none.
  std::string doing();
  void end_all(const Failure& failure);
  void pump(int milliseconds);
  // Hands over what is queued for the others, for at most 200 ms.
  void deliver();
  void end_nccl(bool gracefully);

  const uint32_t device_;
  Blob own_{}, root_{};
  std::vector<char> blob_;
  std::unique_ptr<Monitor> monitor_;
  std::unique_ptr<Referee> referee_;  // rank 0's
  uint32_t ready_mark_ = 0, token_ = 0;  // token: storage that barriers reduce
  void* token_memory_ = nullptr;
  uint64_t sequence_ = 0;
  std::mutex call_mutex_;  // of one call at a time

  std::mutex nccl_mutex_;
  ncclComm_t comm_ = nullptr;

  std::mutex mutex_;  // of all below
  std::condition_variable changed_;
  std::optional<Failure> cause_;
  WorkList pending_, ended_;
  std::vector<Packet> own_packets_;  // of rank 0 to itself
  std::map<int, uint64_t> left_;  // ranks that have left, with the last collective that they ended
  uint64_t completed_ = 0;
  bool connected_ = false, closing_ = false, watching_ = false, finished_ = false;
  bool dozing_ = false;  // the group's thread would not look at a new work soon
  std::shared_ptr<DeviceWork> connecting_;

  // of the group's thread
  bool torn_ = false;
  std::shared_ptr<DeviceWork> asked_about_;
  std::optional<Clock::time_point> nccl_failed_, asked_;
};

}  // namespace dg::comm
