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

// Compares descriptors before every collective: those of the ranks beside it in a ring, or, where little is to be reduced or all ranks are on one machine, those
// of all ranks, with the elements behind them or with where they lie.
class Agreement {
 public:
  explicit Agreement(Mesh& mesh) : mesh_(mesh), peers_(mesh.size) {}
  void start();  // once connected
  // Runs `body` while the descriptors are on their way, which costs no time then: `tag` keeps apart what ranks that differ would send.
  void reach(const Descriptor& own, const std::function<void(uint32_t tag)>& body);

  // True for what run() below serves: allReduce and allGather of few bytes, allReduce between neighbours, and barriers.
  bool direct(const Descriptor& own) const;
  void run(const Operation& operation);

 private:
  struct Peer {
    std::vector<char> memory;  // a descriptor and elements
    std::unique_ptr<Buffer> inbox;
  };
  void listen(int peer);
  bool small(const Descriptor& own) const;
  // Sends the descriptor and `bytes` behind it to all ranks, and waits for theirs, which are in the peers' memory until listen().
  void exchange(const Descriptor& own, const void* content, size_t bytes);
  void all_reduce(const Descriptor& own, char* x);
  void all_gather(const Descriptor& own, char* out, const char* x);
  void reduce_in_place(const Descriptor& own, char* x);
  void compare(const Descriptor& own, int peer) const;
  Mesh& mesh_;
  std::vector<Peer> peers_;
  std::vector<char> outgoing_, segment_;
};

// Does an operation over the mesh.
void run_collective(Mesh& mesh, const Operation& operation, uint32_t tag);

}  // namespace dg::comm
