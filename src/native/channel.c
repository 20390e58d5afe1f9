/*
 * The FUSE channel: requests are read and answered on the event loop's own thread. Nothing on the
 * way of a request allocates, apart from what calling a JavaScript function costs.
 */
#include "holdfast.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define PAYLOAD_SIZE (((size_t)1 << 20) + PAGE)
/* Requests handled before timers and other descriptors have their turn. */
#define BURST 64
/* How long to look for the next request before sleeping, and after how many vain looks in a row to
 * look only now and then; see next_request. */
#define SPIN_NS 30000
#define SPIN_MISSES 4
#define SPIN_RETRY 32
/* Two of libuv's four worker threads at most: the kernel may let a notification wait for a request
 * whose answer waits for an msync, and that needs a worker too. */
#define NOTIFY_LIMIT 2
#define PIECES_MAX (IOV_MAX - 1)

struct out_header {
  uint32_t length;
  int32_t error;
  uint64_t unique;
};

struct channel {
  uv_poll_t poll;
  napi_env env;
  napi_ref on_request, on_closed;
  int fd;
  bool running;
  unsigned misses; /* spins in a row that found nothing */
  int holders; /* functions, buffers, jobs and the poll handle: the last one frees */
  size_t request_size, payload_size;
  char *request, *payload;
  struct job *queued, **queue_end; /* notifications beyond NOTIFY_LIMIT */
  int notifying;
};

static char zeros[64 << 10]; /* what holes read as; .bss, so no larger on disk */

static void release(struct channel *channel) {
  if (--channel->holders > 0) return;
  free(channel->request);
  free(channel);
}

static void finalize(napi_env env, void *data, void *hint) {
  (void)env, (void)data;
  release(hint);
}

/* Replies. */

static struct out_header *header_for(struct out_header *header, uint64_t unique, int error,
                                     size_t payload) {
  *header = (struct out_header){(uint32_t)(sizeof *header + payload), -error, unique};
  return header;
}

/* Returns 0 or an errno. ENOENT: the request was interrupted and nobody wants the answer. */
static int send_parts(int fd, const struct iovec *parts, int count) {
  ssize_t written;
  do written = writev(fd, parts, count);
  while (written < 0 && errno == EINTR);
  return written < 0 ? errno : 0;
}

static int send_reply(int fd, uint64_t unique, int error, char *payload, size_t length) {
  struct out_header header;
  struct iovec parts[2] = {{header_for(&header, unique, error, length), sizeof header},
                           {payload, length}};
  return send_parts(fd, parts, length > 0 ? 2 : 1);
}

static napi_value js_reply(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct channel *channel = args.data;
  uint64_t unique = arg_size(&args, 0), length = arg_size(&args, 2);
  int error = arg_int(&args, 1);
  if (length > channel->payload_size)
    args_fail_range(&args, "a reply is at most %zu bytes long", channel->payload_size);
  if (args.bad) return NULL;
  return number_value(env, send_reply(channel->fd, unique, error, channel->payload, length));
}

static napi_value js_reply_with(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct channel *channel = args.data;
  uint64_t unique = arg_size(&args, 0);
  int error = arg_int(&args, 1);
  struct bytes payload = arg_bytes(&args, 2);
  if (args.bad) return NULL;
  return number_value(env, send_reply(channel->fd, unique, error, payload.data, payload.length));
}

/* A READ's answer: pairs of (region offset or -1, length), checked by arg_pieces. */
struct pieces {
  struct mapping *map;
  const double *pairs;
  size_t count, bytes;
};

static bool piece_is_hole(const struct pieces *pieces, size_t i) {
  return pieces->pairs[2 * i] < 0;
}

static size_t piece_offset(const struct pieces *pieces, size_t i) {
  return (size_t)pieces->pairs[2 * i];
}

static size_t piece_length(const struct pieces *pieces, size_t i) {
  return (size_t)pieces->pairs[2 * i + 1];
}

static void check_piece(struct args *args, struct pieces *pieces, size_t i) {
  double offset = pieces->pairs[2 * i], length = pieces->pairs[2 * i + 1];
  double limit = (double)pieces->map->length;
  /* Written so that NaN fails; fractions are harmless, for both are cut to integers below. */
  bool inside = length >= 0 && length <= limit && offset >= -1 && offset <= limit &&
                (offset == -1 || offset + length <= limit);
  if (!inside || (offset < 0 && offset != -1))
    args_fail_range(args, "piece %zu: %g bytes at %g are outside the mapping", i, length, offset);
  else
    pieces->bytes += (size_t)length;
}

static struct pieces arg_pieces(struct args *args, const struct channel *channel) {
  struct pieces pieces = {.map = arg_map(args, 1), .count = arg_size(args, 3)};
  napi_typedarray_type type = napi_int8_array;
  size_t length = 0;
  void *data = NULL;
  if (args->bad) return pieces;
  if (napi_get_typedarray_info(args->env, args->value[2], &type, &length, &data, NULL, NULL) !=
          napi_ok || type != napi_float64_array || pieces.count > length / 2)
    args_fail_range(args, "argument 3 must be a Float64Array of at least %zu pairs", pieces.count);
  pieces.pairs = data;
  for (size_t i = 0; i < pieces.count && !args->bad; i++) check_piece(args, &pieces, i);
  if (pieces.bytes > channel->payload_size)
    args_fail_range(args, "a reply is at most %zu bytes long", channel->payload_size);
  return pieces;
}

/*
 * The kernel itself answers EIO once it has met a bad page in a reply, and then the caller has no
 * say. So touch the pages first: cheap, and it faults them in as well.
 */
static double probe_pieces(const struct pieces *pieces) {
  double result = GUARD_OK;
  for (size_t i = 0; i < pieces->count && result == GUARD_OK; i++)
    if (!piece_is_hole(pieces, i))
      result = guard_probe(pieces->map, piece_offset(pieces, i), piece_length(pieces, i));
  return result;
}

/* Fills parts[1..]; the number of parts with the header, or 0 when they are too many for writev. */
static int make_parts(const struct pieces *pieces, struct iovec *parts) {
  size_t used = 1;
  for (size_t i = 0; i < pieces->count; i++) {
    bool hole = piece_is_hole(pieces, i);
    char *from = hole ? zeros : pieces->map->base + piece_offset(pieces, i);
    size_t left = piece_length(pieces, i);
    while (left > 0) {
      size_t length = hole && left > sizeof zeros ? sizeof zeros : left;
      if (used > PIECES_MAX) return 0;
      parts[used++] = (struct iovec){from, length};
      left -= length;
    }
  }
  return (int)used;
}

/* The slow way: everything through the payload buffer. */
static double bounce_pieces(struct channel *channel, uint64_t unique, const struct pieces *pieces) {
  char *to = channel->payload;
  double result = GUARD_OK;
  for (size_t i = 0; i < pieces->count && result == GUARD_OK; i++) {
    size_t length = piece_length(pieces, i);
    if (piece_is_hole(pieces, i)) memset(to, 0, length);
    else result = guard_copy_out(pieces->map, piece_offset(pieces, i), to, length);
    to += length;
  }
  if (result == GUARD_OK) send_reply(channel->fd, unique, 0, channel->payload, pieces->bytes);
  return result;
}

static double reply_pieces(struct channel *channel, uint64_t unique, const struct pieces *pieces) {
  struct out_header header;
  struct iovec parts[PIECES_MAX + 1];
  double failed = probe_pieces(pieces);
  if (failed != GUARD_OK) return failed;
  parts[0] = (struct iovec){header_for(&header, unique, 0, pieces->bytes), sizeof header};
  int count = make_parts(pieces, parts);
  if (count == 0) return bounce_pieces(channel, unique, pieces);
  if (send_parts(channel->fd, parts, count) != EFAULT) return GUARD_OK;
  /* Gone bad since the probe: find out where. */
  failed = probe_pieces(pieces);
  return failed != GUARD_OK ? failed : bounce_pieces(channel, unique, pieces);
}

static napi_value js_reply_pieces(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct channel *channel = args.data;
  uint64_t unique = arg_size(&args, 0);
  struct pieces pieces = arg_pieces(&args, channel);
  if (args.bad) return NULL;
  return number_value(env, reply_pieces(channel, unique, &pieces));
}

/* Notifications. */

static int notify_run(struct job *job) {
  ssize_t written;
  do written = write(job->fd, job->data, job->length);
  while (written < 0 && errno == EINTR);
  return written < 0 ? errno : 0;
}

static void notify_next(napi_env env, struct channel *channel) {
  while (channel->notifying < NOTIFY_LIMIT && channel->queued != NULL) {
    struct job *job = channel->queued;
    channel->queued = job->next;
    if (channel->queued == NULL) channel->queue_end = &channel->queued;
    channel->notifying++;
    job_queue(env, job);
  }
}

static void notify_done(napi_env env, struct job *job) {
  struct channel *channel = job->owner;
  free(job->data);
  free(job);
  channel->notifying--;
  notify_next(env, channel);
  release(channel);
}

static napi_value js_notify(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct channel *channel = args.data;
  struct bytes message = arg_bytes(&args, 0);
  napi_value promise;
  if (args.bad) return NULL;
  char *copy = malloc(message.length + 1);
  if (copy == NULL) return throw_errno(env, ENOMEM, "notify");
  struct job *job = job_new(env, &promise);
  job->run = notify_run;
  job->done = notify_done;
  job->owner = channel;
  job->fd = channel->fd;
  job->data = memcpy(copy, message.data, message.length);
  job->length = message.length;
  channel->holders++;
  *channel->queue_end = job;
  channel->queue_end = &job->next;
  notify_next(env, channel);
  return promise;
}

/* Requests. */

static void call_back(struct channel *channel, napi_ref function, double argument) {
  napi_env env = channel->env;
  napi_handle_scope scope;
  napi_value callee, global, value, error;
  napi_open_handle_scope(env, &scope);
  napi_get_reference_value(env, function, &callee);
  napi_get_global(env, &global);
  value = number_value(env, argument);
  if (napi_make_callback(env, NULL, global, callee, 1, &value, NULL) == napi_pending_exception &&
      napi_get_and_clear_last_exception(env, &error) == napi_ok)
    napi_fatal_exception(env, error); /* 'uncaughtException' decides */
  napi_close_handle_scope(env, scope);
}

static void on_poll_closed(uv_handle_t *handle) { release(handle->data); }

static void abandon(void *data);

static void detach(struct channel *channel) {
  napi_remove_env_cleanup_hook(channel->env, abandon, channel);
  napi_delete_reference(channel->env, channel->on_request);
  napi_delete_reference(channel->env, channel->on_closed);
  uv_close((uv_handle_t *)&channel->poll, on_poll_closed);
}

static void stop(struct channel *channel) {
  if (!channel->running) return;
  channel->running = false;
  detach(channel);
}

static void closed(struct channel *channel, int error) {
  channel->running = false;
  uv_poll_stop(&channel->poll);
  call_back(channel, channel->on_closed, error);
  detach(channel);
}

/* The environment ends (a worker's, say) while the channel is open: no JavaScript any more, and the
 * references go with it. Close the handle, for the loop must be empty, and keep the memory. */
static void abandon(void *data) {
  struct channel *channel = data;
  channel->running = false;
  uv_close((uv_handle_t *)&channel->poll, NULL);
}

static uint64_t now_ns(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* Reads a request; 0 when there is none, minus an errno when the connection is gone. */
static ssize_t read_request(struct channel *channel) {
  for (;;) {
    ssize_t length = read(channel->fd, channel->request, channel->request_size);
    if (length > 0) return length;
    if (length == 0) return -ENODEV;
    if (errno == EAGAIN) return 0;
    if (errno != EINTR && errno != ENOENT) return -errno; /* ENOENT: interrupted, withdrawn */
  }
}

/*
 * A client that has just been answered tends to be back within microseconds, sooner than this
 * thread would be asleep and awake again (measured: 18 us a request instead of 54). So after an
 * answer keep looking for a moment; but a client that thinks longer, or waits for the processor we
 * are burning, makes that a loss: after a few misses, try it only now and then.
 */
static ssize_t next_request(struct channel *channel) {
  ssize_t length = read_request(channel);
  if (length != 0) return length;
  if (channel->misses >= SPIN_MISSES && ++channel->misses % SPIN_RETRY != 0) return 0;
  uint64_t until = now_ns() + SPIN_NS;
  while (length == 0 && now_ns() < until) length = read_request(channel);
  channel->misses = length > 0 ? 0 : channel->misses + 1;
  return length;
}

static void on_readable(uv_poll_t *poll, int status, int events) {
  struct channel *channel = poll->data;
  (void)events;
  channel->holders++; /* a handler may stop the channel */
  for (int handled = 0; channel->running && handled < BURST; handled++) {
    ssize_t length = handled == 0 ? read_request(channel) : next_request(channel);
    if (length < 0) closed(channel, (int)-length);
    if (length <= 0) break;
    call_back(channel, channel->on_request, (double)length);
  }
  /* libuv has stopped a handle whose descriptor reported an error; the read says if it is dead. */
  if (status < 0 && channel->running) uv_poll_start(poll, UV_READABLE, on_readable);
  release(channel);
}

/* The object. */

static void add_buffer(struct channel *channel, napi_value object, const char *name, char *data,
                       size_t length) {
  napi_value buffer, view;
  channel->holders++;
  napi_create_external_arraybuffer(channel->env, data, length, finalize, channel, &buffer);
  napi_create_typedarray(channel->env, napi_uint8_array, length, buffer, 0, &view);
  set_value(channel->env, object, name, view);
}

static void add_method(struct channel *channel, napi_value object, const char *name,
                       napi_callback call) {
  napi_value function;
  channel->holders++;
  napi_create_function(channel->env, name, NAPI_AUTO_LENGTH, call, channel, &function);
  napi_add_finalizer(channel->env, function, NULL, finalize, channel, NULL);
  set_value(channel->env, object, name, function);
}

static napi_value js_stop(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  stop(args.data);
  return NULL;
}

static napi_value make_object(struct channel *channel) {
  napi_value object;
  napi_create_object(channel->env, &object);
  add_buffer(channel, object, "request", channel->request, channel->request_size);
  add_buffer(channel, object, "payload", channel->payload, channel->payload_size);
  add_method(channel, object, "reply", js_reply);
  add_method(channel, object, "replyWith", js_reply_with);
  add_method(channel, object, "replyPieces", js_reply_pieces);
  add_method(channel, object, "notify", js_notify);
  add_method(channel, object, "stop", js_stop);
  return object;
}

static struct channel *channel_new(napi_env env, int fd, size_t request_size) {
  struct channel *channel = calloc(1, sizeof *channel);
  size_t request_span = (request_size + PAGE - 1) / PAGE * PAGE;
  if (channel == NULL) return NULL;
  channel->env = env;
  channel->fd = fd;
  channel->request_size = request_size;
  channel->payload_size = request_span > PAYLOAD_SIZE ? request_span : PAYLOAD_SIZE;
  channel->queue_end = &channel->queued;
  if (posix_memalign((void **)&channel->request, PAGE, request_span + channel->payload_size) != 0) {
    free(channel);
    return NULL;
  }
  memset(channel->request, 0, request_span + channel->payload_size);
  channel->payload = channel->request + request_span;
  return channel;
}

/* The poll handle is the first holder. Returns 0 or an errno. */
static int start(struct channel *channel) {
  uv_loop_t *loop;
  int flags = fcntl(channel->fd, F_GETFL);
  if (flags < 0 || fcntl(channel->fd, F_SETFL, flags | O_NONBLOCK) != 0) return errno;
  napi_get_uv_event_loop(channel->env, &loop);
  int error = uv_poll_init(loop, &channel->poll, channel->fd);
  if (error != 0) return -error;
  channel->poll.data = channel;
  channel->holders = 1;
  channel->running = true;
  uv_poll_start(&channel->poll, UV_READABLE, on_readable);
  napi_add_env_cleanup_hook(channel->env, abandon, channel);
  return 0;
}

static napi_value js_open_channel(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  int fd = arg_int(&args, 0);
  uint64_t size = arg_size(&args, 1);
  if (size < 8192 || size > (64u << 20))
    args_fail_range(&args, "a request buffer has 8192 bytes to 64 MiB");
  for (int i = 2; i < 4 && !args.bad; i++) {
    napi_valuetype type = napi_undefined;
    napi_typeof(env, args.value[i], &type);
    if (type != napi_function) args_fail_range(&args, "argument %d must be a function", i + 1);
  }
  if (args.bad) return NULL;
  struct channel *channel = channel_new(env, fd, size);
  int error = channel == NULL ? ENOMEM : start(channel);
  if (error != 0) {
    if (channel != NULL) free(channel->request);
    free(channel);
    return throw_errno(env, error, "opening the FUSE channel");
  }
  signal_install();
  napi_create_reference(env, args.value[2], 1, &channel->on_request);
  napi_create_reference(env, args.value[3], 1, &channel->on_closed);
  return make_object(channel);
}

void channel_register(napi_env env, napi_value exports) {
  static const struct method methods[] = {{"openChannel", js_open_channel}};
  register_methods(env, exports, methods, 1);
}
