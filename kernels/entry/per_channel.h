// Decoding tensors with one value for each channel.
#pragma once
#include "../common/batch_norm.h"
#include "optional.h"

namespace dg {

// One value a channel, in the dtype that an input of `dtype` is computed in.
class PerChannel : public Optional {
 public:
  PerChannel(const dg_tensor* frame, uint32_t slot, int64_t channels, uint32_t dtype, const char* op, Access access = Access::read)
      : Optional(frame, slot, op, access) {
    if (!get()) return;
    const Tensor& v = *get();
    require_dtype(v, dtype == DG_F64 ? DG_F64 : DG_F32, op, "each per-channel tensor");
    if (v.rank != 1 || v.sizes[0] != channels || !v.contiguous())
      fail(DG_SHAPE, "%s: per-channel tensors must be contiguous of size [%lld], got %s", op, (long long)channels, shape_text(v).c_str());
  }
};

// The slots of an update, decoded and checked.
struct Updated {
  PerChannel invstd, running_mean, running_var;
  Optional batches;
  Updated(const dg_tensor* t, uint32_t invstd_slot, uint32_t mean_slot, uint32_t var_slot, uint32_t batches_slot, int64_t channels, uint32_t dtype,
          const char* op)
      : invstd(t, invstd_slot, channels, dtype, op, Access::write), running_mean(t, mean_slot, channels, dtype, op, Access::write),
        running_var(t, var_slot, channels, dtype, op, Access::write), batches(t, batches_slot, op, Access::write) {
    if (!running_mean.get() != !running_var.get()) fail(DG_SHAPE, "%s: both running statistics must be given, or none", op);
    if (!batches.get()) return;
    require_dtype(*batches.get(), DG_I64, op, "the number of batches");
    if (batches->numel != 1) fail(DG_SHAPE, "%s: the number of batches must be one element, got %s", op, shape_text(*batches.get()).c_str());
  }
};

}  // namespace dg
