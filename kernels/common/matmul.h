// Matrix products.
#pragma once
#include "tensor.h"

namespace dg {

// out [batch, m, n] = a [batch, m, k] @ b [batch, k, n] (+ bias with the sizes of out); with rank 2 there is no batch. A batch that is one tall
// matrix counts as that: batch and m may differ from the sizes of the tensors.
struct MatmulShape {
  Tensor out, a, b, bias;
  bool biased;
  int64_t batch, m, n, k;
};

// Provided by each library (matmul.cpp, matmul.cu); checked by entry/matmul.cpp.
void matmul(const MatmulShape& s);
// Whether products of float32 may round their operands to 10 bits; a library without such products stays at false.
void set_tf32(bool on);
bool get_tf32();

}  // namespace dg
