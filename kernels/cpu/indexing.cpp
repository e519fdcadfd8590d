// Reading through indices: gather, rows, nonzero; and moves of whole tensors: flip, triangle. Outputs are overwritten.
#include <vector>

#include "indexing.h"

namespace dg {
namespace {

template <class T, class I>
void gather(const Tensor& out, const Tensor& x, const Tensor& index, const Tensor& base, int axis) {
  if (x.numel == 0) {  // then the axis is empty, and every index outside
    BadIndex bad;
    bad.note(0, index.data<I>()[0]);
    bad.check(0, axis, false);
  }
  const Loop<3> loop({&out, &index, &base});
  const int last = loop.rank - 1;
  const int64_t so = loop.strides[0][last], si = loop.strides[1][last], sx = loop.strides[2][last];
  const int64_t size = x.sizes[axis], step = x.strides[axis];
  T* const po = out.data<T>();
  const I* const pi = index.data<I>();
  const T* const px = x.data<T>();
  BadIndex bad;
  parallel_for(loop.numel, kGrain, [&](int64_t begin, int64_t end) {
    int64_t at = begin;
    loop.rows(begin, end, [&](const int64_t* offset, int64_t count) {
      T* const o = po + offset[0];
      const I* const k = pi + offset[1];
      const T* const a = px + offset[2];
      for (int64_t i = 0; i < count; i++) {
        const int64_t from = k[i * si];
        if (uint64_t(from) >= uint64_t(size)) bad.note(at + i, from);
        else o[i * so] = a[i * sx + from * step];
      }
      at += count;
    });
  });
  bad.check(size, axis, false);
}

template <class T>
void read_rows(const Tensor& out, const Tensor& x, const RowOffsets& rows) {
  const int lead = rows.shape.rank;
  const Tensor out_row = trailing_axes(out, lead), x_row = trailing_axes(x, rows.count);
  const int64_t length = x_row.numel, n = rows.size();
  if (n == 0 || length == 0) return;
  const Loop<2> row({&out_row, &x_row});
  const Positions places(leading_axes(out, lead));
  const int64_t so = row.strides[0][row.rank - 1], sx = row.strides[1][row.rank - 1];
  const int64_t piece = std::min(length, kGrain), pieces = (length + piece - 1) / piece;
  T* const po = out.data<T>();
  const T* const px = x.data<T>();
  parallel_for(n * pieces, std::max<int64_t>(1, kGrain / piece), [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; job++) {
      const int64_t b = job / pieces, from = job % pieces * piece;
      T* const o = po + places.offsets()[b];
      const T* const a = px + rows.offsets()[b];
      if (length == 1) {
        *o = *a;
        continue;
      }
      row.rows(from, std::min(length, from + piece), [&](const int64_t* offset, int64_t count) {
        if (so == 1 && sx == 1) std::memcpy(o + offset[0], a + offset[1], size_t(count) * sizeof(T));
        else
          for (int64_t i = 0; i < count; i++) o[offset[0] + i * so] = a[offset[1] + i * sx];
      });
    }
  });
}

// Calls f(position, offset) for chunk `c` of x in row-major order, where the element is true.
template <class F>
void each_true(const Loop<2>& loop, const uint8_t* x, int64_t begin, int64_t end, F&& f) {
  const int64_t step = loop.strides[1][loop.rank - 1];
  loop.rows(begin, end, [&](const int64_t* offset, int64_t count) {
    for (int64_t i = 0; i < count; i++)
      if (x[offset[1] + i * step]) f(offset[0] + i);
  });
}

// Numbers of true elements before each chunk of kGrain; the last entry is the total.
std::vector<int64_t> chunk_starts(const Tensor& x) {
  if (x.numel == 0) return {0};
  const Tensor order = row_major(x);
  const Loop<2> loop({&order, &x});
  const int64_t chunks = (x.numel + kGrain - 1) / kGrain;
  std::vector<int64_t> starts(size_t(chunks) + 1, 0);
  const uint8_t* const data = x.data<uint8_t>();
  parallel_for(chunks, 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; c++) {
      int64_t count = 0;
      each_true(loop, data, c * kGrain, std::min(x.numel, (c + 1) * kGrain), [&](int64_t) { count++; });
      starts[size_t(c) + 1] = count;
    }
  });
  for (int64_t c = 0; c < chunks; c++) starts[size_t(c) + 1] += starts[size_t(c)];
  return starts;
}

}  // namespace

void gather(const Tensor& out, const Tensor& x, const Tensor& index, const Tensor& base, int axis) {
  dispatch_width(x.dtype, [&](auto kind) {
    using T = typename decltype(kind)::type;
    dispatch_index(index, [&](auto of) { gather<T, typename decltype(of)::type>(out, x, index, base, axis); });
  });
}

void index_get(const Tensor& out, const Tensor& x, const RowIndices& indices) {
  const RowOffsets rows(indices, x);
  dispatch_width(x.dtype, [&](auto kind) { read_rows<typename decltype(kind)::type>(out, x, rows); });
}

void count_nonzero(const Tensor& out, const Tensor& x) { *out.data<int64_t>() = chunk_starts(x).back(); }

void nonzero(const Tensor& out, const Tensor& x) {
  const std::vector<int64_t> starts = chunk_starts(x);
  if (out.sizes[0] != starts.back())
    fail(DG_SHAPE, "nonzero: %lld positions of %d axes do not fill %s", static_cast<long long>(starts.back()), x.rank,
         shape_text(out).c_str());
  if (starts.back() == 0) return;
  const Tensor order = row_major(x);
  const Loop<2> loop({&order, &x});
  const uint8_t* const data = x.data<uint8_t>();
  int64_t* const to = out.data<int64_t>();
  parallel_for(int64_t(starts.size()) - 1, 1, [&](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; c++) {
      int64_t row = starts[size_t(c)];
      const int64_t stop = starts[size_t(c) + 1];
      each_true(loop, data, c * kGrain, std::min(x.numel, (c + 1) * kGrain), [&](int64_t position) {
        if (row >= stop) return;  // x changed under us
        for (int i = x.rank - 1; i >= 0; i--) {
          to[row * out.strides[0] + i * out.strides[1]] = position % x.sizes[i];
          position /= x.sizes[i];
        }
        row++;
      });
    }
  });
}

void flip(const Tensor& out, const Tensor& x, uint32_t axes) {
  dispatch_width(x.dtype, [&](auto kind) {
    using T = typename decltype(kind)::type;
    map1<T, T>(out, reversed_axes(x, axes), [](T v) { return v; });
  });
}

void triangle(const Tensor& out, const Tensor& x, int64_t diagonal, bool upper) {
  const int64_t columns = x.size(-1), height = x.size(-2), so = out.stride(-1), sx = x.stride(-1);
  const Tensor out_rows = leading_axes(out, out.rank - 1), x_rows = leading_axes(x, x.rank - 1), order = row_major(out_rows);
  const Loop<3> loop({&order, &out_rows, &x_rows});
  dispatch_width(x.dtype, [&](auto kind) {
    using T = typename decltype(kind)::type;
    parallel_for(loop.numel, std::max<int64_t>(1, kGrain / columns), [&](int64_t begin, int64_t end) {
      loop.rows(begin, end, [&](const int64_t* offset, int64_t count) {
        for (int64_t r = 0; r < count; r++) {
          const int64_t i = (offset[0] + r) % height;
          T* const o = out.data<T>() + offset[1] + r * loop.strides[1][loop.rank - 1];
          const T* const a = x.data<T>() + offset[2] + r * loop.strides[2][loop.rank - 1];
          const int64_t low = std::clamp<int64_t>(upper ? i + diagonal : 0, 0, columns);
          const int64_t high = std::clamp<int64_t>(upper ? columns : i + diagonal + 1, 0, columns);
          for (int64_t j = 0; j < columns; j++) o[j * so] = j >= low && j < high ? a[j * sx] : T(0);
        }
      });
    });
  });
}

}  // namespace dg
