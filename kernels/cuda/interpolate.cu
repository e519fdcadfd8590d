// Interpolation and padding of the spatial axes of [N, C, spatial...] and their adjoints; index maps in common/interpolate.h. Nearest and linear
// taps are computed by the thread that needs them; the others come from tables that a first kernel makes. An adjoint gathers, for a position of
// x, the outputs that read it: these are neighbours, since the positions read never fall as the output position rises.
#include "../common/interpolate.h"

#include "planes.h"

namespace dg {
namespace {

template <class R>
struct Nearest {
  using real = R;
  InterpolateAxis<R> axis;
  bool exact, image;
  __device__ int64_t source(int64_t o) const { return exact ? axis.nearest_exact(o) : axis.nearest(o, image); }
  __device__ int64_t first(int64_t o) const { return source(o); }
  __device__ int64_t last(int64_t o) const { return source(o); }
  __device__ R weight(int64_t, int64_t) const { return R(1); }
  __device__ R reach() const { return R(0); }
};

template <class R>
struct Linear {
  using real = R;
  InterpolateAxis<R> axis;
  __device__ int64_t first(int64_t o) const {
    int64_t index[2];
    R by[2];
    axis.linear(o, index, by);
    return index[0];
  }
  __device__ int64_t last(int64_t o) const {
    int64_t index[2];
    R by[2];
    axis.linear(o, index, by);
    return index[1];
  }
  __device__ R weight(int64_t o, int64_t i) const {
    int64_t index[2];
    R by[2];
    axis.linear(o, index, by);
    return (index[0] == i ? by[0] : R(0)) + (index[1] == i ? by[1] : R(0));
  }
  __device__ R reach() const { return R(1); }
};

// Output o reads positions [low[o], low[o] + count[o]) with the weights of row o.
template <class R>
struct Table {
  using real = R;
  InterpolateAxis<R> axis;
  InterpolateMode mode;
  int64_t most;
  int64_t* low;
  R* rows;
  int32_t* count;

  __device__ int64_t first(int64_t o) const { return low[o]; }
  __device__ int64_t last(int64_t o) const { return low[o] + count[o] - 1; }
  __device__ R weight(int64_t o, int64_t i) const { return rows[o * most + i - low[o]]; }
  __device__ R reach() const { return mode == InterpolateMode::cubic ? R(2) : axis.radius(mode == InterpolateMode::cubic_antialias); }

  __device__ void make(int64_t o) const {
    R* const row = rows + o * most;
    if (mode == InterpolateMode::cubic) {  // taps beyond a border count for the position at it
      int64_t index[4];
      R by[4];
      axis.cubic(o, index, by);
      low[o] = index[0];
      count[o] = int32_t(index[3] - index[0]) + 1;
      for (int tap = 0; tap < 4; tap++)
        if (tap == 0 || index[tap] != index[tap - 1]) row[index[tap] - index[0]] = R(0);
      for (int tap = 0; tap < 4; tap++) row[index[tap] - index[0]] += by[tap];
      return;
    }
    const bool wide = mode == InterpolateMode::cubic_antialias;
    int64_t begin, taps;
    axis.span(o, wide, &begin, &taps);
    taps = taps < most ? taps : most;
    R total = R(0);
    for (int64_t i = 0; i < taps; i++) total += row[i] = axis.filter(o, begin + i, wide);
    if (total != R(0))
      for (int64_t i = 0; i < taps; i++) row[i] /= total;
    low[o] = begin;
    count[o] = int32_t(taps);
  }
};

// The outputs that read position i: numbers [begin, end), of which at() makes the output, or -1.
template <class Rule>
struct Readers {
  using R = typename Rule::real;
  const Rule& rule;
  int64_t i, begin, end;
  __device__ Readers(const Rule& rule_, int64_t i_) : rule(rule_), i(i_) {
    const int64_t out = rule.axis.out;
    const R scale = rule.axis.scale, guess = scale > R(0) ? (R(i) - rule.reach() + R(0.5)) / scale - R(0.5) : R(0);
    begin = guess > R(0) ? (guess < R(out) ? int64_t(guess) : out - 1) : 0;
    while (begin > 0 && rule.last(begin - 1) >= i) begin--;
    while (begin < out && rule.last(begin) < i) begin++;
    end = begin;
    while (end < out && rule.first(end) <= i) end++;
  }
  __device__ int64_t at(int64_t k) const { return k; }
  __device__ R weight(int64_t o) const { return rule.weight(o, i); }
};

template <>
struct Readers<PadAxis> {
  const PadAxis& rule;
  int64_t i, begin, end;
  __device__ Readers(const PadAxis& rule_, int64_t i_) : rule(rule_), i(i_) {
    if (rule.mode == PadMode::replicate) {
      begin = i == 0 ? 0 : rule.before + i;
      end = i == rule.in - 1 ? rule.out : rule.before + i + 1;
    } else {
      begin = 0;
      end = 3;
    }
  }
  __device__ int64_t at(int64_t k) const {
    if (rule.mode == PadMode::replicate) return k;
    int64_t o = rule.before + i;  // itself, and its images in front and behind
    if (rule.mode == PadMode::reflect) {
      if (k == 0) o = i > 0 ? rule.before - i : -1;
      if (k == 2) o = i < rule.in - 1 ? rule.before + 2 * (rule.in - 1) - i : -1;
    } else {
      o += (k - 1) * rule.in;
    }
    return o >= 0 && o < rule.out ? o : -1;
  }
  __device__ float weight(int64_t) const { return 1.0f; }
};

// y[o] = x[source of o]; T is any type of the size of an element.
template <class T, class Map, int N>
__global__ void resample_copy(Places<N> places, Map d, Map h, Map w, T* y, PlaneView vy, const T* x, PlaneView vx) {
  const int64_t item = thread_item();
  if (item >= places.count) return;
  const Place p = places.place(item);
  T value[N];
  load_channels(places, p, x + places.offset(p, vx, d.source(p.at[0]), h.source(p.at[1]), w.source(p.at[2])), vx.c, value);
  store_channels(places, p, y + places.offset(p, vy), vy.c, value);
}

template <class T, int N>
__global__ void resample_linear(Places<N> places, Linear<compute_t<T>> d, Linear<compute_t<T>> h, Linear<compute_t<T>> w, int axes, T* y,
                                PlaneView vy, const T* x, PlaneView vx) {
  using C = compute_t<T>;
  const int64_t item = thread_item();
  if (item >= places.count) return;
  const Place p = places.place(item);
  int64_t id[2], ih[2], iw[2];
  C wd[2], wh[2], ww[2], sum[N];
  d.axis.linear(p.at[0], id, wd);
  h.axis.linear(p.at[1], ih, wh);
  w.axis.linear(p.at[2], iw, ww);
#pragma unroll
  for (int j = 0; j < N; j++) sum[j] = 0;
#pragma unroll
  for (int a = 0; a < 2; a++) {
    if (a > 0 && axes < 3) break;
#pragma unroll
    for (int b = 0; b < 2; b++) {
      if (b > 0 && axes < 2) break;
#pragma unroll
      for (int k = 0; k < 2; k++) {
        C value[N];
        load_channels(places, p, x + places.offset(p, vx, id[a], ih[b], iw[k]), vx.c, value);
        const C by = wd[a] * wh[b] * ww[k];
#pragma unroll
        for (int j = 0; j < N; j++) sum[j] += by * value[j];
      }
    }
  }
  store_channels(places, p, y + places.offset(p, vy), vy.c, sum);
}

template <class R>
__global__ void resample_tables(Table<R> d, Table<R> h, Table<R> w) {
  int64_t item = thread_item();
  if (item < d.axis.out) return d.make(item);
  item -= d.axis.out;
  if (item < h.axis.out) return h.make(item);
  item -= h.axis.out;
  if (item < w.axis.out) w.make(item);
}

template <class T, int N>
__global__ void resample_table(Places<N> places, Table<compute_t<T>> d, Table<compute_t<T>> h, Table<compute_t<T>> w, T* y, PlaneView vy, const T* x,
                               PlaneView vx) {
  using C = compute_t<T>;
  const int64_t item = thread_item();
  if (item >= places.count) return;
  const Place p = places.place(item);
  const int64_t od = p.at[0], oh = p.at[1], ow = p.at[2];
  const T* const base = x + places.offset(p, vx, d.low[od], h.low[oh], w.low[ow]);
  const int32_t nd = d.count[od], nh = h.count[oh], nw = w.count[ow];
  C sum[N];
#pragma unroll
  for (int j = 0; j < N; j++) sum[j] = 0;
  for (int32_t a = 0; a < nd; a++)
    for (int32_t b = 0; b < nh; b++) {
      const C by = d.rows[od * d.most + a] * h.rows[oh * h.most + b];
      const T* from = base + vx.offset(a, b, 0);
      for (int32_t k = 0; k < nw; k++, from += vx.axis[2]) {
        const C f = by * w.rows[ow * w.most + k];
        C value[N];
        load_channels(places, p, from, vx.c, value);
#pragma unroll
        for (int j = 0; j < N; j++) sum[j] += f * value[j];
      }
    }
  store_channels(places, p, y + places.offset(p, vy), vy.c, sum);
}

template <class T, class Rule, int N>
__global__ void __launch_bounds__(kThreads, 2)
    resample_adjoint(Places<N> places, Rule d, Rule h, Rule w, T* dx, PlaneView vx, const T* dy, PlaneView vy) {
  using C = compute_t<T>;
  const int64_t item = thread_item();
  if (item >= places.count) return;
  const Place p = places.place(item);
  const Readers<Rule> rd(d, p.at[0]), rh(h, p.at[1]), rw(w, p.at[2]);
  C sum[N];
#pragma unroll
  for (int j = 0; j < N; j++) sum[j] = 0;
  for (int64_t a = rd.begin; a < rd.end; a++) {
    const int64_t od = rd.at(a);
    if (od < 0) continue;
    for (int64_t b = rh.begin; b < rh.end; b++) {
      const int64_t oh = rh.at(b);
      if (oh < 0) continue;
      const C by = C(rd.weight(od)) * C(rh.weight(oh));
      for (int64_t k = rw.begin; k < rw.end; k++) {
        const int64_t ow = rw.at(k);
        if (ow < 0) continue;
        const C f = by * C(rw.weight(ow));
        C value[N];
        load_channels(places, p, dy + places.offset(p, vy, od, oh, ow), vy.c, value);
#pragma unroll
        for (int j = 0; j < N; j++) sum[j] += f * value[j];
      }
    }
  }
  store_channels(places, p, dx + places.offset(p, vx), vx.c, sum);
}

template <class T, class Map>
void copy(const char* name, const Map (&axis)[3], const Tensor& y, const Tensor& x) {
  constexpr int N = sizeof(T) == 1 ? 8 : kChannels<T>;
  const Places<N> places(y, {&y, &x});
  const unsigned threads = threads_for(places.count);
  launch(name, resample_copy<T, Map, N>, blocks_for(places.count, threads), threads, 0, places, axis[0], axis[1], axis[2], y.data<T>(), PlaneView(y),
         x.data<T>(), PlaneView(x));
}

// As copy, for elements of any size.
template <class Map>
void copy_bits(const char* name, const Map (&axis)[3], const Tensor& y, const Tensor& x) {
  switch (dtype_size(x.dtype)) {
    case 1: return copy<uint8_t>(name, axis, y, x);
    case 2: return copy<uint16_t>(name, axis, y, x);
    case 4: return copy<uint32_t>(name, axis, y, x);
    default: return copy<uint64_t>(name, axis, y, x);
  }
}

template <class T, class Rule>
void adjoint(const char* name, const Rule (&axis)[3], const Tensor& dx, const Tensor& dy) {
  constexpr int N = kChannels<T>;
  const Places<N> places(dx, {&dx, &dy});
  const unsigned threads = threads_for(places.count);
  launch(name, resample_adjoint<T, Rule, N>, blocks_for(places.count, threads), threads, 0, places, axis[0], axis[1], axis[2], dx.data<T>(),
         PlaneView(dx), dy.data<T>(), PlaneView(dy));
}

// Linear interpolation, and the modes with tables.
template <class T, class R>
void weighted(const Interpolation& p, const InterpolateAxis<R> (&axis)[3], const Tensor& y, const Tensor& x) {
  const char* const name = p.name();
  constexpr int N = kChannels<T>;
  const Places<N> places(y, {&y, &x});
  const unsigned threads = threads_for(places.count), blocks = blocks_for(places.count, threads);
  if (p.mode == InterpolateMode::linear) {
    const Linear<R> rule[3] = {{axis[0]}, {axis[1]}, {axis[2]}};
    if (p.adjoint) return adjoint<T>(name, rule, y, x);
    return launch(name, resample_linear<T, N>, blocks, threads, 0, places, rule[0], rule[1], rule[2], p.axes, y.data<T>(), PlaneView(y), x.data<T>(),
                  PlaneView(x));
  }
  const auto table_of = [&](int a) { return Table<R>{axis[a], p.mode, int64_t(most_taps(p.mode, axis[a])), nullptr, nullptr, nullptr}; };
  Table<R> table[3] = {table_of(0), table_of(1), table_of(2)};
  int64_t outputs = 0, weights = 0;
  for (const Table<R>& t : table) outputs += t.axis.out, weights += t.axis.out * t.most;
  const Scratch scratch(outputs * 12 + weights * int64_t(sizeof(R)));
  int64_t* low = scratch.as<int64_t>();
  R* rows = reinterpret_cast<R*>(low + outputs);
  int32_t* count = reinterpret_cast<int32_t*>(rows + weights);
  for (Table<R>& t : table) {
    t.low = low, t.rows = rows, t.count = count;
    low += t.axis.out, rows += t.axis.out * t.most, count += t.axis.out;
  }
  const unsigned makers = threads_for(outputs);
  launch("resample_tables", resample_tables<R>, blocks_for(outputs, makers), makers, 0, table[0], table[1], table[2]);
  if (p.adjoint) return adjoint<T>(name, table, y, x);
  launch(name, resample_table<T, N>, blocks, threads, 0, places, table[0], table[1], table[2], y.data<T>(), PlaneView(y), x.data<T>(), PlaneView(x));
}

// Nearest modes in R, the type in which positions are computed.
template <class R>
void nearest(const Interpolation& p, const InterpolateAxis<R> (&axis)[3], const Tensor& y, const Tensor& x) {
  const char* const name = p.name();
  const bool exact = p.mode == InterpolateMode::nearest_exact, image = p.axes == 2;
  const Nearest<R> rule[3] = {{axis[0], exact, image}, {axis[1], exact, image}, {axis[2], exact, image}};
  if constexpr (std::is_same_v<R, double>) {
    if (p.adjoint) adjoint<double>(name, rule, y, x);
    else copy<uint64_t>(name, rule, y, x);
  } else if (p.adjoint) {
    switch (x.dtype) {
      case DG_F16: return adjoint<f16>(name, rule, y, x);
      case DG_BF16: return adjoint<bf16>(name, rule, y, x);
      default: return adjoint<float>(name, rule, y, x);
    }
  } else {
    copy_bits(name, rule, y, x);
  }
}

template <class R>
void interpolate_in(const Tensor& y, const Tensor& x, const Interpolation& p) {
  const InterpolateAxis<R> axis[3] = {p.axis<R>(0), p.axis<R>(1), p.axis<R>(2)};
  if (copies(p.mode)) return nearest<R>(p, axis, y, x);
  if constexpr (std::is_same_v<R, double>) {
    weighted<double>(p, axis, y, x);
  } else {
    switch (x.dtype) {
      case DG_F16: return weighted<f16>(p, axis, y, x);
      case DG_BF16: return weighted<bf16>(p, axis, y, x);
      default: return weighted<float>(p, axis, y, x);
    }
  }
}

}  // namespace

void interpolate(const Tensor& y, const Tensor& x, const Interpolation& p) {
  if (x.dtype == DG_F64) interpolate_in<double>(y, x, p);
  else interpolate_in<float>(y, x, p);
}

void pad(const Tensor& y, const Tensor& x, const Padding& p) {
  if (p.adjoint) dispatch_floats(x.dtype, p.name(), [&](auto in) { adjoint<typename decltype(in)::type>(p.name(), p.axis, y, x); });
  else copy_bits(p.name(), p.axis, y, x);
}

}  // namespace dg
