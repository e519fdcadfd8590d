// What a back end of process groups provides, and what interface.cpp makes of it: the C functions of ../communicator.h stand once for all of them.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "../common/tensor.h"
#include "../communicator.h"

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
// As "float32[3]".
std::string content_text(int64_t numel, uint32_t dtype);
inline std::string rank_text(int rank) { return "rank " + std::to_string(rank); }

// How a work or a group failed; thrown.
struct Failure {
  int32_t status = DG_OK;
  int32_t rank = -1;  // that the failure is about, -1 for none
  std::string text;
};

// Provided by the back end: lets go of a storage that a call has pinned.
void unpin_storage(uint32_t storage);

// Storages that a call has named: in use until it lets them go.
class Pins {
 public:
  Pins() = default;
  Pins(Pins&& other) noexcept : ids_(std::move(other.ids_)) { other.ids_.clear(); }
  Pins& operator=(Pins&& other) noexcept {
    ids_.swap(other.ids_);
    return *this;
  }
  ~Pins() { clear(); }
  void add(uint32_t id) { ids_.push_back(id); }
  void clear() {
    for (uint32_t id : ids_) unpin_storage(id);
    ids_.clear();
  }

 private:
  std::vector<uint32_t> ids_;
};

class Work {
 public:
  virtual ~Work() = default;
  // The status after at most so many milliseconds.
  virtual int32_t wait(double milliseconds) = 0;
  // Waits, or makes the device wait that the results are on; DG_OK once what follows there may rely on them.
  virtual int32_t join() = 0;
  virtual Failure outcome() = 0;
  // The rank that a recv took its tensor from, -1 for none.
  virtual int32_t source() const = 0;
};

// Tensors of a call, checked. Where a rank has only one of them the other names no storage.
struct Operation {
  Descriptor descriptor;
  Tensor out, x;
};

class Group {
 public:
  Group(int rank, int size) : rank(rank), size(size) {}
  virtual ~Group() = default;
  const int rank, size;
  bool alone() const { return size == 1; }

  virtual const std::vector<char>& blob() const = 0;
  virtual std::shared_ptr<Work> connect(std::vector<char> blobs, double timeout) = 0;
  // Groups of one are asked, too.
  virtual std::shared_ptr<Work> collective(Operation operation, Pins pins, double timeout) = 0;
  virtual std::shared_ptr<Work> send(Tensor x, Pins pins, int target, uint32_t tag, double timeout) = 0;
  virtual std::shared_ptr<Work> recv(Tensor out, Pins pins, int source, uint32_t tag, double timeout) = 0;  // source -1: any
  virtual void abort(const std::string& text) = 0;
  virtual void close() = 0;
};

// Provided by the back end.
std::shared_ptr<Group> open_group(int rank, int size, const std::string& address, uint32_t device);
// The memory of a storage, pinned.
dg_region pin_storage(uint32_t storage, const char* op);

inline void* memory_of(const Tensor& x) { return x.storage_data + x.offset * dtype_size(x.dtype); }
inline int64_t bytes_of(const Tensor& x) { return x.numel * dtype_size(x.dtype); }

}  // namespace dg::comm
