#include "binding/engine_binding.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "binding/arguments.h"
#include "engine/engine.h"

namespace hast::binding {
namespace {

constexpr const char* kLevels[] = {"error", "warning", "notice", "info", "debug1", "debug2"};
constexpr const char* kEvents[] = {"connect",  "disconnect", "syncstart",
                                   "syncdone", "syncintr",   "split-brain"};
constexpr const char* kStates[] = {"connecting", "degraded",  "syncing",
                                   "in-sync",    "secondary", "stopping"};
constexpr const char* kModes[] = {"fullsync", "memsync", "async"};
constexpr const char* kSources[] = {"none", "local", "remote"};

/// What crosses from an engine's thread to JavaScript's.
struct Delivery {
  EngineEvent event;
  bool is_stats = false;
  bool has_stats = false;
  EngineSnapshot snapshot;
  uint64_t ticket = 0;
};

struct Live;
void deliver(Napi::Env env, Napi::Function on_event, Live* live, Delivery* delivery);
using Channel = Napi::TypedThreadSafeFunction<Live, Delivery, deliver>;

/// One engine as JavaScript holds it. Lives until its `end` was delivered and its handle collected,
/// or until the environment ends.
struct Live {
  std::unique_ptr<Engine> engine;
  Channel channel;
  bool channel_open = false;
  uint64_t last_ticket = 0;
  std::map<uint64_t, Napi::Promise::Deferred> waiting;  // stats asked for
};

/// All engines of one environment: a torn-down environment leaves none running.
struct Instance {
  std::vector<Live*> lives;
  ~Instance() {
    for (Live* live : lives) live->engine.reset();
  }
};

Napi::Object stats_object(Napi::Env env, const EngineSnapshot& snapshot) {
  const EngineStats& s = snapshot.stats;
  Napi::Object out = Napi::Object::New(env);
  const auto text = [&](const char* key, const char* value) {
    out.Set(key, Napi::String::New(env, value));
  };
  const auto number = [&](const char* key, uint64_t value) {
    out.Set(key, Napi::Number::New(env, static_cast<double>(value)));
  };
  text("status", s.complete ? "complete" : "degraded");
  text("state", kStates[static_cast<size_t>(s.state)]);
  text("reason", s.reason);
  text("peerKind", !s.has_peer ? "none" : s.peer_is_ours ? "ours" : "original");
  text("replication", kModes[s.replication]);
  text("syncSource", kSources[s.sync_source]);
  number("protocolVersion", s.protocol_version);
  number("extentBytes", s.extent_bytes);
  number("keepdirty", s.keepdirty);
  number("dirtyBytes", s.dirty_bytes);
  number("syncBytesLeft", s.sync_bytes_left);
  number("syncBytesDone", s.counters.sync_bytes_done);
  number("syncBytesPerSecond", s.counters.sync_bytes_per_second);
  out.Set("localStale", Napi::Boolean::New(env, s.local_stale));
  number("inFlight", s.in_flight);
  number("reads", s.counters.reads);
  number("writes", s.counters.writes);
  number("deletes", s.counters.deletes);
  number("flushes", s.counters.flushes);
  number("activemapUpdates", s.activemap_updates);
  number("readErrors", s.counters.read_errors);
  number("writeErrors", s.counters.write_errors);
  number("deleteErrors", s.counters.delete_errors);
  number("flushErrors", s.counters.flush_errors);
  number("queueLocal", s.queue_local);
  number("queueSend", s.queue_send);
  number("queueRecv", s.queue_recv);
  number("queueDone", s.queue_done);
  number("queueIdle", s.queue_idle);
  Napi::Array clients = Napi::Array::New(env, snapshot.clients.size());
  for (uint32_t i = 0; i < snapshot.clients.size(); ++i) {
    clients.Set(i, Napi::String::New(env, snapshot.clients[i]));
  }
  out.Set("clients", clients);
  return out;
}

Napi::Object event_object(Napi::Env env, const EngineEvent& event) {
  Napi::Object out = Napi::Object::New(env);
  const auto text = [&](const char* key, const std::string& value) {
    out.Set(key, Napi::String::New(env, value));
  };
  switch (event.type) {
    case EngineEvent::Type::kLog:
      text("type", "log");
      text("level", kLevels[static_cast<size_t>(event.level)]);
      text("text", event.text);
      break;
    case EngineEvent::Type::kReady:
      text("type", "ready");
      break;
    case EngineEvent::Type::kEvent:
      text("type", "event");
      text("name", kEvents[static_cast<size_t>(event.name)]);
      break;
    case EngineEvent::Type::kEnd:
      text("type", "end");
      text("code", event.code);
      text("text", event.text);
      out.Set("exit", Napi::Number::New(env, event.exit));
      break;
  }
  return out;
}

void settle_stats(Napi::Env env, Live& live, const Delivery& delivery) {
  const auto waiting = live.waiting.find(delivery.ticket);
  if (waiting == live.waiting.end()) return;
  if (delivery.has_stats) {
    waiting->second.Resolve(stats_object(env, delivery.snapshot));
  } else {
    waiting->second.Reject(Napi::String::New(env, "the engine has ended"));
  }
  live.waiting.erase(waiting);
}

/// On JavaScript's thread, in the order of the engine's calls.
void deliver(Napi::Env env, Napi::Function on_event, Live* live, Delivery* raw) {
  const std::unique_ptr<Delivery> delivery(raw);
  if (static_cast<napi_env>(env) == nullptr) return;  // the environment is going
  if (delivery->is_stats) {
    settle_stats(env, *live, *delivery);
    return;
  }
  const bool last = delivery->event.type == EngineEvent::Type::kEnd;
  if (last) {
    live->engine.reset();  // its thread has said its last word
    live->channel_open = false;
  }
  napi_value argument = event_object(env, delivery->event);
  napi_value result = nullptr;
  napi_value undefined = nullptr;
  napi_get_undefined(env, &undefined);
  // A callback that throws leaves a pending exception, which becomes an uncaught one: it is the
  // worker's to log, and never the engine's.
  napi_call_function(env, undefined, on_event, 1, &argument, &result);
  if (last) live->channel.Release();
}

// --- reading a spec
// -------------------------------------------------------------------------------

bool read_address(Arguments& arguments, const Napi::Object& from, PeerAddress& out) {
  const std::string host = arguments.text_of(from, "host");
  const int64_t port = arguments.integer_of(from, "port", 0, 65535);
  if (arguments.bad()) return false;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&out.address);
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&out.address);
  if (inet_pton(AF_INET, host.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(static_cast<uint16_t>(port));
    out.size = sizeof *v4;
    return true;
  }
  if (inet_pton(AF_INET6, host.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(static_cast<uint16_t>(port));
    out.size = sizeof *v6;
    return true;
  }
  return false;
}

/// The position of `word` among `words`; -1 when it is none of them.
template <size_t N>
int choice(const std::string& word, const char* const (&words)[N]) {
  for (size_t i = 0; i < N; ++i) {
    if (word == words[i]) return static_cast<int>(i);
  }
  return -1;
}

constexpr int64_t kKernelFdsMax = 16;
constexpr const char* kChecksums[] = {"none", "crc32", "sha256"};
constexpr const char* kCompressions[] = {"none", "hole", "lzf"};

/// An own property with bytes; null and undefined are none.
std::span<const std::byte> bytes_of(const Napi::Object& from, const char* key) {
  const Napi::Value value = from.Get(key);
  if (!value.IsTypedArray()) return {};
  if (value.As<Napi::TypedArray>().TypedArrayType() != napi_uint8_array) return {};
  const Napi::Uint8Array bytes = value.As<Napi::Uint8Array>();
  return std::as_bytes(std::span(bytes.Data(), bytes.ElementLength()));
}

bool read_secret(const Napi::Object& from, std::string& secret) {
  const std::span<const std::byte> bytes = bytes_of(from, "secret");
  const bool none = from.Get("secret").IsNull();
  secret.assign(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  return none || (!bytes.empty() && bytes.size() <= kSecretBytesMax);
}

bool read_nonce(const Napi::Object& from, const char* key, Nonce& nonce) {
  const std::span<const std::byte> bytes = bytes_of(from, key);
  if (bytes.size() != nonce.size()) return false;
  std::memcpy(nonce.data(), bytes.data(), nonce.size());
  return true;
}

bool read_auth(const Napi::Object& hello, AuthKey& key) {
  const Napi::Value value = hello.Get("auth");
  if (value.IsNull()) return true;
  if (!value.IsObject()) return false;
  const Napi::Object auth = value.As<Napi::Object>();
  return read_secret(auth, key.secret) && key.on() &&
         read_nonce(auth, "noncePrimary", key.primary) &&
         read_nonce(auth, "nonceSecondary", key.secondary);
}

bool read_tuning(Arguments& arguments, size_t index, const Napi::Object& from, EngineTuning& out) {
  const int mode = choice(arguments.text_of(from, "replication"), kModes);
  const int checksum = choice(arguments.text_of(from, "checksum"), kChecksums);
  const int compression = choice(arguments.text_of(from, "compression"), kCompressions);
  const int64_t seconds = arguments.integer_of(from, "timeoutSeconds", 1, INT32_MAX);
  if (arguments.bad()) return false;
  if (mode < 0 || checksum < 0 || compression < 0) {
    arguments.refuse(index, "known words for replication, checksum and compression");
    return false;
  }
  out.settings.replication = static_cast<Replication>(mode);
  out.settings.checksum = static_cast<Checksum>(checksum);
  out.settings.compression = static_cast<Compression>(compression);
  out.settings.timeout_ms = static_cast<uint32_t>(std::min<int64_t>(seconds * 1000, INT32_MAX));
  const Napi::Value metaflush = from.Get("metaflush");
  const Napi::Value peers = from.Get("peers");
  const Napi::Value source = from.Get("source");
  if (!metaflush.IsBoolean() || !peers.IsArray()) {
    arguments.refuse(index, "a boolean metaflush and an array of peers");
    return false;
  }
  if (!read_secret(from, out.settings.secret)) {
    arguments.refuse(index, "a secret of 1 to 1024 bytes, or null");
    return false;
  }
  out.settings.metaflush = metaflush.As<Napi::Boolean>();
  const Napi::Array list = peers.As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const Napi::Value item = list.Get(i);
    PeerAddress address;
    if (!item.IsObject() || !read_address(arguments, item.As<Napi::Object>(), address)) {
      arguments.refuse(index, "numeric addresses as peers");
      return false;
    }
    out.peers.push_back(address);
  }
  if (source.IsObject() && !read_address(arguments, source.As<Napi::Object>(), out.source)) {
    arguments.refuse(index, "a numeric address as source");
    return false;
  }
  return true;
}

/// An absent one is false.
bool is_true(const Napi::Object& from, const char* key) {
  const Napi::Value value = from.Get(key);
  return value.IsBoolean() && value.As<Napi::Boolean>();
}

bool read_hello(Arguments& arguments, const Napi::Object& from, EngineSpec& out) {
  const Napi::Value value = from.Get("hello");
  if (!value.IsObject()) return false;
  const Napi::Object hello = value.As<Napi::Object>();
  const Napi::Value virgin = hello.Get("virgin");
  const Napi::Value extended = hello.Get("extended");
  if (!virgin.IsBoolean() || !extended.IsBoolean()) return false;
  out.secondary.version = static_cast<uint8_t>(arguments.integer_of(hello, "version", 0, 2));
  out.secondary.epoch = arguments.unsigned64_of(hello, "epoch");
  out.secondary.extended = extended.As<Napi::Boolean>();
  PrimaryFacts& primary = out.secondary.primary;
  primary.resuid = arguments.unsigned64_of(hello, "resuid");
  primary.localcnt = arguments.unsigned64_of(hello, "localcnt");
  primary.remotecnt = arguments.unsigned64_of(hello, "remotecnt");
  primary.virgin = virgin.As<Napi::Boolean>();
  primary.extended = out.secondary.extended;
  primary.lost_cache = is_true(hello, "lostCache");
  primary.incomplete = is_true(hello, "incomplete");
  primary.led = is_true(hello, "led");
  primary.generations = {arguments.unsigned64_of(hello, "generation"),
                         arguments.unsigned64_of(hello, "generationShared"),
                         arguments.unsigned64_of(hello, "generationOffered")};
  primary.contents_equal = is_true(hello, "contentsEqual");
  return read_auth(hello, out.secondary.auth) && !arguments.bad();
}

/// This boot of this machine, as 64 bits.
uint64_t boot_id() {
  uint64_t id = 0;
  if (std::FILE* file = std::fopen("/proc/sys/kernel/random/boot_id", "re")) {
    unsigned long long high = 0;
    unsigned int middle = 0;
    if (std::fscanf(file, "%8llx-%4x", &high, &middle) == 2) id = high << 16 | middle;
    std::fclose(file);
  }
  return id;
}

bool read_kernel_fds(Arguments& arguments, const Napi::Object& from, std::vector<int>& fds) {
  const Napi::Value value = from.Get("kernelFds");
  if (!value.IsArray()) return false;
  const Napi::Object list = value.As<Napi::Object>();
  const int64_t count = arguments.integer_of(list, "length", 0, kKernelFdsMax);
  for (int64_t i = 0; i < count && !arguments.bad(); ++i) {
    const std::string key = std::to_string(i);
    fds.push_back(static_cast<int>(arguments.integer_of(list, key.c_str(), 0, INT32_MAX)));
  }
  return !arguments.bad();
}

bool read_spec(Arguments& arguments, EngineSpec& spec) {
  const Napi::Object from = arguments.object(0);
  spec.resource = arguments.text_of(from, "resource");
  spec.provider = arguments.text_of(from, "provider");
  const std::string role = arguments.text_of(from, "role");
  spec.disk_fd = static_cast<int>(arguments.integer_of(from, "diskFd", 0, INT32_MAX));
  spec.export_fd = static_cast<int>(arguments.integer_of(from, "exportFd", -1, INT32_MAX));
  spec.requests_fd = static_cast<int>(arguments.integer_of(from, "requestsFd", -1, INT32_MAX));
  spec.replies_fd = static_cast<int>(arguments.integer_of(from, "repliesFd", -1, INT32_MAX));
  if (!read_kernel_fds(arguments, from, spec.kernel_fds)) {
    arguments.refuse(0, "an array of descriptors as kernelFds");
    return false;
  }
  spec.sharers = static_cast<uint32_t>(arguments.integer_of(from, "sharers", 1, INT32_MAX));
  spec.block_bytes = static_cast<uint32_t>(arguments.integer_of(from, "sectorBytes", 0, 4096));
  if (arguments.bad()) return false;
  spec.primary = role == "primary";
  spec.force = is_true(from, "force");
  spec.bootid = boot_id();
  if (!ResourceName::fits(spec.resource) || (!spec.primary && role != "secondary")) {
    arguments.refuse(0, "a resource name and the role primary or secondary");
    return false;
  }
  if (!read_tuning(arguments, 0, from, spec.tuning)) return false;
  if (spec.primary) return true;
  if (spec.requests_fd < 0 || spec.replies_fd < 0 || !read_hello(arguments, from, spec)) {
    arguments.refuse(0, "both connections and the peer's hello for a secondary");
    return false;
  }
  return true;
}

// --- the functions
// --------------------------------------------------------------------------------

constexpr napi_type_tag kLiveTag = {0x6861737464656e67, 0x696e656c69766531};

Live* live_of(Arguments& arguments, const Napi::CallbackInfo& info) {
  const Napi::Value value = info.Length() > 0 ? info[0] : info.Env().Undefined();
  bool tagged = false;
  if (value.IsExternal()) napi_check_object_type_tag(info.Env(), value, &kLiveTag, &tagged);
  if (!tagged) {
    arguments.refuse(0, "the handle that start returned");
    return nullptr;
  }
  return value.As<Napi::External<Live>>().Data();
}

void forget(Napi::Env env, Live* live) {
  if (Instance* instance = env.GetInstanceData<Instance>()) std::erase(instance->lives, live);
  live->engine.reset();
  delete live;
}

Napi::Value start(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Arguments arguments(info, "start");
  EngineSpec spec;
  if (!read_spec(arguments, spec)) return env.Undefined();
  if (info.Length() < 2 || !info[1].IsFunction()) {
    arguments.refuse(1, "a function");
    return env.Undefined();
  }
  auto* live = new Live;
  live->channel = Channel::New(env, info[1].As<Napi::Function>(), "hastd engine", 0, 1, live);
  live->channel_open = true;
  live->channel.Unref(env);
  Channel channel = live->channel;
  live->engine = std::make_unique<Engine>(std::move(spec), [channel](EngineEvent&& event) {
    auto* delivery = new Delivery;
    delivery->event = std::move(event);
    if (channel.NonBlockingCall(delivery) != napi_ok) delete delivery;
  });
  env.GetInstanceData<Instance>()->lives.push_back(live);
  live->engine->start();
  Napi::External<Live> handle = Napi::External<Live>::New(env, live, forget);
  napi_type_tag_object(env, handle, &kLiveTag);
  return handle;
}

Napi::Value stop(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "stop");
  Live* live = live_of(arguments, info);
  if (live != nullptr && live->engine != nullptr) live->engine->stop();
  return info.Env().Undefined();
}

Napi::Value kick(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "kick");
  Live* live = live_of(arguments, info);
  if (live != nullptr && live->engine != nullptr) live->engine->kick();
  return info.Env().Undefined();
}

Napi::Value reconfigure(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "reconfigure");
  Live* live = live_of(arguments, info);
  if (live == nullptr) return info.Env().Undefined();
  EngineTuning tuning;
  const Napi::Object from = arguments.object(1);
  if (arguments.bad() || !read_tuning(arguments, 1, from, tuning)) return info.Env().Undefined();
  if (live->engine != nullptr) live->engine->reconfigure(std::move(tuning));
  return info.Env().Undefined();
}

Napi::Value stats(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Arguments arguments(info, "stats");
  Live* live = live_of(arguments, info);
  if (live == nullptr) return env.Undefined();
  Napi::Promise::Deferred deferred = Napi::Promise::Deferred::New(env);
  if (live->engine == nullptr) {
    deferred.Reject(Napi::String::New(env, "the engine has ended"));
    return deferred.Promise();
  }
  const uint64_t ticket = ++live->last_ticket;
  live->waiting.emplace(ticket, deferred);
  Channel channel = live->channel;
  live->engine->snapshot([channel, ticket](const EngineSnapshot* snapshot) {
    auto* delivery = new Delivery;
    delivery->is_stats = true;
    delivery->ticket = ticket;
    delivery->has_stats = snapshot != nullptr;
    if (snapshot != nullptr) delivery->snapshot = *snapshot;
    if (channel.NonBlockingCall(delivery) != napi_ok) delete delivery;
  });
  return deferred.Promise();
}

}  // namespace

void register_engine(Napi::Env env, Napi::Object exports) {
  env.SetInstanceData(new Instance);
  Napi::Object group = Napi::Object::New(env);
  group.Set("start", Napi::Function::New(env, start, "start"));
  group.Set("stop", Napi::Function::New(env, stop, "stop"));
  group.Set("kick", Napi::Function::New(env, kick, "kick"));
  group.Set("reconfigure", Napi::Function::New(env, reconfigure, "reconfigure"));
  group.Set("stats", Napi::Function::New(env, stats, "stats"));
  exports.Set("engine", group);
}

}  // namespace hast::binding
