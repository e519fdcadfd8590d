// The C functions: checks of every argument, then the group's.
#include <algorithm>
#include <cstring>
#include <mutex>
#include <unordered_map>

#include "group.h"

namespace dg {
namespace {

// What the headers of the current call have named.
thread_local comm::Pins* call_pins = nullptr;
thread_local int32_t call_status = DG_OK;

}  // namespace

Region storage_region(uint32_t storage, const char* op) {
  const dg_region region = comm::pin_storage(storage, op);
  call_pins->add(storage);
  return {static_cast<char*>(region.data), int64_t(region.bytes), region.device, region.stream};
}

namespace comm {
namespace {

// Objects by id; an id is never used again.
template <class T>
class Table {
 public:
  uint32_t add(std::shared_ptr<T> object) {
    std::lock_guard<std::mutex> lock(mutex_);
    do {
      if (++last_ == 0) last_ = 1;
    } while (objects_.count(last_));
    objects_[last_] = std::move(object);
    return last_;
  }

  std::shared_ptr<T> find(uint32_t id, const char* what) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto it = objects_.find(id);
    if (it == objects_.end()) fail(DG_DISPOSED, "%s %u does not exist (any more)", what, id);
    return it->second;
  }

  std::shared_ptr<T> remove(uint32_t id, const char* what) {
    std::lock_guard<std::mutex> lock(mutex_);
    const auto it = objects_.find(id);
    if (it == objects_.end()) fail(DG_DISPOSED, "%s %u does not exist (any more)", what, id);
    auto object = std::move(it->second);
    objects_.erase(it);
    return object;
  }

 private:
  std::mutex mutex_;
  std::unordered_map<uint32_t, std::shared_ptr<T>> objects_;
  uint32_t last_ = 0;
};

// Never destroyed: threads may be at work while the process ends.
Table<Group>& groups() {
  static auto* table = new Table<Group>;
  return *table;
}

Table<Work>& works() {
  static auto* table = new Table<Work>;
  return *table;
}

// Runs `body`, which returns a work, and gives its id.
template <class Body>
uint32_t call(Body&& body) {
  uint32_t id = 0;
  Pins pins;
  call_pins = &pins;
  call_status = guard([&] {
    try {
      id = works().add(body(pins));
    } catch (const Failure& failure) {
      throw Error{dg_status(failure.status), failure.text};
    }
  });
  call_pins = nullptr;
  return id;
}

std::shared_ptr<Group> group_at(uint32_t comm) { return groups().find(comm, "communicator"); }

double checked_timeout(double timeout, const char* op) {
  if (!(timeout > 0 && timeout <= 1e10)) fail(DG_RANGE, "%s: timeout must be more than 0 and at most 1e10 ms, got %g", op, timeout);
  return timeout;
}

Tensor dense(const dg_tensor* t, uint32_t slot, const char* op, Access access) {
  const Tensor x = tensor_at(t, slot, op, access);
  if (x.numel > 0 && !x.contiguous()) fail(DG_SHAPE, "%s: takes a contiguous tensor, got strides that are not row-major for %s", op, shape_text(x).c_str());
  return x;
}

void check_rank(uint32_t rank, const Group& group, const char* op, const char* what) {
  if (rank >= uint32_t(group.size)) fail(DG_RANGE, "%s: %s must be 0 to %d, got %u", op, what, group.size - 1, rank);
}

void check_reduction(const Tensor& x, uint32_t op, const char* name) {
  if (op > DG_MAX) fail(DG_RANGE, "%s: reduction %u does not exist", name, op);
  require_numbers(x, name);
  if (op == DG_AVERAGE && !is_float_dtype(x.dtype)) fail(DG_DTYPE, "%s: an average takes a floating point dtype, got %s", name, dtype_name(x.dtype));
}

// `whole` must hold `size` times the elements of `part`, in other memory.
void check_parts(const Tensor& whole, const Tensor& part, int size, const char* op) {
  require_dtype(whole, part.dtype, op, "both tensors");
  int64_t wanted;
  if (__builtin_mul_overflow(part.numel, int64_t(size), &wanted) || whole.numel != wanted)
    fail(DG_SHAPE, "%s: the larger tensor must have %d times as many elements as the smaller, %s and %s", op, size, shape_text(whole).c_str(),
         shape_text(part).c_str());
  const char *a = static_cast<char*>(memory_of(whole)), *b = static_cast<char*>(memory_of(part));
  if (part.numel > 0 && a < b + bytes_of(part) && b < a + bytes_of(whole)) fail(DG_RANGE, "%s: the two tensors share memory: clone() one of them", op);
}

Descriptor descriptor(Kind kind, const Tensor& x, uint32_t op = DG_NONE, uint32_t root = DG_NONE) { return {0, kind, x.dtype, op, root, x.numel}; }

void check_message(const Group& group, uint32_t other, uint32_t tag, double timeout, const char* op) {
  check_rank(other, group, op, "the other rank");
  if (other == uint32_t(group.rank)) fail(DG_RANGE, "%s: rank %u is this rank itself", op, other);
  if (tag >= 1u << 24) fail(DG_RANGE, "%s: tag must be less than 2^24, got %u", op, tag);
  checked_timeout(timeout, op);
}

int32_t finished(const std::shared_ptr<Work>& work, int32_t status) {
  if (status != DG_OK && status != DG_COMM_PENDING) last_error() = work->outcome().text;
  return status;
}

int32_t waited(uint32_t work, double timeout) {
  int32_t status = DG_OK;
  const int32_t call = guard([&] {
    if (!(timeout >= 0 && timeout <= 1e10)) fail(DG_RANGE, "wait: timeout must be 0 to 1e10 ms, got %g", timeout);
    const auto it = works().find(work, "work");
    status = finished(it, it->wait(timeout));
  });
  return call != DG_OK ? call : status;
}

uint32_t copied(const std::string& message, char* text, uint32_t capacity) {
  if (text && capacity) {
    const size_t count = std::min<size_t>(message.size(), capacity - 1);
    std::memcpy(text, message.data(), count);
    text[count] = 0;
  }
  return uint32_t(message.size());
}

}  // namespace
}  // namespace comm
}  // namespace dg

using namespace dg;
using namespace dg::comm;

int32_t dg_comm_abi_version(void) { return DG_COMM_ABI_VERSION; }
int32_t dg_comm_last_status(void) { return call_status; }
uint32_t dg_comm_last_error(char* text, uint32_t capacity) { return copied(last_error(), text, capacity); }

uint32_t dg_comm_open(uint32_t rank, uint32_t size, const char* address, uint32_t device) {
  uint32_t id = 0;
  call_status = guard([&] {
    if (size == 0 || size > 4096) fail(DG_RANGE, "open: a group has 1 to 4096 ranks, got %u", size);
    if (rank >= size) fail(DG_RANGE, "open: rank must be 0 to %u, got %u", size - 1, rank);
    if (!address || strnlen(address, 256) == 256) fail(DG_RANGE, "open: the address must have less than 256 characters");
    require_device(device, "open");
    id = groups().add(open_group(int(rank), int(size), address, device));
  });
  return id;
}

uint32_t dg_comm_blob(uint32_t comm, uint8_t* blob, uint32_t capacity) {
  uint32_t length = 0;
  call_status = guard([&] {
    const auto group = group_at(comm);
    length = uint32_t(group->blob().size());
    if (blob) std::memcpy(blob, group->blob().data(), std::min(length, capacity));
  });
  return length;
}

uint32_t dg_comm_connect(uint32_t comm, const uint8_t* blobs, uint32_t bytes, double timeout) {
  return call([&](Pins&) {
    if (!blobs && bytes) fail(DG_RANGE, "connect: null blobs");
    return group_at(comm)->connect({blobs, blobs + bytes}, checked_timeout(timeout, "connect"));
  });
}

int32_t dg_comm_abort(uint32_t comm, const char* text) {
  return guard([&] {
    if (!text) fail(DG_RANGE, "abort: null text");
    group_at(comm)->abort(std::string(text, strnlen(text, 2000)));
  });
}

int32_t dg_comm_close(uint32_t comm) {
  return guard([&] { groups().remove(comm, "communicator")->close(); });
}

uint32_t dg_comm_all_reduce(uint32_t comm, const dg_tensor* t, uint32_t slot, uint32_t op, double timeout) {
  return call([&](Pins& pins) {
    const auto group = group_at(comm);
    const Tensor x = dense(t, slot, "allReduce", Access::write);
    check_reduction(x, op, "allReduce");
    checked_timeout(timeout, "allReduce");
    return group->collective({descriptor(Kind::all_reduce, x, op), x, x}, std::move(pins), timeout);
  });
}

uint32_t dg_comm_reduce(uint32_t comm, const dg_tensor* t, uint32_t slot, uint32_t op, uint32_t root, double timeout) {
  return call([&](Pins& pins) {
    const auto group = group_at(comm);
    const Tensor x = dense(t, slot, "reduce", Access::write);
    check_reduction(x, op, "reduce");
    check_rank(root, *group, "reduce", "the root");
    checked_timeout(timeout, "reduce");
    return group->collective({descriptor(Kind::reduce, x, op, root), x, x}, std::move(pins), timeout);
  });
}

uint32_t dg_comm_broadcast(uint32_t comm, const dg_tensor* t, uint32_t slot, uint32_t root, double timeout) {
  return call([&](Pins& pins) {
    const auto group = group_at(comm);
    const Tensor x = dense(t, slot, "broadcast", Access::write);
    check_rank(root, *group, "broadcast", "the root");
    checked_timeout(timeout, "broadcast");
    return group->collective({descriptor(Kind::broadcast, x, DG_NONE, root), x, x}, std::move(pins), timeout);
  });
}

uint32_t dg_comm_all_gather(uint32_t comm, const dg_tensor* t, uint32_t out_slot, uint32_t slot, double timeout) {
  return call([&](Pins& pins) {
    const auto group = group_at(comm);
    const Tensor out = dense(t, out_slot, "allGather", Access::write), x = dense(t, slot, "allGather", Access::read);
    check_parts(out, x, group->size, "allGather");
    checked_timeout(timeout, "allGather");
    return group->collective({descriptor(Kind::all_gather, x), out, x}, std::move(pins), timeout);
  });
}

uint32_t dg_comm_reduce_scatter(uint32_t comm, const dg_tensor* t, uint32_t out_slot, uint32_t slot, uint32_t op, double timeout) {
  return call([&](Pins& pins) {
    const auto group = group_at(comm);
    const Tensor out = dense(t, out_slot, "reduceScatter", Access::write), x = dense(t, slot, "reduceScatter", Access::read);
    check_parts(x, out, group->size, "reduceScatter");
    check_reduction(x, op, "reduceScatter");
    checked_timeout(timeout, "reduceScatter");
    return group->collective({descriptor(Kind::reduce_scatter, x, op), out, x}, std::move(pins), timeout);
  });
}

uint32_t dg_comm_gather(uint32_t comm, const dg_tensor* t, uint32_t out_slot, uint32_t slot, uint32_t root, double timeout) {
  return call([&](Pins& pins) {
    const auto group = group_at(comm);
    check_rank(root, *group, "gather", "the root");
    const Tensor x = dense(t, slot, "gather", Access::read);
    Tensor out;
    if (uint32_t(group->rank) == root) {
      out = dense(t, out_slot, "gather", Access::write);
      check_parts(out, x, group->size, "gather");
    }
    checked_timeout(timeout, "gather");
    return group->collective({descriptor(Kind::gather, x, DG_NONE, root), out, x}, std::move(pins), timeout);
  });
}

uint32_t dg_comm_scatter(uint32_t comm, const dg_tensor* t, uint32_t out_slot, uint32_t slot, uint32_t root, double timeout) {
  return call([&](Pins& pins) {
    const auto group = group_at(comm);
    check_rank(root, *group, "scatter", "the root");
    const Tensor out = dense(t, out_slot, "scatter", Access::write);
    Tensor x;
    if (uint32_t(group->rank) == root) {
      x = dense(t, slot, "scatter", Access::read);
      check_parts(x, out, group->size, "scatter");
    }
    checked_timeout(timeout, "scatter");
    return group->collective({descriptor(Kind::scatter, out, DG_NONE, root), out, x}, std::move(pins), timeout);
  });
}

uint32_t dg_comm_all_to_all(uint32_t comm, const dg_tensor* t, uint32_t out_slot, uint32_t slot, double timeout) {
  return call([&](Pins& pins) {
    const auto group = group_at(comm);
    const Tensor out = dense(t, out_slot, "allToAll", Access::write), x = dense(t, slot, "allToAll", Access::read);
    check_parts(out, x, 1, "allToAll");
    if (x.numel % group->size) fail(DG_SHAPE, "allToAll: %s does not divide into %d equal parts", shape_text(x).c_str(), group->size);
    checked_timeout(timeout, "allToAll");
    return group->collective({descriptor(Kind::all_to_all, x), out, x}, std::move(pins), timeout);
  });
}

uint32_t dg_comm_barrier(uint32_t comm, double timeout) {
  return call([&](Pins& pins) {
    const auto group = group_at(comm);
    checked_timeout(timeout, "barrier");
    return group->collective({}, std::move(pins), timeout);
  });
}

uint32_t dg_comm_send(uint32_t comm, const dg_tensor* t, uint32_t slot, uint32_t target, uint32_t tag, double timeout) {
  return call([&](Pins& pins) {
    const auto group = group_at(comm);
    check_message(*group, target, tag, timeout, "send");
    const Tensor x = dense(t, slot, "send", Access::read);
    return group->send(x, std::move(pins), int(target), tag, timeout);
  });
}

uint32_t dg_comm_recv(uint32_t comm, const dg_tensor* t, uint32_t slot, uint32_t source, uint32_t tag, double timeout) {
  return call([&](Pins& pins) {
    const auto group = group_at(comm);
    if (group->alone()) fail(DG_RANGE, "recv: a group of one has nobody to receive from");
    check_message(*group, source == DG_NONE ? (group->rank + 1) % group->size : source, tag, timeout, "recv");
    const Tensor out = dense(t, slot, "recv", Access::write);
    return group->recv(out, std::move(pins), source == DG_NONE ? -1 : int(source), tag, timeout);
  });
}

int32_t dg_work_wait(uint32_t work, double timeout) { return waited(work, timeout); }
int32_t dg_work_test(uint32_t work) { return waited(work, 0); }

int32_t dg_work_join(uint32_t work) {
  int32_t status = DG_OK;
  const int32_t call = guard([&] {
    const auto it = works().find(work, "work");
    status = finished(it, it->join());
  });
  return call != DG_OK ? call : status;
}

uint32_t dg_work_info(uint32_t work, int32_t* out3, char* text, uint32_t capacity) {
  uint32_t length = 0;
  call_status = guard([&] {
    if (!out3) fail(DG_RANGE, "info: null destination");
    const auto it = works().find(work, "work");
    const Failure outcome = it->outcome();
    out3[0] = outcome.status;
    out3[1] = outcome.rank;
    out3[2] = outcome.status == DG_OK ? it->source() : -1;
    length = copied(outcome.text, text, capacity);
  });
  return length;
}

int32_t dg_work_free(uint32_t work) {
  return guard([&] { works().remove(work, "work"); });
}
