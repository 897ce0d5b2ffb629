#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

#include "ring/stream.h"

/// What the engine asks of the world beyond disk and clock; parameters, so that a simulator can be
/// it.
namespace hast {

enum class LogLevel : uint8_t { kError, kWarning, kNotice, kInfo, kDebug1, kDebug2 };

enum class EventName : uint8_t {
  kConnect,
  kDisconnect,
  kSyncStart,
  kSyncDone,
  kSyncIntr,
  kSplitBrain,
};

/// What the engine tells its host. Loop thread; must not block.
class EngineHost {
 public:
  virtual ~EngineHost() = default;
  virtual void log(LogLevel level, std::string_view text) = 0;
  virtual void event(EventName name) = 0;
  /// Primary: routing is decided, I/O may be served. Secondary: ready for requests.
  virtual void ready() = 0;
  /// Random bits that nobody can guess.
  virtual uint64_t random() = 0;
};

/// Opens one connection to the peer. `out` is set on success. 0 or -errno; -ETIMEDOUT after
/// `timeout_ms`.
class Dialer {
 public:
  virtual ~Dialer() = default;
  virtual bool has_peer() const = 0;  ///< false for `remote none`
  virtual Task<int> dial(std::unique_ptr<Stream>& out, uint32_t timeout_ms) = 0;
  /// Ends a dial under way, which then gives -ECANCELED.
  virtual void cancel() = 0;
};

/// printf into a log line; nothing is allocated.
[[gnu::format(printf, 3, 4)]] void logf(EngineHost& host, LogLevel level, const char* format, ...);

/// What a text lacks to be a sentence: those of the peer have their ends, most of ours do not.
const char* full_stop(std::string_view text);

}  // namespace hast
