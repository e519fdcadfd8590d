// What the files of the convolution share.
#pragma once
#include "../common/convolution.h"
#include "runtime.h"

namespace dg::conv {

// [N, C, spatial...] with three spatial axes always; strides in elements, any memory order.
template <class T>
struct Activation {
  T* data;
  int64_t sample, channel, at[3];
};

template <class T>
Activation<T> activation(const Tensor& t) {
  Activation<T> a{const_cast<T*>(t.data<T>()), t.strides[0], t.strides[1], {0, 0, 0}};
  for (int i = 2; i < t.rank; i++) a.at[i + 3 - t.rank] = t.strides[i];
  return a;
}
template <class T>
Weight<T> weight(const Tensor& t) {
  return {t, const_cast<T*>(t.data<T>())};
}

// A source position that may lie outside, or what a tap adds to one; the offset counts as if it lay inside. Of a tap: its row of the packed weight.
struct Spot {
  int64_t offset;
  int z, y, x, row;
};

inline constexpr int64_t kFewBlocks = 264;  // two for each multiprocessor of the largest devices: below this, tiles are small

// Every coordinate that a tiled kernel computes is below 2^30, so that it can mark rows that do not exist by one that no tap brings inside.
inline bool small_coordinates(const ConvShape& s) {
  for (int i = 0; i < 3; i++)
    if (s.output[i] * s.stride[i] + s.kernel[i] * s.dilation[i] + s.input[i] + s.padding[i] >= int64_t(1) << 30) return false;
  return true;
}

// convolution_gather.cu: products of gathered positions with packed weights.
template <class T>
void gather_forward(const ConvShape& s, const Activation<T>& y, const Activation<T>& x, const Weight<T>& w, const T* bias, int64_t bias_step);
template <class T>
void gather_backward_input(const ConvShape& s, const Activation<T>& dx, const Activation<T>& dy, const Weight<T>& w, const T* bias,
                           int64_t bias_step);

// convolution_weight.cu: the weight's gradient as a product over positions.
template <class T>
void gather_backward_weight(const ConvShape& s, const Weight<T>& dw, const Activation<T>& dy, const Activation<T>& x);

// convolution_direct.cu: few channels a group; a thread an output.
template <class T>
void direct_forward(const ConvShape& s, const Activation<T>& y, const Activation<T>& x, const Weight<T>& w, const T* bias, int64_t bias_step);
template <class T>
void direct_backward_input(const ConvShape& s, const Activation<T>& dx, const Activation<T>& dy, const Weight<T>& w, const T* bias,
                           int64_t bias_step);
template <class T>
void direct_backward_weight(const ConvShape& s, const Weight<T>& dw, const Activation<T>& dy, const Activation<T>& x);

}  // namespace dg::conv
