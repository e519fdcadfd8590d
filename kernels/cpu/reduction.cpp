// Sums, products, extrema, norms, tests and variances over any set of axes. The order of operations is that of reduction.h.
#include "../common/reduction.h"

#include "reduction.h"

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
void with_result(const Tensor& out, const Plan& plan, A empty, Body&& body) {
  const Loop<2> kept({&plan.kept_x, &plan.kept_out});
  const Loop<1> nest({&plan.reduced});
  const Scratch scratch(plan.outputs * int64_t(sizeof(A)));
  A* const result = scratch.as<A>();
  if (plan.count == 0) std::fill_n(result, plan.outputs, empty);
  else body(result, kept, nest);
  write_result(out, result, kept);
}

template <class Op, class A>
void run(const Tensor& out, const Reader<A>& x, const Plan& plan) {
  with_result<A>(out, plan, Op::template identity<A>(),
                 [&](A* result, const Loop<2>& kept, const Loop<1>& nest) { reduce_all<Op, A>(result, x, kept, nest); });
}

}  // namespace

void reduce(const Tensor& out, const Tensor& x, const Plan& plan, ReduceOp op) {
  const char* const name = "reduce";
  if (tells_truths(op)) {
    const Reader<int64_t> truths = truth_reader(x, name);
    return op == ReduceOp::all ? run<Product>(out, truths, plan) : run<Sum>(out, truths, plan);
  }
  dispatch_accumulator(x.dtype, [&](auto kind) {
    using A = typename decltype(kind)::type;
    const Reader<A> reader = reader_of<A>(x, name);
    switch (op) {
      case ReduceOp::sum: return run<Sum>(out, reader, plan);
      case ReduceOp::prod: return run<Product>(out, reader, plan);
      case ReduceOp::amax: return run<Maximum>(out, reader, plan);
      case ReduceOp::amin: return run<Minimum>(out, reader, plan);
      default: break;
    }
    if constexpr (std::is_floating_point_v<A>) {
      switch (op) {
        case ReduceOp::mean:
          return with_result<A>(out, plan, A(NAN), [&](A* result, const Loop<2>& kept, const Loop<1>& nest) {
            reduce_all<Sum, A>(result, reader, kept, nest);
            for (int64_t k = 0; k < plan.outputs; k++) result[k] /= A(plan.count);
          });
        case ReduceOp::norm1: return run<SumOfMagnitudes>(out, reader, plan);
        case ReduceOp::norm2:
          return with_result<A>(out, plan, A(0), [&](A* result, const Loop<2>& kept, const Loop<1>& nest) {
            reduce_all<SumOfSquares, A>(result, reader, kept, nest);
            for (int64_t k = 0; k < plan.outputs; k++) result[k] = std::sqrt(result[k]);
          });
        default: return run<SumOfNumbers>(out, reader, plan);
      }
    }
  });
}

void variance(const Tensor& var, const Tensor* mean, const Tensor& x, const Plan& plan, double divisor, bool root) {
  const char* const name = "var";
  dispatch_floats(x.dtype, name, [&](auto kind) {
    using A = compute_t<typename decltype(kind)::type>;
    const Reader<A> reader = reader_of<A>(x, name);
    const Scratch scratch(plan.outputs * int64_t(sizeof(A)));
    A* const means = scratch.as<A>();
    std::fill_n(means, plan.outputs, A(NAN));
    with_result<A>(var, plan, A(NAN), [&](A* result, const Loop<2>& kept, const Loop<1>& nest) {
      reduce_all<Sum, A>(means, reader, kept, nest);
      for (int64_t k = 0; k < plan.outputs; k++) means[k] /= A(plan.count);
      reduce_all<SumOfSquaredDeviations, A>(result, reader, kept, nest, means);
      for (int64_t k = 0; k < plan.outputs; k++) {
        result[k] /= A(divisor);
        if (root) result[k] = std::sqrt(result[k]);
      }
    });
    if (mean) write_result(*mean, means, Loop<2>({&plan.kept_x, &plan.kept_out}));
  });
}

}  // namespace dg
