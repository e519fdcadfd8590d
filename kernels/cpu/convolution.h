// What the files of the convolution share. Internally activations are channels-last, [N, D, H, W, C] without gaps, float or double.
#pragma once
#include "../common/convolution.h"

#include "allocator.h"
#include "parallel.h"

namespace dg::conv {

// convolution_gemm.cpp: gathered rows times packed weights, for every shape.
template <class T> void gemm_forward(const ConvShape& s, T* y, const T* x, const Weight<const T>& w, const T* bias);
template <class T> void gemm_backward_input(const ConvShape& s, T* dx, const T* dy, const Weight<const T>& w, const T* bias);

// convolution_weight.cpp
template <class T> void gemm_backward_weight(const ConvShape& s, const Weight<T>& dw, const T* dy, const T* x);
template <class T> void backward_bias(const ConvShape& s, T* db, const T* dy);

// convolution_depthwise.cpp: groups == channels == filters.
template <class T> void depthwise_forward(const ConvShape& s, T* y, const T* x, const Weight<const T>& w, const T* bias);
template <class T> void depthwise_backward_input(const ConvShape& s, T* dx, const T* dy, const Weight<const T>& w, const T* bias);
template <class T> void depthwise_backward_weight(const ConvShape& s, const Weight<T>& dw, const T* dy, const T* x);

// convolution_winograd.cpp, convolution_winograd_weight.cpp: 3x3 with stride 1, 3x3 and 4x4 with stride 2, float.
bool winograd_fits(const ConvShape& s);
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

// Work space of each thread.
template <class T> class PerThread {
 public:
  explicit PerThread(int64_t elements) : elements_(round_up(elements, 64)), memory_(scratch_bytes<T>({elements_, thread_count()})) {}
  T* mine() const { return memory_.template as<T>() + elements_ * (thread_count() > 1 ? omp_get_thread_num() : 0); }

 private:
  int64_t elements_;
  Scratch memory_;
};

}  // namespace dg::conv
