// The collective operations on memory that has been checked. Each runs on the thread of its communicator, the group having agreed on it.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "../common/dtype.h"
#include "../communicator.h"
#include "transport.h"

namespace dg::comm {

enum class Kind : uint32_t { all_reduce, reduce, broadcast, all_gather, reduce_scatter, gather, scatter, all_to_all, barrier };

// What the ranks must agree on, as it travels.
struct Descriptor {
  uint64_t sequence = 0;
  Kind kind = Kind::barrier;
  uint32_t dtype = 0, op = DG_NONE, root = DG_NONE;
  int64_t numel = 0;
};
std::string text_of(const Descriptor& descriptor);
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
};

// `numel`: elements of x where there is only x, else of the smaller of the two.
void all_reduce(Mesh& mesh, void* x, uint32_t dtype, int64_t numel, uint32_t op, uint32_t tag);
void reduce(Mesh& mesh, void* x, uint32_t dtype, int64_t numel, uint32_t op, int root, uint32_t tag);
void broadcast(Mesh& mesh, void* x, int64_t bytes, int root, uint32_t tag);
void all_gather(Mesh& mesh, void* out, const void* x, int64_t bytes, uint32_t tag);
void reduce_scatter(Mesh& mesh, void* out, const void* x, uint32_t dtype, int64_t numel, uint32_t op, uint32_t tag);
void gather(Mesh& mesh, void* out, const void* x, int64_t bytes, int root, uint32_t tag);
void scatter(Mesh& mesh, void* out, const void* x, int64_t bytes, int root, uint32_t tag);
void all_to_all(Mesh& mesh, void* out, const void* x, int64_t bytes, uint32_t tag);
void barrier(Mesh& mesh, uint32_t tag);

}  // namespace dg::comm
