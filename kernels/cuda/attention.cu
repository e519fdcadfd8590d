// Scaled dot-product attention, the twin of cpu/attention.cpp. A block of threads makes an Edge x Edge tile of scores at a time, in shared memory,
// and an Edge x Edge piece of an output from it, 4 x 4 elements a thread. Where an output has more columns than Edge, other blocks make the rest, and
// the same scores again. Sums run in a fixed order; nothing is added atomically.
#include "../common/attention.h"
#include "block.h"

namespace dg {
namespace {

constexpr int kPart = 4;    // a thread has kPart x kPart elements of a tile, kEdge / kPart apart
constexpr int kDepth = 32;  // of the operands of a tile, at a time

template <class C> inline constexpr int kEdge = sizeof(C) == 8 ? 32 : 64;
template <class C> inline constexpr int kStep = kEdge<C> / kPart;
template <class C> inline constexpr int kTileThreads = kStep<C> * kStep<C>;

template <class T>
struct Matrices {
  T* data = nullptr;
  Stack stack;
  Matrices() = default;
  Matrices(const Tensor& t, int axes, int64_t heads) : data(reinterpret_cast<T*>(t.storage_data)), stack(t, axes, heads) {}
  __device__ T* of(int64_t item) const { return data + stack.at(item); }
};

// What all kernels take.
template <class T, class C>
struct Arguments {
  Matrices<const T> q, k, v;
  Matrices<T> out, dq, dk, dv;
  Matrices<const T> dout;
  Matrices<C> log_sum;
  Stack mask;
  const char* mask_data = nullptr;
  uint32_t mask_dtype = 0;
  C* inner = nullptr;  // sum of dout out of each row
  int64_t items, heads, groups, rows, keys, depth, width;
  C scale;
  bool causal;

  explicit Arguments(const Attention& a)
      : q(a.q, 2, a.heads), k(a.k, 2, a.heads), v(a.v, 2, a.heads), out(a.out, 2, a.heads), log_sum(a.log_sum, 1, a.heads), items(a.items),
        heads(a.heads), groups(a.groups), rows(a.rows), keys(a.keys), depth(a.depth), width(a.width), scale(C(a.scale)), causal(a.causal) {
    if (!a.masked) return;
    mask = Stack(a.mask, 2, a.heads), mask_data = a.mask.storage_data, mask_dtype = a.mask.dtype;
  }

  // The score of a product of query and key; `at` is where the mask of the item begins.
  __device__ C score(C product, int64_t at, int64_t row, int64_t key) const {
    constexpr C hidden = -std::numeric_limits<C>::infinity();
    if (row >= rows || key >= keys || (causal && key > row)) return hidden;
    const C s = product * scale;
    if (!mask_data) return s;
    const int64_t i = at + row * mask.row + key * mask.column;
    switch (mask_dtype) {
      case DG_BOOL: return mask_data[i] ? s : hidden;
      case DG_F64: return s + C(reinterpret_cast<const double*>(mask_data)[i]);
      case DG_F16: return s + C(float(reinterpret_cast<const f16*>(mask_data)[i]));
      case DG_BF16: return s + C(float(reinterpret_cast<const bf16*>(mask_data)[i]));
      default: return s + C(reinterpret_cast<const float*>(mask_data)[i]);
    }
  }
  __device__ int64_t mask_of(int64_t item) const { return mask_data ? mask.at(item) : 0; }
};

// A tile of C: 4 x 4 elements of this thread.
template <class C>
struct Part {
  C at[kPart][kPart] = {};

  static __device__ int row(int i) { return int(threadIdx.x) / kStep<C> + i * kStep<C>; }
  static __device__ int column(int j) { return int(threadIdx.x) % kStep<C> + j * kStep<C>; }

  __device__ void store(C (*tile)[kEdge<C> + 1]) const {
#pragma unroll
    for (int i = 0; i < kPart; i++)
#pragma unroll
      for (int j = 0; j < kPart; j++) tile[row(i)][column(j)] = at[i][j];
  }
  // += a b of two tiles in shared memory.
  __device__ void add(const C (*a)[kEdge<C> + 1], const C (*b)[kEdge<C> + 1]) {
#pragma unroll 4
    for (int k = 0; k < kEdge<C>; k++) {
      C x[kPart], y[kPart];
#pragma unroll
      for (int i = 0; i < kPart; i++) x[i] = a[row(i)][k], y[i] = b[k][column(i)];
#pragma unroll
      for (int i = 0; i < kPart; i++)
#pragma unroll
        for (int j = 0; j < kPart; j++) at[i][j] += x[i] * y[j];
    }
  }
};

template <class C>
struct Shared {
  union {
    C operands[2][kEdge<C>][kDepth + 1];
    C piece[kEdge<C>][kEdge<C> + 1];
  };
  C tile[kEdge<C>][kEdge<C> + 1];
  C factor[kEdge<C>];
};

// Rows [first, first + Edge) and columns [column, column + Columns) of a matrix into shared memory, zeros where it ends. Neighbouring threads take
// neighbouring columns.
template <int Columns, int Width, class C, class T>
__device__ void load_piece(C (*to)[Width], const T* from, const Stack& s, int64_t first, int64_t rows, int64_t column, int64_t columns) {
#pragma unroll 2
  for (int at = threadIdx.x; at < kEdge<C> * Columns; at += kTileThreads<C>) {
    const int i = at / Columns, j = at % Columns;
    const bool inside = first + i < rows && column + j < columns;
    const C value = inside ? C(from[(first + i) * s.row + (column + j) * s.column]) : C(0);
    to[i][j] = value;
  }
}

// a b^T for rows of two operands; every thread of the block must call it. The shared operands may be overwritten afterwards.
template <class C, class T>
__device__ Part<C> product(Shared<C>& shared, const T* a, const Stack& sa, int64_t a_first, int64_t a_rows, const T* b, const Stack& sb,
                           int64_t b_first, int64_t b_rows, int64_t depth) {
  Part<C> sum;
  for (int64_t from = 0; from < depth; from += kDepth) {
    load_piece<kDepth>(shared.operands[0], a, sa, a_first, a_rows, from, depth);
    load_piece<kDepth>(shared.operands[1], b, sb, b_first, b_rows, from, depth);
    __syncthreads();
#pragma unroll 4
    for (int k = 0; k < kDepth; k++) {
      C x[kPart], y[kPart];
#pragma unroll
      for (int i = 0; i < kPart; i++) x[i] = shared.operands[0][sum.row(i)][k], y[i] = shared.operands[1][sum.column(i)][k];
#pragma unroll
      for (int i = 0; i < kPart; i++)
#pragma unroll
        for (int j = 0; j < kPart; j++) sum.at[i][j] += x[i] * y[j];
    }
    __syncthreads();
  }
  return sum;
}

// What a block works on: block `block` of Edge rows of matrix `item`, columns from `column` on.
template <class C>
struct Task {
  int64_t item, first, column;
  __device__ Task(int64_t task, int64_t rows, int64_t chunks) {
    const int64_t blocks = (rows + kEdge<C> - 1) / kEdge<C>, block = task / chunks;
    column = task % chunks * kEdge<C>;
    item = block / blocks;
    first = block % blocks * kEdge<C>;
  }
};

template <class C>
int64_t tasks_for(int64_t items, int64_t rows, int64_t columns) {
  return items * ((rows + kEdge<C> - 1) / kEdge<C>) * ((columns + kEdge<C> - 1) / kEdge<C>);
}

// Weights relative to the largest score so far, in shared.tile; shared.factor brings what was summed before to it. `lanes` threads a row.
template <class C>
__device__ void running_softmax(Shared<C>& shared, C& top, C& sum) {
  constexpr int lanes = kTileThreads<C> / kEdge<C>;
  const int row = int(threadIdx.x) / lanes, lane = int(threadIdx.x) % lanes;
  C largest = top;
  for (int j = lane; j < kEdge<C>; j += lanes) largest = shared.tile[row][j] > largest ? shared.tile[row][j] : largest;
#pragma unroll
  for (int distance = lanes / 2; distance > 0; distance /= 2) {
    const C other = __shfl_xor_sync(0xffffffffu, largest, distance);
    largest = other > largest ? other : largest;
  }
  const C factor = attention_rescale(top, largest), shift = attention_shift(largest);
  C total = 0;
  for (int j = lane; j < kEdge<C>; j += lanes) {
    const C e = exp_(shared.tile[row][j] - shift);
    shared.tile[row][j] = e;
    total += e;
  }
#pragma unroll
  for (int distance = lanes / 2; distance > 0; distance /= 2) total += __shfl_xor_sync(0xffffffffu, total, distance);
  if (lane == 0) shared.factor[row] = factor;
  top = largest;
  sum = sum * factor + total;
}

template <class T, class C>
__global__ void __launch_bounds__(kTileThreads<C>) attention_forward(const __grid_constant__ Arguments<T, C> a, int64_t tasks, int64_t chunks) {
  constexpr int edge = kEdge<C>, lanes = kTileThreads<C> / edge;
  DG_SHARED(Shared<C>, shared);
  for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    const Task<C> t(task, a.rows, chunks);
    const T *const q = a.q.of(t.item), *const k = a.k.of(t.item), *const v = a.v.of(t.item);
    const int64_t mask = a.mask_of(t.item), seen = a.causal && t.first + edge < a.keys ? t.first + edge : a.keys;
    C top = -std::numeric_limits<C>::infinity(), sum = 0;
    Part<C> out;
    for (int64_t from = 0; from < seen; from += edge) {
      Part<C> scores = product<C>(shared, q, a.q.stack, t.first, a.rows, k, a.k.stack, from, a.keys, a.depth);
#pragma unroll
      for (int i = 0; i < kPart; i++)
#pragma unroll
        for (int j = 0; j < kPart; j++)
          scores.at[i][j] = a.score(scores.at[i][j], mask, t.first + scores.row(i), from + scores.column(j));
      scores.store(shared.tile);
      load_piece<edge>(shared.piece, v, a.v.stack, from, a.keys, t.column, a.width);
      __syncthreads();
      running_softmax(shared, top, sum);
      __syncthreads();
#pragma unroll
      for (int i = 0; i < kPart; i++)
#pragma unroll
        for (int j = 0; j < kPart; j++) out.at[i][j] *= shared.factor[out.row(i)];
      out.add(shared.tile, shared.piece);
      __syncthreads();
    }
    const int row = int(threadIdx.x) / lanes;
    if (int(threadIdx.x) % lanes == 0) {
      shared.factor[row] = sum == C(0) ? C(0) : C(1) / sum;
      if (t.column == 0 && t.first + row < a.rows) {
        const C log_sum = attention_log_sum(top, sum);
        a.log_sum.of(t.item)[(t.first + row) * a.log_sum.stack.row] = log_sum;
      }
    }
    __syncthreads();
    T* const to = a.out.of(t.item);
#pragma unroll
    for (int i = 0; i < kPart; i++)
#pragma unroll
      for (int j = 0; j < kPart; j++) {
        const int64_t r = t.first + out.row(i), c = t.column + out.column(j);
        const T value = T(out.at[i][j] * shared.factor[out.row(i)]);
        if (r < a.rows && c < a.width) to[r * a.out.stack.row + c * a.out.stack.column] = value;
      }
    __syncthreads();
  }
}

// inner = sum of dout out of each row, a warp a row.
template <class T, class C>
__global__ void attention_inner(const __grid_constant__ Arguments<T, C> a) {
  const int64_t warps = int64_t(gridDim.x) * (blockDim.x / 32), count = a.items * a.rows;
  for (int64_t at = int64_t(blockIdx.x) * (blockDim.x / 32) + threadIdx.x / 32; at < count; at += warps) {
    const int64_t item = at / a.rows, row = at % a.rows;
    const T *const x = a.out.of(item) + row * a.out.stack.row, *const g = a.dout.of(item) + row * a.dout.stack.row;
    C sum = 0;
    for (int64_t j = threadIdx.x % 32; j < a.width; j += 32) sum += C(x[j * a.out.stack.column]) * C(g[j * a.dout.stack.column]);
    sum = warp_reduce(sum, Plus<C>());
    if (threadIdx.x % 32 == 0) a.inner[at] = sum;
  }
}

// What is subtracted from the scores of a row; inf where it has no keys, whose weights are 0.
template <class T, class C>
__device__ C shift_of(const Arguments<T, C>& a, int64_t item, int64_t row) {
  if (row >= a.rows) return std::numeric_limits<C>::infinity();
  const C log_sum = a.log_sum.of(item)[row * a.log_sum.stack.row];
  return log_sum == -std::numeric_limits<C>::infinity() ? -log_sum : log_sum;
}

template <class T, class C>
__device__ void write_part(const Part<C>& part, const Matrices<T>& to, int64_t item, int64_t first, int64_t rows, int64_t column, int64_t columns,
                           C factor) {
  T* const out = to.of(item);
#pragma unroll
  for (int i = 0; i < kPart; i++)
#pragma unroll
    for (int j = 0; j < kPart; j++) {
      const int64_t r = first + part.row(i), c = column + part.column(j);
      const T value = T(part.at[i][j] * factor);
      if (r < rows && c < columns) out[r * to.stack.row + c * to.stack.column] = value;
    }
}

// dq = scale ds k.
template <class T, class C>
__global__ void __launch_bounds__(kTileThreads<C>) attention_queries(const __grid_constant__ Arguments<T, C> a, int64_t tasks, int64_t chunks) {
  constexpr int edge = kEdge<C>;
  DG_SHARED(Shared<C>, shared);
  for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    const Task<C> t(task, a.rows, chunks);
    const T *const q = a.q.of(t.item), *const k = a.k.of(t.item), *const v = a.v.of(t.item), *const dout = a.dout.of(t.item);
    const int64_t mask = a.mask_of(t.item), seen = a.causal && t.first + edge < a.keys ? t.first + edge : a.keys;
    C shift[kPart], inner[kPart];
#pragma unroll
    for (int i = 0; i < kPart; i++) {
      const int64_t row = t.first + Part<C>::row(i);
      shift[i] = shift_of(a, t.item, row);
      inner[i] = row < a.rows ? a.inner[t.item * a.rows + row] : C(0);
    }
    Part<C> dq;
    for (int64_t from = 0; from < seen; from += edge) {
      const Part<C> scores = product<C>(shared, q, a.q.stack, t.first, a.rows, k, a.k.stack, from, a.keys, a.depth);
      Part<C> slopes = product<C>(shared, dout, a.dout.stack, t.first, a.rows, v, a.v.stack, from, a.keys, a.width);
#pragma unroll
      for (int i = 0; i < kPart; i++)
#pragma unroll
        for (int j = 0; j < kPart; j++) {
          const C s = a.score(scores.at[i][j], mask, t.first + scores.row(i), from + scores.column(j));
          slopes.at[i][j] = exp_(s - shift[i]) * (slopes.at[i][j] - inner[i]);
        }
      slopes.store(shared.tile);
      load_piece<edge>(shared.piece, k, a.k.stack, from, a.keys, t.column, a.depth);
      __syncthreads();
      dq.add(shared.tile, shared.piece);
      __syncthreads();
    }
    write_part(dq, a.dq, t.item, t.first, a.rows, t.column, a.depth, a.scale);
  }
}

// dv = p^T dout, or dk = scale ds^T q, of a matrix of keys and values that `heads / groups` heads use. One at a time: both together need more registers than
// there are.
template <class T, class C, bool values>
__global__ void __launch_bounds__(kTileThreads<C>) attention_keys(const __grid_constant__ Arguments<T, C> a, int64_t tasks, int64_t chunks) {
  constexpr int edge = kEdge<C>;
  DG_SHARED(Shared<C>, shared);
  for (int64_t task = blockIdx.x; task < tasks; task += gridDim.x) {
    const Task<C> t(task, a.keys, chunks);
    Part<C> sum;
    for (int64_t g = 0; g < a.heads / a.groups; g++) {
      const int64_t item = Attention::query_of(t.item, g, a.heads, a.groups), mask = a.mask_of(item);
      const T *const q = a.q.of(item), *const k = a.k.of(item), *const v = a.v.of(item), *const dout = a.dout.of(item);
      for (int64_t from = a.causal ? t.first : 0; from < a.rows; from += edge) {
        // Kept in shared memory, each thread its own elements: with both products in registers there are too few of them for the rest.
        product<C>(shared, k, a.k.stack, t.first, a.keys, q, a.q.stack, from, a.rows, a.depth).store(shared.tile);
        if constexpr (!values)
          product<C>(shared, v, a.v.stack, t.first, a.keys, dout, a.dout.stack, from, a.rows, a.width).store(shared.piece);
#pragma unroll 1
        for (int at = 0; at < kPart * kPart; at++) {
          const int i = Part<C>::row(at / kPart), j = Part<C>::column(at % kPart);
          const int64_t row = from + j;
          const C e = exp_(a.score(shared.tile[i][j], mask, row, t.first + i) - shift_of(a, item, row));
          const C inner = !values && row < a.rows ? a.inner[item * a.rows + row] : C(0);
          shared.tile[i][j] = values ? e : e * (shared.piece[i][j] - inner);
        }
        __syncthreads();
        if constexpr (values) load_piece<edge>(shared.piece, dout, a.dout.stack, from, a.rows, t.column, a.width);
        else load_piece<edge>(shared.piece, q, a.q.stack, from, a.rows, t.column, a.depth);
        __syncthreads();
        sum.add(shared.tile, shared.piece);
        __syncthreads();
      }
    }
    if constexpr (values) write_part(sum, a.dv, t.item, t.first, a.keys, t.column, a.width, C(1));
    else write_part(sum, a.dk, t.item, t.first, a.keys, t.column, a.depth, a.scale);
  }
}

template <class C>
int64_t chunks_for(int64_t columns) {
  return (columns + kEdge<C> - 1) / kEdge<C>;
}

}  // namespace

void attention(const Attention& a) {
  const char* const name = "attention";
  dispatch_floats(a.q.dtype, name, [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    const int64_t tasks = tasks_for<C>(a.items, a.rows, a.width);
    launch(name, attention_forward<T, C>, blocks_for(tasks, 1), kTileThreads<C>, 0, Arguments<T, C>(a), tasks, chunks_for<C>(a.width));
  });
}

void attention_backward(const Attention& a, const Tensor* dq, const Tensor* dk, const Tensor* dv, const Tensor& dout) {
  dispatch_floats(a.q.dtype, "attention_backward", [&](auto kind) {
    using T = typename decltype(kind)::type;
    using C = compute_t<T>;
    const Scratch inner(a.items * a.rows * int64_t(sizeof(C)));
    Arguments<T, C> all(a);
    all.inner = inner.as<C>();
    all.dout = Matrices<const T>(dout, 2, a.heads);
    if (dq) all.dq = Matrices<T>(*dq, 2, a.heads);
    if (dk) all.dk = Matrices<T>(*dk, 2, a.groups);
    if (dv) all.dv = Matrices<T>(*dv, 2, a.groups);
    launch("attention_inner", attention_inner<T, C>, blocks_for(a.items * a.rows, kThreads / 32), kThreads, 0, all);
    if (dq) {
      const int64_t tasks = tasks_for<C>(a.items, a.rows, a.depth);
      launch("attention_queries", attention_queries<T, C>, blocks_for(tasks, 1), kTileThreads<C>, 0, all, tasks, chunks_for<C>(a.depth));
    }
    const auto keys = [&](auto kernel, int64_t columns) {
      const int64_t tasks = tasks_for<C>(a.items / (a.heads / a.groups), a.keys, columns);
      launch("attention_keys", kernel, blocks_for(tasks, 1), kTileThreads<C>, 0, all, tasks, chunks_for<C>(columns));
    };
    if (dk) keys(attention_keys<T, C, false>, a.depth);
    if (dv) keys(attention_keys<T, C, true>, a.width);
  });
}

}  // namespace dg
