// Norm over all of several tensors, and scaling them down to it: total = (sum |g|^p)^(1/p), g *= min(1, max_norm / (total + 1e-6)).
// Sums run in double, one a block; the last block of all launches finishes the norm and leaves the factor for the launches that scale.
#include "../common/clip.h"

#include "block.h"
#include "map.h"

namespace dg {
namespace {

constexpr int64_t kPart = 16384;  // elements of a block

// Tensors of one dtype, each a run of elements `stride` apart; where `nested`, one tensor with the nest beside the table.
struct Table {
  static constexpr int capacity = 128;
  struct Run {
    void* data;
    int64_t count, stride;
  };
  int runs;
  bool nested;
  unsigned first_block[capacity + 1];
  Run run[capacity];
};
using General = Nest<1, uint64_t>;

struct Piece {
  void* data;
  int64_t begin, end, stride;
};

// What the running block works on.
__device__ Piece piece_of(const Table& table) {
  if (table.runs == 0) return {nullptr, 0, 0, 1};
  int low = 0, high = table.runs;  // the last run that begins at or before the block
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (table.first_block[middle] <= blockIdx.x) low = middle;
    else high = middle;
  }
  const int64_t begin = int64_t(blockIdx.x - table.first_block[low]) * kPart;
  return {table.run[low].data, begin, min(table.run[low].count, begin + kPart), table.run[low].stride};
}

__device__ int64_t offset_of(const Table& table, const General& nest, const Piece& piece, int64_t i) {
  if (!table.nested) return i * piece.stride;
  uint64_t offset[1];
  nest.offsets(uint64_t(i), offset);
  return int64_t(offset[0]);
}

// Calls f(element, replace) for the block's elements of type T; replace writes one.
template <class T, class F>
__device__ void each_element(const Table& table, const General& nest, F&& f) {
  constexpr int N = 16 / sizeof(T);
  const Piece piece = piece_of(table);
  T* const x = static_cast<T*>(piece.data);
  int64_t from = piece.begin;
  if (!table.nested && piece.stride == 1 && packs_fit<N>(x)) {  // pieces begin at whole packs
    from += (piece.end - piece.begin) / N * N;
    for (int64_t i = piece.begin + int64_t(threadIdx.x) * N; i < from; i += int64_t(blockDim.x) * N) {
      Pack<T, N> v = *reinterpret_cast<const Pack<T, N>*>(x + i);
      bool changed = false;
#pragma unroll
      for (int j = 0; j < N; j++) changed |= f(v.at[j]);
      if (changed) *reinterpret_cast<Pack<T, N>*>(x + i) = v;
    }
  }
  for (int64_t i = from + threadIdx.x; i < piece.end; i += blockDim.x) {
    const int64_t at = offset_of(table, nest, piece, i);
    T v = x[at];
    if (f(v)) x[at] = v;
  }
}

enum class Kind { two, infinite, other };

// Largest of two, or a NaN.
struct Largest {
  __device__ double operator()(double a, double b) const { return a > b || a != a ? a : b; }
};

struct Finish {
  Kind kind;
  double p, max_norm;
  float* out32;  // one of the two is null
  double* out64;
  double* factor;
  bool refuse;
  Report nan, infinite;

  __device__ void operator()(double total) const {
    if (kind == Kind::two) total = ::sqrt(total);
    else if (kind == Kind::other) total = ::pow(total, 1 / p);
    if (out32) *out32 = float(total);
    else *out64 = total;
    const bool refused = refuse && !(total - total == 0);
    if (refused && total != total) nan();
    else if (refused) infinite();
    *factor = refused ? 1 : clip_factor(max_norm, total);
  }
};

template <class T>
__global__ void norm_parts(const __grid_constant__ Table table, const __grid_constant__ General nest, Finish finish, unsigned first_part, unsigned blocks,
                           double* parts, unsigned* counter) {
  using C = compute_t<T>;
  const Kind kind = finish.kind;
  double sum = 0;
  each_element<T>(table, nest, [&](T element) {
    const double v = ::fabs(double(C(element)));
    if (kind == Kind::two) sum += v * v;
    else if (kind == Kind::infinite) sum = Largest()(sum, v);
    else sum += ::pow(v, finish.p);
    return false;
  });
  const auto over_block = [&](double value) {
    return kind == Kind::infinite ? block_reduce(value, 0.0, Largest()) : block_reduce(value, 0.0, Plus<double>());
  };
  sum = over_block(sum);
  if (threadIdx.x == 0) parts[first_part + blockIdx.x] = sum;
  if (!last_block(counter, blocks)) return;
  sum = 0;
  for (unsigned i = threadIdx.x; i < blocks; i += blockDim.x) sum = kind == Kind::infinite ? Largest()(sum, parts[i]) : sum + parts[i];
  sum = over_block(sum);
  if (threadIdx.x == 0) finish(sum);
}

template <class T>
__global__ void scale(const __grid_constant__ Table table, const __grid_constant__ General nest, const double* factor) {
  using C = compute_t<T>;
  if (*factor >= 1) return;
  const C f = C(*factor);
  each_element<T>(table, nest, [&](T& element) {
    element = T(C(element) * f);
    return true;
  });
}

struct Batch {
  uint32_t dtype;
  Table table;
  General nest;
  int64_t longest;
  unsigned blocks() const { return std::max(1u, table.first_block[table.runs]); }
  int threads() const { return int(std::clamp<int64_t>((longest + 255) / 256 * 32, 32, kThreads)); }
};

// The tensors in as few tables as hold them.
std::vector<Batch> batches_of(const std::vector<Tensor>& tensors) {
  std::vector<Batch> batches;
  int open[4] = {-1, -1, -1, -1};  // the batch of a dtype that has room
  for (const Tensor& x : tensors) {
    if (x.numel == 0) continue;
    const Loop<1> loop({&x});
    const bool nested = loop.rank > 1;
    int at = nested ? -1 : open[x.dtype];
    if (at < 0) {
      at = int(batches.size());
      batches.push_back({x.dtype, Table{}, General(loop), 0});
      batches.back().table.nested = nested;
    }
    Batch& batch = batches[size_t(at)];
    Table& table = batch.table;
    table.run[table.runs] = {x.storage_data + x.offset * dtype_size(x.dtype), x.numel, loop.strides[0][0]};
    table.first_block[table.runs + 1] = table.first_block[table.runs] + blocks_for(x.numel, kPart);
    table.runs++;
    batch.longest = std::max(batch.longest, std::min(x.numel, kPart));
    if (!nested) open[x.dtype] = table.runs < Table::capacity ? at : -1;
  }
  if (batches.empty()) {  // a norm of nothing
    const Tensor nothing;
    batches.push_back({DG_F32, Table{}, General(Loop<1>({&nothing})), 0});
  }
  return batches;
}

}  // namespace

void clip_norm(const Tensor& out, const std::vector<Tensor>& tensors, double max_norm, double p, bool refuse_nonfinite) {
  const char* const name = "clip_norm";
  const std::vector<Batch> batches = batches_of(tensors);
  unsigned blocks = 0, from = 0;
  for (const Batch& batch : batches) blocks += batch.blocks();
  const Scratch scratch((int64_t(blocks) + 1) * int64_t(sizeof(double)));
  double* const factor = scratch.as<double>();
  Finish finish{p == 2 ? Kind::two : std::isinf(p) ? Kind::infinite : Kind::other, p, max_norm, nullptr, nullptr, factor, refuse_nonfinite, {}, {}};
  if (out.dtype == DG_F32) finish.out32 = out.data<float>();
  else finish.out64 = out.data<double>();
  if (finish.refuse) {
    finish.nan = report(DG_RANGE, "the total norm of the gradients is nan, so they cannot be clipped");
    finish.infinite = report(DG_RANGE, "the total norm of the gradients is inf, so they cannot be clipped");
  }
  for (const Batch& batch : batches) {
    dispatch_floats(batch.dtype, name, [&](auto kind) {
      launch(name, norm_parts<typename decltype(kind)::type>, batch.blocks(), batch.threads(), 0, batch.table, batch.nest, finish, from, blocks,
             factor + 1, counters());
    });
    from += batch.blocks();
  }
  if (std::isinf(max_norm)) return;
  for (const Batch& batch : batches)
    dispatch_floats(batch.dtype, name, [&](auto kind) {
      launch("clip_norm_scale", scale<typename decltype(kind)::type>, batch.blocks(), batch.threads(), 0, batch.table, batch.nest, factor);
    });
}

}  // namespace dg
