// Random numbers, dropout and draws.
#include "../common/random.h"

using namespace dg;

namespace {

void check_random(const char* name, RandomOp op, const Tensor& out, const RandomArguments& given) {
  const auto [a, b, c, d] = given;
  if (!out.contiguous()) fail(DG_SHAPE, "%s: the output must be contiguous", name);
  switch (op) {
    case RandomOp::uniform: case RandomOp::normal: return require_float(out, name);
    case RandomOp::integers:
      if (!(std::abs(a) <= 0x1p53 && std::abs(b) <= 0x1p53 && a < b)) fail(DG_RANGE, "%s: no whole numbers from %g to %g", name, a, b);
      return;
    case RandomOp::bernoulli:
      if (!(a >= 0 && a <= 1)) fail(DG_RANGE, "%s: a probability must be in [0, 1], got %g", name, a);
      return;
    case RandomOp::exponential:
      if (!(a > 0)) fail(DG_RANGE, "%s: the rate must be > 0, got %g", name, a);
      return require_float(out, name);
    case RandomOp::truncated_normal:
      if (!(b > 0 && c < d)) fail(DG_RANGE, "%s: no normal numbers of deviation %g between %g and %g", name, b, c, d);
      return require_float(out, name);
    case RandomOp::bits:
      if (!(a >= 0 && a <= 0xffffffffu && b >= 0 && b <= 0xffffffffu)) fail(DG_RANGE, "%s: the upper counter words must be 32-bit", name);
      if (out.dtype != DG_I64) fail(DG_DTYPE, "%s: bits are written as int64, got %s", name, dtype_name(out.dtype));
      return;
    case RandomOp::permutation:
      if (out.dtype != DG_I64) fail(DG_DTYPE, "%s: a permutation is written as int64, got %s", name, dtype_name(out.dtype));
      return;
    default: fail(DG_RANGE, "%s: op code %u does not exist", name, unsigned(op));
  }
}

}  // namespace

int32_t dg_random(const dg_tensor* t, uint32_t out_slot, uint32_t op, uint32_t seed_low, uint32_t seed_high, uint32_t offset_low,
                  uint32_t offset_high, double a, double b, double c, double d) {
  return guard([&] {
    const char* const name = "random";
    const Tensor out = tensor_at(t, out_slot, name, Access::write);
    const RandomArguments arguments{a, b, c, d};
    check_random(name, RandomOp(op), out, arguments);
    RandomStream stream = random_stream(seed_low, seed_high, offset_low, offset_high);
    if (RandomOp(op) == RandomOp::bits) stream.high[0] = uint32_t(a), stream.high[1] = uint32_t(b);
    if (out.numel == 0) return;
    random(out, RandomOp(op), stream, arguments);
  });
}

int32_t dg_dropout(const dg_tensor* t, uint32_t y_slot, uint32_t x_slot, double p, uint32_t seed_low, uint32_t seed_high,
                   uint32_t offset_low, uint32_t offset_high) {
  return guard([&] {
    const char* const name = "dropout";
    const Tensor y = tensor_at(t, y_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    require_same_sizes(y, x, name);
    require_dtype(y, x.dtype, name, "the output");
    if (!(p >= 0 && p <= 1)) fail(DG_RANGE, "%s: p must be in [0, 1], got %g", name, p);
    require_float(x, name);
    if (y.numel == 0) return;
    dropout(y, x, p, random_stream(seed_low, seed_high, offset_low, offset_high));
  });
}

int32_t dg_multinomial(const dg_tensor* t, uint32_t out_slot, uint32_t weights_slot, uint32_t replacement, uint32_t seed_low,
                       uint32_t seed_high, uint32_t offset_low, uint32_t offset_high) {
  return guard([&] {
    const char* const name = "multinomial";
    const Tensor out = tensor_at(t, out_slot, name, Access::write), weights = tensor_at(t, weights_slot, name);
    require_dtype(out, DG_I64, name, "the output");
    require_dtype(weights, DG_F64, name, "the weights");
    if (out.rank != 2 || weights.rank != 2 || out.sizes[0] != weights.sizes[0] || !out.contiguous() || !weights.contiguous())
      fail(DG_SHAPE, "%s: output %s and weights %s must be contiguous matrices of as many rows", name, shape_text(out).c_str(),
           shape_text(weights).c_str());
    Draws size{out.sizes[0], out.sizes[1], weights.sizes[1], replacement != 0, 0};
    size.counters = uint64_t(((size.replacement ? size.draws : size.categories) + 1) / 2);
    if (size.draws > 0 && !size.replacement && size.draws > size.categories)
      fail(DG_RANGE, "%s: cannot draw %lld of %lld categories without replacement", name, (long long)size.draws,
           (long long)size.categories);
    if (size.draws == 0 || size.rows == 0) return;
    multinomial(out.data<int64_t>(), weights.data<double>(), size, random_stream(seed_low, seed_high, offset_low, offset_high));
  });
}
