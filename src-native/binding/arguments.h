#pragma once

#include <napi.h>

#include <cstdint>
#include <limits>
#include <span>
#include <string>

/// Reading of JavaScript arguments and throwing of errors, for every file of this folder.
/// All of it on the JavaScript thread only.
namespace hast::binding {

/// Throws an Error with `code` (a word of error_codes.def), and for a system call that failed with
/// `errno` and `syscall`. native.ts makes a HastError of it. Built with the plain C functions,
/// whose failure leaves a pending exception and never aborts.
void throw_error(napi_env env, const char* code, const std::string& message);
void throw_system(napi_env env, const char* syscall, const std::string& subject, int error);
/// The same, to be given to whoever waits; nullptr with an exception pending.
napi_value system_error(napi_env env, const char* syscall, const std::string& subject, int error);

/// Reads the arguments of one call, in any order. The first that does not fit throws a TypeError
/// that names the function, the position (from 1) and what was expected; from then on every reading
/// gives an empty value, so that a function checks `bad()` once, after the last of them.
class Arguments {
 public:
  Arguments(const Napi::CallbackInfo& info, const char* function)
      : info_(info), function_(function) {}

  Napi::Env env() const { return info_.Env(); }
  bool bad() const { return bad_; }

  /// Text without NUL.
  std::string text(size_t index);
  bool boolean(size_t index);
  /// An integer within [low, high].
  int64_t integer(size_t index, int64_t low, int64_t high);
  int descriptor(size_t index) {
    return static_cast<int>(integer(index, 0, std::numeric_limits<int>::max()));
  }
  /// A bigint within [0, high].
  uint64_t unsigned64(size_t index, uint64_t high);
  /// The bytes of a Buffer or Uint8Array; they live as long as the call.
  std::span<const uint8_t> bytes(size_t index);
  Napi::Object object(size_t index);

  /// The same for a property of an object argument; the message names it.
  std::string text_of(const Napi::Object& from, const char* key);
  int64_t integer_of(const Napi::Object& from, const char* key, int64_t low, int64_t high);
  uint64_t unsigned64_of(const Napi::Object& from, const char* key);

  /// Refuses argument `index` for a reason of its own.
  void refuse(size_t index, const char* expected);

 private:
  std::string read_text(const Napi::Value& value, const std::string& place);
  int64_t read_integer(const Napi::Value& value, const std::string& place, int64_t low,
                       int64_t high);
  uint64_t read_unsigned64(const Napi::Value& value, const std::string& place, uint64_t high);
  Napi::Value property(const Napi::Object& from, const char* key);
  void fail(const std::string& place, const std::string& expected);

  const Napi::CallbackInfo& info_;
  const char* function_;
  bool bad_ = false;
};

}  // namespace hast::binding
