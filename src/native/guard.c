/* Every touch of mapped memory: copies, checks and checksums that survive a bus error. */
#include <sys/mman.h>
#include "holdfast.h"

#include <string.h>

typedef void guard_work(void *argument);

/* Size of the unit that the last failure of this thread was in. */
static _Thread_local size_t failed_unit = PAGE;

/* Runs work(argument), which touches only the words of [offset, offset + length): GUARD_OK, or where
 * within the range a page begins that could not be touched. */
static double attempt(struct mapping *map, size_t offset, size_t length, guard_work *work,
                      void *argument) {
  struct guard guard; /* not initialised as a whole: the jump buffer is large and this is hot */
  guard.outer = current_guard;
  guard.from = map->base + offset / WORD * WORD;
  guard.to = map->base + (offset + length + WORD - 1) / WORD * WORD;
  if (sigsetjmp(guard.jump, 0) == 0) {
    current_guard = &guard;
    atomic_signal_fence(memory_order_seq_cst);
    work(argument);
    atomic_signal_fence(memory_order_seq_cst);
    current_guard = guard.outer;
    return GUARD_OK;
  }
  current_guard = guard.outer;
  failed_unit = guard.unit;
  size_t page = (size_t)(guard.failed - map->base) / PAGE * PAGE;
  return (double)(page > offset ? page : offset);
}

/* What guarded work is given: `inside` is in the mapping, `outside` in our own memory. */
struct task {
  char *inside, *outside;
  size_t length, step;
  uint32_t crc;
  bool durable, answer;
};

static void copy_out_work(void *argument) {
  struct task *task = argument;
  memcpy(task->outside, task->inside, task->length);
}

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23
#endif
#define POPULATE_MIN (64 * 1024)

/*
 * A large store into pages of a file that were never touched takes a fault per page; one call maps
 * them all. What it cannot map, the store meets again under the guard.
 */
static void populate(const struct task *task) {
  uintptr_t start = (uintptr_t)task->inside & ~(uintptr_t)4095;
  if (task->length >= POPULATE_MIN)
    madvise((void *)start, (uintptr_t)task->inside + task->length - start, MADV_POPULATE_WRITE);
}

static void copy_in_work(void *argument) {
  struct task *task = argument;
  populate(task);
  if (task->durable) persist_copy(task->inside, task->outside, task->length);
  else store_words(task->inside, task->outside, task->length);
}

static void zero_work(void *argument) {
  struct task *task = argument;
  if (task->durable) persist_zero(task->inside, task->length);
  else store_words(task->inside, NULL, task->length);
}

static void move_work(void *argument) {
  struct task *task = argument; /* `outside` is the source: in the mapping as well */
  memmove(task->inside, task->outside, task->length);
  if (task->durable) persist_range(task->inside, task->length);
}

static void probe_work(void *argument) {
  struct task *task = argument;
  const volatile char *byte = task->inside, *end = byte + task->length;
  while (byte < end) {
    (void)*byte;
    byte += task->step - (uintptr_t)byte % task->step; /* then the first of every further step */
  }
}

static void is_zero_work(void *argument) {
  struct task *task = argument;
  /* Equal to itself one byte further on, and the first byte is zero. */
  task->answer = task->length == 0 ||
                 (*task->inside == 0 &&
                  memcmp(task->inside, task->inside + 1, task->length - 1) == 0);
}

static void crc_work(void *argument) {
  struct task *task = argument;
  task->crc = crc32c(task->crc, task->inside, task->length);
}

static void write_back_work(void *argument) {
  struct task *task = argument;
  persist_range(task->inside, task->length);
}

#define LINE 64

/*
 * Poison in real memory is one line of a page. The kernel, which copies by addresses of its own,
 * could only panic when it met that, so every line is touched here. A file fails by pages.
 */
double guard_probe(struct mapping *map, size_t offset, size_t length) {
  struct task task = {.inside = map->base + offset, .length = length,
                      .step = map->sync ? LINE : PAGE};
  return attempt(map, offset, length, probe_work, &task);
}

/*
 * attempt(), with the first failing offset: libc copies the ends of a block before its middle, so
 * the page it fell over need not be the first. A probe in order finds that one, unless the page
 * can be read and only not be written (a hole in a file on a full filesystem).
 */
static double guarded(struct mapping *map, size_t offset, size_t length, guard_work *work,
                      void *argument) {
  double failed = attempt(map, offset, length, work, argument);
  if (failed == GUARD_OK) return GUARD_OK;
  double first = guard_probe(map, offset, (size_t)failed - offset);
  return first == GUARD_OK ? failed : first;
}

double guard_copy_out(struct mapping *map, size_t offset, char *target, size_t length) {
  struct task task = {.inside = map->base + offset, .outside = target, .length = length};
  return guarded(map, offset, length, copy_out_work, &task);
}

/* A store through a read-only mapping would be a SIGSEGV, which no guard catches. */
static void check_writable(struct args *args, const struct mapping *map) {
  if (!args->bad && !map_is_writable(map)) args_fail_range(args, "the mapping is read-only");
}

static napi_value js_copy_out(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct mapping *map = arg_map(&args, 0);
  uint64_t offset = arg_size(&args, 1), to = arg_size(&args, 3), length = arg_size(&args, 4);
  char *target = arg_slice(&args, 2, to, length);
  args_check_range(&args, map, offset, length);
  if (args.bad) return NULL;
  return number_value(env, guard_copy_out(map, offset, target, length));
}

static napi_value js_copy_in(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct mapping *map = arg_map(&args, 0);
  uint64_t offset = arg_size(&args, 1), from = arg_size(&args, 3), length = arg_size(&args, 4);
  char *source = arg_slice(&args, 2, from, length);
  bool durable = arg_bool(&args, 5);
  args_check_range(&args, map, offset, length);
  check_writable(&args, map);
  if (args.bad) return NULL;
  struct task task = {.inside = map->base + offset, .outside = source, .length = length,
                      .durable = durable && map->sync};
  return number_value(env, guarded(map, offset, length, copy_in_work, &task));
}

static napi_value js_zero(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct mapping *map = arg_map(&args, 0);
  uint64_t offset = arg_size(&args, 1), length = arg_size(&args, 2);
  bool durable = arg_bool(&args, 3);
  args_check_range(&args, map, offset, length);
  check_writable(&args, map);
  if (args.bad) return NULL;
  struct task task = {.inside = map->base + offset, .length = length,
                      .durable = durable && map->sync};
  return number_value(env, guarded(map, offset, length, zero_work, &task));
}

static napi_value js_move(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct mapping *map = arg_map(&args, 0);
  uint64_t from = arg_size(&args, 1), to = arg_size(&args, 2), length = arg_size(&args, 3);
  bool durable = arg_bool(&args, 4);
  args_check_range(&args, map, from, length);
  args_check_range(&args, map, to, length);
  check_writable(&args, map);
  if (args.bad) return NULL;
  struct task task = {.inside = map->base + to, .outside = map->base + from, .length = length,
                      .durable = durable && map->sync};
  uint64_t low = from < to ? from : to, high = from < to ? to : from;
  double failed = attempt(map, low, high + length - low, move_work, &task);
  if (failed != GUARD_OK) { /* as guarded() does, but what lies between the two is no concern */
    double first = guard_probe(map, low, length);
    if (first == GUARD_OK) first = guard_probe(map, high, length);
    if (first != GUARD_OK) failed = first;
  }
  return number_value(env, failed);
}

/* The shape of the calls that take (id, offset, length) and nothing else. */
static bool simple_task(struct args *args, struct mapping **map, uint64_t *offset,
                        struct task *task) {
  *map = arg_map(args, 0);
  *offset = arg_size(args, 1);
  *task = (struct task){.length = arg_size(args, 2)};
  args_check_range(args, *map, *offset, task->length);
  if (!args->bad) task->inside = (*map)->base + *offset;
  return !args->bad;
}

static napi_value js_probe(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct mapping *map;
  struct task task;
  uint64_t offset;
  if (!simple_task(&args, &map, &offset, &task)) return NULL;
  return number_value(env, guard_probe(map, offset, task.length));
}

static napi_value js_is_zero(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct mapping *map;
  struct task task;
  uint64_t offset;
  if (!simple_task(&args, &map, &offset, &task)) return NULL;
  double result = guarded(map, offset, task.length, is_zero_work, &task);
  return number_value(env, result == GUARD_OK && !task.answer ? -2 : result);
}

static napi_value js_write_back(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct mapping *map;
  struct task task;
  uint64_t offset;
  if (!simple_task(&args, &map, &offset, &task)) return NULL;
  return number_value(env, guarded(map, offset, task.length, write_back_work, &task));
}

static uint32_t arg_seed(struct args *args, int index) {
  uint64_t seed = arg_size(args, index);
  if (seed > UINT32_MAX) args_fail_range(args, "a CRC32C seed has 32 bits");
  return (uint32_t)seed;
}

static napi_value js_crc32c(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct mapping *map;
  struct task task;
  uint64_t offset;
  uint32_t seed = arg_seed(&args, 3);
  if (!simple_task(&args, &map, &offset, &task)) return NULL;
  task.crc = seed;
  double result = guarded(map, offset, task.length, crc_work, &task);
  return number_value(env, result == GUARD_OK ? task.crc : -1 - result);
}

static napi_value js_crc32c_buffer(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  uint64_t offset = arg_size(&args, 1), length = arg_size(&args, 2);
  char *data = arg_slice(&args, 0, offset, length);
  uint32_t seed = arg_seed(&args, 3);
  if (args.bad) return NULL;
  return number_value(env, crc32c(seed, data, length));
}

static napi_value js_failed_unit(napi_env env, napi_callback_info info) {
  (void)info;
  return number_value(env, (double)failed_unit);
}

void guard_register(napi_env env, napi_value exports) {
  static const struct method methods[] = {
      {"copyOut", js_copy_out}, {"copyIn", js_copy_in},       {"zero", js_zero},
      {"move", js_move},        {"probe", js_probe},          {"isZero", js_is_zero},
      {"crc32c", js_crc32c},    {"writeBack", js_write_back}, {"crc32cBuffer", js_crc32c_buffer},
      {"failedUnit", js_failed_unit}};
  register_methods(env, exports, methods, sizeof methods / sizeof *methods);
}
