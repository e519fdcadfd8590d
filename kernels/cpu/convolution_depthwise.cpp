// Depthwise convolution (one channel and one filter a group): vectors run over channels.
#include <vector>

#include "convolution.h"

namespace dg::conv {
namespace {

// The weight as [tap][channel].
template <class T> void pack(const ConvShape& s, T* out, const Weight<const T>& w) {
  int64_t t = 0;
  for (int64_t z = 0; z < s.kernel[0]; z++)
    for (int64_t y = 0; y < s.kernel[1]; y++)
      for (int64_t x = 0; x < s.kernel[2]; x++, t++)
        for (int64_t c = 0; c < s.channels; c++) out[t * s.channels + c] = w.data[c * w.filter + z * w.tap[0] + y * w.tap[1] + x * w.tap[2]];
}

// Calls f(tap, source pixel) for the taps of output position `row` that lie inside the input.
template <class F> void each_source(const ConvShape& s, int64_t row, F&& f) {
  int64_t at[3], k[3], source[3];
  for (int i = 2; i >= 0; i--) {
    at[i] = row % s.output[i];
    row /= s.output[i];
  }
  auto inside = [&](int i) {
    source[i] = at[i] * s.stride[i] - s.padding[i] + k[i] * s.dilation[i];
    return source[i] >= 0 && source[i] < s.input[i];
  };
  for (k[0] = 0; k[0] < s.kernel[0]; k[0]++) {
    if (!inside(0)) continue;
    for (k[1] = 0; k[1] < s.kernel[1]; k[1]++) {
      if (!inside(1)) continue;
      for (k[2] = 0; k[2] < s.kernel[2]; k[2]++)
        if (inside(2))
          f((k[0] * s.kernel[1] + k[1]) * s.kernel[2] + k[2], ((row * s.input[0] + source[0]) * s.input[1] + source[1]) * s.input[2] + source[2]);
    }
  }
}

}  // namespace

template <class T> void depthwise_forward(const ConvShape& s, T* y, const T* x, const Weight<const T>& w, const T* bias) {
  const int64_t channels = s.channels;
  Scratch packed(scratch_bytes<T>({s.taps(), channels}));
  T* const weight = packed.as<T>();
  pack(s, weight, w);
  parallel_for(s.output_pixels(), std::max<int64_t>(1, kGrain / (channels * s.taps())), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
      T* const out = y + row * channels;
      for (int64_t c = 0; c < channels; c++) out[c] = bias ? bias[c] : T(0);
      each_source(s, row, [&](int64_t tap, int64_t pixel) {
        const T *a = x + pixel * channels, *b = weight + tap * channels;
#pragma omp simd
        for (int64_t c = 0; c < channels; c++) out[c] += a[c] * b[c];
      });
    }
  });
}

// Shared by samples: each one's gradient is scattered by one thread.
template <class T> void depthwise_backward_input(const ConvShape& s, T* dx, const T* dy, const Weight<const T>& w, const T* bias) {
  const int64_t channels = s.channels, area = s.output[0] * s.output[1] * s.output[2], size = s.input[0] * s.input[1] * s.input[2] * channels;
  Scratch packed(scratch_bytes<T>({s.taps(), channels}));
  T* const weight = packed.as<T>();
  pack(s, weight, w);
  parallel_for(s.batch, 1, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; n++) {
      for (int64_t i = 0; i < size; i++) dx[n * size + i] = bias ? bias[i % channels] : T(0);
      for (int64_t row = n * area; row < (n + 1) * area; row++) {
        const T* const g = dy + row * channels;
        each_source(s, row, [&](int64_t tap, int64_t pixel) {
          T* const out = dx + pixel * channels;
          const T* b = weight + tap * channels;
#pragma omp simd
          for (int64_t c = 0; c < channels; c++) out[c] += g[c] * b[c];
        });
      }
    }
  });
}

template <class T> void depthwise_backward_weight(const ConvShape& s, const Weight<T>& dw, const T* dy, const T* x) {
  const int64_t channels = s.channels, size = s.taps() * channels, positions = s.output_pixels();
  // Slices by the shape alone; their sums are added in order.
  const int64_t slices = std::max<int64_t>(1, std::min<int64_t>(64, positions / 256)), slice = ceil_div(std::max<int64_t>(positions, 1), slices);
  Scratch memory(scratch_bytes<T>({slices, size}));
  T* const sums = memory.as<T>();
  parallel_for(slices, 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; i++) {
      T* const sum = sums + i * size;
      std::fill_n(sum, size, T(0));
      for (int64_t row = i * slice; row < std::min(positions, (i + 1) * slice); row++) {
        const T* const g = dy + row * channels;
        each_source(s, row, [&](int64_t tap, int64_t pixel) {
          const T* a = x + pixel * channels;
          T* const out = sum + tap * channels;
#pragma omp simd
          for (int64_t c = 0; c < channels; c++) out[c] += g[c] * a[c];
        });
      }
    }
  });
  for (int64_t t = 0; t < s.taps(); t++) {
    const int64_t kz = t / s.kernel[2] / s.kernel[1], ky = t / s.kernel[2] % s.kernel[1], kx = t % s.kernel[2];
    for (int64_t c = 0; c < channels; c++) {
      T total = T(0);
      for (int64_t i = 0; i < slices; i++) total += sums[i * size + t * channels + c];
      dw.data[c * dw.filter + kz * dw.tap[0] + ky * dw.tap[1] + kx * dw.tap[2]] = total;
    }
  }
}

template void depthwise_forward<float>(const ConvShape&, float*, const float*, const Weight<const float>&, const float*);
template void depthwise_forward<double>(const ConvShape&, double*, const double*, const Weight<const double>&, const double*);
template void depthwise_backward_input<float>(const ConvShape&, float*, const float*, const Weight<const float>&, const float*);
template void depthwise_backward_input<double>(const ConvShape&, double*, const double*, const Weight<const double>&, const double*);
template void depthwise_backward_weight<float>(const ConvShape&, const Weight<float>&, const float*, const float*);
template void depthwise_backward_weight<double>(const ConvShape&, const Weight<double>&, const double*, const double*);

}  // namespace dg::conv
