// Element types, their C++ counterparts and dispatch. Half types are stored in 16 bits and computed in float.
#pragma once
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../abi.h"
#include "status.h"

#ifdef __CUDACC__
#include <cuda_fp16.h>
#define DG_HD __host__ __device__ inline
#else
#define DG_HD inline
#endif
// Functions that loops over elements call: left as a call, one would keep its loop from being vectorised.
#if defined(__CUDACC__)
#define DG_MATH DG_HD
#else
#define DG_MATH [[gnu::always_inline]] inline
#endif

namespace dg {

// bfloat16: the upper half of a float, rounded to nearest even.
struct bf16 {
  uint16_t bits;
  bf16() = default;
  DG_HD bf16(float value) {
    uint32_t u;
    memcpy(&u, &value, 4);
    bits = (u & 0x7fffffffu) > 0x7f800000u ? uint16_t((u >> 16) | 0x40u) : uint16_t((u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  }
  DG_HD operator float() const {
    uint32_t u = uint32_t(bits) << 16;
    float value;
    memcpy(&value, &u, 4);
    return value;
  }
};

// IEEE half precision, rounded to nearest even by the compiler (F16C where the machine has it) or by CUDA's own conversion.
struct f16 {
#ifdef __CUDACC__
  uint16_t value;
  f16() = default;
  DG_HD f16(float v) : value(__half_as_ushort(__float2half_rn(v))) {}
  DG_HD operator float() const { return __half2float(__ushort_as_half(value)); }
#else
  _Float16 value;
  f16() = default;
  f16(float v) : value(static_cast<_Float16>(v)) {}
  operator float() const { return static_cast<float>(value); }
#endif
};

// The type in which an element of type T is computed.
template <class T> struct compute { using type = T; };
template <> struct compute<f16> { using type = float; };
template <> struct compute<bf16> { using type = float; };
template <class T> using compute_t = typename compute<T>::type;

template <class T> inline constexpr bool is_float = std::is_floating_point_v<compute_t<T>>;

template <class T> struct tag { using type = T; };

inline const char* dtype_name(uint32_t dtype) {
  static const char* const names[] = {"float32", "float64", "float16", "bfloat16", "int32", "int64", "uint8", "bool"};
  return dtype < 8 ? names[dtype] : "unknown";
}

inline int64_t dtype_size(uint32_t dtype) {
  static const int64_t sizes[] = {4, 8, 2, 2, 4, 8, 1, 1};
  return sizes[dtype];
}

inline bool is_float_dtype(uint32_t dtype) { return dtype <= DG_BF16; }

// Calls f(tag<T>{}) for the element type; `op` names the caller in the error.
template <class F>
void dispatch_floats(uint32_t dtype, const char* op, F&& f) {
  switch (dtype) {
    case DG_F32: return f(tag<float>{});
    case DG_F64: return f(tag<double>{});
    case DG_F16: return f(tag<f16>{});
    case DG_BF16: return f(tag<bf16>{});
    default: fail(DG_DTYPE, "%s: takes a floating point dtype, got %s", op, dtype_name(dtype));
  }
}

// As dispatch_floats, for every dtype with arithmetic (all but bool).
template <class F>
void dispatch_numbers(uint32_t dtype, const char* op, F&& f) {
  switch (dtype) {
    case DG_I32: return f(tag<int32_t>{});
    case DG_I64: return f(tag<int64_t>{});
    case DG_U8: return f(tag<uint8_t>{});
    case DG_BOOL: fail(DG_DTYPE, "%s: takes a numeric dtype, got bool", op);
    default: return dispatch_floats(dtype, op, f);
  }
}

// As dispatch_numbers, bool included.
template <class F>
void dispatch_all(uint32_t dtype, const char* op, F&& f) {
  if (dtype == DG_BOOL) return f(tag<bool>{});
  return dispatch_numbers(dtype, op, f);
}

// Calls f(tag<A>{}) with the type in which elements of `dtype` are accumulated.
template <class F>
void dispatch_accumulator(uint32_t dtype, F&& f) {
  switch (dtype) {
    case DG_F32: case DG_F16: case DG_BF16: return f(tag<float>{});
    case DG_F64: return f(tag<double>{});
    default: return f(tag<int64_t>{});
  }
}

}  // namespace dg
