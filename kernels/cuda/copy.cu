// Strided copy with conversion, fill, arange.
#include "../common/copy.h"

#include "copy.h"
#include "map.h"

namespace dg {
namespace {

template <class To, class From>
struct Convert {
  __device__ To operator()(From v) const { return convert<To>(v); }
};

constexpr int kTile = 32, kTileRows = 8;

// Transposing copies: tiles go through shared memory, so that reads follow the axis that is unit-stride in x and writes that of out.
// Rows: the axis of out that is contiguous in x; columns: the innermost axis of out. Batches: the other axes.
template <class T>
__global__ void copy_transposed(T* out, const T* x, const __grid_constant__ Nest<2, uint64_t> batch, int64_t rows, int64_t columns, int64_t row_stride, int64_t column_stride,
                                int64_t row_tiles, int64_t column_tiles) {
  DG_SHARED(T[kTile][kTile + 1], tile);
  const int64_t tiles = row_tiles * column_tiles;
  for (int64_t job = blockIdx.x; job < int64_t(batch.count) * tiles; job += gridDim.x) {
    uint64_t offset[2];
    batch.offsets(uint64_t(job / tiles), offset);
    const int64_t r0 = job % tiles / column_tiles * kTile, c0 = job % column_tiles * kTile;
    const int lane = threadIdx.x % kTile, line = threadIdx.x / kTile;
    for (int c = line; c < kTile; c += kTileRows)
      if (r0 + lane < rows && c0 + c < columns) tile[c][lane] = x[offset[1] + (r0 + lane) + (c0 + c) * column_stride];
    __syncthreads();
    for (int r = line; r < kTile; r += kTileRows)
      if (r0 + r < rows && c0 + lane < columns) out[offset[0] + (r0 + r) * row_stride + (c0 + lane)] = tile[lane][r];
    __syncthreads();
  }
}

template <class T>
bool try_transposed(const Tensor& out, const Tensor& x) {
  const Loop<2> loop({&out, &x});
  const int last = loop.rank - 1;
  int other = -1;
  for (int i = 0; i < last; i++)
    if (loop.strides[1][i] == 1) other = i;
  if (other < 0 || !loop.unit(0) || loop.strides[1][last] == 0 || loop.strides[1][last] == 1) return false;
  const int64_t rows = loop.sizes[other], columns = loop.sizes[last];
  if (rows < 8 || columns < 8) return false;
  Loop<2> batch = loop;
  batch.rank = 0;
  batch.numel = 1;
  for (int i = 0; i < last; i++) {
    if (i == other) continue;
    batch.sizes[batch.rank] = loop.sizes[i];
    for (int k = 0; k < 2; k++) batch.strides[k][batch.rank] = loop.strides[k][i];
    batch.numel *= loop.sizes[i];
    batch.rank++;
  }
  if (batch.rank == 0) {
    batch.rank = 1;
    batch.sizes[0] = 1;
    batch.strides[0][0] = batch.strides[1][0] = 0;
  }
  const int64_t row_tiles = (rows + kTile - 1) / kTile, column_tiles = (columns + kTile - 1) / kTile;
  launch("copy_transposed", copy_transposed<T>, blocks_for(batch.numel * row_tiles * column_tiles, 1), kTile * kTileRows, 0, out.data<T>(), x.data<T>(),
         Nest<2, uint64_t>(batch), rows, columns, loop.strides[0][other], loop.strides[1][last], row_tiles, column_tiles);
  return true;
}

template <class T>
void copy_same(const Tensor& out, const Tensor& x) {
  if (out.numel == 0 || try_transposed<T>(out, x)) return;
  map<T, T>("copy", Convert<T, T>{}, out, x);
}

template <class T>
__global__ void arange_kernel(T* out, int64_t count, double start, double step) {
  const int64_t stride = int64_t(gridDim.x) * blockDim.x;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += stride) out[i] = convert<T>(start + double(i) * step);
}

template <class T>
__global__ void fill_packed(T* out, int64_t count, T value) {
  constexpr int N = 16 / sizeof(T);
  const int64_t packs = count / N, stride = int64_t(gridDim.x) * blockDim.x, first = int64_t(blockIdx.x) * blockDim.x + threadIdx.x;
  Pack<T, N> pack;
#pragma unroll
  for (int j = 0; j < N; j++) pack.at[j] = value;
  for (int64_t i = first; i < packs; i += stride) reinterpret_cast<Pack<T, N>*>(out)[i] = pack;
  for (int64_t i = packs * N + first; i < count; i += stride) out[i] = value;
}

template <class T, class I>
__global__ void fill_strided(T* out, const __grid_constant__ Nest<1, I> nest, T value) {
  const uint64_t stride = uint64_t(gridDim.x) * blockDim.x;
  for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < nest.count; i += stride) {
    I offset[1];
    nest.offsets(I(i), offset);
    out[offset[0]] = value;
  }
}

}  // namespace

void copy_tensor(const Tensor& out, const Tensor& x) {
  switch (dtype_size(out.dtype)) {
    case 1: return copy_same<uint8_t>(out, x);
    case 2: return copy_same<uint16_t>(out, x);
    case 4: return copy_same<uint32_t>(out, x);
    default: return copy_same<uint64_t>(out, x);
  }
}

void copy(const Tensor& out, const Tensor& x) {
  if (out.dtype == x.dtype) return copy_tensor(out, x);
  dispatch_all(out.dtype, "copy", [&](auto to) {
    dispatch_all(x.dtype, "copy", [&](auto from) {
      using To = typename decltype(to)::type;
      using From = typename decltype(from)::type;
      if constexpr (!std::is_same_v<To, From>) map<To, From>("copy_convert", Convert<To, From>{}, out, x);
    });
  });
}

void fill(const Tensor& out, double value) {
  if (out.numel == 0) return;
  dispatch_all(out.dtype, "fill", [&](auto to) {
    using T = typename decltype(to)::type;
    const T v = convert<T>(value);
    const Loop<1> loop({&out});
    if (loop.rank == 1 && loop.all_unit() && packs_fit<16 / int(sizeof(T))>(out.data<T>())) {
      launch("fill", fill_packed<T>, blocks_for(loop.numel, kThreads * 16 / int(sizeof(T))), kThreads, 0, out.data<T>(), loop.numel, v);
    } else if (fits_32_bits(loop)) {
      launch("fill", fill_strided<T, uint32_t>, blocks_for(loop.numel, kThreads), kThreads, 0, out.data<T>(), Nest<1, uint32_t>(loop), v);
    } else {
      launch("fill", fill_strided<T, uint64_t>, blocks_for(loop.numel, kThreads), kThreads, 0, out.data<T>(), Nest<1, uint64_t>(loop), v);
    }
  });
}

void arange(const Tensor& out, double start, double step) {
  if (out.numel == 0) return;
  dispatch_numbers(out.dtype, "arange", [&](auto to) {
    using T = typename decltype(to)::type;
    launch("arange", arange_kernel<T>, blocks_for(out.numel, kThreads), kThreads, 0, out.data<T>(), out.numel, start, step);
  });
}

}  // namespace dg
