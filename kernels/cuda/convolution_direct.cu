// Convolutions with few channels a group (depthwise among them), where tiles would be mostly empty: a thread an output, in the output's memory order.
// The weight's gradient is a reduction down the positions with a column for each of its elements.
#include "columns.h"
#include "convolution.h"

namespace dg::conv {
namespace {

constexpr int kDirect = 128;  // threads of a block at most

// Sample, channel and position of element i of a tensor that is channels-last or row-major.
struct Place {
  int64_t sample, channel, at[3];
};
__device__ inline Place place_of(int64_t i, const int64_t (&sizes)[3], int64_t channels, bool channels_last) {
  Place p;
  const auto take = [&i](int64_t size) {
    const int64_t next = i < INT32_MAX && size < INT32_MAX ? int64_t(uint32_t(i) / uint32_t(size)) : i / size, digit = i - next * size;
    i = next;
    return digit;
  };
  if (channels_last) p.channel = take(channels);
#pragma unroll
  for (int k = 2; k >= 0; k--) p.at[k] = take(sizes[k]);
  if (!channels_last) p.channel = take(channels);
  p.sample = i;
  return p;
}

template <class T>
__device__ T* address(const Activation<T>& t, const Place& p) {
  return t.data + p.sample * t.sample + p.channel * t.channel + p.at[0] * t.at[0] + p.at[1] * t.at[1] + p.at[2] * t.at[2];
}

template <class T>
__global__ void __launch_bounds__(kDirect, 4)
    forward(const __grid_constant__ ConvShape s, Activation<T> y, Activation<T> x, Weight<T> w, const T* bias, int64_t bias_step, int64_t count) {
  using C = compute_t<T>;
  const int64_t step = int64_t(gridDim.x) * blockDim.x, channels = s.channels / s.groups, filters = s.filters / s.groups;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const Place p = place_of(i, s.output, s.filters, y.channel == 1);
    const T* const from = x.data + p.sample * x.sample + p.channel / filters * channels * x.channel;
    const T* const weights = w.data + p.channel * w.filter;
    C sum = bias ? C(bias[p.channel * bias_step]) : C(0);
    for (int64_t kz = 0; kz < s.kernel[0]; kz++) {
      const int64_t z = p.at[0] * s.stride[0] - s.padding[0] + kz * s.dilation[0];
      if (z < 0 || z >= s.input[0]) continue;
      for (int64_t ky = 0; ky < s.kernel[1]; ky++) {
        const int64_t v = p.at[1] * s.stride[1] - s.padding[1] + ky * s.dilation[1];
        if (v < 0 || v >= s.input[1]) continue;
        for (int64_t kx = 0; kx < s.kernel[2]; kx++) {
          const int64_t u = p.at[2] * s.stride[2] - s.padding[2] + kx * s.dilation[2];
          if (u < 0 || u >= s.input[2]) continue;
          const T* const px = from + z * x.at[0] + v * x.at[1] + u * x.at[2];
          const T* const pw = weights + kz * w.tap[0] + ky * w.tap[1] + kx * w.tap[2];
          for (int64_t c = 0; c < channels; c++) sum += C(px[c * x.channel]) * C(pw[c * w.channel]);
        }
      }
    }
    *address(y, p) = T(sum);
  }
}

// The output position from which tap k reaches `at`, -1 if none does.
__device__ inline int64_t reached(const ConvShape& s, int axis, int64_t at, int64_t k) {
  const int64_t reach = at + s.padding[axis] - k * s.dilation[axis], stride = s.stride[axis];
  if (reach < 0) return -1;
  const int64_t position = reach < INT32_MAX ? int64_t(uint32_t(reach) / uint32_t(stride)) : reach / stride;
  return position * stride == reach && position < s.output[axis] ? position : -1;
}

template <class T>
__global__ void __launch_bounds__(kDirect, 4) backward_input(const __grid_constant__ ConvShape s, Activation<T> dx, Activation<T> dy, Weight<T> w,
                                                           const T* bias, int64_t bias_step, int64_t count) {
  using C = compute_t<T>;
  const int64_t step = int64_t(gridDim.x) * blockDim.x, channels = s.channels / s.groups, filters = s.filters / s.groups;
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < count; i += step) {
    const Place p = place_of(i, s.input, s.channels, dx.channel == 1);
    const int64_t first = p.channel / channels * filters;
    const T* const from = dy.data + p.sample * dy.sample + first * dy.channel;
    const T* const weights = w.data + first * w.filter + p.channel % channels * w.channel;
    C sum = bias ? C(bias[p.channel * bias_step]) : C(0);
    for (int64_t kz = 0; kz < s.kernel[0]; kz++) {
      const int64_t z = reached(s, 0, p.at[0], kz);
      if (z < 0) continue;
      for (int64_t ky = 0; ky < s.kernel[1]; ky++) {
        const int64_t v = reached(s, 1, p.at[1], ky);
        if (v < 0) continue;
        for (int64_t kx = 0; kx < s.kernel[2]; kx++) {
          const int64_t u = reached(s, 2, p.at[2], kx);
          if (u < 0) continue;
          const T* const pg = from + z * dy.at[0] + v * dy.at[1] + u * dy.at[2];
          const T* const pw = weights + kz * w.tap[0] + ky * w.tap[1] + kx * w.tap[2];
          for (int64_t f = 0; f < filters; f++) sum += C(pg[f * dy.channel]) * C(pw[f * w.filter]);
        }
      }
    }
    *address(dx, p) = T(sum);
  }
}

// Columns: [tap][channel of the group][filter].
template <class T, class C>
struct WeightGradient {
  using State = SumState<C>;
  using Total = SumTotal;
  struct Column {
    const T *dy, *x;
    int64_t at[3];
  };
  ConvShape s;
  Activation<T> dy, x;
  Weight<T> dw;

  struct Element {
    int64_t filter, channel, tap[3];
  };
  __device__ Element element(int64_t column) const {
    const int64_t channels = s.channels / s.groups, tap = column / s.filters / channels;
    return {column % s.filters, column / s.filters % channels,
            {tap / s.kernel[2] / s.kernel[1], tap / s.kernel[2] % s.kernel[1], tap % s.kernel[2]}};
  }
  __device__ Column column(int64_t number) const {
    const Element e = element(number);
    const int64_t channel = e.filter / (s.filters / s.groups) * (s.channels / s.groups) + e.channel;
    Column c{dy.data + e.filter * dy.channel, x.data + channel * x.channel, {}};
#pragma unroll
    for (int i = 0; i < 3; i++) c.at[i] = e.tap[i] * s.dilation[i] - s.padding[i];
    return c;
  }
  template <int V, int P>
  __device__ void add(State (&sums)[V], int64_t row, int64_t, const Column (&columns)[P]) const {
    const Place p = place_of(row, s.output, 1, true);
#pragma unroll
    for (int j = 0; j < V; j++) {
      const Column& c = columns[j];
      int64_t offset = p.sample * x.sample;
      bool inside = true;
#pragma unroll
      for (int i = 0; i < 3; i++) {
        const int64_t at = p.at[i] * s.stride[i] + c.at[i];
        inside &= at >= 0 && at < s.input[i];
        offset += at * x.at[i];
      }
      if (inside) sums[j].value += C(*(c.dy + p.sample * dy.sample + p.at[0] * dy.at[0] + p.at[1] * dy.at[1] + p.at[2] * dy.at[2])) * C(c.x[offset]);
    }
  }
  __device__ void finish(int64_t column, const Total& total) const {
    const Element e = element(column);
    dw.data[e.filter * dw.filter + e.channel * dw.channel + e.tap[0] * dw.tap[0] + e.tap[1] * dw.tap[1] + e.tap[2] * dw.tap[2]] = T(C(total.value));
  }
};

unsigned threads_for(int64_t count) { return unsigned(std::clamp<int64_t>(std::bit_ceil(uint64_t(count)), 32, kDirect)); }

}  // namespace

template <class T>
void direct_forward(const ConvShape& s, const Activation<T>& y, const Activation<T>& x, const Weight<T>& w, const T* bias, int64_t bias_step) {
  const int64_t count = s.output_pixels() * s.filters;
  const unsigned threads = threads_for(count);
  launch("convolution_direct", forward<T>, blocks_for(count, threads), threads, 0, s, y, x, w, bias, bias_step, count);
}

template <class T>
void direct_backward_input(const ConvShape& s, const Activation<T>& dx, const Activation<T>& dy, const Weight<T>& w, const T* bias,
                           int64_t bias_step) {
  const int64_t count = s.input_pixels() * s.channels;
  const unsigned threads = threads_for(count);
  launch("convolution_direct_input", backward_input<T>, blocks_for(count, threads), threads, 0, s, dx, dy, w, bias, bias_step, count);
}

template <class T>
void direct_backward_weight(const ConvShape& s, const Weight<T>& dw, const Activation<T>& dy, const Activation<T>& x) {
  using Op = WeightGradient<T, compute_t<T>>;
  const Op op{s, dy, x, dw};
  const int64_t columns = s.taps() * s.group_channels() * s.filters;
  if (dy.channel == 1) return launch_columns<1>("convolution_direct_weight", op, s.output_pixels(), columns);
  // Neighbouring threads take neighbouring positions of one column.
  ColumnGrid g(s.output_pixels(), 1, 16, std::max<int64_t>(1, kColumnBlocks / columns));
  g.grid.x = unsigned(columns);
  const Scratch partials(partial_bytes<Op>(g, columns));
  launch("convolution_direct_weight", reduce_columns<1, Op>, g.grid, g.block, join_bytes<Op>(g), op, s.output_pixels(), columns,
         partials.template as<typename Op::State>(), counters());
}

#define DG_CONV_INSTANCES(T)                                                                                                                      \
  template void direct_forward(const ConvShape&, const Activation<T>&, const Activation<T>&, const Weight<T>&, const T*, int64_t);                \
  template void direct_backward_input(const ConvShape&, const Activation<T>&, const Activation<T>&, const Weight<T>&, const T*, int64_t);         \
  template void direct_backward_weight(const ConvShape&, const Weight<T>&, const Activation<T>&, const Activation<T>&)
DG_CONV_INSTANCES(float);
DG_CONV_INSTANCES(double);
DG_CONV_INSTANCES(f16);
DG_CONV_INSTANCES(bf16);
#undef DG_CONV_INSTANCES

}  // namespace dg::conv
