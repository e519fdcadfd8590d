// Elementwise families without a template per dtype: an operation is a loop over contiguous blocks of a compute type (float, double or
// int64_t); other dtypes and strides are staged through blocks in the first-level cache.
#pragma once
#include "staging.h"

namespace dg {

// Elements of a staged block.
inline constexpr int64_t kStage = 1024;

// Stores results of type R (a compute type or bool) into a tensor.
template <class R>
struct Writer {
  char* base = nullptr;
  void (*store)(char* base, int64_t at, int64_t stride, const R* x, int64_t count) = nullptr;
  bool direct = false;
  R* elements(int64_t at) const { return reinterpret_cast<R*>(base) + at; }
};

template <class R, class T>
Writer<R> writer_as(const Tensor& out) {
  return {reinterpret_cast<char*>(out.data<T>()),
          [](char* base, int64_t at, int64_t stride, const R* x, int64_t count) {
            store_block<T, R>(reinterpret_cast<T*>(base) + at, stride, x, count);
          },
          std::is_same_v<R, T>};
}

template <class R>
Writer<R> writer_of(const Tensor& out, const char* op) {
  if constexpr (std::is_same_v<R, bool>) {
    if (out.dtype == DG_BOOL) return writer_as<bool, bool>(out);
  } else if constexpr (std::is_same_v<R, double>) {
    if (out.dtype == DG_F64) return writer_as<double, double>(out);
  } else if constexpr (std::is_same_v<R, float>) {
    switch (out.dtype) {
      case DG_F32: return writer_as<float, float>(out);
      case DG_F16: return writer_as<float, f16>(out);
      case DG_BF16: return writer_as<float, bf16>(out);
      default: break;
    }
  } else {
    switch (out.dtype) {
      case DG_I32: return writer_as<int64_t, int32_t>(out);
      case DG_I64: return writer_as<int64_t, int64_t>(out);
      case DG_U8: return writer_as<int64_t, uint8_t>(out);
      case DG_BOOL: return writer_as<int64_t, bool>(out);
      default: break;
    }
  }
  fail(DG_DTYPE, "%s: the output cannot be %s", op, dtype_name(out.dtype));
}

// Parameters of an operation, as it likes to read them.
struct Parameters {
  double a = 0, b = 0;
};

template <class R, class A> using Map1 = void (*)(R* out, const A* x, int64_t count, const Parameters& p);
template <class R, class A> using Map2 = void (*)(R* out, const A* x, const A* y, int64_t count, const Parameters& p);

// out[i] = f(x[i]).
template <class R, class A>
void map_blocks(const Tensor& out, const Tensor& x, Map1<R, A> f, const Parameters& p, const Writer<R>& w, const Reader<A>& rx) {
  const Loop<2> loop({&out, &x});
  const int64_t so = loop.strides[0][loop.rank - 1], sx = loop.strides[1][loop.rank - 1];
  const bool straight = w.direct && so == 1 && rx.direct && sx == 1;
  parallel_for(loop.numel, kGrain, [&](int64_t begin, int64_t end) {
    alignas(64) A bx[kStage];
    alignas(64) R bo[kStage];
    loop.rows(begin, end, [&](const int64_t* offset, int64_t count) {
      if (straight) return f(w.elements(offset[0]), rx.elements(offset[1]), count, p);
      for (int64_t i = 0; i < count; i += kStage) {
        const int64_t n = std::min(kStage, count - i);
        const A* px = rx.read(bx, offset[1] + i * sx, sx, n);
        if (w.direct && so == 1) {
          f(w.elements(offset[0] + i), px, n, p);
        } else {
          f(bo, px, n, p);
          w.store(w.base, offset[0] + i * so, so, bo, n);
        }
      }
    });
  });
}

// out[i] = f(x[i], y[i]).
template <class R, class A>
void map_blocks(const Tensor& out, const Tensor& x, const Tensor& y, Map2<R, A> f, const Parameters& p, const Writer<R>& w,
                const Reader<A>& rx, const Reader<A>& ry) {
  const Loop<3> loop({&out, &x, &y});
  const int last = loop.rank - 1;
  const int64_t so = loop.strides[0][last], sx = loop.strides[1][last], sy = loop.strides[2][last];
  const bool straight = w.direct && so == 1 && rx.direct && sx == 1 && ry.direct && sy == 1;
  parallel_for(loop.numel, kGrain, [&](int64_t begin, int64_t end) {
    alignas(64) A bx[kStage];
    alignas(64) A by[kStage];
    alignas(64) R bo[kStage];
    loop.rows(begin, end, [&](const int64_t* offset, int64_t count) {
      if (straight) return f(w.elements(offset[0]), rx.elements(offset[1]), ry.elements(offset[2]), count, p);
      for (int64_t i = 0; i < count; i += kStage) {
        const int64_t n = std::min(kStage, count - i);
        // A broadcast operand fills its block once a row.
        const A* px = sx == 0 && i > 0 ? bx : rx.read(bx, offset[1] + i * sx, sx, sx == 0 ? std::min(kStage, count) : n);
        const A* py = sy == 0 && i > 0 ? by : ry.read(by, offset[2] + i * sy, sy, sy == 0 ? std::min(kStage, count) : n);
        if (w.direct && so == 1) {
          f(w.elements(offset[0] + i), px, py, n, p);
        } else {
          f(bo, px, py, n, p);
          w.store(w.base, offset[0] + i * so, so, bo, n);
        }
      }
    });
  });
}

// A view of one number with the sizes of `like`; `value` must be of the compute type of its dtype.
template <class A>
Tensor constant_like(const Tensor& like, A* value) {
  Tensor t = like;
  t.storage_data = reinterpret_cast<char*>(value);
  t.offset = 0;
  t.dtype = std::is_same_v<A, float> ? DG_F32 : std::is_same_v<A, double> ? DG_F64 : DG_I64;
  std::fill_n(t.strides, DG_MAX_RANK, int64_t(0));
  return t;
}

}  // namespace dg
