// Convolution of one to three spatial axes, forward and both gradients; the transposed form is these three exchanged.
// Here: checks, conversion to the internal form (channels-last, float or double) and the choice of the algorithm.
#include "convolution.h"

#include <optional>

#include "batch_norm.h"
#include "elementwise.h"

namespace dg {
namespace {

using namespace conv;

// float and double compute in themselves, the half types in float.
template <class F> void dispatch_compute(uint32_t dtype, F&& f) {
  if (dtype == DG_F64) return f(tag<double>{});
  return f(tag<float>{});
}

template <class T> uint32_t code_of() { return std::is_same_v<T, double> ? DG_F64 : DG_F32; }

// A header for `like` over memory of T, channels-last (row-major below rank 3).
template <class T> Tensor plain(const Tensor& like, T* data) {
  Tensor t = like;
  t.storage_data = reinterpret_cast<char*>(data);
  t.offset = 0;
  t.dtype = code_of<T>();
  if (t.rank == 1) {
    t.strides[0] = 1;
    return t;
  }
  int64_t step = t.sizes[1];
  t.strides[1] = 1;
  for (int i = t.rank - 1; i >= 2; i--) {
    t.strides[i] = step;
    step *= std::max<int64_t>(t.sizes[i], 1);
  }
  t.strides[0] = step;
  return t;
}

template <class T> void convert_copy(const Tensor& out, const Tensor& x) {
  auto from = [&](auto source) {
    using S = typename decltype(source)::type;
    if (out.dtype == DG_F16) map1<f16, S>(out, x, [](S v) { return f16(float(v)); });
    else if (out.dtype == DG_BF16) map1<bf16, S>(out, x, [](S v) { return bf16(float(v)); });
    else map1<T, S>(out, x, [](S v) { return T(v); });
  };
  if (x.dtype == DG_F16) from(tag<f16>{});
  else if (x.dtype == DG_BF16) from(tag<bf16>{});
  else from(tag<T>{});
}

bool usable(const Tensor& t, uint32_t dtype) { return t.dtype == dtype && (t.rank == 1 ? t.sizes[0] == 1 || t.strides[0] == 1 : t.channels_last()); }

// Elements between the pixels of a slice of the channels of a channels-last tensor, 0 for what is none.
int64_t pixel_of(const Tensor& t) {
  if (t.rank < 3 || (t.sizes[1] > 1 && t.strides[1] != 1)) return 0;
  int64_t pixel = 0, pixels = 1;
  const auto fits = [&](int axis) {
    if (t.sizes[axis] == 1) return true;
    if (pixel == 0) pixel = t.strides[axis];
    const bool right = t.strides[axis] == pixel * pixels;
    pixels *= t.sizes[axis];
    return right;
  };
  for (int axis = t.rank - 1; axis >= 2; axis--)
    if (!fits(axis)) return 0;
  return fits(0) && pixel >= t.sizes[1] ? pixel : 0;
}

// The operand in the internal form: itself where it has it, else a copy. With `pixel`, a slice of channels will do, too.
template <class T> class Source {
 public:
  explicit Source(const Tensor& t, int64_t* pixel = nullptr) {
    const int64_t apart = pixel && t.numel > 0 && t.dtype == code_of<T>() ? pixel_of(t) : 0;
    if (apart > 0) *pixel = apart;
    if (apart > 0 || usable(t, code_of<T>())) {
      data_ = t.data<T>();
      return;
    }
    if (t.dtype == code_of<T>() && t.rank > 1) count_reorder();
    memory_.emplace(scratch_bytes<T>({std::max<int64_t>(t.numel, 1)}));
    data_ = memory_->template as<T>();
    convert_copy<T>(plain<T>(t, memory_->template as<T>()), t);
  }
  const T* data() const { return data_; }

 private:
  const T* data_;
  std::optional<Scratch> memory_;
};

// Memory for a result in the internal form; finish() brings it to where it belongs.
template <class T> class Target {
 public:
  explicit Target(const Tensor& t) : t_(t), data_(t.data<T>()) {
    if (usable(t, code_of<T>())) return;
    if (t.dtype == code_of<T>() && t.rank > 1) count_reorder();
    memory_.emplace(scratch_bytes<T>({std::max<int64_t>(t.numel, 1)}));
    data_ = memory_->template as<T>();
  }
  T* data() const { return data_; }
  void finish() const {
    if (memory_) convert_copy<T>(t_, plain<T>(t_, memory_->template as<T>()));
  }

 private:
  const Tensor& t_;
  T* data_;
  std::optional<Scratch> memory_;
};

// Weights keep their memory order unless they need converting.
template <class T, class Body> void with_weight(const Tensor& t, Body&& body) {
  if (t.dtype == code_of<T>()) return body(Weight<const T>(t, t.data<T>()));
  const Source<T> source(t);
  body(Weight<const T>(plain<T>(t, nullptr), source.data()));
}

template <class T> void forward_in(const ConvShape& s, T* y, const T* x, const Tensor& w, const Finish<T>& f) {
  with_weight<T>(w, [&](const Weight<const T>& weight) {
    if (depthwise_fits<T>(s)) return depthwise_forward<T>(s, y, x, weight, f);
    if (grouped_fits(s, false)) return grouped_forward<T>(s, y, x, weight, f);
    if (few_fits<T>(s, Pass::forward)) return few_forward<T>(s, y, x, weight, f);
    if constexpr (std::is_same_v<T, float>)
      if (winograd_chosen(s, Pass::forward)) return winograd_forward(s, y, x, weight, f);
    if (rows_fits<T>(s)) return rows_forward<T>(s, y, x, weight, f);
    gemm_forward<T>(s, y, x, weight, f);
  });
}

template <class T> void backward_weight_in(const ConvShape& s, const Weight<T>& dw, const T* dy, const T* x) {
  if (depthwise_fits<T>(s)) return depthwise_backward_weight<T>(s, dw, dy, x);
  if (grouped_fits(s, false)) return grouped_backward_weight<T>(s, dw, dy, x);
  if (few_fits<T>(s, Pass::weight)) return few_backward_weight<T>(s, dw, dy, x);
  if constexpr (std::is_same_v<T, float>)
    if (winograd_chosen(s, Pass::weight)) return winograd_backward_weight(s, dw, dy, x);
  if (rows_fits<T>(s)) return rows_backward_weight<T>(s, dw, dy, x);
  gemm_backward_weight<T>(s, dw, dy, x);
}

}  // namespace

void conv_forward(const ConvShape& given, const Tensor& y, const Tensor& x, const Tensor& w, const Tensor* bias) {
  if (y.numel == 0) return;
  dispatch_compute(x.dtype, [&](auto kind) {
    using T = typename decltype(kind)::type;
    ConvShape s = given;
    const Source<T> in(x, &s.pixel);
    const Target<T> out(y);
    std::optional<Source<T>> b;
    if (bias) b.emplace(*bias);
    Finish<T> f;
    if (b) f.bias = b->data();
    forward_in<T>(s, out.data(), in.data(), w, f);
    out.finish();
  });
}

void conv_norm(const ConvShape& given, const batch_norm::Shape&, const Tensor& y, const Tensor& x, const Tensor& w, const Tensor* bias,
               const BatchNormChannels& channels, const BatchNormVariance& variance, const Tensor* residual, bool relu) {
  dispatch_compute(x.dtype, [&](auto kind) {
    using T = typename decltype(kind)::type;
    ConvShape s = given;
    const Source<T> in(x, &s.pixel);
    const Target<T> out(y);
    std::optional<Source<T>> b, r;
    if (bias) b.emplace(*bias);
    if (residual) r.emplace(*residual);
    const int64_t width = s.filters + kPanel<T>;
    const Scratch memory(scratch_bytes<T>({3, width}));
    T *const centre = memory.as<T>(), *const scale = centre + width, *const shift = scale + width;
    std::fill_n(centre, 3 * width, T(0));
    const T *const mean = channels.mean->data<T>(), *const var = variance.var->data<T>();
    const T *const weight = data_or_null<T>(channels.weight), *const summand = data_or_null<T>(channels.bias);
    for (int64_t c = 0; c < s.filters; c++) {
      centre[c] = -mean[c];
      scale[c] = inverse_deviation(var[c], variance.eps);
    }
    for (int64_t c = 0; b && c < s.filters; c++) centre[c] += b->data()[c];
    for (int64_t c = 0; weight && c < s.filters; c++) scale[c] *= weight[c];
    if (summand) std::copy_n(summand, s.filters, shift);
    Finish<T> f;
    f.bias = centre, f.scale = scale, f.shift = shift;
    if (r) f.residual = r->data();
    f.y = out.data();
    if (relu) f.least = T(0);
    forward_in<T>(s, out.data(), in.data(), w, f);
    out.finish();
  });
}

void conv_stats(const ConvShape& given, const batch_norm::Shape& n, const Tensor& y, const Tensor& x, const Tensor& w, const Tensor* bias,
                const Tensor& mean, const Tensor& var, const BatchNormUpdate& update) {
  ConvShape s = given;
  const bool winograd = usable(y, DG_F32) && !grouped_fits(s, false) && !few_fits<float>(s, Pass::forward) && winograd_chosen(s, Pass::forward);
  const int64_t jobs = winograd ? winograd_moment_jobs(s) : 0;
  if (jobs == 0) {
    conv_forward(s, y, x, w, bias);
    return batch_norm_stats(n, mean, var, y, update);
  }
  const Source<float> in(x, &s.pixel);
  std::optional<Source<float>> b;
  if (bias) b.emplace(*bias);
  Finish<float> f;
  if (b) f.bias = b->data();
  const Scratch counts(scratch_bytes<int64_t>({jobs})), means(scratch_bytes<double>({jobs, s.filters})), squares(scratch_bytes<float>({jobs, s.filters}));
  const JobMoments moments{counts.as<int64_t>(), means.as<double>(), squares.as<float>()};
  winograd_forward(s, y.data<float>(), in.data(), Weight<const float>(w, w.data<float>()), f, &moments);
  batch_norm::merge_moments<float>(s.filters, jobs, [&](int64_t job) { return moments.counts[job]; }, moments.means, moments.squares,
                                   mean.data<float>(), var.data<float>());
  const ChannelUpdate<float> next = update.of<float>();
  for (int64_t c = 0; c < s.filters; c++) next(c, mean.data<float>()[c], var.data<float>()[c]);
}

void conv_backward_input(const ConvShape& s, const Tensor& dx, const Tensor& dy, const Tensor& w, const Tensor* bias) {
  if (dx.numel == 0) return;
  dispatch_compute(dx.dtype, [&](auto kind) {
    using T = typename decltype(kind)::type;
    const Source<T> in(dy);
    const Target<T> out(dx);
    std::optional<Source<T>> b;
    if (bias) b.emplace(*bias);
    const T* const bias_data = b ? b->data() : nullptr;
    with_weight<T>(w, [&](const Weight<const T>& weight) {
      if (depthwise_fits<T>(s)) return depthwise_backward_input<T>(s, out.data(), in.data(), weight, bias_data);
      if (grouped_fits(s, true)) return grouped_backward_input<T>(s, out.data(), in.data(), weight, bias_data);
      if (few_fits<T>(s, Pass::input)) return few_backward_input<T>(s, out.data(), in.data(), weight, bias_data);
      if constexpr (std::is_same_v<T, float>)
        if (winograd_chosen(s, Pass::input)) return winograd_backward_input(s, out.data(), in.data(), weight, bias_data);
      gemm_backward_input<T>(s, out.data(), in.data(), weight, bias_data);
    });
    out.finish();
  });
}

void conv_backward_weight(const ConvShape& given, const Tensor& dw, const Tensor* db, const Tensor& dy, const Tensor& x) {
  dispatch_compute(x.dtype, [&](auto kind) {
    using T = typename decltype(kind)::type;
    ConvShape s = given;
    const Source<T> g(dy), in(x, &s.pixel);
    if (dw.numel > 0) {
      if (dw.dtype == code_of<T>()) {
        backward_weight_in<T>(s, Weight<T>(dw, dw.data<T>()), g.data(), in.data());
      } else {
        const Target<T> out(dw);
        backward_weight_in<T>(s, Weight<T>(plain<T>(dw, nullptr), out.data()), g.data(), in.data());
        out.finish();
      }
    }
    if (!db) return;
    const Target<T> out(*db);
    backward_bias<T>(s, out.data(), g.data());
    out.finish();
  });
}

}  // namespace dg
