// Reductions down the columns of a matrix, or over all values of a channel, to a few numbers each: blocks share out the rows, the last block of a
// column adds what they found. The order depends on the sizes alone.
//
// An Op has
//   State         sums of some rows: State{} of none, merge(State, State)
//   Total         the type in which blocks are added, made from a State; merge(Total, Total)
//   Column        what the op needs of a column:                 Column column(int64_t column)
//   add           V neighbouring values of a row:                add<V>(State (&)[V], int64_t row, int64_t column, const Column (&)[..])
//   finish        writes the result:                             finish(int64_t column, Total)
#pragma once
#include <bit>

#include "block.h"
#include "map.h"

namespace dg {

// V neighbouring values at once; their address is a multiple of their size.
template <class T, int V>
__device__ Pack<T, V> load(const T* p) {
  return *reinterpret_cast<const Pack<T, V>*>(p);
}
template <class T, int V>
__device__ void store(T* p, const Pack<T, V>& v) {
  *reinterpret_cast<Pack<T, V>*>(p) = v;
}

// Joins the values of the threads of a block with equal threadIdx.x; the thread with threadIdx.y == 0 has the result. All threads must call it.
template <class S>
__device__ S join_rows(S value, S* shared) {
  S* const mine = shared + threadIdx.y * blockDim.x + threadIdx.x;
  __syncthreads();  // a result of the previous call may still be read
  *mine = value;
  for (unsigned half = blockDim.y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.y < half) *mine = merge(*mine, mine[half * blockDim.x]);
  }
  return *mine;
}

// Joins the threads of a block, then the blocks (gridDim.y) of column blockIdx.x, for the columns `first` to first + V.
template <int V, class Op>
__device__ void join_blocks(const Op& op, typename Op::State (&sums)[V], int64_t first, int64_t columns, typename Op::State* partials,
                            unsigned* counters) {
  using State = typename Op::State;
  using Total = typename Op::Total;
  DG_DYNAMIC_SHARED(unsigned char, shared);
  const bool writes = threadIdx.y == 0 && first < columns, alone = gridDim.y == 1;
#pragma unroll
  for (int j = 0; j < V; j++) {
    const State sum = join_rows(sums[j], reinterpret_cast<State*>(shared));
    if (!writes) continue;
    if (alone) op.finish(first + j, Total(sum));
    else partials[blockIdx.y * columns + first + j] = sum;
  }
  if (alone || !last_block(counters + blockIdx.x, gridDim.y)) return;
#pragma unroll 1
  for (int j = 0; j < V; j++) {
    Total total{};
    if (first < columns)
      for (int64_t block = threadIdx.y; block < gridDim.y; block += blockDim.y) total = merge(total, Total(partials[block * columns + first + j]));
    total = join_rows(total, reinterpret_cast<Total*>(shared));
    if (writes) op.finish(first + j, total);
  }
}

template <int V, class Op>
__global__ void __launch_bounds__(kThreads) reduce_columns(Op op, int64_t rows, int64_t columns, typename Op::State* partials, unsigned* counters) {
  const int64_t first = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) * V, step = int64_t(gridDim.y) * blockDim.y;
  typename Op::State sums[V] = {};
  if (first < columns) {
    typename Op::Column column[V];
#pragma unroll
    for (int j = 0; j < V; j++) column[j] = op.column(first + j);
    for (int64_t row = int64_t(blockIdx.y) * blockDim.y + threadIdx.y; row < rows; row += step) op.template add<V>(sums, row, first, column);
  }
  join_blocks<V>(op, sums, first, columns, partials, counters);
}

// How a matrix is shared out: x packs of columns and y rows a block.
struct ColumnGrid {
  dim3 grid, block;

  // About `per_thread` rows a thread at least, at most `most` blocks of one column tile.
  ColumnGrid(int64_t rows, int64_t packs, int64_t per_thread, int64_t blocks, int64_t most = 65535) {
    const int64_t x = std::min<int64_t>(32, std::bit_ceil(uint64_t(std::max<int64_t>(packs, 1))));
    const int64_t y = std::clamp<int64_t>(std::bit_ceil(uint64_t((rows + per_thread - 1) / per_thread)), 32 / x, kThreads / x);
    const int64_t tiles = (packs + x - 1) / x;
    block = dim3(unsigned(x), unsigned(y));
    const int64_t wanted = (rows + y * per_thread - 1) / (y * per_thread), room = std::max<int64_t>(1, blocks / std::max<int64_t>(tiles, 1));
    grid = dim3(unsigned(tiles), unsigned(std::clamp<int64_t>(wanted, 1, std::min(room, most))));
  }
  unsigned threads() const { return block.x * block.y; }
};

inline constexpr int64_t kColumnBlocks = 1024;  // enough for every multiprocessor

// Space for the sums of the blocks of a grid of `columns`.
template <class Op>
int64_t partial_bytes(const ColumnGrid& g, int64_t columns) {
  return g.grid.y == 1 ? 0 : int64_t(g.grid.y) * columns * int64_t(sizeof(typename Op::State));
}
template <class Op>
size_t join_bytes(const ColumnGrid& g) {
  return g.threads() * std::max(sizeof(typename Op::State), sizeof(typename Op::Total));
}

// V divides `columns`.
template <int V, class Op>
void launch_columns(const char* name, const Op& op, int64_t rows, int64_t columns) {
  if (columns == 0) return;
  const ColumnGrid g(rows, columns / V, 16, kColumnBlocks);
  const Scratch partials(partial_bytes<Op>(g, columns));
  launch(name, reduce_columns<V, Op>, g.grid, g.block, join_bytes<Op>(g), op, rows, columns, partials.template as<typename Op::State>(), counters());
}

// The values of channel blockIdx.x: `outer` planes of `inner` values, `channels` planes apart; V divides inner. `row` of Op::add is the plane's
// number and `column` the position in memory.
template <int V, class Op>
__global__ void __launch_bounds__(kThreads)
    reduce_planes(Op op, int64_t outer, int64_t channels, int64_t inner, typename Op::State* partials, unsigned* counters) {
  const int64_t channel = blockIdx.x, packs = inner / V, step = int64_t(gridDim.y) * blockDim.y;
  const int64_t first = int64_t(blockIdx.y) * blockDim.y + threadIdx.y;
  typename Op::State sums[V] = {};
  const typename Op::Column column[1] = {op.column(channel)};
  const int64_t planes = step / packs, rest = step - planes * packs;
  int64_t plane = first / packs, at = first - plane * packs;
  while (plane < outer) {
    op.template add<V>(sums, plane, (plane * channels + channel) * inner + at * V, column);
    plane += planes;
    at += rest;
    if (at >= packs) at -= packs, plane++;
  }
#pragma unroll
  for (int j = 1; j < V; j++) sums[0] = merge(sums[0], sums[j]);
  typename Op::State sum[1] = {sums[0]};
  join_blocks<1>(op, sum, channel, channels, partials, counters);
}

template <int V, class Op>
void launch_planes(const char* name, const Op& op, int64_t outer, int64_t channels, int64_t inner) {
  if (channels == 0) return;
  ColumnGrid g(outer * (inner / V), 1, 8, std::max<int64_t>(1, kColumnBlocks / channels));
  g.grid.x = unsigned(channels);
  const Scratch partials(partial_bytes<Op>(g, channels));
  launch(name, reduce_planes<V, Op>, g.grid, g.block, join_bytes<Op>(g), op, outer, channels, inner, partials.template as<typename Op::State>(),
         counters());
}

// State and total of a plain sum.
template <class C>
struct SumState {
  C value;
  friend __device__ SumState merge(const SumState& a, const SumState& b) { return {a.value + b.value}; }
};
struct SumTotal {
  double value;
  SumTotal() = default;
  template <class C>
  __device__ explicit SumTotal(const SumState<C>& s) : value(double(s.value)) {}
  __device__ explicit SumTotal(double v) : value(v) {}
  friend __device__ SumTotal merge(const SumTotal& a, const SumTotal& b) { return SumTotal(a.value + b.value); }
};

// Two sums of a column, in C and (blocks added) in double.
template <class C>
struct Sums {
  C one, two;
  Sums() = default;
  __device__ Sums(C a, C b) : one(a), two(b) {}
  template <class D> __device__ explicit Sums(const Sums<D>& s) : one(C(s.one)), two(C(s.two)) {}
};
template <class C>
__device__ Sums<C> merge(const Sums<C>& a, const Sums<C>& b) {
  return {a.one + b.one, a.two + b.two};
}

}  // namespace dg
