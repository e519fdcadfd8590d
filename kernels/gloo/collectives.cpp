#include "collectives.h"

#include <gloo/allgather.h>
#include <gloo/allreduce.h>
#include <gloo/barrier.h>
#include <gloo/broadcast.h>

#include <algorithm>
#include <cstring>

namespace dg::comm {
namespace {

// ---- reductions: out[i] = op(a[i], b[i]); half types are computed in float

using Combine = void (*)(void* out, const void* a, const void* b, size_t count);

struct Add { template <class T> static T of(T a, T b) { return T(a + b); } };
struct Multiply { template <class T> static T of(T a, T b) { return T(a * b); } };
// A NaN wins, so that the order of the ranks does not matter.
struct Least { template <class T> static T of(T a, T b) { return a < b || a != a ? a : b; } };
struct Most { template <class T> static T of(T a, T b) { return a > b || a != a ? a : b; } };

template <class T, class Op>
void combine(void* out, const void* a, const void* b, size_t count) {
  using C = compute_t<T>;
  const T *x = static_cast<const T*>(a), *y = static_cast<const T*>(b);
  T* z = static_cast<T*>(out);
  for (size_t i = 0; i < count; i++) z[i] = T(Op::of(C(x[i]), C(y[i])));
}

Combine combine_of(uint32_t dtype, uint32_t op) {
  Combine found = nullptr;
  dispatch_numbers(dtype, "reduction", [&](auto it) {
    using T = typename decltype(it)::type;
    switch (op) {
      case DG_SUM: case DG_AVERAGE: found = combine<T, Add>; break;
      case DG_PRODUCT: found = combine<T, Multiply>; break;
      case DG_MIN: found = combine<T, Least>; break;
      case DG_MAX: found = combine<T, Most>; break;
    }
  });
  return found;
}

// What is left to do once all ranks are summed.
void finish(void* x, uint32_t dtype, int64_t numel, uint32_t op, int size) {
  if (op != DG_AVERAGE) return;
  dispatch_floats(dtype, "average", [&](auto it) {
    using T = typename decltype(it)::type;
    T* values = static_cast<T*>(x);
    for (int64_t i = 0; i < numel; i++) values[i] = T(compute_t<T>(values[i]) / compute_t<T>(size));
  });
}

char* bytes_of(const void* memory) { return const_cast<char*>(static_cast<const char*>(memory)); }

constexpr int64_t kSegment = 256 << 10;  // bytes: a segment is reduced while the next is on its way

constexpr int kSmallRanks = 16;  // among so many, every rank sends few elements to all others: one step instead of many
// So many bytes each. Two ranks send each other no more than a ring would.
int64_t small_bytes(int ranks) { return ranks == 2 ? 512 << 10 : (64 << 10) / (ranks - 1); }

// Messages of one slot come in the order in which they were sent.
uint64_t part_slot(uint32_t tag, int round) { return kPart | uint64_t(tag) << 16 | uint64_t(round); }

// The part of `x` that each rank owns, reduced over all of them, around a ring: every rank passes on what it has summed so far. `parts` are the first elements
// of each rank's part, and one more for the end. The result of part `rank` goes to `out`.
void ring(Mesh& mesh, char* out, const char* x, uint32_t dtype, const std::vector<int64_t>& parts, uint32_t op,
          uint32_t tag) {
  const int size = mesh.size, rank = mesh.rank, left = (rank + size - 1) % size, right = (rank + 1) % size;
  const int64_t width = dtype_size(dtype);
  const Combine combine = combine_of(dtype, op);
  int64_t longest = 0;
  for (int i = 0; i < size; i++) longest = std::max(longest, (parts[i + 1] - parts[i]) * width);
  const int64_t step = kSegment / width * width, segments = (longest + step - 1) / step;
  // A part comes into one half while the one before it leaves the other.
  std::vector<char> space(size_t(longest) * 2);
  std::vector<std::unique_ptr<Buffer>> incoming(segments), outgoing(segments);
  auto bytes_in = [&](int part, int64_t segment) { return std::clamp<int64_t>((parts[part + 1] - parts[part]) * width - segment * step, 0, step); };
  auto part_at = [&](int shift) { return ((rank - shift) % size + size) % size; };
  auto send = [&](const char* memory, int part, int64_t segment, int round) {
    outgoing[segment] = mesh.buffer(bytes_of(memory), size_t(bytes_in(part, segment)));
    outgoing[segment]->send(right, part_slot(tag, round));
  };
  for (int64_t s = 0; s < segments; s++) send(x + parts[part_at(1)] * width + s * step, part_at(1), s, 0);
  for (int round = 0; round < size - 1; round++) {
    const int part = part_at(round + 2);
    char* half = space.data() + (round % 2) * longest;
    for (int64_t s = 0; s < segments; s++) {
      incoming[s] = mesh.buffer(half + s * step, size_t(bytes_in(part, s)));
      incoming[s]->recv(left, part_slot(tag, round));
    }
    for (int64_t s = 0; s < segments; s++) {
      incoming[s]->waitRecv();
      outgoing[s]->waitSend();
      const int64_t count = bytes_in(part, s) / width;
      const bool last = round == size - 2;
      char* target = last ? out + s * step : half + s * step;
      if (count > 0) combine(target, half + s * step, x + parts[part] * width + s * step, size_t(count));
      if (!last) send(target, part, s, round + 1);
    }
  }
}

std::vector<int64_t> equal_parts(int64_t numel, int size) {
  std::vector<int64_t> parts(size + 1);
  for (int i = 0; i <= size; i++) parts[i] = numel * i / size;
  return parts;
}

// Sends `x` + i * `bytes` to every other rank i for which `target` says so, receives from those `source` names into `out` + i * `bytes`.
template <class To, class From>
void exchange(Mesh& mesh, char* out, const char* x, int64_t bytes, int64_t x_step, int64_t out_step, uint32_t tag, To&& target, From&& source) {
  std::vector<std::unique_ptr<Buffer>> incoming(mesh.size), outgoing(mesh.size);
  for (int shift = 1; shift < mesh.size; shift++) {
    const int from = (mesh.rank + mesh.size - shift) % mesh.size, to = (mesh.rank + shift) % mesh.size;
    if (source(from)) {
      incoming[from] = mesh.buffer(out + from * out_step, size_t(bytes));
      incoming[from]->recv(from, part_slot(tag, 0));
    }
    if (target(to)) {
      outgoing[to] = mesh.buffer(bytes_of(x) + to * x_step, size_t(bytes));
      outgoing[to]->send(to, part_slot(tag, 0));
    }
  }
  for (auto& buffer : incoming)
    if (buffer) buffer->waitRecv();
  for (auto& buffer : outgoing)
    if (buffer) buffer->waitSend();
}

// Returns when all ranks are here.
void meet(Mesh& mesh, uint32_t tag, int round) {
  std::vector<char> heard(mesh.size);
  char here = 1;
  std::vector<std::unique_ptr<Buffer>> buffers;
  for (int i = 0; i < mesh.size; i++) {
    if (i == mesh.rank) continue;
    buffers.push_back(mesh.buffer(&heard[i], 1));
    buffers.back()->recv(i, part_slot(tag, round));
  }
  const size_t incoming = buffers.size();
  for (int i = 0; i < mesh.size; i++) {
    if (i == mesh.rank) continue;
    buffers.push_back(mesh.buffer(&here, 1));
    buffers.back()->send(i, part_slot(tag, round));
  }
  for (size_t i = 0; i < buffers.size(); i++) i < incoming ? buffers[i]->waitRecv() : buffers[i]->waitSend();
}

// Runs when a block ends, however it does.
struct Ending {
  std::function<void()> run;
  ~Ending() { run(); }
};

void copy(void* to, const void* from, int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, size_t(bytes));
}

}  // namespace

// ---- agreement

uint32_t tag_of(const Descriptor& d) {
  uint64_t hash = d.sequence;
  for (uint64_t part : {uint64_t(d.kind), uint64_t(d.dtype), uint64_t(d.op), uint64_t(d.root), uint64_t(d.numel)}) {
    hash = (hash ^ part) * 0x9e3779b97f4a7c15u;
    hash ^= hash >> 32;
  }
  return uint32_t(hash);
}

// Buffers are ready for the next descriptors before a collective begins: they then take one way and not three.
void Agreement::start() {
  for (int i = 0; i < mesh_.size; i++)
    if (i != mesh_.rank) listen(i);
}

void Agreement::listen(int peer) {
  Peer& it = peers_[peer];
  it.memory.resize(sizeof(Descriptor) + size_t(small_bytes(mesh_.size)));
  it.inbox = mesh_.buffer(it.memory.data(), it.memory.size());
  it.inbox->recv(peer, kDescriptor);
}

void Agreement::compare(const Descriptor& own, int peer) const {
  Descriptor other;
  std::memcpy(&other, peers_[peer].memory.data(), sizeof other);
  if (std::memcmp(&other, &own, sizeof own) == 0) return;
  const bool first = peer < mesh_.rank;
  const Descriptor &a = first ? other : own, &b = first ? own : other;
  throw Failure{DG_COMM_MISMATCH, peer,
                "ranks called different collectives: " + rank_text(std::min(peer, mesh_.rank)) + " called " + text_of(a) + ", " +
                    rank_text(std::max(peer, mesh_.rank)) + " called " + text_of(b)};
}

void Agreement::reach(const Descriptor& own, const std::function<void(uint32_t)>& body) {
  const int left = (mesh_.rank + mesh_.size - 1) % mesh_.size, right = (mesh_.rank + 1) % mesh_.size;
  Descriptor outgoing = own;
  const auto out = mesh_.buffer(&outgoing, sizeof outgoing);
  bool agreed = false;
  auto settle = [&] {
    agreed = true;
    compare(own, left);
    listen(left);
  };
  Call& call = *current_call;
  call.unheard = [&](int rank) { return !agreed && rank == left; };
  call.verify = [&] {
    if (!agreed && peers_[left].inbox->take_recv()) settle();
  };
  const Ending forget{[&] { call.verify = nullptr, call.unheard = nullptr; }};
  out->send(right, kDescriptor);
  body(tag_of(own));
  call.verify = nullptr;
  if (!agreed) {
    peers_[left].inbox->waitRecv();
    settle();
  }
  out->waitSend();
}

bool Agreement::small(const Descriptor& own) const { return own.numel <= small_bytes(mesh_.size) / dtype_size(own.dtype); }

bool Agreement::direct(const Descriptor& own) const {
  if (mesh_.size > kSmallRanks) return false;
  return own.kind == Kind::barrier || (own.kind == Kind::all_reduce && (mesh_.near() || small(own))) || (own.kind == Kind::all_gather && small(own));
}

void Agreement::run(const Operation& operation) {
  const Descriptor& d = operation.descriptor;
  char* const x = operation.x.storage ? static_cast<char*>(memory_of(operation.x)) : nullptr;
  if (d.kind == Kind::all_gather) return all_gather(d, static_cast<char*>(memory_of(operation.out)), x);
  if (d.kind == Kind::all_reduce && !small(d)) return reduce_in_place(d, x);
  all_reduce(d, x);
}

void Agreement::exchange(const Descriptor& own, const void* content, size_t bytes) {
  outgoing_.resize(sizeof own + bytes);
  std::memcpy(outgoing_.data(), &own, sizeof own);
  if (bytes > 0) std::memcpy(outgoing_.data() + sizeof own, content, bytes);
  std::vector<bool> heard(mesh_.size);
  current_call->unheard = [&](int rank) { return !heard[rank]; };
  const Ending forget{[call = current_call] { call->unheard = nullptr; }};
  std::vector<std::unique_ptr<Buffer>> sends;
  for (int shift = 1; shift < mesh_.size; shift++) {
    sends.push_back(mesh_.buffer(outgoing_.data(), outgoing_.size()));
    sends.back()->send((mesh_.rank + shift) % mesh_.size, kDescriptor);
  }
  for (int i = 0; i < mesh_.size; i++) {
    if (i == mesh_.rank) continue;
    peers_[i].inbox->waitRecv();
    heard[i] = true;
    compare(own, i);
  }
  for (auto& send : sends) send->waitSend();
}

void Agreement::all_gather(const Descriptor& own, char* out, const char* x) {
  const int64_t bytes = own.numel * dtype_size(own.dtype);
  exchange(own, x, size_t(bytes));
  for (int i = 0; i < mesh_.size; i++) copy(out + i * bytes, (i == mesh_.rank ? outgoing_ : peers_[i].memory).data() + sizeof own, bytes);
  start();
}

void Agreement::all_reduce(const Descriptor& own, char* x) {
  const size_t bytes = size_t(own.numel * dtype_size(own.dtype));
  exchange(own, x, bytes);
  // In the order of the ranks, so that all have the same bits.
  for (int i = 0; i < mesh_.size && bytes > 0; i++) {
    const char* theirs = (i == mesh_.rank ? outgoing_ : peers_[i].memory).data() + sizeof own;
    if (i == 0) std::memcpy(x, theirs, bytes);
    else combine_of(own.dtype, own.op)(x, x, theirs, size_t(own.numel));
  }
  if (own.kind == Kind::all_reduce) finish(x, own.dtype, own.numel, own.op, mesh_.size);
  start();
}

// Every rank reduces a part of its own, read from the memory of the others, and then reads what they have reduced.
void Agreement::reduce_in_place(const Descriptor& own, char* x) {
  const int size = mesh_.size, rank = mesh_.rank;
  const uint64_t address = uint64_t(reinterpret_cast<uintptr_t>(x));
  exchange(own, &address, sizeof address);
  std::vector<uint64_t> addresses(size);
  for (int i = 0; i < size; i++)
    if (i != rank) std::memcpy(&addresses[i], peers_[i].memory.data() + sizeof own, sizeof address);
  start();
  const std::vector<int64_t> parts = equal_parts(own.numel, size);
  const int64_t width = dtype_size(own.dtype), step = kSegment / width;
  const Combine combine = combine_of(own.dtype, own.op);
  segment_.resize(size_t(2 * step * width));
  char *const sum = segment_.data(), *const theirs = sum + step * width;
  for (int64_t first = parts[rank]; first < parts[rank + 1]; first += step) {
    const int64_t count = std::min(step, parts[rank + 1] - first), offset = first * width;
    auto part_of = [&](int i, char* memory) -> const char* {
      if (i == rank) return x + offset;
      mesh_.read(i, memory, addresses[i] + uint64_t(offset), size_t(count * width));
      return memory;
    };
    const char* total = part_of(0, sum);
    for (int i = 1; i < size; i++) {  // in the order of the ranks, as above
      char* const out = i == size - 1 ? x + offset : sum;
      combine(out, total, part_of(i, theirs), size_t(count));
      total = out;
    }
    finish(x + offset, own.dtype, count, own.op, size);
  }
  const uint32_t tag = tag_of(own);
  meet(mesh_, tag, 0);
  for (int i = 0; i < size; i++)
    if (i != rank && parts[i] < parts[i + 1])
      mesh_.read(i, x + parts[i] * width, addresses[i] + uint64_t(parts[i] * width), size_t((parts[i + 1] - parts[i]) * width));
  meet(mesh_, tag, 1);  // nobody reads here any more
}

// ---- the collectives; `numel`: elements of x where there is only x, else of the smaller of the two

namespace {

void all_reduce(Mesh& mesh, void* x, uint32_t dtype, int64_t numel, uint32_t op, uint32_t tag) {
  ::gloo::AllreduceOptions options(mesh.world);
  const size_t count = size_t(numel);
  switch (dtype_size(dtype)) {
    case 1: options.setOutput(static_cast<uint8_t*>(x), count); break;
    case 2: options.setOutput(static_cast<uint16_t*>(x), count); break;
    case 4: options.setOutput(static_cast<uint32_t*>(x), count); break;
    default: options.setOutput(static_cast<uint64_t*>(x), count);
  }
  options.setReduceFunction(combine_of(dtype, op));
  options.setTag(tag);
  ::gloo::allreduce(options);
  finish(x, dtype, numel, op, mesh.size);
}

void reduce_scatter(Mesh& mesh, void* out, const void* x, uint32_t dtype, int64_t numel, uint32_t op, uint32_t tag) {
  ring(mesh, bytes_of(out), bytes_of(x), dtype, equal_parts(numel * mesh.size, mesh.size), op, tag);
  finish(out, dtype, numel, op, mesh.size);
}

void reduce(Mesh& mesh, void* x, uint32_t dtype, int64_t numel, uint32_t op, int root, uint32_t tag) {
  const std::vector<int64_t> parts = equal_parts(numel, mesh.size);
  const int64_t width = dtype_size(dtype), own = (parts[mesh.rank + 1] - parts[mesh.rank]) * width;
  std::vector<char> part(static_cast<size_t>(own));
  ring(mesh, part.data(), bytes_of(x), dtype, parts, op, tag);
  if (mesh.rank != root) {
    const auto out = mesh.buffer(part.data(), part.size());
    out->send(root, part_slot(tag, mesh.size));
    out->waitSend();
    return;
  }
  copy(bytes_of(x) + parts[root] * width, part.data(), own);
  std::vector<std::unique_ptr<Buffer>> incoming;
  for (int i = 0; i < mesh.size; i++) {
    if (i == root) continue;
    incoming.push_back(mesh.buffer(bytes_of(x) + parts[i] * width, size_t((parts[i + 1] - parts[i]) * width)));
    incoming.back()->recv(i, part_slot(tag, mesh.size));
  }
  for (auto& buffer : incoming) buffer->waitRecv();
  finish(x, dtype, numel, op, mesh.size);
}

void broadcast(Mesh& mesh, void* x, int64_t bytes, int root, uint32_t tag) {
  ::gloo::BroadcastOptions options(mesh.world);
  options.setOutput(static_cast<uint8_t*>(x), size_t(bytes));
  options.setRoot(root);
  options.setTag(tag);
  ::gloo::broadcast(options);
}

void all_gather(Mesh& mesh, void* out, const void* x, int64_t bytes, uint32_t tag) {
  ::gloo::AllgatherOptions options(mesh.world);
  options.setInput(reinterpret_cast<uint8_t*>(bytes_of(x)), size_t(bytes));
  options.setOutput(static_cast<uint8_t*>(out), size_t(bytes) * mesh.size);
  options.setTag(tag);
  ::gloo::allgather(options);
}

void gather(Mesh& mesh, void* out, const void* x, int64_t bytes, int root, uint32_t tag) {
  const bool here = mesh.rank == root;
  if (here) copy(bytes_of(out) + root * bytes, x, bytes);
  exchange(mesh, bytes_of(out), bytes_of(x), bytes, 0, bytes, tag, [&](int to) { return !here && to == root; }, [&](int) { return here; });
}

void scatter(Mesh& mesh, void* out, const void* x, int64_t bytes, int root, uint32_t tag) {
  const bool here = mesh.rank == root;
  if (here) copy(out, bytes_of(x) + root * bytes, bytes);
  exchange(mesh, bytes_of(out), bytes_of(x), bytes, bytes, 0, tag, [&](int) { return here; }, [&](int from) { return !here && from == root; });
}

void all_to_all(Mesh& mesh, void* out, const void* x, int64_t bytes, uint32_t tag) {
  copy(bytes_of(out) + mesh.rank * bytes, bytes_of(x) + mesh.rank * bytes, bytes);
  auto all = [](int) { return true; };
  exchange(mesh, bytes_of(out), bytes_of(x), bytes, bytes, bytes, tag, all, all);
}

void barrier(Mesh& mesh, uint32_t tag) {
  ::gloo::BarrierOptions options(mesh.world);
  options.setTag(tag);
  ::gloo::barrier(options);
}

}  // namespace

void run_collective(Mesh& mesh, const Operation& operation, uint32_t tag) {
  const Descriptor& d = operation.descriptor;
  void* const out = operation.out.storage ? memory_of(operation.out) : nullptr;
  void* const x = operation.x.storage ? memory_of(operation.x) : nullptr;
  const int64_t bytes = d.numel * dtype_size(d.dtype);
  const int root = int(d.root);
  switch (d.kind) {
    case Kind::all_reduce: return all_reduce(mesh, x, d.dtype, d.numel, d.op, tag);
    case Kind::reduce: return reduce(mesh, x, d.dtype, d.numel, d.op, root, tag);
    case Kind::broadcast: return broadcast(mesh, x, bytes, root, tag);
    case Kind::all_gather: return all_gather(mesh, out, x, bytes, tag);
    case Kind::reduce_scatter: return reduce_scatter(mesh, out, x, d.dtype, operation.out.numel, d.op, tag);
    case Kind::gather: return gather(mesh, out, x, bytes, root, tag);
    case Kind::scatter: return scatter(mesh, out, x, bytes, root, tag);
    case Kind::all_to_all: return all_to_all(mesh, out, x, bytes / mesh.size, tag);
    case Kind::barrier: return barrier(mesh, tag);
  }
}

}  // namespace dg::comm
