// Reducing a tensor over a set of axes, in an order that depends on its sizes and strides alone: groups of threads an output, blocks that share
// an output where there are few, the last of which joins their parts. One launch.
//
// An operation has a type Part (trivial), start(), add(part, element, its position among the reduced ones), join(part, part) and
// finish(part, offset of the output). Threads join what they add in chains of kChain elements, so that the error of a sum grows slowly.
#pragma once
#include "../common/plan.h"
#include "groups.h"
#include "map.h"

namespace dg {

inline constexpr int kChain = 256;

// Offsets of the outputs and of the elements of each.
struct Walk {
  int kept_rank, rank;
  bool small;  // numbers of outputs and elements fit 32 bits
  int64_t outputs, count;
  int64_t kept_sizes[DG_MAX_RANK], kept_x[DG_MAX_RANK], kept_out[DG_MAX_RANK], sizes[DG_MAX_RANK], strides[DG_MAX_RANK];

  Walk(const Loop<2>& kept, const Loop<1>& nest) : kept_rank(kept.rank), rank(nest.rank), outputs(kept.numel), count(nest.numel) {
    small = outputs < int64_t(1) << 32 && count < int64_t(1) << 32;
    for (int i = 0; i < DG_MAX_RANK; i++) {
      kept_sizes[i] = kept.sizes[i], kept_x[i] = kept.strides[0][i], kept_out[i] = kept.strides[1][i];
      sizes[i] = nest.sizes[i], strides[i] = nest.strides[0][i];
    }
  }

  __device__ int64_t quotient(int64_t at, int64_t size) const { return small ? int64_t(uint32_t(at) / uint32_t(size)) : at / size; }
  __device__ int64_t element(int64_t at) const {
    int64_t offset = 0;
    for (int i = rank - 1; i > 0; i--) {
      const int64_t next = quotient(at, sizes[i]);
      offset += (at - next * sizes[i]) * strides[i];
      at = next;
    }
    return offset + at * strides[0];
  }
  __device__ void output(int64_t at, int64_t& x, int64_t& out) const {
    x = out = 0;
    for (int i = kept_rank - 1; i > 0; i--) {
      const int64_t next = quotient(at, kept_sizes[i]), digit = at - next * kept_sizes[i];
      x += digit * kept_x[i];
      out += digit * kept_out[i];
      at = next;
    }
    x += at * kept_x[0];
    out += at * kept_out[0];
  }
};

// What one thread adds up of the elements [begin, end) of an output.
template <int N, class Op, class T>
__device__ typename Op::Part gather(const Op& op, const T* x, const Walk& walk, int64_t begin, int64_t end, int lane, int lanes) {
  using Part = typename Op::Part;
  Part total = op.start();
  const int64_t step = int64_t(lanes) * N, packs_end = end / N * N;
  for (int64_t i = begin + int64_t(lane) * N; i < packs_end;) {
    const int64_t stop = min(packs_end, i + step * (kChain / N));
    Part part = op.start();
    if constexpr (N == 1) {
      for (; i + 3 * step < stop; i += 4 * step) {
        T v[4];
#pragma unroll
        for (int j = 0; j < 4; j++) v[j] = x[walk.element(i + j * step)];
#pragma unroll
        for (int j = 0; j < 4; j++) op.add(part, v[j], i + j * step);
      }
      for (; i < stop; i += step) op.add(part, x[walk.element(i)], i);
    } else {
      const auto pack = [&](int64_t at) { return *reinterpret_cast<const Pack<T, N>*>(x + at); };
      const auto add = [&](const Pack<T, N>& v, int64_t at) {
#pragma unroll
        for (int j = 0; j < N; j++) op.add(part, v.at[j], at + j);
      };
      for (; i + step < stop; i += 2 * step) {
        const Pack<T, N> first = pack(i), second = pack(i + step);
        add(first, i);
        add(second, i + step);
      }
      for (; i < stop; i += step) add(pack(i), i);
    }
    total = op.join(total, part);
  }
  if constexpr (N > 1)
    for (int64_t i = packs_end + lane; i < end; i += lanes) op.add(total, x[i], i);
  return total;
}

template <int N, class Op, class T>
__global__ void reduce_kernel(Op op, const T* x, const __grid_constant__ Walk walk, Groups g, int64_t share, typename Op::Part* parts,
                              unsigned* counter) {
  const int64_t k = int64_t(blockIdx.x) * g.groups + g.group();
  const bool exists = k < walk.outputs;
  const int lane = g.lane();
  const auto join = [&](const auto& a, const auto& b) { return op.join(a, b); };
  typename Op::Part part = op.start();
  int64_t from = 0, to = 0;
  if (exists) {
    walk.output(k, from, to);
    const int64_t begin = blockIdx.y * share;
    part = gather<N>(op, x + from, walk, begin, min(walk.count, begin + share), lane, g.lanes);
  }
  part = group_reduce(part, g, join);
  const int64_t splits = gridDim.y;
  if (splits > 1) {
    if (exists && lane == 0) parts[k * splits + blockIdx.y] = part;
    if (!last_block(counter + blockIdx.x, unsigned(splits))) return;
    part = op.start();
    if (exists)
      for (int64_t i = lane; i < splits; i += g.lanes) part = op.join(part, parts[k * splits + i]);
    part = group_reduce(part, g, join);
  }
  if (exists && lane == 0) op.finish(part, to);
}

// Reduces x (elements of type T) as `plan` says. With `packed`, rows without gaps are read in packs of 16 bytes.
template <bool packed, class T, class Op>
void reduce(const char* name, const Op& op, const Tensor& x, const Plan& plan) {
  if (plan.outputs == 0) return;
  const Loop<2> kept({&plan.kept_x, &plan.kept_out});
  const Loop<1> nest({&plan.reduced});
  const Walk walk(kept, nest);
  constexpr int N = packed ? int(16 / sizeof(T)) : 1;
  const T* const data = x.data<T>();
  const bool columns = kept.numel > 1 && kept.inner() > 1 && nest.numel > 1 && kept.strides[0][kept.rank - 1] < nest.strides[0][nest.rank - 1];
  bool packs = N > 1 && !columns && nest.rank == 1 && nest.unit(0) && packs_fit<N>(data);
  for (int i = 0; i < kept.rank; i++) packs &= kept.sizes[i] <= 1 || kept.strides[0][i] % N == 0;
  const int pack = packs ? N : 1;
  const Groups g = groups_for(plan.outputs, plan.count, columns, pack);
  const int64_t tiles = (plan.outputs - 1) / g.groups + 1, least = int64_t(g.lanes) * pack * 16;  // elements that make a block of its own worth it
  int64_t splits = 1, share = plan.count;
  if (plan.count >= 2 * least && tiles < 512) {
    share = (plan.count - 1) / std::min(plan.count / least, 1024 / tiles) + 1;
    share = (share + pack - 1) / pack * pack;
    splits = (plan.count - 1) / share + 1;
  }
  using Part = typename Op::Part;
  const Scratch parts(splits > 1 ? plan.outputs * splits * int64_t(sizeof(Part)) : 0);
  const dim3 grid{unsigned(tiles), unsigned(splits)};
  if (packs) launch(name, reduce_kernel<N, Op, T>, grid, g.threads(), 0, op, data, walk, g, share, parts.as<Part>(), counters());
  else launch(name, reduce_kernel<1, Op, T>, grid, g.threads(), 0, op, data, walk, g, share, parts.as<Part>(), counters());
}

// Stores results of compute type A (float, double or int64_t) as any dtype that require_stored_as<A> lets pass.
template <class A>
struct Store {
  char* data;
  uint32_t dtype;

  explicit Store(const Tensor& out) : data(out.storage_data + out.offset * dtype_size(out.dtype)), dtype(out.dtype) {}
  template <class T>
  __device__ void put(int64_t at, A value) const {
    reinterpret_cast<T*>(data)[at] = convert<T>(value);
  }
  __device__ void operator()(int64_t at, A value) const {
    if constexpr (std::is_same_v<A, double>) {
      put<double>(at, value);
    } else if constexpr (std::is_same_v<A, float>) {
      if (dtype == DG_F32) put<float>(at, value);
      else if (dtype == DG_F16) put<f16>(at, value);
      else put<bf16>(at, value);
    } else {
      if (dtype == DG_I64) put<int64_t>(at, value);
      else if (dtype == DG_I32) put<int32_t>(at, value);
      else if (dtype == DG_U8) put<uint8_t>(at, value);
      else put<bool>(at, value);
    }
  }
};

}  // namespace dg
