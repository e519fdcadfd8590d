// Writing through indices, in place. Every index is checked before the first write. Where an element is written to more than once the order is that of
// the index, on any number of threads: work is shared by destination, never by index.
#include "../common/scatter.h"

#include <optional>

#include "indexing.h"

namespace dg {
namespace {

// Checks the index and, where it is not int64 or lies in memory that is about to be written to, copies it.
class CheckedIndex {
 public:
  CheckedIndex(const Tensor& index, const Tensor& out, int axis) : view(index) {
    const bool copy = index.dtype != DG_I64 || overlaps(index, out);
    const Tensor order = row_major(index);
    const Loop<2> loop({&order, &index});
    const int64_t step = loop.strides[1][loop.rank - 1], size = out.sizes[axis];
    if (copy) scratch_.emplace(std::max<int64_t>(8, index.numel * 8));
    int64_t* const to = copy ? scratch_->as<int64_t>() : nullptr;
    BadIndex bad;
    dispatch_index(index, [&](auto kind) {
      using I = typename decltype(kind)::type;
      parallel_for(loop.numel, kGrain, [&](int64_t begin, int64_t end) {
        loop.rows(begin, end, [&](const int64_t* offset, int64_t count) {
          const I* const from = index.data<I>() + offset[1];
          for (int64_t i = 0; i < count; i++) {
            const int64_t at = from[i * step];
            if (uint64_t(at) >= uint64_t(size)) bad.note(offset[0] + i, at);
            if (to) to[offset[0] + i] = at;
          }
        });
      });
    });
    bad.check(size, axis, false);
    if (!copy) return;
    view = row_major(index);
    view.dtype = DG_I64;
    view.storage_data = reinterpret_cast<char*>(to);
  }
  Tensor view;

 private:
  std::optional<Scratch> scratch_;
};

// out[..., index[..., a, ...], ...] = f(old, src[..., a, ...]) for a in order along `axis`; lanes are the positions of the other axes.
template <class T, class F>
void scatter_lanes(const Tensor& out, const Tensor& index, const Tensor& src, int axis, F f) {
  Tensor lanes[3] = {out, index, src};
  for (Tensor& lane : lanes) {
    std::copy(index.sizes, index.sizes + index.rank, lane.sizes);
    lane.sizes[axis] = 1;
    lane.numel = index.sizes[axis] ? index.numel / index.sizes[axis] : 0;
  }
  const Loop<3> loop({&lanes[1], &lanes[0], &lanes[2]});
  const int last = loop.rank - 1;
  const int64_t li = loop.strides[0][last], lo = loop.strides[1][last], ls = loop.strides[2][last];
  const int64_t length = index.sizes[axis], ai = index.strides[axis], ao = out.strides[axis], as = src.strides[axis];
  T* const po = out.data<T>();
  const int64_t* const pi = index.data<int64_t>();
  const T* const ps = src.data<T>();
  // Destinations [low, high) along the axis, for lanes [begin, end).
  auto run = [&](int64_t begin, int64_t end, int64_t low, int64_t high) {
    loop.rows(begin, end, [&](const int64_t* offset, int64_t count) {
      const int64_t* const ix = pi + offset[0];
      T* const o = po + offset[1];
      const T* const v = ps + offset[2];
      auto step = [=, &f](int64_t at, T* to, const T* from) {
        if (at >= low && at < high) to[at * ao] = f(to[at * ao], *from);
      };
      if (ai < li || count == 1) {
        for (int64_t lane = 0; lane < count; lane++)
          for (int64_t a = 0; a < length; a++) step(ix[lane * li + a * ai], o + lane * lo, v + lane * ls + a * as);
      } else {
        for (int64_t a = 0; a < length; a++)
          for (int64_t lane = 0; lane < count; lane++) step(ix[lane * li + a * ai], o + lane * lo, v + lane * ls + a * as);
      }
    });
  };
  // Lanes that lie next to each other in memory are walked together: enough of them to use whole cache lines.
  const int64_t size = out.sizes[axis], grain = std::clamp<int64_t>(kGrain / std::max<int64_t>(length, 1), ai < li ? 1 : 256, 4096);
  const int64_t parts = std::min<int64_t>(thread_count(), size);
  if (loop.numel <= grain && length > 4 * kGrain && parts > 1)
    parallel_for(parts, 1, [&](int64_t p, int64_t) { run(0, loop.numel, size * p / parts, size * (p + 1) / parts); });
  else parallel_for(loop.numel, grain, [&](int64_t begin, int64_t end) { run(begin, end, 0, size); });
}

template <class T, class F>
void write_rows(const Tensor& x, const Tensor& src, const RowOffsets& rows, F f) {
  const int lead = rows.shape.rank;
  const Tensor x_row = trailing_axes(x, rows.count), src_row = trailing_axes(src, lead);
  const int64_t length = x_row.numel, n = rows.size();
  if (n == 0 || length == 0) return;
  const Loop<2> row({&x_row, &src_row});
  const Positions sources(leading_axes(src, lead));
  const int64_t sx = row.strides[0][row.rank - 1], ss = row.strides[1][row.rank - 1];
  const bool unit = sx == 1 && ss == 1;
  T* const px = x.data<T>();
  const T* const ps = src.data<T>();
  auto write = [&](int64_t b, int64_t begin, int64_t end) {
    T* const o = px + rows.offsets()[b];
    const T* const a = ps + sources.offsets()[b];
    if (length == 1) {
      *o = f(*o, *a);
      return;
    }
    row.rows(begin, end, [&](const int64_t* offset, int64_t count) {
      T* const to = o + offset[0];
      const T* const from = a + offset[1];
      if (unit) {
#pragma omp simd
        for (int64_t i = 0; i < count; i++) to[i] = f(to[i], from[i]);
      } else {
        for (int64_t i = 0; i < count; i++) to[i * sx] = f(to[i * sx], from[i * ss]);
      }
    });
  };
  const int64_t piece = 4096, pieces = (length + piece - 1) / piece, parts = thread_count();
  if (n * length < kGrain || parts == 1) {
    for (int64_t b = 0; b < n; b++) write(b, 0, length);
  } else if (pieces >= 2) {  // long rows: by pieces of the row
    parallel_for(pieces, 1, [&](int64_t p, int64_t) {
      for (int64_t b = 0; b < n; b++) write(b, p * piece, std::min(length, (p + 1) * piece));
    });
  } else {  // each row has one owner
    parallel_for(parts, 1, [&](int64_t p, int64_t) {
      for (int64_t b = 0; b < n; b++) {
        const uint64_t hash = uint64_t(rows.offsets()[b]) * 0x9e3779b97f4a7c15u >> 32;
        if (int64_t(hash % uint64_t(parts)) == p) write(b, 0, length);
      }
    });
  }
}

// One element that stands for all of `sizes`.
struct Constant {
  Constant(const Tensor& sizes, double value) : tensor(sizes) {
    dispatch_all(sizes.dtype, "scatter", [&](auto kind) { set(convert<typename decltype(kind)::type>(value)); });
  }
  Constant(const Tensor& sizes, ScatterOp op) : tensor(sizes) {
    dispatch_numbers(sizes.dtype, "scatter", [&](auto kind) { set(scatter_identity<typename decltype(kind)::type>(op)); });
  }
  Constant(const Constant&) = delete;
  Tensor tensor;

 private:
  template <class T>
  void set(T v) {
    std::memcpy(bytes, &v, sizeof v);
    tensor.storage_data = bytes;
    tensor.offset = 0;
    std::fill(tensor.strides, tensor.strides + DG_MAX_RANK, 0);
  }
  alignas(8) char bytes[8];
};

// The elements of a source, which may be a constant.
class Source {
 public:
  explicit Source(const ScatterSource& src) {
    if (src.constant) constant_.emplace(src.tensor, src.value);
    tensor = src.constant ? constant_->tensor : src.tensor;
  }
  Tensor tensor;

 private:
  std::optional<Constant> constant_;
};

void write_lanes(const Tensor& out, const Tensor& index, const Tensor& src, int axis, ScatterOp op) {
  if (op == ScatterOp::assign) {
    return dispatch_width(out.dtype, [&](auto kind) {
      using T = typename decltype(kind)::type;
      scatter_lanes<T>(out, index, src, axis, [](T, T v) { return v; });
    });
  }
  dispatch_numbers(out.dtype, "scatter", [&](auto kind) {
    using T = typename decltype(kind)::type;
    auto go = [&]<ScatterOp which>() { scatter_lanes<T>(out, index, src, axis, [](T old, T v) { return scatter_value<which, T>(old, v); }); };
    switch (op) {
      case ScatterOp::sum: return go.template operator()<ScatterOp::sum>();
      case ScatterOp::prod: return go.template operator()<ScatterOp::prod>();
      case ScatterOp::amax: return go.template operator()<ScatterOp::amax>();
      default: return go.template operator()<ScatterOp::amin>();
    }
  });
}

}  // namespace

void scatter(const Tensor& out, const Tensor& index, const ScatterSource& source, int axis, ScatterOp op, bool include_self) {
  const Source src(source);
  const CheckedIndex checked(index, out, axis);
  if (!include_self && op != ScatterOp::assign) {
    Tensor sizes = index;
    sizes.dtype = out.dtype;
    write_lanes(out, checked.view, Constant(sizes, op).tensor, axis, ScatterOp::assign);
  }
  write_lanes(out, checked.view, src.tensor, axis, op);
}

void index_put(const Tensor& x, const ScatterSource& source, const RowIndices& indices, ScatterOp op) {
  const Source src(source);
  const RowOffsets rows(indices, x);
  if (op == ScatterOp::assign) {
    return dispatch_width(x.dtype, [&](auto kind) {
      using T = typename decltype(kind)::type;
      write_rows<T>(x, src.tensor, rows, [](T, T v) { return v; });
    });
  }
  dispatch_numbers(x.dtype, "index_put", [&](auto kind) {
    using T = typename decltype(kind)::type;
    write_rows<T>(x, src.tensor, rows, [](T old, T v) { return scatter_value<ScatterOp::sum, T>(old, v); });
  });
}

}  // namespace dg
