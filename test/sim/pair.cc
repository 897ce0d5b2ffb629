#include "sim/pair.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "codec/layout.h"
#include "harness.h"

namespace hast::test {

namespace {

constexpr const char* kResource = "data";
/// A link for each node that dials; whoever dialled is side 0 of it.
constexpr uint32_t kLinks = 2;
uint32_t dialled_by(int node) { return static_cast<uint32_t>(node); }

class PipeDialer final : public Dialer {
 public:
  PipeDialer(Pair& pair, std::string address, int node)
      : pair_(pair), address_(std::move(address)), node_(node) {}
  bool has_peer() const override { return true; }
  Task<int> dial(std::unique_ptr<Stream>& out, uint32_t timeout_ms) override {
    if (pair_.link_down() || dead) co_return -ECONNREFUSED;
    const int rc = co_await pair_.network.connect(address_, dialled_by(node_),
                                                  uint64_t{timeout_ms} * 1000, timer_, out);
    if (!dead && !pair_.link_down()) co_return rc;
    out.reset();  // the process or the link went meanwhile
    co_return -ECONNREFUSED;
  }
  void cancel() override { timer_.wake(); }
  bool dead = false;

 private:
  Pair& pair_;
  std::string address_;
  int node_;
  SleepTimer timer_;
};

Task<int> read_area(PacketReader& reader, ConstBytes& area) {
  for (;;) {
    const PacketReader::Head head = reader.head(area);
    if (head == PacketReader::Head::kReady) co_return 0;
    if (head != PacketReader::Head::kIncomplete) co_return -EBADMSG;
    const int rc = co_await reader.receive_more();
    if (rc != 0) co_return rc;
  }
}

template <typename T>
std::vector<std::unique_ptr<T>>& pool_of() {
  thread_local std::vector<std::unique_ptr<T>> pool;
  return pool;
}

template <typename T>
std::unique_ptr<T, Pooled<T>> take(bool (*fits)(const T&, std::size_t), std::size_t bytes) {
  std::vector<std::unique_ptr<T>>& pool = pool_of<T>();
  for (std::unique_ptr<T>& item : pool) {
    if (!fits(*item, bytes)) continue;
    std::swap(item, pool.back());
    T* const found = pool.back().release();
    pool.pop_back();
    return std::unique_ptr<T, Pooled<T>>(found);
  }
  return std::unique_ptr<T, Pooled<T>>(new T(bytes));
}

SlabPointer take_slab(std::size_t bytes) {
  return take<LazySlab>([](const LazySlab& s, std::size_t size) { return s.bytes() == size; },
                        bytes);
}

DiskPointer take_disk(std::size_t bytes) {
  DiskPointer disk = take<MemoryDisk>(
      [](const MemoryDisk& d, std::size_t size) { return d.size_bytes() == size; }, bytes);
  disk->reset();
  return disk;
}
}  // namespace

template <typename T>
void Pooled<T>::operator()(T* item) const {
  pool_of<T>().emplace_back(item);
}
template struct Pooled<LazySlab>;
template struct Pooled<MemoryDisk>;

std::vector<std::byte> pattern(uint64_t seed, std::size_t size) {
  std::vector<std::byte> bytes(size);
  Random random(seed);
  for (std::size_t i = 0; i < size; i += 8) {
    const uint64_t word = random.next();
    std::memcpy(bytes.data() + i, &word, std::min<std::size_t>(8, size - i));
  }
  return bytes;
}

std::vector<std::byte> read_back(Pair& pair, Node& node, uint64_t offset, std::size_t size) {
  std::vector<std::byte> bytes(size);
  CHECK_EQ(pair.read(node, offset, bytes), 0);
  return bytes;
}

void TestHost::log(LogLevel level, std::string_view text) {
  log_lines.emplace_back(text);
  log_levels.push_back(level);
  if (node != nullptr) node->log_.emplace_back(text);
  static const bool loud = std::getenv("HAST_TEST_LOG") != nullptr;
  if (loud) {
    std::fprintf(stderr, "%10.3f node %d [%d] %.*s\n",
                 static_cast<double>(node->pair_.loop.now_us()) / 1e6, node->index_,
                 static_cast<int>(level), static_cast<int>(text.size()), text.data());
  }
}

// --- node
// -----------------------------------------------------------------------------------------

Node::Node(Pair& pair, int index)
    : pair_(pair),
      index_(index),
      address_(index == 0 ? "a" : "b"),
      disk_(take_disk(pair.options.disk_bytes)) {
  listener_ = pair_.network.listen(address_);
  create();
  const SimLoop::As as(pair_.loop, party());
  pair_.scope.spawn(accept_peers());
}

void Node::freeze(uint64_t us, bool timers_first) { pair_.loop.freeze(party(), us, timers_first); }
void Node::thaw() { pair_.loop.thaw(party()); }
bool Node::frozen() const { return pair_.loop.frozen(party()); }

void Node::replace_disk() {
  HAST_ASSERT(role_ == NodeRole::kInit);
  HAST_ASSERT(life_ == nullptr);
  disk_->reset();
  create();
}

void Node::create(bool contents_equal) {
  LayoutRequest request;
  request.provider_bytes = disk_->size_bytes();
  request.extent_bytes = pair_.options.extent_bytes;
  request.keepdirty = pair_.options.keepdirty;
  if (pair_.options.layout_hast) request.kind = LayoutKind::kHast;
  const Result<Layout> layout = plan_layout(request);
  HAST_ASSERT(layout.has_value());
  const Metadata fresh = initial_metadata(kResource, *layout);
  MetadataBlock block = MetadataBlock::create(fresh);
  if (contents_equal) {
    Extra promise;
    promise.generation = kGenerationOfEqualContents;
    block = block.plan_update(fresh, promise, disk_->sector_bytes()).after;
  }
  std::vector<std::byte> zero(layout->map_bytes);
  disk_->set(0, block.bytes());
  disk_->set(kMetadataBytes, zero);
}

Metadata Node::metadata() const {
  const Result<MetadataBlock> block = MetadataBlock::decode(disk_->current().first(kMetadataBytes));
  HAST_ASSERT(block.has_value());
  return block->metadata();
}

Extra Node::extra() const {
  const Result<MetadataBlock> block = MetadataBlock::decode(disk_->current().first(kMetadataBytes));
  HAST_ASSERT(block.has_value());
  return block->extra();
}

ConstBytes Node::data() const {
  const Metadata m = metadata();
  return disk_->current().subspan(m.offset, m.datasize);
}

ConstBytes Node::durable_data() const {
  const Metadata m = metadata();
  return disk_->durable().subspan(m.offset, m.datasize);
}

std::vector<std::byte> Node::map() const {
  const Metadata m = metadata();
  const uint64_t bytes = map_bytes_for(m.datasize, m.extentsize, disk_->sector_bytes());
  const ConstBytes at = disk_->current().subspan(kMetadataBytes, bytes);
  return {at.begin(), at.end()};
}

bool Node::map_empty() const {
  const std::vector<std::byte> bits = map();
  return std::all_of(bits.begin(), bits.end(), [](std::byte b) { return b == std::byte{0}; });
}

bool Node::logged(std::string_view part) const {
  return std::any_of(log_.begin(), log_.end(), [part](const std::string& line) {
    return line.find(part) != std::string::npos;
  });
}

void Node::begin_life() {
  life_ = std::make_unique<Life>();
  Life& life = *life_;
  life.disk = std::make_unique<FaultComponent>(pair_.loop, *disk_, pair_.random.next());
  life.disk->set_trace(&pair_.trace);
  life.dialer = std::make_unique<PipeDialer>(pair_, index_ == 0 ? "b" : "a", index_);
  life.host.node = this;
  life.host.random_source = Random(pair_.random.next());
}

void Node::end_life() {
  if (life_ == nullptr) return;
  dead_.push_back(std::move(life_));
  if (pair_.options.original_node == index_) forget_records();
}

void Node::discard() {
  HAST_ASSERT(role_ == NodeRole::kInit);
  const Result<MetadataBlock> block = MetadataBlock::decode(disk_->current().first(kMetadataBytes));
  HAST_ASSERT(block.has_value() && !block->needs_rewrite());
  disk_->set(0, block->plan_discard(disk_->sector_bytes()).after.bytes());
}

/// What we keep behind an original's fields, no original has.
void Node::forget_records() { disk_->set(0, MetadataBlock::create(metadata()).bytes()); }

/// A machine that was gone is there again.
void Node::reappear() {
  for (uint32_t link = 0; link < kLinks; ++link) pair_.network.reappear(link);
}

void Node::become_primary(bool force) {
  if (!become_init()) return;
  const SimLoop::As as(pair_.loop, party());
  reappear();
  role_ = NodeRole::kPrimary;
  begin_life();
  Life& life = *life_;
  life.slab = take_slab(std::size_t{2} * kRequestsMax * kRequestBytesMax);
  PrimaryConfig config;
  config.resource = kResource;
  config.force = force || pair_.options.original_node == index_;
  config.bootid = bootid_;
  config.settings.replication = pair_.options.replication;
  config.settings.checksum = pair_.options.checksum;
  config.settings.compression = pair_.options.compression;
  config.settings.timeout_ms = pair_.options.timeout_ms;
  config.settings.secret = pair_.options.secret[static_cast<std::size_t>(index_)];
  life.primary = std::make_unique<Primary>(*life.disk, *life.dialer, life.host, config,
                                           life.slab->data(), kRequestBytesMax);
  life.scope.spawn(run_primary(life));
}

Task<void> Node::run_primary(Life& life) {
  life.serving = co_await life.primary->start(life.failure);
  life.started = true;
  if (!life.serving) {
    life.primary->stop_admission();
    co_await life.primary->drain();
    life.ended = true;
    if (life_.get() == &life) role_ = NodeRole::kInit;
  }
}

Task<void> Node::stop_primary(Life& life) {
  life.stopping = true;
  life.primary->stop_admission();
  while (!life.started) {
    SleepTimer pause;
    co_await pause.sleep_us(1000);
  }
  if (life.serving) co_await life.primary->drain();
  life.serving = false;
  life.ended = true;
}

void Node::become_secondary() {
  if (!become_init()) return;
  reappear();
  role_ = NodeRole::kSecondary;
}

bool Node::become_init() {
  thaw();
  const SimLoop::As as(pair_.loop, party());
  if (life_ != nullptr && life_->primary != nullptr && !life_->ended) {
    Life& life = *life_;
    if (!life.stopping) life.scope.spawn(stop_primary(life));
    pair_.loop.run_until([this, &life] { return life.ended || pair_.frozen(); }, 120'000'000);
    if (!life.ended && pair_.frozen()) return false;
    CHECK(life.ended);
  }
  if (life_ != nullptr && life_->secondary != nullptr && !life_->ended) {
    Life& life = *life_;
    life.secondary->stop();
    pair_.loop.run_until([this, &life] { return life.ended || pair_.frozen(); }, 120'000'000);
    if (!life.ended && pair_.frozen()) return false;
    CHECK(life.ended);
  }
  role_ = NodeRole::kInit;
  half_open_.reset();
  token_valid_ = false;
  end_life();
  return true;
}

void Node::kill_life(bool lose_power, uint64_t seed, bool silently) {
  thaw();
  const SimLoop::As as(pair_.loop, party());
  role_ = NodeRole::kInit;
  if (silently) {
    pair_.network.vanish(dialled_by(index_), 0);
    pair_.network.vanish(dialled_by(1 - index_), 1);
  } else {
    for (uint32_t link = 0; link < kLinks; ++link) pair_.network.cut(link);
  }
  half_open_.reset();
  token_valid_ = false;
  for (const std::unique_ptr<Pair::Operation>& operation : pair_.operations_) {
    if (operation->life == life_.get() && !operation->done) operation->orphaned = true;
  }
  if (life_ != nullptr) {
    static_cast<PipeDialer&>(*life_->dialer).dead = true;
    if (lose_power) {
      life_->disk->power_cut(seed);
    } else {
      life_->disk->crash();
    }
    Life& life = *life_;
    if (life.primary != nullptr && !life.ended && !life.stopping)
      life.scope.spawn(stop_primary(life));
    if (life.secondary != nullptr && !life.ended) life.secondary->stop();
    end_life();
  } else if (lose_power) {
    disk_->power_cut(seed);
  }
}

void Node::crash() { kill_life(false, pair_.random.next(), false); }
void Node::power_cut(uint64_t seed, bool silently) {
  kill_life(true, seed, silently);
  ++bootid_;
}

// --- the supervisor's part of the set-up
// ----------------------------------------------------------

Task<void> Node::accept_peers() {
  for (;;) {
    std::unique_ptr<Stream> stream;
    const int rc = co_await listener_->accept(stream);
    if (rc != 0) co_return;
    pair_.scope.spawn(handshake(std::move(stream)));
  }
}

Task<void> Node::refuse(std::unique_ptr<Stream> stream, std::string text, bool wait) {
  std::byte out[512];
  FirstReply reply;
  reply.errmsg = text;
  reply.wait = wait;
  iovec part{out, encode_first_reply(Bytes(out), 2, reply)};
  co_await send_all(*stream, std::span<iovec>(&part, 1));
  stream->shut_down();
}

Task<void> Node::handshake(std::unique_ptr<Stream> stream) {
  PacketReader reader(*stream, PacketReader::kSetUpRoom);
  ConstBytes area;
  const int rc = co_await read_area(reader, area);
  if (rc != 0) co_return;
  const Result<bool> second = is_second_request(area);
  if (!second) co_return;
  if (role_ != NodeRole::kSecondary) {
    const bool primary = role_ == NodeRole::kPrimary;
    co_await refuse(std::move(stream),
                    std::string("Remote node acts as ") + (primary ? "primary" : "init") +
                        " for the resource and not as secondary.",
                    primary);
    co_return;
  }
  if (*second) {
    const Result<SecondRequest> message = decode_second_request(area);
    if (!message) co_return;
    const bool proven =
        pair_.options.lax || !half_auth_.on() || second_request_proven(area, half_auth_);
    co_await second_message(std::move(stream), *message, proven);
  } else {
    const Result<FirstRequest> message = decode_first_request(area);
    if (!message) co_return;
    co_await first_message(std::move(stream), *message);
  }
}

Task<void> Node::first_message(std::unique_ptr<Stream> stream, FirstRequest message) {
  const std::string& secret = pair_.options.secret[static_cast<std::size_t>(index_)];
  if (pair_.is_original(1 - index_)) {  // it does not know these words
    message.ext = 0;
    message.nonce.reset();
  }
  const bool extended = !pair_.is_original(index_) && message.ext == kExtExtended;
  if (!secret.empty() && (!message.nonce || !extended)) {
    co_await refuse(std::move(stream),
                    "Authentication required: this node has a secret for the resource, the peer "
                    "sent none.",
                    false);
    co_return;
  }
  FirstReply reply;
  reply.version = std::min(pair_.options.version, message.version);
  half_version_ = reply.version;
  half_extended_ = extended;
  if (half_extended_) reply.ext = kExtExtended;
  half_auth_ = {};
  if (!secret.empty()) {
    half_auth_ = {secret, *message.nonce, {}};
    for (std::byte& byte : half_auth_.secondary) byte = static_cast<std::byte>(pair_.random.next());
    reply.nonce = half_auth_.secondary;
  }
  for (std::byte& byte : token_) byte = static_cast<std::byte>(pair_.random.next());
  token_valid_ = true;
  reply.token = token_;
  std::byte out[512];
  iovec part{out, encode_first_reply(Bytes(out), reply.version, reply)};
  const std::shared_ptr<HalfOpen> kept = std::make_shared<HalfOpen>();
  kept->stream = std::move(stream);
  half_open_ = kept;
  const int sent = co_await send_all(*kept->stream, std::span<iovec>(&part, 1));
  if (sent != 0 && half_open_ == kept) half_open_.reset();
}

Task<void> Node::second_message(std::unique_ptr<Stream> stream, SecondRequest message,
                                bool proven) {
  if (!token_valid_ || half_open_ == nullptr || !tokens_equal(token_, message.token)) {
    co_await refuse(std::move(stream), "Token doesn't match.", false);
    co_return;
  }
  token_valid_ = false;
  std::unique_ptr<Stream> first = std::move(half_open_->stream);
  half_open_.reset();
  if (!proven) {
    log_.push_back("Authentication failed: the secrets differ.");
    co_await refuse(std::move(stream), log_.back(), false);
    co_return;
  }
  SecondaryConfig config;
  config.resource = kResource;
  config.auth = half_auth_;
  HAST_ASSERT(half_extended_ || message.extension.ext == 0);
  const uint32_t bits = message.extension.ext;
  PrimaryFacts& primary = config.primary;
  primary.resuid = message.resuid;
  primary.localcnt = message.localcnt;
  primary.remotecnt = message.remotecnt;
  primary.virgin = message.virgin;
  primary.extended = (bits & kExtExtended) != 0;
  primary.contents_equal = (bits & kExtContentsEqual) != 0;
  primary.lost_cache = (bits & kExtLostCache) != 0;
  primary.incomplete = (bits & kExtIncomplete) != 0;
  primary.led = (bits & kExtLed) != 0;
  primary.generations = message.extension.generations;
  config.bootid = bootid_;
  config.version = half_version_;
  config.extended = config.primary.extended;
  config.epoch = message.extension.epoch;
  config.timeout_ms = pair_.options.timeout_ms;
  config.checksum = pair_.options.checksum;
  config.compression = pair_.options.compression;
  // Rule 17: the old worker stops reading, drains, flushes and ends before the new one begins.
  while (life_ != nullptr && life_->secondary != nullptr && !life_->ended) {
    life_->secondary->stop();
    SleepTimer pause;
    co_await pause.sleep_us(1000);
    if (role_ != NodeRole::kSecondary) co_return;
  }
  if (role_ != NodeRole::kSecondary) co_return;
  end_life();
  if (pair_.on_meeting) {
    pair_.on_meeting({index_, secondary_facts(metadata(), extra(), map_empty(), bootid_), primary});
  }
  begin_life();
  Life& life = *life_;
  life.slab = take_slab(std::size_t{kRequestsMax} * kPeerRequestBytesMax);
  life.secondary =
      std::make_unique<Secondary>(*life.disk, life.host, config, std::move(first),
                                  std::move(stream), life.slab->data(), kPeerRequestBytesMax);
  life.scope.spawn(run_secondary(life));
}

Task<void> Node::run_secondary(Life& life) {
  co_await life.secondary->run(life.end);
  life.ended = true;
}

// --- pair
// -----------------------------------------------------------------------------------------

Pair::Pair(PairOptions o) : options(o), network(loop, o.seed), random(o.seed * 7919 + 1) {
  network.trace = &trace;
  nodes_[0] = std::make_unique<Node>(*this, 0);
  nodes_[1] = std::make_unique<Node>(*this, 1);
}

Pair::~Pair() {
  mend();
  for (const std::unique_ptr<Node>& node : nodes_) node->become_init();
  for (const std::unique_ptr<Node>& node : nodes_) node->listener_->close();
  cut();
  // Everything must come to its end: no coroutine may be left over.
  loop.advance(120'000'000);
  for (const std::unique_ptr<Node>& node : nodes_) {
    for (const std::unique_ptr<Life>& life : node->dead_) CHECK_EQ(life->scope.running(), 0u);
  }
  CHECK_EQ(scope.running(), 0u);
}

void Pair::cut(bool refuse) {
  link_down_ = refuse;
  for (uint32_t link = 0; link < kLinks; ++link) network.cut(link);
}

void Pair::cut_one_way(int node) {
  network.cut_direction(dialled_by(node), 0);
  network.cut_direction(dialled_by(1 - node), 1);
}

void Pair::silence() {
  silence_one_way(0);
  silence_one_way(1);
}

void Pair::silence_one_way(int node) {
  silent_ = true;
  network.silence(dialled_by(node), 0, true);
  network.silence(dialled_by(1 - node), 1, true);
}

void Pair::mend() {
  link_down_ = false;
  network.options.stillborn = 0;
  if (!silent_) return;
  silent_ = false;
  for (uint32_t link = 0; link < kLinks; ++link) {
    network.silence(link, 0, false);
    network.silence(link, 1, false);
    network.cut(link);  // what was lost on the way is not sent again
  }
}

void Pair::reap() {
  for (const std::unique_ptr<Node>& node : nodes_) {
    std::erase_if(node->dead_, [](const std::unique_ptr<Life>& life) {
      return life->ended && life->scope.running() == 0 && life->disk->outstanding() == 0;
    });
  }
}

bool Pair::frozen() const { return nodes_[0]->disk().frozen() || nodes_[1]->disk().frozen(); }

bool Pair::settle(Node& node, uint64_t limit_us) {
  return loop.run_until(
      [&node] {
        if (!node.serving()) return false;
        const EngineStats stats = node.primary()->stats();
        return stats.complete && stats.dirty_bytes == 0 && stats.in_flight == 0 &&
               stats.state == EngineState::kInSync && !node.extra().sync_target;
      },
      limit_us);
}

bool Pair::run_until_serving(Node& node, uint64_t limit_us) {
  return loop.run_until([&node] { return node.serving(); }, limit_us);
}

void Pair::connect() {
  b().become_secondary();
  a().become_primary();
  CHECK(run_until_serving(a()));
  CHECK(settle(a()));
}

bool Pair::equal() {
  const ConstBytes left = a().data();
  const ConstBytes right = b().data();
  return std::equal(left.begin(), left.end(), right.begin(), right.end());
}

Pair::Operation* Pair::begin(Node& node, RequestOp op, uint64_t offset, uint64_t length,
                             ConstBytes bytes, bool fua) {
  const SimLoop::As as(loop, node.party());
  operations_.push_back(std::make_unique<Operation>());
  Operation& operation = *operations_.back();
  operation.op = op;
  operation.offset = offset;
  operation.length = length;
  operation.fua = fua;
  operation.bytes.assign(bytes.begin(), bytes.end());
  if (op == RequestOp::kRead) operation.bytes.resize(length);
  Life& life = *node.life();
  operation.life = &life;
  life.scope.spawn(run_operation(*life.primary, operation));
  return &operation;
}

Task<void> Pair::run_operation(Primary& primary, Operation& operation) {
  ProviderClient client;
  Signal waiter;
  Request* slot = nullptr;
  Request* got = primary.acquire(client, waiter, &slot);
  if (got == nullptr) {
    const int rc = co_await waiter;
    if (rc != 0) {
      operation.error = -rc;
      operation.done = !operation.orphaned;
      operation.finished = true;
      co_return;
    }
    got = slot;
  }
  got->op = operation.op;
  got->offset = operation.offset;
  got->length = operation.length;
  got->fua = operation.fua;
  if (operation.op == RequestOp::kWrite) {
    std::memcpy(got->buffer, operation.bytes.data(), operation.length);
  }
  Signal answered;
  got->answered = &answered;
  primary.submit(*got);
  co_await answered;
  operation.error = got->error;
  if (operation.op == RequestOp::kRead && got->error == 0) {
    std::memcpy(operation.bytes.data(), got->buffer, operation.length);
  }
  operation.done = !operation.orphaned;  // what a dead process says reaches nobody
  primary.release(*got);
  while (client.slots_held > 0) {
    SleepTimer pause;
    co_await pause.sleep_us(100);
  }
  operation.finished = true;
}

namespace {
int finish(Pair& pair, const Pair::Operation* operation) {
  const bool done = pair.loop.run_until(
      [operation] { return operation->done || operation->orphaned; }, 120'000'000);
  return done && operation->done ? operation->error : -1;
}
}  // namespace

int Pair::write(Node& node, uint64_t offset, ConstBytes bytes, bool fua) {
  return finish(*this, begin(node, RequestOp::kWrite, offset, bytes.size(), bytes, fua));
}

int Pair::read(Node& node, uint64_t offset, Bytes into) {
  const Operation* operation = begin(node, RequestOp::kRead, offset, into.size());
  const int rc = finish(*this, operation);
  if (rc == 0) std::memcpy(into.data(), operation->bytes.data(), into.size());
  return rc;
}

int Pair::flush(Node& node) { return finish(*this, begin(node, RequestOp::kFlush, 0, 0)); }

int Pair::discard(Node& node, uint64_t offset, uint64_t length) {
  return finish(*this, begin(node, RequestOp::kDelete, offset, length));
}

void Pair::forget_done() {
  std::erase_if(operations_, [](const std::unique_ptr<Operation>& o) { return o->finished; });
}

}  // namespace hast::test
