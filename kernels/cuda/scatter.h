// Writing through one list of indices, for families beside scatter.
#pragma once
#include "indexing.h"

namespace dg {

// out[index[i]] += src[i] in the order of i, for lists; an index outside is reported as `bad` and then nothing is written.
void add_in_order(const Tensor& out, const Tensor& index, const Tensor& src, const Report& bad);

}  // namespace dg
