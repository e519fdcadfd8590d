// Work space from the caching allocator.
#pragma once
#include "../common/memory.h"

namespace dg {

// Work space of one native call, from the same cache.
class Scratch {
 public:
  explicit Scratch(int64_t bytes) : bytes_(bytes), memory_(allocate(bytes)) {}
  ~Scratch() { release(memory_, bytes_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  template <class T> T* as() const { return static_cast<T*>(memory_); }

 private:
  int64_t bytes_;
  void* memory_;
};

}  // namespace dg
