// clip_norm(): scales several tensors so that the norm over all of them is at most `max_norm`.
#include "../common/clip.h"

using namespace dg;

int32_t dg_clip_norm(const dg_tensor* t, uint32_t out_slot, uint32_t first, uint32_t count, double max_norm, double p,
                     uint32_t refuse_nonfinite) {
  return guard([&] {
    const char* const name = "clip_norm";
    const Tensor out = tensor_at(t, out_slot, name, Access::write);
    if (out.numel != 1 || (out.dtype != DG_F32 && out.dtype != DG_F64)) fail(DG_SHAPE, "%s: the norm must be one float32 or float64", name);
    if (!(p > 0)) fail(DG_RANGE, "%s: the kind of norm must be positive, got %g", name, p);
    if (!(max_norm >= 0)) fail(DG_RANGE, "%s: the largest norm must be 0 or more, got %g", name, max_norm);
    if (count > DG_MAX_SLOTS || first > DG_MAX_SLOTS || first + count > DG_MAX_SLOTS)
      fail(DG_RANGE, "%s: %u tensors from slot %u exceed the %d headers of a call", name, count, first, DG_MAX_SLOTS);
    std::vector<Tensor> tensors;
    for (uint32_t i = 0; i < count; i++) {
      tensors.push_back(tensor_at(t, first + i, name, Access::write));
      if (!is_float_dtype(tensors.back().dtype))
        fail(DG_DTYPE, "%s: takes floating point tensors, got %s", name, dtype_name(tensors.back().dtype));
    }
    clip_norm(out, tensors, max_norm, p, refuse_nonfinite != 0);
  });
}
