// Strided copy with conversion, fill, arange.
#include "../common/copy.h"

#include "elementwise.h"

namespace dg {
namespace {

// Transposing copies (an axis that is unit-stride in x but not in out) go in square tiles that stay in the cache.
template <class T>
bool copy_transposed(const Loop<2>& loop, T* out, const T* x) {
  const int last = loop.rank - 1;
  int other = -1;
  for (int i = 0; i < last; i++)
    if (loop.strides[1][i] == 1) other = i;
  if (other < 0 || !loop.unit(0) || loop.strides[1][last] == 0) return false;
  constexpr int64_t tile = 32;
  const int64_t rows = loop.sizes[other], columns = loop.sizes[last];
  if (rows < 8 || columns < 8) return false;
  int64_t outer = 1;
  for (int i = 0; i < last; i++)
    if (i != other) outer *= loop.sizes[i];
  const int64_t row_tiles = (rows + tile - 1) / tile;
  const int64_t so = loop.strides[0][other], sx = loop.strides[1][last];
  parallel_for(outer * row_tiles, std::max<int64_t>(1, kGrain / (tile * columns)), [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; job++) {
      int64_t rest = job / row_tiles, po = 0, px = 0;
      for (int i = last - 1; i >= 0; i--) {
        if (i == other) continue;
        const int64_t at = rest % loop.sizes[i];
        rest /= loop.sizes[i];
        po += at * loop.strides[0][i];
        px += at * loop.strides[1][i];
      }
      const int64_t r0 = job % row_tiles * tile, r1 = std::min(rows, r0 + tile);
      for (int64_t c0 = 0; c0 < columns; c0 += tile) {
        const int64_t c1 = std::min(columns, c0 + tile);
        for (int64_t r = r0; r < r1; r++)
          for (int64_t c = c0; c < c1; c++) out[po + r * so + c] = x[px + r + c * sx];
      }
    }
  });
  return true;
}

// out[i * K + c] = x[c * apart + i].
template <class T, int K> void interleave(T* __restrict out, const T* __restrict x, int64_t apart, int64_t count) {
  for (int64_t i = 0; i < count; i++)
#pragma GCC unroll 4
    for (int c = 0; c < K; c++) out[i * K + c] = x[c * apart + i];
}

// out[c * apart + i] = x[i * K + c].
template <class T, int K> void separate(T* __restrict out, const T* __restrict x, int64_t apart, int64_t count) {
  for (int64_t i = 0; i < count; i++)
#pragma GCC unroll 4
    for (int c = 0; c < K; c++) out[c * apart + i] = x[i * K + c];
}

// Copies that interleave a few runs of x or take them apart: images of three channels made channels-last, the halves of a channel shuffle.
template <class T>
bool copy_interleaved(const Loop<2>& loop, T* out, const T* x) {
  const int last = loop.rank - 1;
  if (last < 1 || !loop.unit(0)) return false;
  const bool apart_in_x = loop.sizes[last] <= 4;
  const int few_axis = apart_in_x ? last : last - 1, other = 2 * last - 1 - few_axis;
  const auto &dense = loop.strides[apart_in_x ? 0 : 1], &spread = loop.strides[apart_in_x ? 1 : 0];
  const int64_t few = loop.sizes[few_axis], count = loop.sizes[other], apart = spread[few_axis];
  if (few < 2 || few > 4 || count < 16 || dense[few_axis] != 1 || dense[other] != few || spread[other] != 1) return false;
  const auto run = apart_in_x ? (few == 2 ? interleave<T, 2> : few == 3 ? interleave<T, 3> : interleave<T, 4>)
                              : (few == 2 ? separate<T, 2> : few == 3 ? separate<T, 3> : separate<T, 4>);
  constexpr int64_t piece = 4096;
  const int64_t pieces = (count + piece - 1) / piece, outer = loop.numel / (few * count);
  parallel_for(outer * pieces, std::max<int64_t>(1, kGrain / (few * std::min(piece, count))), [&](int64_t begin, int64_t end) {
    for (int64_t job = begin; job < end; job++) {
      const int64_t at = job % pieces * piece;
      int64_t rest = job / pieces, po = at * loop.strides[0][other], px = at * loop.strides[1][other];
      for (int i = last - 2; i >= 0; i--) {
        po += rest % loop.sizes[i] * loop.strides[0][i];
        px += rest % loop.sizes[i] * loop.strides[1][i];
        rest /= loop.sizes[i];
      }
      run(out + po, x + px, apart, std::min(piece, count - at));
    }
  });
  return true;
}

template <class T>
void copy_same(const Tensor& out, const Tensor& x) {
  const Loop<2> loop({&out, &x});
  if (copy_transposed(loop, out.data<T>(), x.data<T>()) || copy_interleaved(loop, out.data<T>(), x.data<T>())) return;
  map1<T, T>(out, x, [](T v) { return v; });
}

}  // namespace

void copy(const Tensor& out, const Tensor& x) {
  if (out.dtype == x.dtype) {
    switch (dtype_size(out.dtype)) {
      case 1: return copy_same<uint8_t>(out, x);
      case 2: return copy_same<uint16_t>(out, x);
      case 4: return copy_same<uint32_t>(out, x);
      default: return copy_same<uint64_t>(out, x);
    }
  }
  dispatch_all(out.dtype, "copy", [&](auto to) {
    dispatch_all(x.dtype, "copy", [&](auto from) {
      using To = typename decltype(to)::type;
      using From = typename decltype(from)::type;
      map1<To, From>(out, x, [](From v) { return convert<To>(v); });
    });
  });
}

void fill(const Tensor& out, double value) {
  dispatch_all(out.dtype, "fill", [&](auto to) {
    using To = typename decltype(to)::type;
    const To v = convert<To>(value);
    map1<To, To>(out, out, [v](To) { return v; });
  });
}

void arange(const Tensor& out, double start, double step) {
  dispatch_numbers(out.dtype, "arange", [&](auto to) {
    using To = typename decltype(to)::type;
    To* data = out.data<To>();
    parallel_for(out.numel, kGrain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) data[i] = convert<To>(start + double(i) * step);
    });
  });
}

}  // namespace dg
