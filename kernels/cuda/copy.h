// Copies for other families. copy.cu.
#pragma once
#include "runtime.h"

namespace dg {

// out = x, of equal sizes and one dtype, any strides (through tiles where both are contiguous along different axes).
void copy_tensor(const Tensor& out, const Tensor& x);

}  // namespace dg
