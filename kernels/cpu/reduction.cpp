// Sums, products, extrema, norms, tests and variances over any set of axes. The order of operations is that of reduction.h.
#include "reduction.h"

#include "../common/op_codes.h"

namespace dg {
namespace {

// Writes one number per output, in the order of `kept`, into the output tensor.
template <class A>
void write_result(const Tensor& out, const A* result, const Loop<2>& kept) {
  const int64_t stride = kept.strides[1][kept.rank - 1];
  parallel_for(kept.numel, kGrain, [&](int64_t begin, int64_t end) {
    int64_t k = begin;
    kept.rows(begin, end, [&](const int64_t* offset, int64_t count) {
      write_elements(out, offset[1], stride, result + k, count);
      k += count;
    });
  });
}

// Runs `body(result, kept, nest)` and writes what it left in `result`; with nothing to reduce, `empty` everywhere.
template <class A, class Body>
void with_result(const Tensor& out, const Plan& plan, A empty, const char* op, Body&& body) {
  require_stored_as<A>(out, op);
  if (plan.outputs == 0) return;
  const Loop<2> kept({&plan.kept_x, &plan.kept_out});
  const Loop<1> nest({&plan.reduced});
  const Scratch scratch(plan.outputs * int64_t(sizeof(A)));
  A* const result = scratch.as<A>();
  if (plan.count == 0) std::fill_n(result, plan.outputs, empty);
  else body(result, kept, nest);
  write_result(out, result, kept);
}

template <class Op, class A>
void run(const Tensor& out, const Reader<A>& x, const Plan& plan, const char* op) {
  with_result<A>(out, plan, Op::template identity<A>(), op,
                 [&](A* result, const Loop<2>& kept, const Loop<1>& nest) { reduce_all<Op, A>(result, x, kept, nest); });
}

void reduce(const Tensor& out, const Tensor& x, const Plan& plan, ReduceOp op) {
  const char* const name = "reduce";
  switch (op) {
    case ReduceOp::any:
      return run<Sum>(out, truth_reader(x, name), plan, name);
    case ReduceOp::count_nonzero:
      return run<Sum>(out, truth_reader(x, name), plan, name);
    case ReduceOp::all:
      return run<Product>(out, truth_reader(x, name), plan, name);
    default: break;
  }
  dispatch_accumulator(x.dtype, [&](auto kind) {
    using A = typename decltype(kind)::type;
    const Reader<A> reader = reader_of<A>(x, name);
    switch (op) {
      case ReduceOp::sum: return run<Sum>(out, reader, plan, name);
      case ReduceOp::prod: return run<Product>(out, reader, plan, name);
      case ReduceOp::amax:
      case ReduceOp::amin:
        if (plan.count == 0 && plan.outputs > 0) fail(DG_SHAPE, "%s: no largest or smallest of no elements", name);
        if (op == ReduceOp::amax) return run<Maximum>(out, reader, plan, name);
        return run<Minimum>(out, reader, plan, name);
      default: break;
    }
    if constexpr (std::is_floating_point_v<A>) {
      switch (op) {
        case ReduceOp::mean:
          return with_result<A>(out, plan, A(NAN), name, [&](A* result, const Loop<2>& kept, const Loop<1>& nest) {
            reduce_all<Sum, A>(result, reader, kept, nest);
            for (int64_t k = 0; k < plan.outputs; k++) result[k] /= A(plan.count);
          });
        case ReduceOp::norm1: return run<SumOfMagnitudes>(out, reader, plan, name);
        case ReduceOp::norm2:
          return with_result<A>(out, plan, A(0), name, [&](A* result, const Loop<2>& kept, const Loop<1>& nest) {
            reduce_all<SumOfSquares, A>(result, reader, kept, nest);
            for (int64_t k = 0; k < plan.outputs; k++) result[k] = std::sqrt(result[k]);
          });
        case ReduceOp::nansum: return run<SumOfNumbers>(out, reader, plan, name);
        default: break;
      }
    }
    fail(DG_DTYPE, "%s: operation %u takes a floating point dtype, got %s", name, unsigned(op), dtype_name(x.dtype));
  });
}

}  // namespace
}  // namespace dg

using namespace dg;

int32_t dg_reduce(const dg_tensor* t, uint32_t out_slot, uint32_t x_slot, uint32_t axes, uint32_t op) {
  return guard([&] {
    const char* const name = "reduce";
    if (op >= unsigned(ReduceOp::count)) fail(DG_RANGE, "%s: op code %u does not exist", name, op);
    const Tensor out = tensor_at(t, out_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    reduce(out, x, Plan(out, x, axes, name), ReduceOp(op));
  });
}

int32_t dg_var(const dg_tensor* t, uint32_t var_slot, uint32_t mean_slot, uint32_t x_slot, uint32_t axes, double correction, uint32_t root) {
  return guard([&] {
    const char* const name = "var";
    const Tensor var = tensor_at(t, var_slot, name, Access::write), x = tensor_at(t, x_slot, name);
    const bool wanted = present(mean_slot);
    const Tensor mean = wanted ? tensor_at(t, mean_slot, name, Access::write) : var;
    if (wanted && !same_strides(mean, var)) fail(DG_SHAPE, "%s: the strides of mean and variance differ", name);
    require_same_sizes(mean, var, name);
    const Plan plan(var, x, axes, name);
    dispatch_floats(x.dtype, name, [&](auto kind) {
      using A = compute_t<typename decltype(kind)::type>;
      require_stored_as<A>(mean, name);
      const Reader<A> reader = reader_of<A>(x, name);
      const Scratch scratch(plan.outputs * int64_t(sizeof(A)));
      A* const means = scratch.as<A>();
      std::fill_n(means, plan.outputs, A(NAN));
      with_result<A>(var, plan, A(NAN), name, [&](A* result, const Loop<2>& kept, const Loop<1>& nest) {
        reduce_all<Sum, A>(means, reader, kept, nest);
        for (int64_t k = 0; k < plan.outputs; k++) means[k] /= A(plan.count);
        reduce_all<SumOfSquaredDeviations, A>(result, reader, kept, nest, means);
        const A divisor = A(std::max(0.0, double(plan.count) - correction));
        for (int64_t k = 0; k < plan.outputs; k++) {
          result[k] /= divisor;
          if (root) result[k] = std::sqrt(result[k]);
        }
      });
      if (wanted && plan.outputs > 0) write_result(mean, means, Loop<2>({&plan.kept_x, &plan.kept_out}));
    });
  });
}
