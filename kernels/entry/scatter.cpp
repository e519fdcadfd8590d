// Writing through indices, in place.
#include "../common/scatter.h"

using namespace dg;

namespace {

// The tensor of a slot or, if that is absent, `value` for every element of a tensor of the sizes of `sizes`.
ScatterSource source_of(const dg_tensor* t, uint32_t slot, double value, Tensor sizes, uint32_t dtype, const char* op) {
  if (present(slot)) return {tensor_at(t, slot, op)};
  sizes.dtype = dtype;
  sizes.storage_data = nullptr;
  sizes.offset = 0;
  std::fill(sizes.strides, sizes.strides + DG_MAX_RANK, 0);
  return {sizes, true, value};
}

}  // namespace

int32_t dg_scatter(const dg_tensor* t, uint32_t out_slot, uint32_t index_slot, uint32_t src_slot, double value, uint32_t axis, uint32_t op,
                   uint32_t include_self) {
  return guard([&] {
    const char* const name = "scatter";
    const Tensor out = tensor_at(t, out_slot, name, Access::write), index = tensor_at(t, index_slot, name);
    if (op >= uint32_t(ScatterOp::count)) fail(DG_RANGE, "%s: op code %u does not exist", name, op);
    require_index(index, name);
    if (out.rank != index.rank || axis >= uint32_t(out.rank))
      fail(DG_SHAPE, "%s: ranks %d and %d, axis %u", name, out.rank, index.rank, axis);
    const ScatterSource source = source_of(t, src_slot, value, index, out.dtype, name);
    const Tensor& src = source.tensor;
    require_dtype(src, out.dtype, name, "the source");
    if (src.rank != index.rank) fail(DG_SHAPE, "%s: the source has rank %d, the index %d", name, src.rank, index.rank);
    for (int i = 0; i < out.rank; i++)
      if (index.sizes[i] > src.sizes[i] || (uint32_t(i) != axis && index.sizes[i] > out.sizes[i]))
        fail(DG_SHAPE, "%s: index %s exceeds the source %s or the output %s", name, shape_text(index).c_str(), shape_text(src).c_str(),
             shape_text(out).c_str());
    if (ScatterOp(op) != ScatterOp::assign) require_numbers(out, name);
    if (index.numel == 0) return;
    limit_work(index.numel);
    scatter(out, index, source, int(axis), ScatterOp(op), include_self != 0);
  });
}

int32_t dg_index_put(const dg_tensor* t, uint32_t x_slot, uint32_t src_slot, double value, uint32_t first, uint32_t axes, uint32_t wrap,
                     uint32_t op) {
  return guard([&] {
    const char* const name = "index_put";
    const Tensor x = tensor_at(t, x_slot, name, Access::write);
    if (op > uint32_t(ScatterOp::sum)) fail(DG_RANGE, "%s: op code %u is neither assign nor sum", name, op);
    const RowIndices rows = row_indices(t, first, axes, x, wrap != 0, name);
    Tensor sizes = rows.shape();  // of the rows that are written
    const int lead = sizes.rank;
    if (lead + x.rank - rows.count > DG_MAX_RANK) fail(DG_SHAPE, "%s: the rows have too many axes", name);
    sizes.rank = lead + x.rank - rows.count;
    std::copy(x.sizes + rows.count, x.sizes + x.rank, sizes.sizes + lead);
    const ScatterSource source = source_of(t, src_slot, value, sizes, x.dtype, name);
    require_dtype(source.tensor, x.dtype, name, "the source");
    require_row_sizes(source.tensor, x, rows, name);
    if (ScatterOp(op) == ScatterOp::sum) require_numbers(x, name);
    if (rows.shape().numel == 0) return;
    index_put(x, source, rows, ScatterOp(op));
  });
}
