// Errors inside the library are C++ exceptions; guard() turns them into a status and a per-thread text at the C boundary.
#pragma once
#include <cmath>
#include <cstdarg>
#include <cstdint>
#include <cstdio>
#include <new>
#include <string>

#include "../abi.h"

namespace dg {

struct Error {
  dg_status status;
  std::string text;
};

inline std::string& last_error() {
  static thread_local std::string text;
  return text;
}

// The device of the tensors that the current call has named so far, -1 at first: they must all be on one.
inline thread_local int call_device = -1;

// How many threads the running call shares its work among, 0 before it asked: another thread may change the number meanwhile, and work space is for so many.
inline thread_local int call_threads = 0;

// What the caller calls the running call, if dg_name_call() said so: for errors that come out after it.
inline std::string& call_name() {
  static thread_local std::string text;
  return text;
}

// Throws Error with a printf-style text.
[[noreturn]] __attribute__((format(printf, 2, 3))) inline void fail(dg_status status, const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  throw Error{status, text};
}

// A number from the caller that must be whole, at least 0 and exact in a double.
inline int64_t whole(double value, const char* op, const char* what) {
  if (!(value >= 0 && value <= 9007199254740992.0) || value != std::floor(value))
    fail(DG_RANGE, "%s: %s must be a whole number >= 0, got %g", op, what, value);
  return int64_t(value);
}

// Runs `body`, which must not let an exception leave shared work, and reports how it ended.
template <class Body>
int32_t guard(Body&& body) noexcept {
  call_device = -1, call_threads = 0;
  struct Named {
    ~Named() { call_name().clear(); }
  } named;
  try {
    body();
    return DG_OK;
  } catch (const Error& error) {
    last_error() = error.text;
    return error.status;
  } catch (const std::bad_alloc&) {
    last_error() = "out of memory in the library's own work space";
    return DG_OUT_OF_MEMORY;
  } catch (const std::exception& error) {
    last_error() = error.what();
    return DG_INTERNAL;
  } catch (...) {
    last_error() = "unknown failure";
    return DG_INTERNAL;
  }
}

}  // namespace dg
