// Ranks on one machine: each reads the others' memory where it lies, instead of sending it through a socket.
#pragma once
#include <sys/types.h>

#include <cstdint>
#include <vector>

namespace dg::comm {

// What another rank has to know to read this one's memory.
struct Place {
  uint64_t address = 0;
  int32_t process = 0, unused = 0;
};

class Neighbours {
 public:
  explicit Neighbours(int size) : processes_(size) {}
  // Lets the other ranks read this process where the system allows that to relatives only.
  static void admit();
  // True if `expected` is what lies at a rank's `place`: it can be read from then on.
  bool meet(int rank, const Place& place, const void* expected, size_t bytes);
  // False if the memory of that rank can not be read (any more).
  bool read(int rank, void* to, uint64_t from, size_t bytes) const;

 private:
  std::vector<pid_t> processes_;
};

}  // namespace dg::comm
