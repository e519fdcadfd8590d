// Gradient of the weights as a matrix product over positions: dw[tap * channels][filters] = sum over positions of gathered x^T * dy.
// Positions are cut into a number of slices that depends on the shape alone; the slices' sums are added in their order.
#include <vector>

#include "convolution.h"
#include "tile.h"

namespace dg::conv {
namespace {

constexpr int64_t kBlock = 256;  // positions of a pass

// A[position][k0 .. k1): the taps of x at output positions from `first`.
template <class T>
void gather(const ConvShape& s, const T* x, int64_t channels, int64_t first, int64_t count, int64_t k0, int64_t k1, T* a, int64_t lda) {
  int64_t at[3], sample = first;
  for (int i = 2; i >= 0; i--) {
    at[i] = sample % s.output[i];
    sample /= s.output[i];
  }
  // Taps side by side are gathered as one where their pixels are neighbours.
  const int64_t run = s.pixel == channels && s.dilation[2] == 1 ? s.kernel[2] : 1, length = run * channels, across = s.kernel[2] / run;
  for (int64_t r = 0; r < count; r++) {
    T* const out = a + r * lda - k0;
    for (int64_t t = k0 / length; t <= (k1 - 1) / length; t++) {
      const int64_t k[3] = {t / across / s.kernel[1], t / across % s.kernel[1], t % across};
      int64_t from[3];
      for (int i = 0; i < 3; i++) from[i] = at[i] * s.stride[i] - s.padding[i] + k[i] * s.dilation[i];
      const bool inside = from[0] >= 0 && from[0] < s.input[0] && from[1] >= 0 && from[1] < s.input[1];
      const int64_t begin = std::max<int64_t>(k0 - t * length, 0), end = std::min(k1 - t * length, length);
      const Span span = span_inside(inside, from[2], s.input[2], run, channels, begin, end);
      copy_span(out + t * length, x + (((sample * s.input[0] + from[0]) * s.input[1] + from[1]) * s.input[2] + from[2]) * s.pixel, span);
    }
    for (int i = 2; i >= 0; i--) {
      if (++at[i] < s.output[i]) break;
      at[i] = 0;
      if (i == 0) sample++;
    }
  }
}

// Each position its own pixel, all of them or some.
bool one_pixel(const ConvShape& s) { return s.taps() == 1 && s.padding[0] == 0 && s.padding[1] == 0 && s.padding[2] == 0; }

// pack_panel of the pixels that `count` positions from `first` meet, line by line; x is at the first column.
template <class T> void pack_pixels(const ConvShape& s, T* b, const T* x, int64_t first, int64_t count, int64_t valid) {
  for (int64_t r = 0; r < count;) {
    const int64_t at = (first + r) % s.output[2], line = (first + r) / s.output[2], run = std::min(s.output[2] - at, count - r);
    const int64_t z = line / s.output[1] % s.output[0] * s.stride[0], n = line / s.output[1] / s.output[0];
    const int64_t pixel = ((n * s.input[0] + z) * s.input[1] + line % s.output[1] * s.stride[1]) * s.input[2] + at * s.stride[2];
    pack_panel(b + r * kPanel<T>, x + pixel * s.pixel, s.stride[2] * s.pixel, run, valid);
    r += run;
  }
}

}  // namespace

template <class T> void gemm_backward_weight(const ConvShape& s, const Weight<T>& dw, const T* dy, const T* x) {
  constexpr int64_t P = kPanel<T>;
  const int64_t channels = s.group_channels(), filters = s.group_filters(), positions = s.output_pixels(), taps = s.taps();
  if (taps * channels == 0 || filters == 0) return;
  // Where the filters of a channel are apart, dw^T = dy^T * x has its rows as they lie in memory.
  const bool exchanged = one_pixel(s) && dw.channel == 1 && filters > kFew<T> && channels > kFew<T>;
  const bool in_place = exchanged || pointwise(s);  // the rows of the left side
  const int64_t depth = exchanged ? filters : taps * channels, columns = exchanged ? channels : filters;
  const int64_t panels = ceil_div(columns, P), width = panels * P;
  const int64_t parts = ceil_div(depth, 24 * kTileRows), part = parts == 1 ? depth : round_up(ceil_div(depth, parts), kTileRows);
  // Slices give the threads work where the gradient itself is small, and groups of panels where rows need no gathering.
  const int64_t most = std::max<int64_t>(1, (int64_t(1) << 23) / (depth * width));
  const int64_t slices = std::max<int64_t>(1, std::min({ceil_div(16, parts), most, ceil_div(positions, 2 * kBlock)}));
  const int64_t slice = round_up(ceil_div(std::max<int64_t>(positions, 1), slices), kBlock);
  const int64_t some = in_place ? ceil_div(panels, std::min(panels, ceil_div(8, slices * parts))) : panels, sides = ceil_div(panels, some);
  Scratch sums(scratch_bytes<T>({slices, depth, width}));
  PerThread<T> rows(in_place ? 0 : kBlock * (part + 16)), packed(kBlock * P);
  for (int64_t g = 0; g < s.groups; g++) {
    const T* const right = exchanged ? x + g * channels : dy + g * filters;
    const T* const left = exchanged ? dy + g * filters : x + g * channels;
    const int64_t right_stride = exchanged ? s.pixel : s.filters, left_stride = exchanged ? s.filters : s.pixel;
    parallel_for(slices * parts * sides, 1, [&](int64_t begin, int64_t end) {
      T *const a = in_place ? nullptr : rows.mine(), *const b = packed.mine();
      for (int64_t job = begin; job < end; job++) {
        const int64_t at = job / sides, panel0 = job % sides * some, panel1 = std::min(panels, panel0 + some);
        const int64_t k0 = std::min(depth, at % parts * part), k1 = std::min(depth, k0 + part), lda = part + 16;
        T* const sum = sums.as<T>() + (at / parts * depth + k0) * width;
        for (int64_t r = 0; r < k1 - k0; r++) std::fill(sum + r * width + panel0 * P, sum + r * width + panel1 * P, T(0));
        const int64_t stop = std::min(positions, (at / parts + 1) * slice);
        for (int64_t first = at / parts * slice; first < stop && k0 < k1; first += kBlock) {
          const int64_t count = std::min(kBlock, stop - first);
          const T* const pixels = in_place ? left + first * left_stride + k0 : a;
          const int64_t pixel = in_place ? left_stride : lda;
          if (!in_place) gather(s, left, channels, first, count, k0, k1, a, lda);
          const T* const from = right + first * right_stride;
          if (columns <= kFew<T>) {
            with_few<T>(columns, [&](auto few) {
              few_filters<T, decltype(few)::value>(k1 - k0, pixels, pixel, from, right_stride, count, sum, width);
            });
            continue;
          }
          for (int64_t panel = panel0; panel < panel1; panel++) {
            const int64_t valid = std::min(P, columns - panel * P);
            if (exchanged && !pointwise(s)) pack_pixels(s, b, right + panel * P, first, count, valid);
            else pack_panel(b, from + panel * P, right_stride, count, valid);
            tile_rows<T, true>(k1 - k0, valid, pixels, pixel, b, count, sum + panel * P, width, sum + panel * P, width);
          }
        }
      }
    });
    if (exchanged) {  // slices added in order
      parallel_for(filters, std::max<int64_t>(1, kGrain / (channels * slices)), [&](int64_t begin, int64_t end) {
        for (int64_t f = begin; f < end; f++) {
          T* const out = dw.data + (g * filters + f) * dw.filter;
          const T* const from = sums.as<T>() + f * width;
          std::copy_n(from, channels, out);
          for (int64_t slot = 1; slot < slices; slot++)
            for (int64_t c = 0; c < channels; c++) out[c] += from[slot * depth * width + c];
        }
      });
      continue;
    }
    // dw[filter, channel, tap] from [tap][channel][filter], slices added in order.
    constexpr int64_t run = 16;
    const int64_t runs = ceil_div(channels, run);
    parallel_for(panels * runs, std::max<int64_t>(1, kGrain / (P * run * taps)), [&](int64_t begin, int64_t end) {
      for (int64_t job = begin; job < end; job++) {
        const int64_t panel = job / runs, c0 = job % runs * run, c1 = std::min(channels, c0 + run);
        const int64_t valid = std::min(P, filters - panel * P);
        for (int64_t j = 0; j < valid; j++) {
          T* const out = dw.data + (g * filters + panel * P + j) * dw.filter;
          const auto put = [&](int64_t c, int64_t t) {
            const T* from = sums.as<T>() + (t * channels + c) * width + panel * P + j;
            T total = from[0];
            for (int64_t slot = 1; slot < slices; slot++) total += from[slot * depth * width];
            const int64_t kz = t / s.kernel[2] / s.kernel[1], ky = t / s.kernel[2] % s.kernel[1], kx = t % s.kernel[2];
            out[c * dw.channel + kz * dw.tap[0] + ky * dw.tap[1] + kx * dw.tap[2]] = total;
          };
          if (dw.channel == 1) {
            for (int64_t t = 0; t < taps; t++)
              for (int64_t c = c0; c < c1; c++) put(c, t);
          } else {
            for (int64_t c = c0; c < c1; c++)
              for (int64_t t = 0; t < taps; t++) put(c, t);
          }
        }
      }
    });
  }
}

// db[o] = sum of dy over positions, by blocks of 256 and those sums in double.
template <class T> void backward_bias(const ConvShape& s, T* db, const T* dy) {
  const int64_t positions = s.output_pixels(), filters = s.filters, blocks = ceil_div(positions, kBlock);
  if (filters == 0) return;
  Scratch sums(scratch_bytes<T>({std::max<int64_t>(blocks, 1), filters}));
  parallel_for(blocks, std::max<int64_t>(1, kGrain / (kBlock * filters)), [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; block++) {
      T* const sum = sums.as<T>() + block * filters;
      std::fill_n(sum, filters, T(0));
      const int64_t stop = std::min(positions, (block + 1) * kBlock);
      for (int64_t r = block * kBlock; r < stop; r++) {
        const T* from = dy + r * filters;
#pragma omp simd
        for (int64_t o = 0; o < filters; o++) sum[o] += from[o];
      }
    }
  });
  for (int64_t o = 0; o < filters; o++) {
    double total = 0;
    for (int64_t block = 0; block < blocks; block++) total += double(sums.as<T>()[block * filters + o]);
    db[o] = T(total);
  }
}

template void gemm_backward_weight<float>(const ConvShape&, const Weight<float>&, const float*, const float*);
template void gemm_backward_weight<double>(const ConvShape&, const Weight<double>&, const double*, const double*);
template void backward_bias<float>(const ConvShape&, float*, const float*);
template void backward_bias<double>(const ConvShape&, double*, const double*);

}  // namespace dg::conv
