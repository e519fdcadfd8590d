// Blocks of elements of any dtype and stride, read into and written from a compute type: how one kernel serves several dtypes.
#pragma once
#if defined(__F16C__)
#include <immintrin.h>
#endif

#include "../common/plan.h"
#include "elementwise.h"

namespace dg {

// out[i] = A(x[i * stride]).
template <class A, class T>
void load_block(A* out, const T* x, int64_t stride, int64_t count) {
  int64_t i = 0;
#if defined(__F16C__)
  if constexpr (std::is_same_v<T, f16> && std::is_same_v<A, float>) {
    if (stride == 1)
      for (; i + 8 <= count; i += 8)
        _mm256_storeu_ps(out + i, _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i))));
  }
#endif
  if (stride == 1) {
    for (; i < count; i++) out[i] = static_cast<A>(static_cast<compute_t<T>>(x[i]));
  } else {
    for (; i < count; i++) out[i] = static_cast<A>(static_cast<compute_t<T>>(x[i * stride]));
  }
}

// out[i * stride] = T(x[i]).
template <class T, class A>
void store_block(T* out, int64_t stride, const A* x, int64_t count) {
  int64_t i = 0;
#if defined(__F16C__)
  if constexpr (std::is_same_v<T, f16> && std::is_same_v<A, float>) {
    if (stride == 1)
      for (; i + 8 <= count; i += 8)
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
  }
#endif
  if (stride == 1) {
    for (; i < count; i++) out[i] = convert<T>(x[i]);
  } else {
    for (; i < count; i++) out[i * stride] = convert<T>(x[i]);
  }
}

// A tensor's elements as numbers of type A (float, double or int64_t), whatever their dtype; with `truth`, 1 where not 0.
template <class A>
struct Reader {
  using Load = void (*)(A* out, const char* base, int64_t at, int64_t stride, int64_t count);
  const char* base = nullptr;
  Load load = nullptr;
  bool direct = false;  // the elements are of type A already

  const A* elements(int64_t at) const { return reinterpret_cast<const A*>(base) + at; }

  // `count` elements from `at`: where they lie when they need no conversion, else in `buffer`.
  const A* read(A* buffer, int64_t at, int64_t stride, int64_t count) const {
    if (direct && stride == 1) return elements(at);
    load(buffer, base, at, stride, count);
    return buffer;
  }
};

template <class A, class T>
Reader<A> reader_as(const Tensor& x) {
  return {reinterpret_cast<const char*>(x.data<T>()),
          [](A* out, const char* base, int64_t at, int64_t stride, int64_t count) {
            load_block<A, T>(out, reinterpret_cast<const T*>(base) + at, stride, count);
          },
          std::is_same_v<A, T>};
}

template <class A>
Reader<A> reader_of(const Tensor& x, const char* op) {
  if constexpr (std::is_same_v<A, float>) {
    switch (x.dtype) {
      case DG_F32: return reader_as<float, float>(x);
      case DG_F16: return reader_as<float, f16>(x);
      case DG_BF16: return reader_as<float, bf16>(x);
      default: break;
    }
  } else if constexpr (std::is_same_v<A, double>) {
    if (x.dtype == DG_F64) return reader_as<double, double>(x);
  } else {
    switch (x.dtype) {
      case DG_I32: return reader_as<int64_t, int32_t>(x);
      case DG_I64: return reader_as<int64_t, int64_t>(x);
      case DG_U8: return reader_as<int64_t, uint8_t>(x);
      case DG_BOOL: return reader_as<int64_t, bool>(x);
      default: break;
    }
  }
  fail(DG_DTYPE, "%s: does not take %s", op, dtype_name(x.dtype));
}

// 1 where an element is not 0, for every dtype.
inline Reader<int64_t> truth_reader(const Tensor& x, const char* op) {
  Reader<int64_t> reader;
  dispatch_all(x.dtype, op, [&](auto kind) {
    using T = typename decltype(kind)::type;
    reader.base = reinterpret_cast<const char*>(x.data<T>());
    reader.load = [](int64_t* out, const char* base, int64_t at, int64_t stride, int64_t count) {
      const T* p = reinterpret_cast<const T*>(base) + at;
      for (int64_t i = 0; i < count; i++) out[i] = static_cast<compute_t<T>>(p[i * stride]) != 0;
    };
  });
  return reader;
}

// Writes `count` numbers of type A to the elements of `out` from `at`.
template <class A>
void write_elements(const Tensor& out, int64_t at, int64_t stride, const A* x, int64_t count) {
  if constexpr (std::is_same_v<A, int64_t>) {
    switch (out.dtype) {
      case DG_I32: return store_block(out.data<int32_t>() + at, stride, x, count);
      case DG_I64: return store_block(out.data<int64_t>() + at, stride, x, count);
      case DG_U8: return store_block(out.data<uint8_t>() + at, stride, x, count);
      default: return store_block(out.data<bool>() + at, stride, x, count);
    }
  } else if constexpr (std::is_same_v<A, double>) {
    store_block(out.data<double>() + at, stride, x, count);
  } else {
    switch (out.dtype) {
      case DG_F16: return store_block(out.data<f16>() + at, stride, x, count);
      case DG_BF16: return store_block(out.data<bf16>() + at, stride, x, count);
      default: return store_block(out.data<float>() + at, stride, x, count);
    }
  }
}

}  // namespace dg
