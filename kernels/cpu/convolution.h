// What the files of the convolution share. Internally activations are channels-last, [N, D, H, W, C], float or double,
// without gaps but those between the pixels of x that ConvShape::pixel tells of.
#pragma once
#include <cstring>

#include "../common/convolution.h"

#include "allocator.h"
#include "parallel.h"
#include "tile.h"

namespace dg::conv {

// convolution_gemm.cpp: gathered rows times packed weights, for every shape.
template <class T> void gemm_forward(const ConvShape& s, T* y, const T* x, const Weight<const T>& w, const T* bias);
template <class T> void gemm_backward_input(const ConvShape& s, T* dx, const T* dy, const Weight<const T>& w, const T* bias);

// convolution_weight.cpp
template <class T> void gemm_backward_weight(const ConvShape& s, const Weight<T>& dw, const T* dy, const T* x);
template <class T> void backward_bias(const ConvShape& s, T* db, const T* dy);

// convolution_rows.cpp: few channels.
template <class T> bool rows_fits(const ConvShape& s);
template <class T> void rows_forward(const ConvShape& s, T* y, const T* x, const Weight<const T>& w, const T* bias);
template <class T> void rows_backward_weight(const ConvShape& s, const Weight<T>& dw, const T* dy, const T* x);

enum class Pass { forward, input, weight };  // the result, the gradient of the input, of the weight

// convolution_few.cpp: few output positions.
template <class T> bool few_fits(const ConvShape& s, Pass pass);
template <class T> void few_forward(const ConvShape& s, T* y, const T* x, const Weight<const T>& w, const T* bias);
template <class T> void few_backward_input(const ConvShape& s, T* dx, const T* dy, const Weight<const T>& w, const T* bias);
template <class T> void few_backward_weight(const ConvShape& s, const Weight<T>& dw, const T* dy, const T* x);

// convolution_grouped.cpp: groups that are narrower than a vector; `backward` asks about the gradient of the input.
bool grouped_fits(const ConvShape& s, bool backward);
template <class T> void grouped_forward(const ConvShape& s, T* y, const T* x, const Weight<const T>& w, const T* bias);
template <class T> void grouped_backward_input(const ConvShape& s, T* dx, const T* dy, const Weight<const T>& w, const T* bias);
template <class T> void grouped_backward_weight(const ConvShape& s, const Weight<T>& dw, const T* dy, const T* x);

// convolution_winograd.cpp, convolution_winograd_weight.cpp: 3x3 and 4x4 with strides 1 and 2, float.
bool winograd_chosen(const ConvShape& s, Pass pass);
void winograd_forward(const ConvShape& s, float* y, const float* x, const Weight<const float>& w, const float* bias);
void winograd_backward_input(const ConvShape& s, float* dx, const float* dy, const Weight<const float>& w, const float* bias);
void winograd_backward_weight(const ConvShape& s, const Weight<float>& dw, const float* dy, const float* x);

// Elements of T, checked against overflow, as bytes for Scratch.
template <class T> int64_t scratch_bytes(std::initializer_list<int64_t> factors) {
  int64_t bytes = sizeof(T);
  for (int64_t f : factors)
    if (__builtin_mul_overflow(bytes, f, &bytes)) fail(DG_OUT_OF_MEMORY, "convolution: work space beyond 2^63 bytes");
  return bytes;
}

// The part [begin, end) of `taps` neighbouring pixels of `channels` that is wanted, from position x on; [low, high) of it lies in the picture.
struct Span {
  int64_t begin, low, high, end;
};
inline Span span_inside(bool inside, int64_t x, int64_t width, int64_t taps, int64_t channels, int64_t begin, int64_t end) {
  if (!inside) return {begin, begin, begin, end};
  const int64_t low = std::clamp(std::clamp<int64_t>(-x, 0, taps) * channels, begin, end);
  return {begin, low, std::clamp(std::clamp<int64_t>(width - x, 0, taps) * channels, low, end), end};
}
template <class T> void copy_span(T* to, const T* from, const Span& s) {
  if (s.low == s.begin && s.high == s.end) return copy_run(to + s.begin, from + s.begin, s.end - s.begin);
  for (int64_t i = s.begin; i < s.low; i++) to[i] = T(0);
  copy_run(to + s.low, from + s.low, s.high - s.low);
  for (int64_t i = s.high; i < s.end; i++) to[i] = T(0);
}

// Each position is its own pixel.
inline bool pointwise(const ConvShape& s) {
  bool same = s.taps() == 1;
  for (int i = 0; i < 3; i++) same &= s.stride[i] == 1 && s.padding[i] == 0 && s.input[i] == s.output[i];
  return same;
}

// A panel of B: its `valid` columns of `count` rows, zeros behind them.
template <class T> void pack_panel(T* b, const T* from, int64_t stride, int64_t count, int64_t valid) {
  constexpr int64_t L = Lanes<T>::count, ahead = 16;
  for (int64_t r = 0; r < count; r++, from += stride, b += kPanel<T>) {
    __builtin_prefetch(from + ahead * stride);
    __builtin_prefetch(from + ahead * stride + L);
    if (valid == kPanel<T>) {
      store(b, load(from));
      store(b + L, load(from + L));
      continue;
    }
    store(b, load_some(from, std::min(valid, L)));
    store(b + L, valid > L ? load_some(from + L, valid - L) : lanes_t<T>{});
  }
}

// Work space of each thread.
template <class T> class PerThread {
 public:
  explicit PerThread(int64_t elements) : elements_(round_up(elements, 64)), memory_(scratch_bytes<T>({elements_, thread_count()})) {}
  T* mine() const { return memory_.template as<T>() + elements_ * thread_number(); }

 private:
  int64_t elements_;
  Scratch memory_;
};

}  // namespace dg::conv
