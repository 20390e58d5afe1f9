/*
 * The FUSE channel: requests are read and answered on the event loop's own thread. Nothing on the
 * way of a request allocates, apart from what calling a JavaScript function costs.
 */
#include "channel.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
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

void channel_release(struct channel *channel) {
  if (--channel->holders > 0) return;
  free(channel->request);
  free(channel);
}

static void finalize(napi_env env, void *data, void *hint) {
  (void)env, (void)data;
  channel_release(hint);
}

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

static void on_poll_closed(uv_handle_t *handle) { channel_release(handle->data); }

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
  channel_release(channel);
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
  add_method(channel, object, "reply", reply_plain);
  add_method(channel, object, "replyWith", reply_with);
  add_method(channel, object, "replyPieces", reply_pieces);
  add_method(channel, object, "notify", notify);
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
