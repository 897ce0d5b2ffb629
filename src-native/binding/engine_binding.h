#pragma once

#include <napi.h>

namespace hast::binding {

/// Adds the `engine` group of src/native.ts to the addon's exports.
void register_engine(Napi::Env env, Napi::Object exports);

}  // namespace hast::binding
