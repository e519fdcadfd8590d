// Running sums and products along an axis.
#pragma once
#include "op_codes.h"
#include "plan.h"

namespace dg {

// Provided by each library (scan.cpp, scan.cu); checked by entry/scan.cpp. The lines that are scanned are the outputs of `lines`.
void scan(const Tensor& out, const Tensor& x, const Plan& lines, int axis, ScanOp op, bool reversed);

}  // namespace dg
