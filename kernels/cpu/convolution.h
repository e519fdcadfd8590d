// What the files of the convolution share. Internally activations are channels-last, [N, D, H, W, C], float or double,
// without gaps but those between the pixels of x that ConvShape::pixel tells of.
#pragma once
#include <cstring>
#include <limits>

#include "../common/convolution.h"

#include "allocator.h"
#include "parallel.h"
#include "tile.h"

namespace dg::conv {

// What becomes of the sums of each filter where they are written: + bias, then, if there is a scale, * scale + shift (+ residual) (relu). All but the
// residual begin at the same filter; a vector may be read behind the last scale and shift.
template <class T> struct Finish {
  const T *bias = nullptr, *scale = nullptr, *shift = nullptr;
  const T *residual = nullptr, *y = nullptr;  // the residual lies as the result at y does
  T least = -std::numeric_limits<T>::infinity();  // 0: relu

  Finish from(int64_t filter) const {
    Finish f = *this;
    if (bias) f.bias += filter;
    if (scale) f.scale += filter, f.shift += filter;
    return f;
  }
  const T* added(const T* to) const { return residual + (to - y); }
};

// Of sums and their bias, with what is added and the least that comes out.
template <class V> inline V finished(V sum, V scale, V shift, V added, V least) {
  const V value = sum * scale + shift + added;
  return value <= least ? least : value;  // NaN stays
}

// Finishes what has been written with the bias already: rows of filters from `filter` on, `ld` apart. Row by row, as memory is streamed best.
template <class T> void finish_rows(const Finish<T>& f, int64_t rows, int64_t columns, T* y, int64_t ld, int64_t filter) {
  constexpr int64_t L = Lanes<T>::count;
  const T *const scale = f.scale + filter, *const shift = f.shift + filter;
  const lanes_t<T> least = lanes_t<T>{} + f.least, none = {};
  for (int64_t r = 0; r < rows; r++, y += ld) {
    const T* const added = f.residual ? f.added(y) : nullptr;
    int64_t c = 0;
    for (; c + L <= columns; c += L) store(y + c, finished(load(y + c), load(scale + c), load(shift + c), added ? load(added + c) : none, least));
    if (c == columns) continue;
    const lanes_t<T> rest = added ? load_some(added + c, columns - c) : none;
    store_some(y + c, finished(load_some(y + c, columns - c), load(scale + c), load(shift + c), rest, least), columns - c);
  }
}

// convolution_gemm.cpp: gathered rows times packed weights, for every shape.
template <class T> void gemm_forward(const ConvShape& s, T* y, const T* x, const Weight<const T>& w, const Finish<T>& f);
template <class T> void gemm_backward_input(const ConvShape& s, T* dx, const T* dy, const Weight<const T>& w, const T* bias);

// convolution_weight.cpp
template <class T> void gemm_backward_weight(const ConvShape& s, const Weight<T>& dw, const T* dy, const T* x);
template <class T> void backward_bias(const ConvShape& s, T* db, const T* dy);

// convolution_rows.cpp: few channels.
template <class T> bool rows_fits(const ConvShape& s);
template <class T> void rows_forward(const ConvShape& s, T* y, const T* x, const Weight<const T>& w, const Finish<T>& f);
template <class T> void rows_backward_weight(const ConvShape& s, const Weight<T>& dw, const T* dy, const T* x);

enum class Pass { forward, input, weight };  // the result, the gradient of the input, of the weight

// convolution_few.cpp: few output positions.
template <class T> bool few_fits(const ConvShape& s, Pass pass);
template <class T> void few_forward(const ConvShape& s, T* y, const T* x, const Weight<const T>& w, const Finish<T>& f);
template <class T> void few_backward_input(const ConvShape& s, T* dx, const T* dy, const Weight<const T>& w, const T* bias);
template <class T> void few_backward_weight(const ConvShape& s, const Weight<T>& dw, const T* dy, const T* x);

// convolution_grouped.cpp: groups that are narrower than a vector; `backward` asks about the gradient of the input.
bool grouped_fits(const ConvShape& s, bool backward);
template <class T> void grouped_forward(const ConvShape& s, T* y, const T* x, const Weight<const T>& w, const Finish<T>& f);
template <class T> void grouped_backward_input(const ConvShape& s, T* dx, const T* dy, const Weight<const T>& w, const T* bias);
template <class T> void grouped_backward_weight(const ConvShape& s, const Weight<T>& dw, const T* dy, const T* x);

// convolution_depthwise.cpp: one filter a channel.
template <class T> bool depthwise_fits(const ConvShape& s);
template <class T> void depthwise_forward(const ConvShape& s, T* y, const T* x, const Weight<const T>& w, const Finish<T>& f);
template <class T> void depthwise_backward_input(const ConvShape& s, T* dx, const T* dy, const Weight<const T>& w, const T* bias);
template <class T> void depthwise_backward_weight(const ConvShape& s, const Weight<T>& dw, const T* dy, const T* x);

// convolution_winograd.cpp, convolution_winograd_weight.cpp: 3x3 and 4x4 with strides 1 and 2, float.
bool winograd_chosen(const ConvShape& s, Pass pass);
// For batch normalisation: of the results of each job their number, and mean and sum of squared deviations of every filter. There are
// winograd_moment_jobs, none where jobs do not have all filters.
struct JobMoments {
  int64_t* counts;
  double* means;
  float* squares;
};
void winograd_forward(const ConvShape& s, float* y, const float* x, const Weight<const float>& w, const Finish<float>& f,
                      const JobMoments* moments = nullptr);
int64_t winograd_moment_jobs(const ConvShape& s);
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

// The source position that a tap meets at a result position, or -1; `backward`: the source is y, the result x.
inline int64_t tap_source(const ConvShape& s, bool backward, int axis, int64_t result, int64_t tap) {
  if (!backward) {
    const int64_t at = result * s.stride[axis] - s.padding[axis] + tap * s.dilation[axis];
    return at < s.input[axis] ? std::max<int64_t>(at, -1) : -1;
  }
  const int64_t reach = result + s.padding[axis] - tap * s.dilation[axis], at = reach / s.stride[axis];
  return reach >= 0 && at * s.stride[axis] == reach && at < s.output[axis] ? at : -1;
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
