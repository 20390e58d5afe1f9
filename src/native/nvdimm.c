/* What libnvdimm tells of poison (a sysfs attribute that is notified), and its clearing. */
#include "holdfast.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

/* linux/ndctl.h, which is not installed everywhere. */
struct nd_cmd_clear_error {
  uint64_t address, length;
  uint32_t status;
  uint8_t reserved[4];
  uint64_t cleared;
} __attribute__((packed));
#define ND_IOCTL_CLEAR_ERROR _IOWR('N', 4, struct nd_cmd_clear_error)
#define CLEAR_STATUS_MASK 0xffff

struct watch {
  uv_poll_t poll; /* first: libuv hands it back */
  napi_env env;
  napi_ref handler;
  int fd; /* our own duplicate: it shares the read position that re-arms the notification */
  bool stopped;
};

static void on_closed(uv_handle_t *handle) {
  struct watch *watch = (struct watch *)handle;
  close(watch->fd);
  free(watch);
}

static void stop(struct watch *watch) {
  if (watch->stopped) return;
  watch->stopped = true;
  uv_poll_stop(&watch->poll);
  napi_delete_reference(watch->env, watch->handler);
  uv_close((uv_handle_t *)&watch->poll, on_closed);
}

static void on_notified(uv_poll_t *handle, int status, int events) {
  struct watch *watch = (struct watch *)handle;
  napi_handle_scope scope;
  napi_value handler, global, error;
  char first;
  (void)status, (void)events;
  /* Only a read from the start says that we have seen it; a device that is gone cannot be read. */
  bool gone = pread(watch->fd, &first, 1, 0) < 0;
  napi_env env = watch->env;
  napi_open_handle_scope(env, &scope);
  napi_get_reference_value(env, watch->handler, &handler);
  if (gone) uv_poll_stop(&watch->poll);
  napi_get_global(env, &global);
  if (napi_make_callback(env, NULL, global, handler, 0, NULL, NULL) == napi_pending_exception &&
      napi_get_and_clear_last_exception(env, &error) == napi_ok)
    napi_fatal_exception(env, error);
  napi_close_handle_scope(env, scope);
}

static void stop_at_exit(void *data) { stop(data); }

static napi_value js_stop(napi_env env, napi_callback_info info) {
  void *data;
  napi_get_cb_info(env, info, NULL, NULL, NULL, &data);
  struct watch **holder = data;
  if (*holder == NULL) return NULL;
  napi_remove_env_cleanup_hook(env, stop_at_exit, *holder);
  stop(*holder);
  *holder = NULL;
  return NULL;
}

static void free_holder(napi_env env, void *data, void *hint) {
  (void)env, (void)hint;
  free(data);
}

static napi_value js_watch_attribute(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  int fd = arg_int(&args, 0);
  uv_loop_t *loop;
  napi_value ender;
  if (args.bad) return NULL;
  struct watch *watch = calloc(1, sizeof *watch);
  watch->env = env;
  watch->fd = dup(fd);
  napi_get_uv_event_loop(env, &loop);
  int error = watch->fd < 0 ? -errno : uv_poll_init(loop, &watch->poll, watch->fd);
  if (error != 0) {
    if (watch->fd >= 0) close(watch->fd);
    free(watch);
    return throw_errno(env, -error, "watching a sysfs attribute");
  }
  if (napi_create_reference(env, args.value[1], 1, &watch->handler) != napi_ok) {
    uv_close((uv_handle_t *)&watch->poll, on_closed);
    napi_throw_type_error(env, NULL, "argument 2 must be a function");
    return NULL;
  }
  uv_unref((uv_handle_t *)&watch->poll); /* waiting for bad news keeps no process alive */
  uv_poll_start(&watch->poll, UV_PRIORITIZED, on_notified);
  napi_add_env_cleanup_hook(env, stop_at_exit, watch);
  struct watch **holder = malloc(sizeof(struct watch *));
  *holder = watch;
  napi_create_function(env, "stop", NAPI_AUTO_LENGTH, js_stop, holder, &ender);
  napi_add_finalizer(env, ender, holder, free_holder, NULL, NULL);
  return ender;
}

static napi_value js_clear_error(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  int fd = arg_int(&args, 0);
  struct nd_cmd_clear_error command = {.address = arg_size(&args, 1),
                                       .length = arg_size(&args, 2)};
  if (args.bad) return NULL;
  if (ioctl(fd, ND_IOCTL_CLEAR_ERROR, &command) < 0)
    return throw_errno(env, errno, "ND_CMD_CLEAR_ERROR");
  if (command.status & CLEAR_STATUS_MASK) return throw_errno(env, EIO, "ND_CMD_CLEAR_ERROR");
  return number_value(env, (double)command.cleared);
}

void nvdimm_register(napi_env env, napi_value exports) {
  static const struct method methods[] = {{"watchAttribute", js_watch_attribute},
                                          {"clearError", js_clear_error}};
  register_methods(env, exports, methods, sizeof methods / sizeof *methods);
}
