// Running sums and products along one axis: out[i] = x[0] op ... op x[i], from the other end when reversed. Floats accumulate in double.
// Short lines, and many that lie side by side, take a thread each; long ones a block, or several after a launch that finds the total of each piece.
#include "../common/scan.h"

#include "block.h"
#include "map.h"

namespace dg {
namespace {

constexpr int kEach = 4;  // neighbouring elements of a thread

// Lines of x and out along the scanned axis, the first element first whatever the direction.
struct Lines {
  Nest<2, uint64_t> heads;
  int64_t count, x_step, out_step;
  bool reversed;

  __device__ void find(uint64_t line, int64_t& x, int64_t& out) const {
    uint64_t offset[2];
    heads.offsets(line, offset);
    x = int64_t(offset[0]), out = int64_t(offset[1]);
  }
  __device__ int64_t position(int64_t i) const { return reversed ? count - 1 - i : i; }
};

template <bool product>
struct Op {
  template <class W>
  __device__ W operator()(W a, W b) const {
    if constexpr (std::is_integral_v<W>) return product ? W(uint64_t(a) * uint64_t(b)) : W(uint64_t(a) + uint64_t(b));  // wraps
    else return product ? a * b : a + b;
  }
};

template <class T>
using total_t = std::conditional_t<is_float<T>, double, int64_t>;

template <class T, bool product>
__global__ void scan_lines(const __grid_constant__ Lines lines, T* out, const T* x) {
  using W = total_t<T>;
  const uint64_t line = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  if (line >= lines.heads.count) return;
  int64_t from, to;
  lines.find(line, from, to);
  W total = product;
  for (int64_t i = 0; i < lines.count; i++) {
    const int64_t at = lines.position(i);
    total = Op<product>()(total, W(compute_t<T>(x[from + at * lines.x_step])));
    out[to + at * lines.out_step] = convert<T>(total);
  }
}

// Totals of the pieces of each line, totals[line * pieces + piece].
template <class T, bool product>
__global__ void scan_totals(const __grid_constant__ Lines lines, const T* x, int64_t piece, total_t<T>* totals) {
  using W = total_t<T>;
  int64_t from, to;
  lines.find(blockIdx.x, from, to);
  const int64_t begin = blockIdx.y * piece, end = min(lines.count, begin + piece);
  W total = product;
  for (int64_t i = begin + threadIdx.x; i < end; i += blockDim.x)
    total = Op<product>()(total, W(compute_t<T>(x[from + lines.position(i) * lines.x_step])));
  total = block_reduce(total, W(product), Op<product>());
  if (threadIdx.x == 0) totals[int64_t(blockIdx.x) * gridDim.y + blockIdx.y] = total;
}

// Scans one piece of a line a block, after the totals of the pieces before it.
template <class T, bool product>
__global__ void scan_pieces(const __grid_constant__ Lines lines, T* out, const T* x, int64_t piece, const total_t<T>* totals) {
  using W = total_t<T>;
  constexpr Op<product> op;
  DG_SHARED(W[32], warps);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  int64_t from, to;
  lines.find(blockIdx.x, from, to);
  const int64_t begin = blockIdx.y * piece, end = min(lines.count, begin + piece), width = int64_t(blockDim.x) * kEach;
  W carry = product;
  if (gridDim.y > 1) {
    for (unsigned i = threadIdx.x; i < blockIdx.y; i += blockDim.x) carry = op(carry, totals[int64_t(blockIdx.x) * gridDim.y + i]);
    carry = block_reduce(carry, W(product), op);
  }
  for (int64_t start = begin; start < end; start += width) {
    const int64_t first = start + int64_t(threadIdx.x) * kEach;
    W part[kEach], total = product;
#pragma unroll
    for (int j = 0; j < kEach; j++) {
      if (first + j < end) total = op(total, W(compute_t<T>(x[from + lines.position(first + j) * lines.x_step])));
      part[j] = total;
    }
    W before = total;  // of the lanes up to this one
#pragma unroll
    for (int distance = 1; distance < 32; distance *= 2) {
      const W other = __shfl_up_sync(0xffffffffu, before, distance);
      if (lane >= distance) before = op(other, before);
    }
    __syncthreads();  // the totals of the round before have been read
    if (lane == 31) warps[warp] = before;
    before = __shfl_up_sync(0xffffffffu, before, 1);
    if (lane == 0) before = product;
    __syncthreads();
    W above = carry;  // of the warps before this one
    for (int w = 0; w < int(blockDim.x) / 32; w++) {
      if (w == warp) above = carry;
      carry = op(carry, warps[w]);
    }
    before = op(above, before);
#pragma unroll
    for (int j = 0; j < kEach; j++)
      if (first + j < end) out[to + lines.position(first + j) * lines.out_step] = convert<T>(op(before, part[j]));
  }
}

template <class T, bool product>
void scan(const Tensor& out, const Tensor& x, const Plan& plan, int axis, bool reversed) {
  const char* const name = "scan";
  const Loop<2> kept({&plan.kept_x, &plan.kept_out});
  const int64_t n = x.sizes[axis];
  const Lines lines{Nest<2, uint64_t>(kept), n, x.strides[axis], out.strides[axis], reversed};
  T* const to = out.data<T>();
  const T* const from = x.data<T>();
  const bool columns = kept.inner() > 1 && kept.strides[0][kept.rank - 1] < lines.x_step;
  if (n <= 32 || (columns && kept.numel >= 4096) || kept.numel > INT32_MAX) {
    const int threads = kept.numel < kThreads ? 32 : kThreads;
    return launch(name, scan_lines<T, product>, blocks_for(kept.numel, threads), threads, 0, lines, to, from);
  }
  const int threads = int(std::clamp<int64_t>((n + 32 * kEach - 1) / (32 * kEach) * 32, 32, kThreads));
  const int64_t least = int64_t(threads) * kEach * 8;
  int64_t pieces = 1, piece = n;
  if (n >= 2 * least && kept.numel < 512) {
    piece = (n - 1) / std::min(n / least, 1024 / kept.numel) + 1;
    pieces = (n - 1) / piece + 1;
  }
  const Scratch totals(kept.numel * pieces * int64_t(sizeof(total_t<T>)));
  const dim3 grid{unsigned(kept.numel), unsigned(pieces)};
  if (pieces > 1) launch("scan_totals", scan_totals<T, product>, grid, threads, 0, lines, from, piece, totals.as<total_t<T>>());
  launch(name, scan_pieces<T, product>, grid, threads, 0, lines, to, from, piece, totals.as<total_t<T>>());
}

}  // namespace

void scan(const Tensor& out, const Tensor& x, const Plan& lines, int axis, ScanOp op, bool reversed) {
  dispatch_all(x.dtype, "scan", [&](auto kind) {
    using T = typename decltype(kind)::type;
    if (op == ScanOp::cumsum) scan<T, false>(out, x, lines, axis, reversed);
    else scan<T, true>(out, x, lines, axis, reversed);
  });
}

}  // namespace dg
