// The collective operations on memory that has been checked. Each runs on the thread of its communicator, the group having agreed on it.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "../common/dtype.h"
#include "../communicator/group.h"
#include "transport.h"

namespace dg::comm {

uint32_t tag_of(const Descriptor& descriptor);

// Compares descriptors before every collective: those of neighbours in a ring, or, where little is to be reduced, those of all ranks with the elements behind
// them, and then nothing is left to do.
class Agreement {
 public:
  explicit Agreement(Mesh& mesh) : mesh_(mesh), peers_(mesh.size) {}
  void start();  // once connected
  // Runs `body` while the descriptors are on their way, which costs no time then: `tag` keeps apart what ranks that differ would send.
  void reach(const Descriptor& own, const std::function<void(uint32_t tag)>& body);

  // True for what all_reduce() below serves: an allReduce of few bytes, and a barrier.
  bool small(const Descriptor& own) const;
  void all_reduce(const Descriptor& own, void* x);

 private:
  struct Peer {
    std::vector<char> memory;  // a descriptor and elements
    std::unique_ptr<Buffer> inbox;
  };
  void listen(int peer);
  void compare(const Descriptor& own, int peer) const;
  Mesh& mesh_;
  std::vector<Peer> peers_;
  std::vector<char> outgoing_;  // what all_reduce() sends
};

// Does an operation over the mesh.
void run_collective(Mesh& mesh, const Operation& operation, uint32_t tag);

}  // namespace dg::comm
