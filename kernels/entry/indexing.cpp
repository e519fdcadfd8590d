// Reading through indices: gather, rows, nonzero; and moves of whole tensors: flip, triangle.
#include "../common/indexing.h"

using namespace dg;

int32_t dg_gather(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, uint32_t index_slot, uint32_t axis) {
  return guard([&] {
    const char* const name = "gather";
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name), index = tensor_at(t, index_slot, name);
    require_index(index, name);
    require_same_sizes(out, index, name);
    require_dtype(out, x.dtype, name, "the output");
    if (x.rank != index.rank || axis >= uint32_t(x.rank)) fail(DG_SHAPE, "%s: ranks %d and %d, axis %u", name, x.rank, index.rank, axis);
    Tensor base = index;
    base.storage_data = x.storage_data;
    base.offset = x.offset;
    for (int i = 0; i < x.rank; i++) {
      base.strides[i] = uint32_t(i) == axis ? 0 : x.strides[i];
      if (uint32_t(i) != axis && index.sizes[i] > x.sizes[i])
        fail(DG_SHAPE, "%s: index %s exceeds %s", name, shape_text(index).c_str(), shape_text(x).c_str());
    }
    if (index.numel == 0) return;
    gather(out, x, index, base, int(axis));
  });
}

int32_t dg_index_get(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, uint32_t first, uint32_t axes, uint32_t wrap) {
  return guard([&] {
    const char* const name = "index";
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    require_dtype(out, x.dtype, name, "the output");
    const RowIndices rows = row_indices(t, first, axes, x, wrap != 0, name);
    require_row_sizes(out, x, rows, name);
    if (rows.shape().numel == 0) return;
    index_get(out, x, rows);
  });
}

int32_t dg_count_nonzero(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot) {
  return guard([&] {
    const char* const name = "count_nonzero";
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    require_dtype(out, DG_I64, name, "the output");
    require_dtype(x, DG_BOOL, name, "the input");
    if (out.numel != 1) fail(DG_SHAPE, "%s: the output must have one element", name);
    limit_work(x.numel);
    count_nonzero(out, x);
  });
}

int32_t dg_nonzero(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot) {
  return guard([&] {
    const char* const name = "nonzero";
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    require_dtype(out, DG_I64, name, "the output");
    require_dtype(x, DG_BOOL, name, "the input");
    limit_work(x.numel);
    if (out.rank != 2 || out.sizes[1] != x.rank)
      fail(DG_SHAPE, "%s: its positions of %d axes do not fill %s", name, x.rank, shape_text(out).c_str());
    nonzero(out, x);
  });
}

int32_t dg_flip(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, uint32_t axes) {
  return guard([&] {
    const char* const name = "flip";
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    require_same_sizes(out, x, name);
    require_dtype(out, x.dtype, name, "the output");
    if (x.numel == 0) return;
    flip(out, x, axes);
  });
}

int32_t dg_triangle(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, double diagonal, uint32_t upper) {
  return guard([&] {
    const char* const name = "triangle";
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    require_same_sizes(out, x, name);
    require_dtype(out, x.dtype, name, "the output");
    if (x.rank < 2) fail(DG_SHAPE, "%s: takes matrices, got rank %d", name, x.rank);
    if (!(std::fabs(diagonal) <= 9007199254740992.0)) fail(DG_RANGE, "%s: diagonal %g is out of range", name, diagonal);
    if (x.numel == 0) return;
    triangle(out, x, int64_t(diagonal), upper != 0);
  });
}
