// Convolution of few channels, forward and the gradient of the weight. Nothing is gathered: the taps of a row of the kernel lie side by side in the
// picture, and those of the next position a little further on, so that tiles read them where they lie, in a few padded rows at a time.
#include <vector>

#include "convolution.h"
#include "tile.h"

namespace dg::conv {
namespace {

constexpr int64_t kDepth = 256;                       // taps and channels: a panel of the weight stays in the first-level cache
constexpr int64_t kLongest = 1 << 16, kHighest = 64;  // elements of a padded row and padded rows of a job, at most
constexpr int64_t kRows = 4;                          // of the result in a job

// Padded rows that some of the result reach.
int64_t height_of(const ConvShape& s, int64_t rows) { return (rows - 1) * s.stride[1] + (s.kernel[1] - 1) * s.dilation[1] + 1; }

// Elements of a padded row.
int64_t width_of(const ConvShape& s) { return ((s.output[2] - 1) * s.stride[2] + s.kernel[2]) * s.channels; }

// Rows of a matrix of taps: that of position r has `count` runs of `length` elements, `apart` from each other, from r * `step` on.
struct Runs {
  int64_t count, length, apart, step;
};
Runs runs_of(const ConvShape& s) { return {s.kernel[1], s.kernel[2] * s.channels, s.dilation[1] * width_of(s), s.stride[2] * s.channels}; }

// The padded rows for rows y0 .. y1 of the result.
template <class T> void pad_rows(const ConvShape& s, T* rows, const T* x, int64_t sample, int64_t y0, int64_t y1) {
  const int64_t width = width_of(s), top = y0 * s.stride[1] - s.padding[1], height = height_of(s, y1 - y0);
  for (int64_t i = 0; i < height; i++) {
    const bool inside = top + i >= 0 && top + i < s.input[1];
    const Span span = span_inside(inside, -s.padding[2], s.input[2], width / s.channels, s.channels, 0, width);
    copy_span(rows + i * width, x + ((sample * s.input[1] + top + i) * s.input[2] - s.padding[2]) * s.channels, span);
  }
}

// C[R][width] = init[width] + A[R][runs] * B, as tile() of tile.h.
template <class T, int R, int V, bool Exact>
void run_tile(const T* a, const Runs& runs, const T* b, T* c, int64_t ldc, const T* init, [[maybe_unused]] int64_t last) {
  constexpr int L = Lanes<T>::count;
  lanes_t<T> sum[R][V];
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) sum[r][v] = lanes_t<T>{}, __builtin_prefetch(c + r * ldc + v * L, 1);
  for (int64_t run = 0; run < runs.count; run++, a += runs.apart) {
    for (int64_t k = 0; k < runs.length; k++, b += kPanel<T>) {
      lanes_t<T> column[V];
#pragma GCC unroll 2
      for (int v = 0; v < V; v++) column[v] = load(b + v * L);
#pragma GCC unroll 16
      for (int r = 0; r < R; r++) {
        const T scale = a[r * runs.step + k];
#pragma GCC unroll 2
        for (int v = 0; v < V; v++) sum[r][v] += scale * column[v];
      }
    }
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; r++)
#pragma GCC unroll 2
    for (int v = 0; v < V; v++) {
      if (Exact && v == V - 1) store_some(c + r * ldc + v * L, load_some(init + v * L, last) + sum[r][v], last);
      else store(c + r * ldc + v * L, load(init + v * L) + sum[r][v]);
    }
}

template <class T> using RunTile = void (*)(const T*, const Runs&, const T*, T*, int64_t, const T*, int64_t);
template <class T, int V, bool Exact, int... R> constexpr std::array<RunTile<T>, sizeof...(R)> run_tiles(std::integer_sequence<int, R...>) {
  return {run_tile<T, R + 1, V, Exact>...};
}

// A panel of the columns of one row of the result.
template <class T, bool Exact>
void multiply(int64_t positions, int64_t columns, const T* a, const Runs& runs, const T* b, T* c, int64_t ldc, const T* init) {
  static constexpr auto one = run_tiles<T, 1, Exact>(std::make_integer_sequence<int, kTileRows>{});
  static constexpr auto two = run_tiles<T, 2, Exact>(std::make_integer_sequence<int, kTileRows>{});
  constexpr int64_t L = Lanes<T>::count;
  const auto& functions = columns <= L ? one : two;
  const int64_t last = columns < 2 * L ? columns - (columns > L ? L : 0) : L;
  int64_t tiles = ceil_div(positions, kTileRows);
  for (int64_t r = 0; r < positions; tiles--) {
    const int64_t rows = ceil_div(positions - r, tiles);
    functions[size_t(rows - 1)](a + r * runs.step, runs, b, c + r * ldc, ldc, init, last);
    r += rows;
  }
}

// Calls f(row of the [taps][channels] matrix, offset into a filter of the weight).
template <class T, class F> void each_row(const ConvShape& s, const Weight<T>& w, F&& f) {
  int64_t k = 0;
  for (int64_t ky = 0; ky < s.kernel[1]; ky++)
    for (int64_t kx = 0; kx < s.kernel[2]; kx++)
      for (int64_t c = 0; c < s.channels; c++) f(k++, ky * w.tap[1] + kx * w.tap[2] + c * w.channel);
}

}  // namespace

template <class T> bool rows_fits(const ConvShape& s) {
  const bool planar = s.kernel[0] == 1 && s.input[0] == 1 && s.output[0] == 1 && s.padding[0] == 0;
  return planar && s.groups == 1 && s.channels > 0 && s.pixel == s.channels && s.filters > kFew<T> && s.taps() * s.channels <= kDepth &&
         s.kernel[2] > 1 && s.channels * s.kernel[2] <= 64 && s.dilation[2] == 1 && s.output[2] >= kTileRows && s.output[2] <= kLongest &&
         s.stride[2] <= kLongest / (s.output[2] * s.channels) && height_of(s, kRows) <= kHighest;
}

template <class T> void rows_forward(const ConvShape& s, T* y, const T* x, const Weight<const T>& w, const Finish<T>& f) {
  constexpr int64_t P = kPanel<T>;
  const int64_t depth = s.taps() * s.channels, panels = ceil_div(s.filters, P), width = width_of(s);
  Scratch packed(scratch_bytes<T>({panels * P, depth + 1}));  // [panel][depth][kPanel] and the bias
  T *const b = packed.as<T>(), *const init = b + panels * P * depth;
  std::fill_n(b, panels * P * (depth + 1), T(0));
  if (f.bias) std::copy_n(f.bias, s.filters, init);
  each_row(s, w, [&](int64_t k, int64_t offset) {
    for (int64_t f = 0; f < s.filters; f++) b[(f / P * depth + k) * P + f % P] = w.data[f * w.filter + offset];
  });
  const bool whole = s.filters % Lanes<T>::count == 0;
  const Runs runs = runs_of(s);
  const int64_t jobs = ceil_div(s.output[1], kRows);
  PerThread<T> padded(height_of(s, kRows) * width);
  parallel_for(s.batch * jobs, 1, [&](int64_t begin, int64_t end) {
    T* const rows = padded.mine();
    for (int64_t job = begin; job < end; job++) {
      const int64_t n = job / jobs, y0 = job % jobs * kRows, y1 = std::min(s.output[1], y0 + kRows);
      pad_rows(s, rows, x, n, y0, y1);
      for (int64_t panel = 0; panel < panels; panel++) {
        const auto tiles = !whole && panel == panels - 1 ? multiply<T, true> : multiply<T, false>;
        for (int64_t oy = y0; oy < y1; oy++) {
          T* const out = y + (n * s.output[1] + oy) * s.output[2] * s.filters + panel * P;
          tiles(s.output[2], s.filters - panel * P, rows + (oy - y0) * s.stride[1] * width, runs, b + panel * depth * P, out, s.filters,
                init + panel * P);
          if (f.scale) finish_rows(f, s.output[2], std::min(P, s.filters - panel * P), out, s.filters, panel * P);
        }
      }
    }
  });
}

// Sums over slices of the rows of dy, which depend on the shape alone; added in their order.
template <class T> void rows_backward_weight(const ConvShape& s, const Weight<T>& dw, const T* dy, const T* x) {
  constexpr int64_t P = kPanel<T>, most = 16;
  const int64_t depth = s.taps() * s.channels, panels = ceil_div(s.filters, P), width = width_of(s), across = panels * P;
  const Runs runs = runs_of(s);
  const int64_t strips = ceil_div(s.output[1], kRows), jobs = s.batch * strips, slices = std::clamp<int64_t>(jobs, 1, most), total = depth * across;
  Scratch sums(scratch_bytes<T>({slices, total}));
  PerThread<T> padded(height_of(s, kRows) * width), packed(s.output[2] * P);
  parallel_for(slices, 1, [&](int64_t begin, int64_t end) {
    T* const rows = padded.mine();
    for (int64_t slice = begin; slice < end; slice++) {
      T* const sum = sums.as<T>() + slice * total;
      std::fill_n(sum, total, T(0));
      for (int64_t job = jobs * slice / slices; job < jobs * (slice + 1) / slices; job++) {
        const int64_t n = job / strips, y0 = job % strips * kRows, y1 = std::min(s.output[1], y0 + kRows);
        pad_rows(s, rows, x, n, y0, y1);
        for (int64_t oy = y0; oy < y1; oy++) {
          const T* const from = dy + (n * s.output[1] + oy) * s.output[2] * s.filters;
          for (int64_t panel = 0; panel < panels; panel++) {
            const int64_t valid = std::min(P, s.filters - panel * P);
            if (s.filters != P) pack_panel(packed.mine(), from + panel * P, s.filters, s.output[2], valid);
            const T* const b = s.filters == P ? from : packed.mine();
            for (int64_t run = 0; run < runs.count; run++) {
              T* const c = sum + run * runs.length * across + panel * P;
              tile_rows<T, true>(runs.length, valid, rows + (oy - y0) * s.stride[1] * width + run * runs.apart, runs.step, b, s.output[2], c, across, c,
                                 across);
            }
          }
        }
      }
    }
  });
  T* const sum = sums.as<T>();
  for (int64_t slice = 1; slice < slices; slice++)
    for (int64_t i = 0; i < total; i++) sum[i] += sum[slice * total + i];
  each_row(s, dw, [&](int64_t k, int64_t offset) {
    for (int64_t f = 0; f < s.filters; f++) dw.data[f * dw.filter + offset] = sum[k * across + f];
  });
}

template bool rows_fits<float>(const ConvShape&);
template bool rows_fits<double>(const ConvShape&);
template void rows_forward<float>(const ConvShape&, float*, const float*, const Weight<const float>&, const Finish<float>&);
template void rows_forward<double>(const ConvShape&, double*, const double*, const Weight<const double>&, const Finish<double>&);
template void rows_backward_weight<float>(const ConvShape&, const Weight<float>&, const float*, const float*);
template void rows_backward_weight<double>(const ConvShape&, const Weight<double>&, const double*, const double*);

}  // namespace dg::conv
