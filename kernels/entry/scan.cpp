// cumsum() and cumprod().
#include "../common/scan.h"

using namespace dg;

int32_t dg_scan(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, uint32_t axis, uint32_t op, uint32_t reversed) {
  return guard([&] {
    const char* const name = "scan";
    if (op >= unsigned(ScanOp::count)) fail(DG_RANGE, "%s: op code %u does not exist", name, op);
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    require_axis(x, axis, name);
    require_same_sizes(out, x, name);
    require_dtype(out, x.dtype, name, "the output");
    if (x.numel == 0) return;
    scan(out, x, lines_along(axis, out, x, name), int(axis), ScanOp(op), reversed != 0);
  });
}
