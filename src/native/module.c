/* Registration, and the helpers that read arguments and make results and errors. */
#include "holdfast.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct args args_read(napi_env env, napi_callback_info info) {
  struct args args = {.env = env};
  size_t count = ARGS_MAX;
  args.bad = napi_get_cb_info(env, info, &count, args.value, NULL, &args.data) != napi_ok;
  return args;
}

static void fail_type(struct args *args, int index, const char *expected) {
  char message[64];
  if (args->bad) return;
  snprintf(message, sizeof message, "argument %d must be %s", index + 1, expected);
  napi_throw_type_error(args->env, NULL, message);
  args->bad = true;
}

void args_fail_range(struct args *args, const char *format, ...) {
  char message[160];
  va_list list;
  if (args->bad) return;
  va_start(list, format);
  vsnprintf(message, sizeof message, format, list);
  va_end(list);
  napi_throw_range_error(args->env, NULL, message);
  args->bad = true;
}

double arg_number(struct args *args, int index) {
  double value = 0;
  if (args->bad) return 0;
  if (napi_get_value_double(args->env, args->value[index], &value) != napi_ok)
    fail_type(args, index, "a number");
  return value;
}

uint64_t arg_size(struct args *args, int index) {
  double value = arg_number(args, index);
  /* The comparison is written so that NaN fails it too. */
  if (value >= 0 && value < 9007199254740992.0 && (double)(uint64_t)value == value)
    return (uint64_t)value;
  args_fail_range(args, "argument %d must be an integer from 0 to 2^53 - 1, not %g", index + 1,
                  value);
  return 0;
}

int arg_int(struct args *args, int index) {
  double value = arg_number(args, index);
  if (value >= INT32_MIN && value <= INT32_MAX && (double)(int)value == value) return (int)value;
  args_fail_range(args, "argument %d must be a 32-bit integer, not %g", index + 1, value);
  return 0;
}

bool arg_bool(struct args *args, int index) {
  bool value = false;
  if (args->bad) return false;
  if (napi_get_value_bool(args->env, args->value[index], &value) != napi_ok)
    fail_type(args, index, "a boolean");
  return value;
}

char *arg_string(struct args *args, int index) {
  size_t length = 0;
  char *text = NULL;
  if (args->bad) return NULL;
  if (napi_get_value_string_utf8(args->env, args->value[index], NULL, 0, &length) == napi_ok)
    text = malloc(length + 1);
  if (text == NULL) {
    fail_type(args, index, "a string");
    return NULL;
  }
  napi_get_value_string_utf8(args->env, args->value[index], text, length + 1, &length);
  if (strlen(text) != length) args_fail_range(args, "argument %d contains a NUL", index + 1);
  return text;
}

struct bytes arg_bytes(struct args *args, int index) {
  struct bytes bytes = {0};
  napi_typedarray_type type = napi_int8_array;
  void *data = NULL;
  if (args->bad) return bytes;
  if (napi_get_typedarray_info(args->env, args->value[index], &type, &bytes.length, &data, NULL,
                               NULL) != napi_ok || type != napi_uint8_array)
    fail_type(args, index, "a Uint8Array");
  bytes.data = data;
  return bytes;
}

char *arg_slice(struct args *args, int index, uint64_t offset, uint64_t length) {
  struct bytes bytes = arg_bytes(args, index);
  if (args->bad) return NULL;
  if (offset > bytes.length || length > bytes.length - offset) {
    args_fail_range(args, "%llu bytes at %llu are outside the buffer of %zu bytes",
                    (unsigned long long)length, (unsigned long long)offset, bytes.length);
    return NULL;
  }
  return bytes.data + offset;
}

struct mapping *arg_map(struct args *args, int index) {
  double id = arg_number(args, index);
  if (args->bad) return NULL;
  int slot = id >= 0 && id < MAP_LIMIT ? (int)id : 0;
  if (slot == id && mappings[slot].base != NULL) return &mappings[slot];
  args_fail_range(args, "there is no mapping %g", id);
  return NULL;
}

void args_check_range(struct args *args, const struct mapping *map, uint64_t offset,
                      uint64_t length) {
  if (args->bad) return;
  if (offset > map->length || length > map->length - offset)
    args_fail_range(args, "%llu bytes at %llu are outside the mapping of %zu bytes",
                    (unsigned long long)length, (unsigned long long)offset, map->length);
}

napi_value number_value(napi_env env, double value) {
  napi_value result = NULL;
  /* Small integers are made without a heap number. */
  if (value >= INT32_MIN && value <= INT32_MAX) napi_create_int32(env, (int32_t)value, &result);
  else napi_create_double(env, value, &result);
  return result;
}

void set_value(napi_env env, napi_value object, const char *name, napi_value value) {
  napi_set_named_property(env, object, name, value);
}

napi_value errno_value(napi_env env, int number, const char *what) {
  char name[32], text[160];
  napi_value code, message, error = NULL;
  uv_err_name_r(-number, name, sizeof name);
  snprintf(text, sizeof text, "%s: %s", what, strerror(number));
  napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &code);
  napi_create_string_utf8(env, text, NAPI_AUTO_LENGTH, &message);
  napi_create_error(env, code, message, &error);
  set_value(env, error, "errno", number_value(env, number));
  return error;
}

napi_value throw_errno(napi_env env, int number, const char *what) {
  napi_throw(env, errno_value(env, number, what));
  return NULL;
}

void register_methods(napi_env env, napi_value exports, const struct method *methods,
                      size_t count) {
  for (size_t i = 0; i < count; i++) {
    napi_value function;
    napi_create_function(env, methods[i].name, NAPI_AUTO_LENGTH, methods[i].call, NULL, &function);
    set_value(env, exports, methods[i].name, function);
  }
}

NAPI_MODULE_INIT() {
  map_register(env, exports);
  guard_register(env, exports);
  signal_register(env, exports);
  poison_register(env, exports);
  lock_register(env, exports);
  mount_register(env, exports);
  channel_register(env, exports);
  nvdimm_register(env, exports);
  extents_register(env, exports);
  return exports;
}
