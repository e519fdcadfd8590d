// Connections between the ranks of the stand-in: Unix sockets with abstract names.
#pragma once
#include <atomic>
#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

namespace nccl_emulation {

struct Unreachable {
  std::string text;
};  // thrown: a rank is gone
struct Refused {
  std::string text;
};  // thrown: the ranks do not fit together
struct Aborted {};  // thrown

// Waits for the ranks of one communicator in a thread of its own, and tells each where the others listen. Returns the name under which it does.
std::string start_root();

// What goes ahead of each message. Operations whose headers differ do not meet.
struct Header {
  uint64_t bytes = 0, number = 0, count = 0;
  uint32_t kind = 0, type = 0, op = 0, root = 0, phase = 0, messages = 0;
};

class Mesh {
 public:
  Mesh(int rank, int size, int device, const std::string& root, const std::atomic<bool>& aborted);
  ~Mesh();
  Mesh(const Mesh&) = delete;
  Mesh& operator=(const Mesh&) = delete;
  const int rank, size;

  struct Outgoing {
    int peer;
    const void* data;
    size_t bytes;
  };
  struct Incoming {
    int peer;
    void* data;
    size_t bytes;
  };
  // Sends and receives, all at once; those of one peer in their order. Does not return while a message that comes has another header than `header`.
  void exchange(Header header, const std::vector<Outgoing>& sends, const std::vector<Incoming>& receives);

 private:
  struct Peer {
    int socket = -1;
    std::string sending;
    size_t sent = 0;
    std::string received;  // not yet a whole message
    std::deque<std::pair<Header, std::string>> inbox[2];  // of collectives; of messages
  };
  bool take(Peer& peer, const Header& wanted, const Incoming& incoming);
  void transfer(int milliseconds);
  void check() const;

  const std::atomic<bool>& aborted_;
  std::vector<Peer> peers_;
};

}  // namespace nccl_emulation
