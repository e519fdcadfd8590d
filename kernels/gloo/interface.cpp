// The C functions: checks of every argument, then the communicator's.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "../common/tensor.h"
#include "communicator.h"

namespace dg {
namespace {

// What the headers of the current call have named.
thread_local comm::Pins* call_pins = nullptr;
thread_local int32_t call_status = DG_OK;

}  // namespace

Region storage_region(uint32_t storage, const char* op) {
  dg_region region;
  if (dg_storage_pin(storage, &region) != DG_OK) fail(DG_DISPOSED, "%s: a tensor's memory has been freed", op);
  call_pins->add(storage);
  return {static_cast<char*>(region.data), int64_t(region.bytes), region.device, region.stream};
}

uint32_t library_device_type() { return 0; }

void require_device(uint32_t index, const char* op) {
  if (index != 0) fail(DG_DEVICE, "%s: cpu:%u does not exist", op, index);
}

namespace comm {
namespace {

// Never destroyed: threads may be at work while the process ends.
Table<Communicator>& communicators() {
  static auto* table = new Table<Communicator>;
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
  call_status = guard([&] { id = works().add(body(pins)); });
  call_pins = nullptr;
  return id;
}

double checked_timeout(double timeout, const char* op) {
  if (!(timeout > 0 && timeout <= 1e10)) fail(DG_RANGE, "%s: timeout must be more than 0 and at most 1e10 ms, got %g", op, timeout);
  return timeout;
}

Tensor dense(const dg_tensor* t, uint32_t slot, const char* op, Access access) {
  const Tensor x = tensor_at(t, slot, op, access);
  if (x.numel > 0 && !x.contiguous()) fail(DG_SHAPE, "%s: takes a contiguous tensor, got strides that are not row-major for %s", op, shape_text(x).c_str());
  return x;
}

void check_rank(uint32_t rank, const Communicator& comm, const char* op, const char* what) {
  if (rank >= uint32_t(comm.size)) fail(DG_RANGE, "%s: %s must be 0 to %d, got %u", op, what, comm.size - 1, rank);
}

void check_reduction(const Tensor& x, uint32_t op, const char* name) {
  if (op > DG_MAX) fail(DG_RANGE, "%s: reduction %u does not exist", name, op);
  require_numbers(x, name);
  if (op == DG_AVERAGE && !is_float_dtype(x.dtype)) fail(DG_DTYPE, "%s: an average takes a floating point dtype, got %s", name, dtype_name(x.dtype));
}

void* memory_of(const Tensor& x) { return x.storage_data + x.offset * dtype_size(x.dtype); }

// `whole` must hold `size` times the elements of `part`, in other memory.
void check_parts(const Tensor& whole, const Tensor& part, int size, const char* op) {
  require_dtype(whole, part.dtype, op, "both tensors");
  int64_t wanted;
  if (__builtin_mul_overflow(part.numel, int64_t(size), &wanted) || whole.numel != wanted)
    fail(DG_SHAPE, "%s: the larger tensor must have %d times as many elements as the smaller, %s and %s", op, size, shape_text(whole).c_str(),
         shape_text(part).c_str());
  const char *a = static_cast<char*>(memory_of(whole)), *b = static_cast<char*>(memory_of(part));
  if (part.numel > 0 && a < b + part.numel * dtype_size(part.dtype) && b < a + whole.numel * dtype_size(whole.dtype))
    fail(DG_RANGE, "%s: the two tensors share memory: clone() one of them", op);
}

Descriptor descriptor(Kind kind, const Tensor& x, uint32_t op = DG_NONE, uint32_t root = DG_NONE) {
  Descriptor d;
  d.kind = kind;
  d.dtype = x.dtype;
  d.op = op;
  d.root = root;
  d.numel = x.numel;
  return d;
}

// A group of one: what every rank has is what this one has.
std::shared_ptr<Work> alone(const Tensor* out, const Tensor* x) {
  if (out && x && x->numel > 0) std::memcpy(memory_of(*out), memory_of(*x), size_t(x->numel * dtype_size(x->dtype)));
  auto work = std::make_shared<Work>();
  work->end(DG_OK);
  return work;
}

std::shared_ptr<Communicator> open_communicator(uint32_t comm, const char* op) { return communicators().find(comm, op); }

}  // namespace
}  // namespace comm
}  // namespace dg

using namespace dg;
using namespace dg::comm;

int32_t dg_comm_abi_version(void) { return DG_COMM_ABI_VERSION; }
int32_t dg_comm_last_status(void) { return call_status; }

uint32_t dg_comm_last_error(char* text, uint32_t capacity) {
  const std::string& message = last_error();
  if (text && capacity) {
    const size_t count = std::min<size_t>(message.size(), capacity - 1);
    std::memcpy(text, message.data(), count);
    text[count] = 0;
  }
  return uint32_t(message.size());
}

uint32_t dg_comm_open(uint32_t rank, uint32_t size, const char* address, uint32_t device) {
  uint32_t id = 0;
  call_status = guard([&] {
    if (size == 0 || size > 4096) fail(DG_RANGE, "open: a group has 1 to 4096 ranks, got %u", size);
    if (rank >= size) fail(DG_RANGE, "open: rank must be 0 to %u, got %u", size - 1, rank);
    if (!address || strnlen(address, 256) == 256) fail(DG_RANGE, "open: the address must have less than 256 characters");
    require_device(device, "open");
    id = communicators().add(std::make_shared<Communicator>(int(rank), int(size), address));
  });
  return id;
}

uint32_t dg_comm_blob(uint32_t comm, uint8_t* blob, uint32_t capacity) {
  uint32_t length = 0;
  call_status = guard([&] {
    const auto it = open_communicator(comm, "communicator");
    length = uint32_t(it->blob().size());
    if (blob) std::memcpy(blob, it->blob().data(), std::min(length, capacity));
  });
  return length;
}

uint32_t dg_comm_connect(uint32_t comm, const uint8_t* blobs, uint32_t bytes, double timeout) {
  return call([&](Pins&) {
    if (!blobs && bytes) fail(DG_RANGE, "connect: null blobs");
    return open_communicator(comm, "communicator")->connect({blobs, blobs + bytes}, checked_timeout(timeout, "connect"));
  });
}

int32_t dg_comm_abort(uint32_t comm, const char* text) {
  return guard([&] {
    if (!text) fail(DG_RANGE, "abort: null text");
    open_communicator(comm, "communicator")->abort(std::string(text, strnlen(text, 2000)));
  });
}

int32_t dg_comm_close(uint32_t comm) {
  return guard([&] { communicators().remove(comm, "communicator")->close(); });
}

uint32_t dg_comm_all_reduce(uint32_t comm, const dg_tensor* t, uint32_t slot, uint32_t op, double timeout) {
  return call([&](Pins& pins) {
    const auto group = open_communicator(comm, "communicator");
    const Tensor x = dense(t, slot, "allReduce", Access::write);
    check_reduction(x, op, "allReduce");
    checked_timeout(timeout, "allReduce");
    if (group->alone()) return alone(nullptr, nullptr);
    return group->collective(descriptor(Kind::all_reduce, x, op), std::move(pins), timeout,
                             [=](Mesh& mesh, uint32_t tag) { all_reduce(mesh, memory_of(x), x.dtype, x.numel, op, tag); }, memory_of(x));
  });
}

uint32_t dg_comm_reduce(uint32_t comm, const dg_tensor* t, uint32_t slot, uint32_t op, uint32_t root, double timeout) {
  return call([&](Pins& pins) {
    const auto group = open_communicator(comm, "communicator");
    const Tensor x = dense(t, slot, "reduce", Access::write);
    check_reduction(x, op, "reduce");
    check_rank(root, *group, "reduce", "the root");
    checked_timeout(timeout, "reduce");
    if (group->alone()) return alone(nullptr, nullptr);
    return group->collective(descriptor(Kind::reduce, x, op, root), std::move(pins), timeout,
                             [=](Mesh& mesh, uint32_t tag) { reduce(mesh, memory_of(x), x.dtype, x.numel, op, int(root), tag); });
  });
}

uint32_t dg_comm_broadcast(uint32_t comm, const dg_tensor* t, uint32_t slot, uint32_t root, double timeout) {
  return call([&](Pins& pins) {
    const auto group = open_communicator(comm, "communicator");
    const Tensor x = dense(t, slot, "broadcast", Access::write);
    check_rank(root, *group, "broadcast", "the root");
    checked_timeout(timeout, "broadcast");
    if (group->alone()) return alone(nullptr, nullptr);
    return group->collective(descriptor(Kind::broadcast, x, DG_NONE, root), std::move(pins), timeout, [=](Mesh& mesh, uint32_t tag) {
      broadcast(mesh, memory_of(x), x.numel * dtype_size(x.dtype), int(root), tag);
    });
  });
}

uint32_t dg_comm_all_gather(uint32_t comm, const dg_tensor* t, uint32_t out_slot, uint32_t slot, double timeout) {
  return call([&](Pins& pins) {
    const auto group = open_communicator(comm, "communicator");
    const Tensor out = dense(t, out_slot, "allGather", Access::write), x = dense(t, slot, "allGather", Access::read);
    check_parts(out, x, group->size, "allGather");
    checked_timeout(timeout, "allGather");
    if (group->alone()) return alone(&out, &x);
    return group->collective(descriptor(Kind::all_gather, x), std::move(pins), timeout, [=](Mesh& mesh, uint32_t tag) {
      all_gather(mesh, memory_of(out), memory_of(x), x.numel * dtype_size(x.dtype), tag);
    });
  });
}

uint32_t dg_comm_reduce_scatter(uint32_t comm, const dg_tensor* t, uint32_t out_slot, uint32_t slot, uint32_t op, double timeout) {
  return call([&](Pins& pins) {
    const auto group = open_communicator(comm, "communicator");
    const Tensor out = dense(t, out_slot, "reduceScatter", Access::write), x = dense(t, slot, "reduceScatter", Access::read);
    check_parts(x, out, group->size, "reduceScatter");
    check_reduction(x, op, "reduceScatter");
    checked_timeout(timeout, "reduceScatter");
    if (group->alone()) return alone(&out, &x);
    return group->collective(descriptor(Kind::reduce_scatter, x, op), std::move(pins), timeout,
                             [=](Mesh& mesh, uint32_t tag) { reduce_scatter(mesh, memory_of(out), memory_of(x), x.dtype, out.numel, op, tag); });
  });
}

uint32_t dg_comm_gather(uint32_t comm, const dg_tensor* t, uint32_t out_slot, uint32_t slot, uint32_t root, double timeout) {
  return call([&](Pins& pins) {
    const auto group = open_communicator(comm, "communicator");
    check_rank(root, *group, "gather", "the root");
    const Tensor x = dense(t, slot, "gather", Access::read);
    Tensor out;
    if (uint32_t(group->rank) == root) {
      out = dense(t, out_slot, "gather", Access::write);
      check_parts(out, x, group->size, "gather");
    }
    checked_timeout(timeout, "gather");
    if (group->alone()) return alone(&out, &x);
    return group->collective(descriptor(Kind::gather, x, DG_NONE, root), std::move(pins), timeout, [=](Mesh& mesh, uint32_t tag) {
      gather(mesh, out.storage_data ? memory_of(out) : nullptr, memory_of(x), x.numel * dtype_size(x.dtype), int(root), tag);
    });
  });
}

uint32_t dg_comm_scatter(uint32_t comm, const dg_tensor* t, uint32_t out_slot, uint32_t slot, uint32_t root, double timeout) {
  return call([&](Pins& pins) {
    const auto group = open_communicator(comm, "communicator");
    check_rank(root, *group, "scatter", "the root");
    const Tensor out = dense(t, out_slot, "scatter", Access::write);
    Tensor x;
    if (uint32_t(group->rank) == root) {
      x = dense(t, slot, "scatter", Access::read);
      check_parts(x, out, group->size, "scatter");
    }
    checked_timeout(timeout, "scatter");
    if (group->alone()) return alone(&out, &x);
    return group->collective(descriptor(Kind::scatter, out, DG_NONE, root), std::move(pins), timeout, [=](Mesh& mesh, uint32_t tag) {
      scatter(mesh, memory_of(out), x.storage_data ? memory_of(x) : nullptr, out.numel * dtype_size(out.dtype), int(root), tag);
    });
  });
}

uint32_t dg_comm_all_to_all(uint32_t comm, const dg_tensor* t, uint32_t out_slot, uint32_t slot, double timeout) {
  return call([&](Pins& pins) {
    const auto group = open_communicator(comm, "communicator");
    const Tensor out = dense(t, out_slot, "allToAll", Access::write), x = dense(t, slot, "allToAll", Access::read);
    check_parts(out, x, 1, "allToAll");
    if (x.numel % group->size) fail(DG_SHAPE, "allToAll: %s does not divide into %d equal parts", shape_text(x).c_str(), group->size);
    checked_timeout(timeout, "allToAll");
    if (group->alone()) return alone(&out, &x);
    return group->collective(descriptor(Kind::all_to_all, x), std::move(pins), timeout, [=](Mesh& mesh, uint32_t tag) {
      all_to_all(mesh, memory_of(out), memory_of(x), x.numel / mesh.size * dtype_size(x.dtype), tag);
    });
  });
}

uint32_t dg_comm_barrier(uint32_t comm, double timeout) {
  return call([&](Pins& pins) {
    const auto group = open_communicator(comm, "communicator");
    checked_timeout(timeout, "barrier");
    if (group->alone()) return alone(nullptr, nullptr);
    return group->collective(Descriptor(), std::move(pins), timeout, [](Mesh& mesh, uint32_t tag) { barrier(mesh, tag); });
  });
}

static void check_message(const Communicator& group, uint32_t other, uint32_t tag, double timeout, const char* op) {
  check_rank(other, group, op, "the other rank");
  if (other == uint32_t(group.rank)) fail(DG_RANGE, "%s: rank %u is this rank itself", op, other);
  if (tag >= 1u << 24) fail(DG_RANGE, "%s: tag must be less than 2^24, got %u", op, tag);
  checked_timeout(timeout, op);
}

uint32_t dg_comm_send(uint32_t comm, const dg_tensor* t, uint32_t slot, uint32_t target, uint32_t tag, double timeout) {
  return call([&](Pins& pins) {
    const auto group = open_communicator(comm, "communicator");
    check_message(*group, target, tag, timeout, "send");
    const Tensor x = dense(t, slot, "send", Access::read);
    return group->send(memory_of(x), descriptor(Kind::barrier, x), std::move(pins), int(target), tag, timeout);
  });
}

uint32_t dg_comm_recv(uint32_t comm, const dg_tensor* t, uint32_t slot, uint32_t source, uint32_t tag, double timeout) {
  return call([&](Pins& pins) {
    const auto group = open_communicator(comm, "communicator");
    if (group->alone()) fail(DG_RANGE, "recv: a group of one has nobody to receive from");
    check_message(*group, source == DG_NONE ? (group->rank + 1) % group->size : source, tag, timeout, "recv");
    const Tensor out = dense(t, slot, "recv", Access::write);
    return group->recv(memory_of(out), descriptor(Kind::barrier, out), std::move(pins), source == DG_NONE ? -1 : int(source), tag, timeout);
  });
}

static int32_t waited(uint32_t work, double timeout) {
  int32_t status = DG_OK;
  const int32_t call = guard([&] {
    if (!(timeout >= 0 && timeout <= 1e10)) fail(DG_RANGE, "wait: timeout must be 0 to 1e10 ms, got %g", timeout);
    const auto it = works().find(work, "work");
    status = it->wait(timeout);
    if (status == DG_OK || status == DG_COMM_PENDING) return;
    int32_t rank;
    it->status(rank, last_error());
  });
  return call != DG_OK ? call : status;
}

int32_t dg_work_wait(uint32_t work, double timeout) { return waited(work, timeout); }
int32_t dg_work_test(uint32_t work) { return waited(work, 0); }

uint32_t dg_work_info(uint32_t work, int32_t* out3, char* text, uint32_t capacity) {
  uint32_t length = 0;
  call_status = guard([&] {
    if (!out3) fail(DG_RANGE, "info: null destination");
    const auto it = works().find(work, "work");
    std::string message;
    int32_t rank;
    out3[0] = it->status(rank, message);
    out3[1] = rank;
    out3[2] = it->source;
    length = uint32_t(message.size());
    if (text && capacity) {
      const size_t count = std::min<size_t>(message.size(), capacity - 1);
      std::memcpy(text, message.data(), count);
      text[count] = 0;
    }
  });
  return length;
}

int32_t dg_work_free(uint32_t work) {
  return guard([&] { works().remove(work, "work"); });
}
