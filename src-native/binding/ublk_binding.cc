#include "binding/ublk_binding.h"

#include <functional>
#include <string>
#include <utility>

#include "binding/arguments.h"
#include "kernel/ublk_device.h"

namespace hast::binding {
namespace {

constexpr int64_t kLimitMsMax = 600'000;

/// A call into the kernel on a thread of the pool, and the promise of its answer: a number, or
/// nothing when it gives none.
class KernelCall final : public Napi::AsyncWorker {
 public:
  struct Answer {
    int error = 0;  ///< errno
    bool has_number = false;
    uint32_t number = 0;
  };
  using Work = std::function<Answer()>;

  static Napi::Value start(Napi::Env env, const char* what, Work work) {
    auto* call = new KernelCall(env, what, std::move(work));  // deletes itself at its end
    const Napi::Promise promise = call->promised_.Promise();
    call->Queue();
    return promise;
  }

 protected:
  void Execute() override { answer_ = work_(); }
  void OnOK() override {
    if (answer_.error != 0) {
      promised_.Reject(Napi::Value(Env(), system_error(Env(), what_, "", answer_.error)));
    } else if (answer_.has_number) {
      promised_.Resolve(Napi::Number::New(Env(), answer_.number));
    } else {
      promised_.Resolve(Env().Undefined());
    }
  }

 private:
  KernelCall(Napi::Env env, const char* what, Work work)
      : Napi::AsyncWorker(env, what), what_(what), work_(std::move(work)), promised_(env) {}

  const char* const what_;
  const Work work_;
  const Napi::Promise::Deferred promised_;
  Answer answer_;
};

uint32_t read_index(Arguments& arguments) {
  return static_cast<uint32_t>(arguments.integer(0, 0, INT32_MAX));
}
uint32_t read_limit(Arguments& arguments, size_t index) {
  return static_cast<uint32_t>(arguments.integer(index, 1, kLimitMsMax));
}

Napi::Value probe(const Napi::CallbackInfo& info) {
  return KernelCall::start(info.Env(), "UBLK_CMD_GET_FEATURES",
                           [] { return KernelCall::Answer{.error = kernel::ublk_probe()}; });
}

Napi::Value add(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "ublkAdd");
  const Napi::Object from = arguments.object(0);
  if (arguments.bad()) return info.Env().Undefined();
  kernel::UblkDevice device;
  device.size_bytes = arguments.unsigned64_of(from, "sizeBytes");
  device.block_bytes = static_cast<uint32_t>(arguments.integer_of(from, "blockBytes", 512, 4096));
  device.owner = arguments.unsigned64_of(from, "owner");
  if (arguments.bad()) return info.Env().Undefined();
  return KernelCall::start(info.Env(), "UBLK_CMD_ADD_DEV", [device] {
    KernelCall::Answer answer{.has_number = true};
    answer.error = kernel::ublk_add(device, answer.number);
    return answer;
  });
}

using Limited = int (*)(uint32_t index, uint32_t limit_ms);

Napi::Value limited(const Napi::CallbackInfo& info, const char* name, const char* what,
                    Limited function) {
  Arguments arguments(info, name);
  const uint32_t index = read_index(arguments);
  const uint32_t limit_ms = read_limit(arguments, 1);
  if (arguments.bad()) return info.Env().Undefined();
  return KernelCall::start(info.Env(), what,
                           [=] { return KernelCall::Answer{.error = function(index, limit_ms)}; });
}

Napi::Value start(const Napi::CallbackInfo& info) {
  return limited(info, "ublkStart", "UBLK_CMD_START_DEV", kernel::ublk_start);
}

Napi::Value end_recovery(const Napi::CallbackInfo& info) {
  return limited(info, "ublkEndRecovery", "UBLK_CMD_END_USER_RECOVERY", kernel::ublk_end_recovery);
}

Napi::Value start_recovery(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "ublkStartRecovery");
  const uint32_t index = read_index(arguments);
  if (arguments.bad()) return info.Env().Undefined();
  return KernelCall::start(info.Env(), "UBLK_CMD_START_USER_RECOVERY", [index] {
    return KernelCall::Answer{.error = kernel::ublk_start_recovery(index)};
  });
}

Napi::Value stop(const Napi::CallbackInfo& info) {
  return limited(info, "ublkStop", "UBLK_CMD_STOP_DEV", kernel::ublk_stop);
}

Napi::Value remove(const Napi::CallbackInfo& info) {
  return limited(info, "ublkRemove", "UBLK_CMD_DEL_DEV", kernel::ublk_remove);
}

/// The one that the kernel answers at once.
Napi::Value info_of(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "ublkInfo");
  const uint32_t index = read_index(arguments);
  if (arguments.bad()) return info.Env().Undefined();
  kernel::UblkInfo found;
  const int error = kernel::ublk_info(index, found);
  if (error != 0) {
    throw_system(info.Env(), "UBLK_CMD_GET_DEV_INFO", "", error);
    return info.Env().Undefined();
  }
  Napi::Object out = Napi::Object::New(info.Env());
  out.Set("started", Napi::Boolean::New(info.Env(), found.started));
  out.Set("served", Napi::Boolean::New(info.Env(), found.served));
  out.Set("owner", Napi::BigInt::New(info.Env(), found.owner));
  return out;
}

}  // namespace

void register_ublk(Napi::Env env, Napi::Object group) {
  const auto set = [&](const char* name, Napi::Value (*function)(const Napi::CallbackInfo&)) {
    group.Set(name, Napi::Function::New(env, function, name));
  };
  set("ublkProbe", probe);
  set("ublkAdd", add);
  set("ublkStart", start);
  set("ublkStartRecovery", start_recovery);
  set("ublkEndRecovery", end_recovery);
  set("ublkStop", stop);
  set("ublkRemove", remove);
  set("ublkInfo", info_of);
}

}  // namespace hast::binding
