// Errors inside the library are C++ exceptions; guard() turns them into a status and a per-thread text at the C boundary.
#pragma once
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

// Throws Error with a printf-style text.
[[noreturn]] __attribute__((format(printf, 2, 3))) inline void fail(dg_status status, const char* format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  throw Error{status, text};
}

// Runs `body`, which must not let an exception leave an OpenMP region, and reports how it ended.
template <class Body>
int32_t guard(Body&& body) noexcept {
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
