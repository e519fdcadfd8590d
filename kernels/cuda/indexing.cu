// Reading through indices: gather, rows, nonzero; and moves of whole tensors: flip, triangle. Outputs are overwritten.
#include "indexing.h"

#include "flags.h"

namespace dg {
namespace {

constexpr int64_t kItems = 4;  // elements a thread, of kernels that look for the place of each

template <class T, class I>
__global__ void gather(Nest<3, I> nest, T* out, const char* index, bool wide, const T* x, int64_t size, int64_t step, Report bad) {
  const uint64_t stride = uint64_t(gridDim.x) * blockDim.x;
  for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < nest.count; i += stride) {
    I offset[3];
    nest.offsets(I(i), offset);
    const int64_t from = wide ? reinterpret_cast<const int64_t*>(index)[offset[1]] : reinterpret_cast<const int32_t*>(index)[offset[1]];
    T value{};  // for an index outside: nothing is left unwritten
    if (uint64_t(from) >= uint64_t(size)) bad(from);
    else value = x[offset[2] + uint64_t(from) * uint64_t(step)];
    out[offset[0]] = value;
  }
}

// Rows of `length` elements of type T, which may be a pack of those of the tensors.
template <class T>
__global__ void read_rows(IndexCheck rows, Nest<1, uint64_t> places, Nest<2, uint64_t> row, T* out, const T* x) {
  const Indices& indices = rows.indices;
  const uint64_t length = row.count, stride = uint64_t(gridDim.x) * blockDim.x;
  for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < rows.numel * length; i += stride) {
    const uint64_t b = i / length, j = i - b * length;
    uint64_t place[1], offset[2], from = 0;
    bool bad = false;
    for (int k = 0; k < indices.count; k++) {
      const int64_t index = indices.given(k, b);
      if (indices.inside(k, index)) {
        from += uint64_t(indices.wrapped(k, index)) * indices.axes[k].step;
      } else {
        const Report outside = rows.reports.axes[k];
        outside(index);
        bad = true;
      }
    }
    places.offsets(b, place);
    row.offsets(j, offset);
    T value{};  // for an index outside: nothing is left unwritten
    if (!bad) value = x[from + offset[1]];
    out[place[0] + offset[0]] = value;
  }
}

// Only looks at the indices, where rows have no elements.
__global__ void check_indices(IndexCheck check) {
  check.refuse(check.find(uint64_t(threadIdx.x), blockDim.x));
}

// The widest type of which rows of `bytes` are made and on which all `offsets` (in bytes) and addresses lie.
template <class F>
void dispatch_pack(uint64_t bits, F&& f) {
  if (bits % 16 == 0) return f(tag<Pack<uint64_t, 2>>{});
  if (bits % 8 == 0) return f(tag<uint64_t>{});
  if (bits % 4 == 0) return f(tag<uint32_t>{});
  if (bits % 2 == 0) return f(tag<uint16_t>{});
  return f(tag<uint8_t>{});
}

// True elements of a bool tensor by row-major position.
struct IsTrue {
  const uint8_t* x;
  Nest<1, uint64_t> nest;
  __device__ bool operator()(int64_t i) const {
    uint64_t offset[1];
    nest.offsets(uint64_t(i), offset);
    return x[offset[0]] != 0;
  }
};

IsTrue is_true(const Tensor& x) {
  const Tensor order = row_major(x);
  return {x.data<uint8_t>(), operand(Loop<2>({&order, &x}), 1)};
}

// Writes the coordinates of the elements found, as many as there is room for.
struct Coordinates {
  int64_t* out;
  int rank;
  int64_t sizes[DG_MAX_RANK], rows, row_stride, stride;
  Report misfit;
  __device__ void operator()(int64_t position, bool found, int64_t row) const {
    if (!found || row >= rows) return;
    for (int i = rank - 1; i >= 0; i--) {
      const int64_t next = position / sizes[i];
      out[row * row_stride + i * stride] = position - next * sizes[i];
      position = next;
    }
  }
  __device__ void total(int64_t count) const {
    if (count != rows) misfit(count);
  }
};

// out = x where low <= d <= high, else 0; d, an affine function of the position, is operand 2 of the nest. Strides may be negative.
template <class T, class I>
__global__ void move(Nest<3, I> nest, T* out, const T* x, int64_t low, int64_t high) {
  using S = std::make_signed_t<I>;
  const uint64_t stride = uint64_t(gridDim.x) * blockDim.x;
  for (uint64_t i = uint64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < nest.count; i += stride) {
    I offset[3];
    nest.offsets(I(i), offset);
    const S d = S(offset[2]);
    out[offset[0]] = d >= low && d <= high ? x[S(offset[1])] : T(0);
  }
}

void move_elements(const char* name, const Tensor& out, const Tensor& x, const Tensor& diagonal, const Tensor& bounds, int64_t low, int64_t high) {
  const Loop<3> loop({&out, &x, &diagonal});
  const bool small = fits_32_bits(Loop<2>({&out, &bounds}));
  dispatch_width(x.dtype, [&](auto kind) {
    using T = typename decltype(kind)::type;
    const unsigned blocks = blocks_for(loop.numel, kThreads * kItems);
    if (small) launch(name, move<T, uint32_t>, blocks, kThreads, 0, Nest<3, uint32_t>(loop), out.data<T>(), x.data<T>(), low, high);
    else launch(name, move<T, uint64_t>, blocks, kThreads, 0, Nest<3, uint64_t>(loop), out.data<T>(), x.data<T>(), low, high);
  });
}

}  // namespace

void gather(const Tensor& out, const Tensor& x, const Tensor& index, const Tensor& base, int axis) {
  const Loop<3> loop({&out, &index, &base});
  const Report bad = bad_index(x.sizes[axis], axis, false);
  const char* const at = index.storage_data + index.offset * dtype_size(index.dtype);
  dispatch_width(x.dtype, [&](auto kind) {
    using T = typename decltype(kind)::type;
    auto start = [&](auto whole) {
      using I = typename decltype(whole)::type;
      launch("gather", gather<T, I>, blocks_for(loop.numel, kThreads), kThreads, 0, Nest<3, I>(loop), out.data<T>(), at,
             index.dtype == DG_I64, x.data<T>(), x.sizes[axis], x.strides[axis], bad);
    };
    if (fits_32_bits(loop)) start(tag<uint32_t>{});
    else start(tag<uint64_t>{});
  });
}

void index_get(const Tensor& out, const Tensor& x, const RowIndices& given) {
  NamedRows rows(given, x, true);
  const int lead = rows.shape.rank;
  const Tensor out_row = trailing_axes(out, lead), x_row = trailing_axes(x, rows.count());
  const Loop<10> places = rows.loop(leading_axes(out, lead));
  set_places(rows.indices, places, 2);
  if (x_row.numel == 0)
    return launch("check_indices", check_indices, 1, kThreads, 0, IndexCheck{rows.indices, rows.reports, uint64_t(rows.shape.numel)});
  Nest<2, uint64_t> row(Loop<2>({&out_row, &x_row}));
  Nest<1, uint64_t> place = operand(places, 1);
  // Rows without gaps are read in pieces as wide as all of them allow.
  const uint64_t width = uint64_t(dtype_size(x.dtype));
  const char *const from = x.storage_data + uint64_t(x.offset) * width, *const to = out.storage_data + uint64_t(out.offset) * width;
  uint64_t bits = width;
  if (row.rank == 1 && row.strides[0][0] == 1 && row.strides[1][0] == 1) {
    bits = reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(to) | row.count * width;
    for (int k = 0; k < rows.count(); k++)
      if (rows.indices.axes[k].size > 1) bits |= rows.indices.axes[k].step * width;
    for (int i = 0; i < place.rank; i++) bits |= place.strides[0][i] * width;
  }
  dispatch_pack(bits, [&](auto kind) {
    using T = typename decltype(kind)::type;
    const uint64_t pack = sizeof(T) / width;
    row.count /= pack;
    if (row.rank == 1) row.sizes[0] = row.count;
    for (int k = 0; k < rows.count(); k++) rows.indices.axes[k].step /= pack;
    for (int i = 0; i < place.rank; i++) place.strides[0][i] /= pack;
    const IndexCheck check{rows.indices, rows.reports, uint64_t(rows.shape.numel)};
    launch("index", read_rows<T>, blocks_for(int64_t(check.numel * row.count), kThreads), kThreads, 0, check, place, row,
           const_cast<T*>(reinterpret_cast<const T*>(to)), reinterpret_cast<const T*>(from));
  });
}

void count_nonzero(const Tensor& out, const Tensor& x) {
  const Scratch starts(FlagGrid(x.numel).chunks * 8);
  launch_count_flags("count_nonzero", x.numel, is_true(x), starts.as<int64_t>(), out.data<int64_t>());
}

void nonzero(const Tensor& out, const Tensor& x) {
  // The number of rows is only known to the device.
  const Report misfit = report(DG_SHAPE, "nonzero: %lld positions of " + std::to_string(x.rank) + " axes do not fill " + shape_text(out));
  Coordinates visit{out.data<int64_t>(), x.rank, {}, out.sizes[0], out.strides[0], out.strides[1], misfit};
  std::copy(x.sizes, x.sizes + x.rank, visit.sizes);
  run_over_flags("nonzero", x.numel, is_true(x), visit);
}

void flip(const Tensor& out, const Tensor& x, uint32_t axes) {
  Tensor everywhere = x;
  std::fill(everywhere.strides, everywhere.strides + x.rank, 0);
  move_elements("flip", out, reversed_axes(x, axes), everywhere, x, 0, 0);
}

void triangle(const Tensor& out, const Tensor& x, int64_t diagonal, bool upper) {
  Tensor offset = x;  // column number less row number
  for (int i = 0; i < x.rank; i++) offset.strides[i] = i == x.rank - 1 ? 1 : (i == x.rank - 2 ? -1 : 0);
  move_elements("triangle", out, x, offset, x, upper ? diagonal : INT64_MIN, upper ? INT64_MAX : diagonal);
}

}  // namespace dg
