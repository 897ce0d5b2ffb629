#include "binding/codec_binding.h"

#include <cstdint>
#include <string>

#include "base/error_codes.h"
#include "base/limits.h"
#include "binding/arguments.h"
#include "codec/checksum.h"
#include "codec/compression.h"
#include "codec/layout.h"
#include "codec/metadata.h"

namespace hast::binding {
namespace {

Napi::Value failure(const Napi::CallbackInfo& info, const Error& error) {
  std::string message = code_message(error.code);
  if (error.what[0] != '\0') {
    message += ": ";
    message += error.what;
  }
  throw_error(info.Env(), code_name(error.code), message);
  return info.Env().Undefined();
}

Napi::Value layout(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "layout");
  const Napi::Object from = arguments.object(0);
  LayoutRequest request;
  request.media_bytes = arguments.unsigned64_of(from, "mediaBytes");
  request.provider_bytes = request.media_bytes;
  request.sector_bytes =
      static_cast<uint32_t>(arguments.integer_of(from, "sectorBytes", 0, UINT32_MAX));
  request.extent_bytes =
      static_cast<uint64_t>(arguments.integer_of(from, "extentBytes", 0, INT64_C(1) << 53));
  request.keepdirty =
      static_cast<uint64_t>(arguments.integer_of(from, "keepdirty", 0, INT64_C(1) << 53));
  const std::string kind = arguments.text_of(from, "layout");
  if (!arguments.bad() && kind != "aligned" && kind != "hast") {
    arguments.refuse(0, "an object whose layout is aligned or hast");
  }
  if (arguments.bad()) return info.Env().Undefined();
  request.kind = kind == "hast" ? LayoutKind::kHast : LayoutKind::kAligned;

  const Result<Layout> plan = plan_layout(request);
  if (!plan) return failure(info, plan.error());
  const Napi::Env env = info.Env();
  Napi::Object result = Napi::Object::New(env);
  result.Set("offset", Napi::BigInt::New(env, plan->data_offset));
  result.Set("dataBytes", Napi::BigInt::New(env, plan->data_bytes));
  result.Set("mapBytes", Napi::Number::New(env, static_cast<double>(plan->map_bytes)));
  return result;
}

Napi::Value metadata_block(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "metadataBlock");
  const Napi::Object from = arguments.object(0);
  const bool contents_equal = arguments.boolean(1);
  const std::string name = arguments.text_of(from, "resource");
  const std::string role = arguments.text_of(from, "prevrole");
  Metadata metadata;
  metadata.datasize = arguments.unsigned64_of(from, "datasize");
  metadata.extentsize =
      static_cast<uint32_t>(arguments.integer_of(from, "extentsize", 0, UINT32_MAX));
  metadata.keepdirty =
      static_cast<uint32_t>(arguments.integer_of(from, "keepdirty", 0, UINT32_MAX));
  metadata.offset = arguments.unsigned64_of(from, "offset");
  metadata.resuid = arguments.unsigned64_of(from, "resuid");
  metadata.localcnt = arguments.unsigned64_of(from, "localcnt");
  metadata.remotecnt = arguments.unsigned64_of(from, "remotecnt");
  if (!arguments.bad() && !ResourceName::fits(name)) {
    arguments.refuse(0, "an object whose resource has 1 to 254 bytes");
  }
  if (role == role_name(Role::kPrimary)) {
    metadata.prevrole = Role::kPrimary;
  } else if (role == role_name(Role::kSecondary)) {
    metadata.prevrole = Role::kSecondary;
  } else if (!arguments.bad() && role != role_name(Role::kInit)) {
    arguments.refuse(0, "an object whose prevrole is init, primary or secondary");
  }
  if (arguments.bad()) return info.Env().Undefined();
  metadata.resource = ResourceName(name);

  MetadataBlock block = MetadataBlock::create(metadata);
  if (contents_equal) {
    Extra extra;
    extra.generation = kGenerationOfEqualContents;
    block = block.plan_update(metadata, extra, kSectorBytesMax).after;
  }
  return Napi::Buffer<std::byte>::Copy(info.Env(), block.bytes().data(), block.bytes().size());
}

ConstBytes as_bytes(std::span<const uint8_t> data) { return std::as_bytes(data); }

/// Appends the writes of `plan`.
void add_steps(Napi::Array steps, const BlockPlan& plan) {
  const Napi::Env env = steps.Env();
  for (uint32_t i = 0; i < plan.step_count; ++i) {
    const BlockPlan::Step& step = plan.steps[i];
    const ConstBytes bytes = plan.after.bytes().subspan(step.offset, step.length);
    Napi::Object one = Napi::Object::New(env);
    one.Set("offset", Napi::Number::New(env, step.offset));
    one.Set("bytes", Napi::Buffer<std::byte>::Copy(env, bytes.data(), bytes.size()));
    steps.Set(steps.Length(), one);
  }
}

Napi::Value discard_steps(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "discardSteps");
  const std::span<const uint8_t> bytes = arguments.bytes(0);
  const auto sector = static_cast<uint32_t>(arguments.integer(1, kSectorBytesMin, kSectorBytesMax));
  if (!arguments.bad() && bytes.size() != kMetadataBytes) {
    arguments.refuse(0, "the 4096 bytes of a metadata block");
  }
  if (arguments.bad()) return info.Env().Undefined();
  const Result<MetadataBlock> decoded = MetadataBlock::decode(as_bytes(bytes));
  if (!decoded) return failure(info, decoded.error());
  Napi::Array steps = Napi::Array::New(info.Env());
  MetadataBlock block = *decoded;
  if (block.needs_rewrite()) {
    const BlockPlan mended = block.plan_rewrite(sector);
    add_steps(steps, mended);
    block = mended.after;
  }
  add_steps(steps, block.plan_discard(sector));
  return steps;
}

/// Every bound that src/limits.ts repeats, and the exit of every error code.
Napi::Value limits(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Napi::Object result = Napi::Object::New(env);
  const auto add = [&](const char* name, double value) {
    result.Set(name, Napi::Number::New(env, value));
  };
  add("requestBytesMax", kRequestBytesMax);
  add("messageBytesMax", kMessageBytesMax);
  add("metadataBytes", kMetadataBytes);
  add("mapBytesMax", kMapBytesMax);
  add("nameBytesMax", kNameBytesMax);
  add("sectorBytesMin", kSectorBytesMin);
  add("sectorBytesMax", kSectorBytesMax);
  add("extentBytesMin", kExtentBytesMin);
  add("extentBytesMax", kExtentBytesMax);
#define HAST_ERROR(code, message, hint, exit) add("exit." #code, exit);
#include "base/error_codes.def"
#undef HAST_ERROR
  return result;
}

Napi::Value crc32_js(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "crc32");
  const std::span<const uint8_t> data = arguments.bytes(0);
  if (arguments.bad()) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), crc32_of(as_bytes(data)));
}

Napi::Value is_zero(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "isZero");
  const std::span<const uint8_t> data = arguments.bytes(0);
  if (arguments.bad()) return info.Env().Undefined();
  return Napi::Boolean::New(info.Env(), all_zero(as_bytes(data)));
}

}  // namespace

void register_codec(Napi::Env env, Napi::Object exports) {
  Napi::Object codec = Napi::Object::New(env);
  const auto add = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    codec.Set(name, Napi::Function::New(env, function, name));
  };
  add("layout", layout);
  add("metadataBlock", metadata_block);
  add("discardSteps", discard_steps);
  add("limits", limits);
  add("crc32", crc32_js);
  add("isZero", is_zero);
  exports.Set("codec", codec);
}

}  // namespace hast::binding
