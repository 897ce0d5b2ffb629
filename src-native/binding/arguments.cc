#include "binding/arguments.h"

#include <cmath>
#include <cstring>

namespace hast::binding {
namespace {

std::string position(size_t index) { return "argument " + std::to_string(index + 1); }

void set_property(napi_env env, napi_value object, const char* key, napi_value value) {
  // A failure leaves an exception pending, which the caller's napi_throw does not hide.
  (void)napi_set_named_property(env, object, key, value);
}

napi_value make_error(napi_env env, const char* code, const std::string& message) {
  napi_value code_value = nullptr;
  napi_value message_value = nullptr;
  napi_value error = nullptr;
  if (napi_create_string_utf8(env, code, NAPI_AUTO_LENGTH, &code_value) != napi_ok ||
      napi_create_string_utf8(env, message.data(), message.size(), &message_value) != napi_ok ||
      napi_create_error(env, code_value, message_value, &error) != napi_ok) {
    return nullptr;
  }
  return error;
}

}  // namespace

void throw_error(napi_env env, const char* code, const std::string& message) {
  napi_value error = make_error(env, code, message);
  if (error != nullptr) (void)napi_throw(env, error);
}

napi_value system_error(napi_env env, const char* syscall, const std::string& subject, int error) {
  char text[128];
  std::string message = subject.empty() ? std::string(syscall) : subject;
  message += ": ";
  message += strerror_r(error, text, sizeof text);
  napi_value object = make_error(env, "SYSTEM", message);
  if (object == nullptr) return nullptr;
  napi_value number = nullptr;
  napi_value name = nullptr;
  if (napi_create_int32(env, error, &number) == napi_ok) {
    set_property(env, object, "errno", number);
  }
  if (napi_create_string_utf8(env, syscall, NAPI_AUTO_LENGTH, &name) == napi_ok) {
    set_property(env, object, "syscall", name);
  }
  return object;
}

void throw_system(napi_env env, const char* syscall, const std::string& subject, int error) {
  const napi_value object = system_error(env, syscall, subject, error);
  if (object != nullptr) (void)napi_throw(env, object);
}

void Arguments::fail(const std::string& place, const std::string& expected) {
  if (bad_) return;
  bad_ = true;
  const std::string message = std::string(function_) + ": " + place + " must be " + expected;
  (void)napi_throw_type_error(env(), "ERR_INVALID_ARG_TYPE", message.c_str());
}

void Arguments::refuse(size_t index, const char* expected) { fail(position(index), expected); }

std::string Arguments::read_text(const Napi::Value& value, const std::string& place) {
  if (bad_) return {};
  if (!value.IsString()) {
    fail(place, "a string");
    return {};
  }
  std::string text = value.As<Napi::String>().Utf8Value();
  if (text.find('\0') != std::string::npos) {
    fail(place, "a string without NUL");
    return {};
  }
  return text;
}

int64_t Arguments::read_integer(const Napi::Value& value, const std::string& place, int64_t low,
                                int64_t high) {
  if (bad_) return low;
  const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : std::nan("");
  // NaN fails every comparison, so what passes is a number in range.
  if (!(number >= static_cast<double>(low) && number <= static_cast<double>(high)) ||
      number != std::floor(number)) {
    fail(place, "an integer from " + std::to_string(low) + " to " + std::to_string(high));
    return low;
  }
  return static_cast<int64_t>(number);
}

uint64_t Arguments::read_unsigned64(const Napi::Value& value, const std::string& place,
                                    uint64_t high) {
  if (bad_) return 0;
  bool lossless = false;
  const uint64_t number = value.IsBigInt() ? value.As<Napi::BigInt>().Uint64Value(&lossless) : 0;
  if (!lossless || number > high) {
    fail(place, "a bigint from 0 to " + std::to_string(high));
    return 0;
  }
  return number;
}

std::string Arguments::text(size_t index) { return read_text(info_[index], position(index)); }

bool Arguments::boolean(size_t index) {
  if (bad_) return false;
  if (!info_[index].IsBoolean()) {
    fail(position(index), "a boolean");
    return false;
  }
  return info_[index].As<Napi::Boolean>().Value();
}

int64_t Arguments::integer(size_t index, int64_t low, int64_t high) {
  return read_integer(info_[index], position(index), low, high);
}

uint64_t Arguments::unsigned64(size_t index, uint64_t high) {
  return read_unsigned64(info_[index], position(index), high);
}

std::span<const uint8_t> Arguments::bytes(size_t index) {
  if (bad_) return {};
  const Napi::Value value = info_[index];
  if (!value.IsTypedArray() || value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) {
    fail(position(index), "a Buffer");
    return {};
  }
  const Napi::Uint8Array array = value.As<Napi::Uint8Array>();
  return {array.Data(), array.ByteLength()};
}

Napi::Object Arguments::object(size_t index) {
  if (bad_) return Napi::Object();
  if (!info_[index].IsObject()) {
    fail(position(index), "an object");
    return Napi::Object();
  }
  return info_[index].As<Napi::Object>();
}

/// A getter may throw; its exception stays pending and the reading counts as bad.
Napi::Value Arguments::property(const Napi::Object& from, const char* key) {
  napi_value value = nullptr;
  if (bad_ || napi_get_named_property(env(), from, key, &value) != napi_ok) {
    bad_ = true;
    return Napi::Value();
  }
  return {env(), value};
}

std::string Arguments::text_of(const Napi::Object& from, const char* key) {
  return read_text(property(from, key), key);
}

int64_t Arguments::integer_of(const Napi::Object& from, const char* key, int64_t low,
                              int64_t high) {
  return read_integer(property(from, key), key, low, high);
}

uint64_t Arguments::unsigned64_of(const Napi::Object& from, const char* key) {
  return read_unsigned64(property(from, key), key, std::numeric_limits<uint64_t>::max());
}

}  // namespace hast::binding
