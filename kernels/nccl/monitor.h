// What the ranks of a group tell each other beside NCCL, which knows neither who is late nor whether all called the same: every rank has a TCP connection to
// rank 0.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../communicator/group.h"

namespace dg::comm {

enum class Topic : uint32_t {
  hello = 1,  // to rank 0: who connects
  called,     // to rank 0: the next collective of a rank
  stuck,      // to rank 0: the time of a call is up; sequence 0 and the other rank for a message
  ping,       // from rank 0
  pong,       // to rank 0
  failed,     // the group has failed
  goodbye     // a rank leaves, having ended the collectives up to `sequence`
};

struct Packet {
  Topic topic = Topic::hello;
  int32_t rank = -1;          // that it is about
  int32_t status = DG_OK;     // of a failure
  uint32_t milliseconds = 0;  // stuck: the time that was up
  uint64_t sequence = 0;
  Descriptor descriptor;
  std::string text;
};

// Where rank 0 listens, and what it asks of who connects.
struct MonitorAddress {
  char host[64] = {};
  uint16_t port = 0;
  unsigned char token[16] = {};
};

class Monitor {
 public:
  using PacketHandler = std::function<void(int from, const Packet&)>;
  // Rank 0 listens on `address`: a host name, an IP address or a network interface.
  Monitor(int rank, int size, const std::string& address);
  ~Monitor();
  Monitor(const Monitor&) = delete;
  Monitor& operator=(const Monitor&) = delete;
  const MonitorAddress& address() const { return address_; }

  // ---- from any thread: queues packets; rank 0 sends to the rank named, the others to rank 0
  void send(int to, Packet packet);
  void wake();
  // True once all that was queued has been handed to the system, or the milliseconds are over.
  bool flushed(int milliseconds);

  // ---- from the thread of the group
  void start(const MonitorAddress& root);
  // All have said hello, or this rank's connection to rank 0 stands.
  bool connected() const { return connected_; }
  // Ranks that are not there yet; rank 0 knows.
  std::vector<int> missing() const;
  // Ends the connections once the others have read all that was sent, or the milliseconds are over.
  void leave(int milliseconds);
  // Waits for at most so many milliseconds, and gives what comes to `packet`, connections that ended to `lost`.
  void run(int milliseconds, const PacketHandler& packet, const std::function<void(int rank)>& lost);

 private:
  struct Link {
    int socket = -1;
    bool known = false;  // has said hello
    bool ended = false;
    int64_t since = 0;
    std::string in;
  };
  void accept_all();
  void read_from(Link& link, const std::function<void(const Packet&)>& packet);
  bool take_hello(Link& link, const Packet& packet);
  void hang_up(Link& link);

  const int rank_, size_;
  MonitorAddress address_;
  int listener_ = -1, wake_[2] = {-1, -1};
  bool connected_ = false, connecting_ = false;
  std::vector<Link> links_;  // by rank; the others have one, to rank 0
  std::vector<Link> strangers_;
  std::mutex mutex_;  // of all below
  std::vector<std::string> out_;
};

}  // namespace dg::comm
