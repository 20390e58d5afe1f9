/* Open-file-description locks: they belong to the open file, so a crash frees them. */
#include "holdfast.h"

#include <errno.h>
#include <fcntl.h>

static int set_lock(int fd, short type, uint64_t start, uint64_t length) {
  struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)start,
                       .l_len = (off_t)length};
  int result;
  do result = fcntl(fd, F_OFD_SETLK, &lock);
  while (result != 0 && errno == EINTR);
  return result;
}

static napi_value js_lock_range(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  int fd = arg_int(&args, 0);
  uint64_t start = arg_size(&args, 1), length = arg_size(&args, 2);
  bool exclusive = arg_bool(&args, 3);
  if (args.bad) return NULL;
  napi_value result;
  bool got = set_lock(fd, exclusive ? F_WRLCK : F_RDLCK, start, length) == 0;
  if (!got && errno != EAGAIN && errno != EACCES) return throw_errno(env, errno, "lock");
  napi_get_boolean(env, got, &result);
  return result;
}

static napi_value js_unlock_range(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  int fd = arg_int(&args, 0);
  uint64_t start = arg_size(&args, 1), length = arg_size(&args, 2);
  if (args.bad) return NULL;
  if (set_lock(fd, F_UNLCK, start, length) != 0) return throw_errno(env, errno, "unlock");
  return NULL;
}

void lock_register(napi_env env, napi_value exports) {
  static const struct method methods[] = {{"lockRange", js_lock_range},
                                          {"unlockRange", js_unlock_range}};
  register_methods(env, exports, methods, sizeof methods / sizeof *methods);
}
