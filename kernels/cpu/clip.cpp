// Norm over all of several tensors, and scaling them down to it: total = (sum |g|^p)^(1/p), g *= min(1, max_norm / (total + 1e-6)).
// Sums run in double over fixed chunks, so the norm does not depend on the number of threads.
#include "../common/clip.h"

#include "elementwise.h"

namespace dg {
namespace {

struct Part {
  const Tensor* tensor;
  Loop<1> loop;
  int64_t begin, end;
};

std::vector<Part> parts_of(const std::vector<Tensor>& tensors) {
  std::vector<Part> parts;
  for (const Tensor& x : tensors) {
    if (x.numel == 0) continue;
    const Loop<1> loop({&x});
    for (int64_t begin = 0; begin < x.numel; begin += kGrain) parts.push_back({&x, loop, begin, std::min(x.numel, begin + kGrain)});
  }
  return parts;
}

template <class T>
double part_norm(const Part& part, double p) {
  double total = 0;
  const int64_t step = part.loop.strides[0][part.loop.rank - 1];
  part.loop.rows(part.begin, part.end, [&](const int64_t* offset, int64_t count) {
    const T* const x = part.tensor->data<T>() + offset[0];
    if (p == 2) {
      double sum = 0;
      auto add = [&](int64_t stride) {
#pragma omp simd reduction(+ : sum)
        for (int64_t i = 0; i < count; i++) {
          const double v = double(compute_t<T>(x[i * stride]));
          sum += v * v;
        }
      };
      if (step == 1) add(1);
      else add(step);
      total += sum;
    } else if (std::isinf(p)) {
      for (int64_t i = 0; i < count; i++) {
        const double v = std::fabs(double(compute_t<T>(x[i * step])));
        if (v > total || v != v) total = v;
        if (total != total) return;
      }
    } else {
      for (int64_t i = 0; i < count; i++) total += std::pow(std::fabs(double(compute_t<T>(x[i * step]))), p);
    }
  });
  return total;
}

template <class T>
void scale_part(const Part& part, double factor) {
  const int64_t step = part.loop.strides[0][part.loop.rank - 1];
  const auto f = compute_t<T>(factor);
  part.loop.rows(part.begin, part.end, [&](const int64_t* offset, int64_t count) {
    T* const x = part.tensor->data<T>() + offset[0];
    if (step == 1) {
#pragma omp simd
      for (int64_t i = 0; i < count; i++) x[i] = T(compute_t<T>(x[i]) * f);
    } else {
      for (int64_t i = 0; i < count; i++) x[i * step] = T(compute_t<T>(x[i * step]) * f);
    }
  });
}

}  // namespace

void clip_norm(const Tensor& out, const std::vector<Tensor>& tensors, double max_norm, double p, bool refuse_nonfinite) {
  const std::vector<Part> parts = parts_of(tensors);
  int64_t elements = 0;
  for (const Tensor& x : tensors) elements += x.numel;
  const int64_t grain = elements <= kGrain ? std::max<int64_t>(1, int64_t(parts.size())) : 1;  // small ones are not worth a second thread
  const auto each_part = [&](auto&& f) {
    parallel_for(int64_t(parts.size()), grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i++) f(size_t(i));
    });
  };
  std::vector<double> norms(parts.size());
  each_part([&](size_t i) {
    switch (parts[i].tensor->dtype) {
      case DG_F32: norms[i] = part_norm<float>(parts[i], p); break;
      case DG_F64: norms[i] = part_norm<double>(parts[i], p); break;
      case DG_F16: norms[i] = part_norm<f16>(parts[i], p); break;
      default: norms[i] = part_norm<bf16>(parts[i], p);
    }
  });
  double total = 0;
  for (const double v : norms) {
    if (!std::isinf(p)) total += v;
    else if (v > total || v != v) total = v;
    if (total != total) break;
  }
  total = p == 2 ? std::sqrt(total) : std::isinf(p) ? total : std::pow(total, 1 / p);
  if (refuse_nonfinite && !std::isfinite(total)) fail(DG_RANGE, "the total norm of the gradients is %g, so they cannot be clipped", total);
  if (out.dtype == DG_F32) *out.data<float>() = float(total);
  else *out.data<double>() = total;
  const double factor = clip_factor(max_norm, total);
  if (factor >= 1 || std::isinf(max_norm)) return;
  each_part([&](size_t i) {
    switch (parts[i].tensor->dtype) {
      case DG_F32: return scale_part<float>(parts[i], factor);
      case DG_F64: return scale_part<double>(parts[i], factor);
      case DG_F16: return scale_part<f16>(parts[i], factor);
      default: return scale_part<bf16>(parts[i], factor);
    }
  });
}

}  // namespace dg
