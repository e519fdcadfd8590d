// Strided copy with conversion, fill, arange.
#pragma once
#include "tensor.h"

namespace dg {

// Provided by each library (copy.cpp, copy.cu); checked by entry/copy.cpp.
void copy(const Tensor& out, const Tensor& x);
void fill(const Tensor& out, double value);
void arange(const Tensor& out, double start, double step);

}  // namespace dg
