#include <napi.h>

#include "binding/codec_binding.h"
#include "binding/engine_binding.h"
#include "binding/host_binding.h"
#include "binding/kernel_binding.h"

namespace hast {
namespace {

/// The version of the addon's interface; native.ts refuses an addon of another one.
constexpr uint32_t kInterfaceVersion = 5;

Napi::Value version(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), kInterfaceVersion);
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  exports.Set("version", Napi::Function::New(env, version, "version"));
  binding::register_codec(env, exports);
  binding::register_host(env, exports);
  binding::register_kernel(env, exports);
  binding::register_engine(env, exports);
  return exports;
}

}  // namespace
}  // namespace hast

using hast::init;  // the macro pastes the name into another, so it takes no qualified one
NODE_API_MODULE(hastd, init)
