// The norm over all of several tensors, and scaling them down to it.
#pragma once
#include <vector>

#include "tensor.h"

namespace dg {

// What the tensors are multiplied by, if it is less than 1.
DG_HD double clip_factor(double max_norm, double norm) { return max_norm / (norm + 1e-6); }

// Provided by each library (clip.cpp, clip.cu); checked by entry/clip.cpp. With `refuse_nonfinite` a norm that is not finite leaves the tensors
// as they are and fails with DG_RANGE, at once or later.
void clip_norm(const Tensor& out, const std::vector<Tensor>& tensors, double max_norm, double p, bool refuse_nonfinite);

}  // namespace dg
