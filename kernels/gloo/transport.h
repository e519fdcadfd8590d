// The connections of a group over Gloo's TCP transport, with what Gloo leaves out: nothing that happens on its threads ends the process, waiting can be
// interrupted, and a failure is told to all ranks with its cause.
#pragma once
#include <atomic>
#include <chrono>
#include <gloo/context.h>
#include <gloo/transport/tcp/context.h>
#include <gloo/transport/tcp/device.h>
#include <gloo/transport/tcp/pair.h>
#include <gloo/transport/tcp/unbound_buffer.h>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../communicator/group.h"
#include "neighbours.h"

namespace dg::comm {

namespace transport = ::gloo::transport;
namespace tcp = ::gloo::transport::tcp;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

// What a thread is doing, for its deadline and for the texts of failures.
struct Call {
  std::string label;
  uint64_t sequence = 0;
  Clock::time_point deadline;
  double timeout = 0;
  std::function<void()> verify;          // throws once it shows that the ranks do not agree on what this is
  std::function<bool(int rank)> unheard;  // true if it would be known that a rank does the same, and is not
  bool told = false;  // the others were told what it waits for
};
inline thread_local Call* current_call = nullptr;

// While it lives, a write to a closed connection raises no signal in this thread.
class SignalGuard {
 public:
  SignalGuard();
  ~SignalGuard();

 private:
  bool pending_before_, blocked_before_;
};

inline constexpr milliseconds kSlice(20);  // how soon a thread that waits sees that it should not

class Mesh;

// A connection whose faults end the connection and not the process.
class Link final : public tcp::Pair {
 public:
  using tcp::Pair::Pair;
  void handleEvents(int events) override;
  bool connected();
  bool failed();
  std::string why();  // of a connection that failed
  void hang_up();

 protected:
  // connect() only starts: Mesh waits for all connections together.
  void waitUntilConnected(std::unique_lock<std::mutex>&, bool) override {}
};

// Memory that is sent from or received into. Waiting is Mesh's.
class Buffer final : public tcp::UnboundBuffer {
 public:
  Buffer(Mesh& mesh, void* memory, size_t bytes);
  void send(int target, uint64_t slot, size_t offset, size_t bytes) override;
  void recv(int source, uint64_t slot, size_t offset, size_t bytes) override;
  void recv(std::vector<int> sources, uint64_t slot, size_t offset, size_t bytes) override;
  bool waitRecv(int* rank, milliseconds) override;
  bool waitSend(int* rank, milliseconds) override;
  using transport::UnboundBuffer::waitRecv;
  using transport::UnboundBuffer::waitSend;

  void send(int target, uint64_t slot) { send(target, slot, 0, size); }
  void recv(int source, uint64_t slot) { recv(source, slot, 0, size); }
  bool take_recv();  // true once for each message that has come
  bool take_send();

 private:
  friend class Mesh;
  template <class Post> void post(int peer, Post&& post);
  // True if it ended within `slice`; `broken`: a connection that it waits for is lost.
  bool ended(bool receiving, milliseconds slice, int* rank, bool& broken);
  Mesh& mesh_;
  std::vector<int> peers_;  // those that it has been sent to or received from
};

// Gloo's context with our connections and buffers.
class Links final : public tcp::Context {
 public:
  Links(Mesh& mesh, std::shared_ptr<tcp::Device> device, int rank, int size) : tcp::Context(std::move(device), rank, size), mesh_(mesh) {}
  std::unique_ptr<transport::Pair>& createPair(int rank) override;
  std::unique_ptr<transport::UnboundBuffer> createUnboundBuffer(void* memory, size_t bytes) override;
  Link& link(int rank) { return static_cast<Link&>(*pairs_[rank]); }
  bool linked(int rank) const { return pairs_[rank] != nullptr; }
  void drop() { pairs_.clear(); }

 private:
  Mesh& mesh_;
};

// What Gloo's algorithms take.
class World final : public ::gloo::Context {
 public:
  World(int rank, int size, std::shared_ptr<transport::Context> links) : ::gloo::Context(rank, size) {
    transportContext_ = std::move(links);
    setTimeout(std::chrono::hours(1));  // never reached: Buffer waits by the deadline of the call
  }
};

// Slots: the upper byte says what a message is. Gloo's own algorithms use 1 to 8.
inline constexpr uint64_t kHello = uint64_t(0x40) << 56, kReport = uint64_t(0x41) << 56, kDescriptor = uint64_t(0x42) << 56, kPart = uint64_t(0x43) << 56,
                          kHeader = uint64_t(0x44) << 56, kData = uint64_t(0x45) << 56, kNear = uint64_t(0x46) << 56;

class Mesh {
 public:
  Mesh(int rank, int size, const std::string& address);
  ~Mesh();

  const int rank, size;
  std::shared_ptr<World> world;

  const std::vector<char>& blob() const { return blob_; }
  void connect(const std::vector<char>& blobs);
  // True on all ranks if they are on one machine and can read each other's memory.
  bool near() const { return near_; }
  // From the memory of another rank.
  void read(int peer, void* to, uint64_t from, size_t bytes);
  std::unique_ptr<Buffer> buffer(void* memory, size_t bytes) { return std::make_unique<Buffer>(*this, memory, bytes); }

  // Waits for `buffer` until the current call's deadline.
  void wait(Buffer& buffer, bool receiving, int* from);
  // Throws if there is a reason for the current call not to go on.
  void check();
  // Fails the group on this rank, and on the others unless `quiet`. The first cause stays.
  void declare(const Failure& failure, bool quiet = false);
  bool broken() const { return broken_.load(); }
  Failure cause();
  // No call goes on after this; the others are told that this rank has left.
  void close();
  bool closing() const { return closing_.load(); }
  void farewell();
  // After that: keeps the connections until the others leave, too. One that is closed with something unread takes along what it has delivered.
  void linger(milliseconds most);
  // Ends the connections of a group that has failed: what still comes in has nowhere to go.
  void hang_up();

 private:
  friend class Buffer;
  friend class Links;
  enum Kind : uint32_t { none, waiting, failed, goodbye };
  // What a rank tells the others outside of any collective.
  struct Report {
    uint32_t kind = none;
    int32_t status = 0, rank = -1, unheard = 0;
    uint64_t sequence = 0;
    char text[488] = {};
  };
  // Two reports may come before this rank looks: that a rank waits, and that it gave up.
  struct Peer {
    Report incoming[2], heard;
    std::unique_ptr<Buffer> inbox[2];
    int next = 0;
    bool fresh = false;  // a `waiting` that was not answered yet
    Clock::time_point heard_at;
  };

  void listen_for_reports();
  void poll();
  void tell(const Report& report);
  [[noreturn]] void lost(Buffer& buffer);
  [[noreturn]] void lost(int peer);
  [[noreturn]] void expired(Buffer& buffer);
  Report waiting_report(const Buffer& buffer) const;
  int first_waited_for(const Buffer& buffer) const;
  [[noreturn]] void fail_all(const Failure& failure);

  std::shared_ptr<Links> links_;
  std::vector<char> blob_;
  std::string token_, host_;
  Neighbours neighbours_;
  bool near_ = false;
  std::atomic<bool> closing_{false}, broken_{false};
  std::mutex mutex_;  // of all below
  Failure cause_{};
  std::vector<Peer> peers_;
  bool listening_ = false;
  std::vector<std::unique_ptr<std::pair<Report, std::unique_ptr<Buffer>>>> outgoing_;
};

}  // namespace dg::comm
