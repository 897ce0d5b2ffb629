#pragma once

#include <optional>
#include <utility>

#include "base/assert.h"
#include "base/error_codes.h"

namespace hast {

/// A failure as a value: no allocation, copied freely. `what` is a string literal (or outlives the
/// error) that narrows the code down; `sys_errno` is 0 when no system call was involved.
struct Error {
  Code code = Code::INTERNAL;
  int sys_errno = 0;
  const char* what = "";
};

/// A value or an Error, shaped like std::expected. Looking at the one that is not there aborts.
template <typename T>
class [[nodiscard]] Result {
 public:
  Result(const T& value) : value_(value) {}
  Result(T&& value) : value_(std::move(value)) {}
  Result(const Error& error) : error_(error) {}

  bool has_value() const { return value_.has_value(); }
  explicit operator bool() const { return has_value(); }

  T& value() & {
    HAST_ASSERT(value_.has_value());
    return *value_;
  }
  const T& value() const& {
    HAST_ASSERT(value_.has_value());
    return *value_;
  }
  T&& value() && {
    HAST_ASSERT(value_.has_value());
    return std::move(*value_);
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  T value_or(T otherwise) const { return value_.has_value() ? *value_ : otherwise; }

  const Error& error() const {
    HAST_ASSERT(!value_.has_value());
    return error_;
  }

 private:
  std::optional<T> value_;
  Error error_;
};

/// Success, or an Error. `return {};` is success.
template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(const Error& error) : error_(error) {}

  bool has_value() const { return !error_.has_value(); }
  explicit operator bool() const { return has_value(); }
  const Error& error() const {
    HAST_ASSERT(error_.has_value());
    return *error_;
  }

 private:
  std::optional<Error> error_;
};

}  // namespace hast
