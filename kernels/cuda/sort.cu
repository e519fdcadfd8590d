// Sorting along one axis: stable, NaN after every number.
#include "../common/sort.h"

#include "sort.h"

namespace dg {
namespace {

// Rows along an axis of x, and of the outputs.
struct Lines {
  const char* x;
  char* values;  // null: not wanted
  int64_t* indices;
  Nest<2, uint64_t> rows;  // of x and of the outputs
  int64_t count, stride, out_stride;
  uint32_t dtype;
  bool descending;
};

template <class T>
__device__ T element(const char* x, uint64_t at) {
  return reinterpret_cast<const T*>(x)[at];
}
__device__ inline uint32_t narrow_key(int32_t x) { return uint32_t(x) ^ 0x80000000u; }

// The key of an element, in 32 bits or, for Wide entries, in 64.
template <class Entry>
__device__ auto key_of_element(const char* x, uint32_t dtype, uint64_t at) {
  if constexpr (std::is_same_v<Entry, Wide>) {
    switch (dtype) {
      case DG_F64: return key_of(element<double>(x, at));
      case DG_I64: return key_of(element<int64_t>(x, at));
      case DG_I32: return key_of(int64_t(element<int32_t>(x, at)));
      default: return key_of(int64_t(element<uint8_t>(x, at)));
    }
  } else {
    switch (dtype) {
      case DG_F32: return key_of(element<float>(x, at));
      case DG_F16: return key_of(float(element<f16>(x, at)));
      case DG_BF16: return key_of(float(element<bf16>(x, at)));
      case DG_I32: return narrow_key(element<int32_t>(x, at));
      default: return narrow_key(element<uint8_t>(x, at));
    }
  }
}

template <class Entry>
struct LineSource {
  Lines lines;
  __device__ Entry operator()(int64_t row, int64_t position) const {
    uint64_t offset[2];
    lines.rows.offsets(uint64_t(row), offset);
    auto key = key_of_element<Entry>(lines.x, lines.dtype, offset[0] + uint64_t(position) * uint64_t(lines.stride));
    if (lines.descending) key = ~key;
    if constexpr (std::is_same_v<Entry, Wide>) return {key, uint64_t(position)};
    else return uint64_t(key) << 32 | uint64_t(position);
  }
};

template <class T>
__device__ void copy_element(char* to, uint64_t at, const char* from, uint64_t source) {
  reinterpret_cast<T*>(to)[at] = reinterpret_cast<const T*>(from)[source];
}

// Writes an element of a row and its position to place `rank` of the outputs' row.
__device__ void write_element(const Lines& lines, int64_t row, int64_t rank, uint64_t position) {
  uint64_t offset[2];
  lines.rows.offsets(uint64_t(row), offset);
  const uint64_t at = offset[1] + uint64_t(rank) * uint64_t(lines.out_stride), source = offset[0] + position * uint64_t(lines.stride);
  lines.indices[at] = int64_t(position);
  if (!lines.values) return;
  switch (lines.dtype) {
    case DG_F64: case DG_I64: return copy_element<uint64_t>(lines.values, at, lines.x, source);
    case DG_F32: case DG_I32: return copy_element<uint32_t>(lines.values, at, lines.x, source);
    case DG_F16: case DG_BF16: return copy_element<uint16_t>(lines.values, at, lines.x, source);
    default: return copy_element<uint8_t>(lines.values, at, lines.x, source);
  }
}

__device__ inline uint64_t position_of(Packed entry) { return uint32_t(entry); }
__device__ inline uint64_t position_of(const Wide& entry) { return entry.index; }
__device__ inline uint64_t key_of_entry(Packed entry) { return entry >> 32; }
__device__ inline uint64_t key_of_entry(const Wide& entry) { return entry.key; }

template <class Entry>
struct LineSink {
  Lines lines;
  int64_t keep;
  __device__ void operator()(int64_t row, int64_t rank, const Entry& entry) const {
    if (rank < keep) write_element(lines, row, rank, position_of(entry));
  }
};

// Takes one entry of each row.
template <class Entry>
struct RankSink {
  Lines lines;
  int64_t wanted;
  __device__ void operator()(int64_t row, int64_t rank, const Entry& entry) const {
    if (rank == wanted) write_element(lines, row, 0, position_of(entry));
  }
};

// Element number `wanted` of the order of each row, a row a block. Narrows the entries down digit by digit of the key, then of the position: the
// counts of a digit decide which one goes on.
template <class Entry>
__global__ void select_rank(LineSource<Entry> source, int64_t wanted) {
  DG_SHARED(unsigned[256], counts);
  DG_SHARED(unsigned[2], choice);  // the digit, and how many entries come before it
  const Lines& lines = source.lines;
  for (uint64_t row = blockIdx.x; row < lines.rows.count; row += gridDim.x) {
    uint64_t key = 0, position = 0, key_mask = 0, position_mask = 0, before = uint64_t(wanted);
    auto pass = [&](auto by_key, int shift) {
      for (int i = threadIdx.x; i < 256; i += blockDim.x) counts[i] = 0;
      __syncthreads();
      for (int64_t i = threadIdx.x; i < lines.count; i += blockDim.x) {
        const Entry entry = source(int64_t(row), i);
        const uint64_t own_key = key_of_entry(entry), own_position = position_of(entry);
        if ((own_key & key_mask) == key && (own_position & position_mask) == position)
          atomicAdd(&counts[(by_key() ? own_key : own_position) >> shift & 255], 1u);
      }
      __syncthreads();
      if (threadIdx.x < 32) {
        const int lane = int(threadIdx.x);
        unsigned own = 0;
        for (int i = 0; i < 8; i++) own += counts[lane * 8 + i];
        unsigned sum = own;
        for (int distance = 1; distance < 32; distance *= 2) {
          const unsigned other = __shfl_up_sync(0xffffffffu, sum, distance);
          if (lane >= distance) sum += other;
        }
        if (before < sum && before >= sum - own) {
          sum -= own;
          int digit = lane * 8;
          while (sum + counts[digit] <= before) sum += counts[digit++];
          choice[0] = unsigned(digit);
          choice[1] = sum;
        }
      }
      __syncthreads();
      (by_key() ? key : position) |= uint64_t(choice[0]) << shift;
      (by_key() ? key_mask : position_mask) |= uint64_t(255) << shift;
      before -= choice[1];
    };
    for (int shift = std::is_same_v<Entry, Wide> ? 56 : 24; shift >= 0; shift -= 8) pass(std::true_type{}, shift);
    int digits = 1;
    while (uint64_t(lines.count - 1) >> (8 * digits)) digits++;
    for (int shift = 8 * digits - 8; shift >= 0; shift -= 8) pass(std::false_type{}, shift);
    if (threadIdx.x == 0) write_element(lines, int64_t(row), 0, position);
    __syncthreads();
  }
}

// Puts the first NaN of each row that has one into the output, a row a block.
template <class Entry>
__global__ void select_nan(LineSource<Entry> source) {
  constexpr uint64_t nan = std::is_same_v<Entry, Wide> ? ~uint64_t(0) : 0xffffffffu;
  const Lines& lines = source.lines;
  for (uint64_t row = blockIdx.x; row < lines.rows.count; row += gridDim.x) {
    int64_t first = INT64_MAX;
    for (int64_t i = threadIdx.x; i < lines.count && first == INT64_MAX; i += blockDim.x)
      if (key_of_entry(source(int64_t(row), i)) == nan) first = i;
    first = block_reduce(first, INT64_MAX, [](int64_t a, int64_t b) { return a < b ? a : b; });
    if (threadIdx.x == 0 && first != INT64_MAX) write_element(lines, int64_t(row), 0, uint64_t(first));
  }
}

Lines lines_of(const Tensor* values, const Tensor& indices, const Tensor& x, const Plan& rows, int axis, bool descending) {
  return {x.storage_data + x.offset * dtype_size(x.dtype),
          values ? values->storage_data + values->offset * dtype_size(values->dtype) : nullptr,
          indices.data<int64_t>(),
          Nest<2, uint64_t>(Loop<2>({&rows.kept_x, &rows.kept_out})),
          x.sizes[axis],
          x.strides[axis],
          indices.strides[axis],
          x.dtype,
          descending};
}

bool across(const Lines& lines) {
  return lines.rows.count > 1 && lines.rows.strides[0][lines.rows.rank - 1] < uint64_t(lines.stride);
}

template <class F>
void dispatch_entry(const Lines& lines, F&& f) {
  if (lines.dtype == DG_F64 || lines.dtype == DG_I64 || lines.count > UINT32_MAX) f(tag<Wide>{});
  else f(tag<Packed>{});
}

}  // namespace

void sort(const Tensor* values, const Tensor& indices, const Tensor& x, const Plan& rows, int axis, bool descending) {
  const Lines lines = lines_of(values, indices, x, rows, axis, descending);
  const int64_t keep = indices.sizes[axis];
  dispatch_entry(lines, [&](auto kind) {
    using Entry = typename decltype(kind)::type;
    sort_rows<Entry>("sort", rows.outputs, lines.count, keep, across(lines), LineSource<Entry>{lines}, LineSink<Entry>{lines, keep});
  });
}

void kth(const Tensor* values, const Tensor& indices, const Tensor& x, const Plan& plan, int axis, int64_t position, bool median) {
  const char* const name = "kth";
  const Lines lines = lines_of(values, indices, x, plan, axis, false);
  const int64_t rows = plan.outputs;
  // select_rank counts in 32 bits.
  if (lines.count > UINT32_MAX) fail(DG_SHAPE, "sort: an axis of %lld elements", static_cast<long long>(lines.count));
  const unsigned blocks = blocks_for(rows, 1), threads = lines.count <= kSortTile ? 32 : 512;
  dispatch_entry(lines, [&](auto kind) {
    using Entry = typename decltype(kind)::type;
    const LineSource<Entry> source{lines};
    const RankSink<Entry> sink{lines, position};
    if (lines.count <= kSortTile) launch_sort_tiles<Entry>(name, rows, lines.count, across(lines), source, sink);
    else launch(name, select_rank<Entry>, blocks, threads, 0, source, position);
    if (median && is_float_dtype(x.dtype)) launch("select_nan", select_nan<Entry>, blocks, threads, 0, source);
  });
}

}  // namespace dg
