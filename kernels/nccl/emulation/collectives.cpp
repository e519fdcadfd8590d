// What each operation exchanges. Reductions add in the order of the ranks, so that all have the same bits.
#include <algorithm>
#include <cstring>
#include <type_traits>

#include "../../common/dtype.h"
#include "comm.h"

namespace nccl_emulation {
namespace {

template <class F>
void dispatch(ncclDataType_t type, F&& f) {
  switch (type) {
    case ncclUint8: return f(uint8_t());
    case ncclInt32: return f(int32_t());
    case ncclInt64: return f(int64_t());
    case ncclFloat16: return f(dg::f16());
    case ncclBfloat16: return f(dg::bf16());
    case ncclFloat64: return f(double());
    case ncclFloat32: return f(float());
  }
}

template <class A>
A combined(A a, A b, ncclRedOp_t op) {
  if (op == ncclMax) return a < b ? b : a;
  if (op == ncclMin) return b < a ? b : a;
  if constexpr (std::is_integral_v<A>) {  // wraps around
    const uint64_t x = uint64_t(a), y = uint64_t(b);
    return A(op == ncclProd ? x * y : x + y);
  } else {
    return op == ncclProd ? a * b : a + b;
  }
}

// parts: one of `count` elements a rank, one after the other.
std::vector<char> reduced(const std::vector<char>& parts, size_t count, const Task& task, int size) {
  std::vector<char> result(count * size_of(task.type));
  dispatch(task.type, [&](auto element) {
    using T = decltype(element);
    using A = dg::compute_t<T>;
    const T* const from = reinterpret_cast<const T*>(parts.data());
    T* const to = reinterpret_cast<T*>(result.data());
    for (size_t i = 0; i < count; i++) {
      A value = A(from[i]);
      for (size_t r = 1; r < size_t(size); r++) value = combined(value, A(from[r * count + i]), task.op);
      to[i] = T(task.op == ncclAvg ? A(value / A(size)) : value);
    }
  });
  return result;
}

Header header_of(const Task& task, uint32_t phase) {
  Header it;
  it.number = task.collective;
  it.count = task.count;
  it.kind = uint32_t(task.kind);
  it.type = uint32_t(task.type);
  it.op = uint32_t(task.op);
  it.root = uint32_t(task.root);
  it.phase = phase;
  return it;
}

// Every rank gets the parts of `input` (part r for rank r) from all, by rank.
std::vector<char> spread(Mesh& mesh, const Task& task, const std::vector<char>& input, const std::vector<size_t>& starts) {
  const size_t own = starts[size_t(mesh.rank) + 1] - starts[size_t(mesh.rank)];
  std::vector<char> parts(own * size_t(mesh.size));
  std::vector<Mesh::Outgoing> sends;
  std::vector<Mesh::Incoming> receives;
  for (int r = 0; r < mesh.size; r++) {
    const char* const from = input.data() + starts[size_t(r)];
    char* const to = parts.data() + size_t(r) * own;
    if (r == mesh.rank) {
      if (own > 0) std::memcpy(to, from, own);
      continue;
    }
    sends.push_back({r, from, starts[size_t(r) + 1] - starts[size_t(r)]});
    receives.push_back({r, to, own});
  }
  mesh.exchange(header_of(task, 0), sends, receives);
  return parts;
}

// The parts of all ranks, one after the other, to `root` or, if that is -1, to all.
std::vector<char> collected(Mesh& mesh, const Task& task, const std::vector<char>& own, const std::vector<size_t>& starts, int root) {
  const bool here = root < 0 || root == mesh.rank;
  std::vector<char> whole(here ? starts.back() : 0);
  std::vector<Mesh::Outgoing> sends;
  std::vector<Mesh::Incoming> receives;
  for (int r = 0; r < mesh.size; r++) {
    if (r == mesh.rank) {
      if (here && !own.empty()) std::memcpy(whole.data() + starts[size_t(r)], own.data(), own.size());
      continue;
    }
    if (root < 0 || root == r) sends.push_back({r, own.data(), own.size()});
    if (here) receives.push_back({r, whole.data() + starts[size_t(r)], starts[size_t(r) + 1] - starts[size_t(r)]});
  }
  mesh.exchange(header_of(task, 1), sends, receives);
  return whole;
}

std::vector<size_t> shares(size_t count, int size, size_t width) {
  std::vector<size_t> starts;
  for (int r = 0; r <= size; r++) starts.push_back(count * size_t(r) / size_t(size) * width);
  return starts;
}

void exchange_messages(Mesh& mesh, Task& task) {
  std::vector<Mesh::Outgoing> sends;
  std::vector<Mesh::Incoming> receives;
  std::vector<Message*> to_self, from_self;
  for (Message& it : task.messages) {
    if (!it.sends) it.content.resize(it.bytes);
    if (it.peer == mesh.rank) (it.sends ? to_self : from_self).push_back(&it);
    else if (it.sends) sends.push_back({it.peer, it.content.data(), it.bytes});
    else receives.push_back({it.peer, it.content.data(), it.bytes});
  }
  for (size_t i = 0; i < to_self.size(); i++) from_self[i]->content = to_self[i]->content;
  Header header;
  header.messages = 1;
  mesh.exchange(header, sends, receives);
}

}  // namespace

size_t size_of(ncclDataType_t type) {
  size_t size = 0;
  dispatch(type, [&](auto element) { size = sizeof element; });
  return size;
}

void exchange(Mesh& mesh, Task& task) {
  const size_t width = size_of(task.type);
  const std::vector<size_t> own_shares = shares(task.count, mesh.size, width), equal = shares(task.count * size_t(mesh.size), mesh.size, width);
  const size_t share = (own_shares[size_t(mesh.rank) + 1] - own_shares[size_t(mesh.rank)]) / width;
  switch (task.kind) {
    case Kind::all_reduce:
    case Kind::reduce: {
      const std::vector<char> part = reduced(spread(mesh, task, task.input, own_shares), share, task, mesh.size);
      task.output = collected(mesh, task, part, own_shares, task.kind == Kind::reduce ? task.root : -1);
      break;
    }
    case Kind::reduce_scatter: task.output = reduced(spread(mesh, task, task.input, equal), task.count, task, mesh.size); break;
    case Kind::all_gather: task.output = collected(mesh, task, task.input, equal, -1); break;
    case Kind::broadcast: {
      task.output.resize(task.count * width);
      std::vector<Mesh::Outgoing> sends;
      std::vector<Mesh::Incoming> receives;
      if (mesh.rank == task.root) {
        task.output = task.input;
        for (int r = 0; r < mesh.size; r++)
          if (r != mesh.rank) sends.push_back({r, task.input.data(), task.input.size()});
      } else {
        receives.push_back({task.root, task.output.data(), task.output.size()});
      }
      mesh.exchange(header_of(task, 0), sends, receives);
      break;
    }
    case Kind::messages: exchange_messages(mesh, task);
  }
}

}  // namespace nccl_emulation
