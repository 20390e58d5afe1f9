/* The table of mappings, and msync. */
#include "holdfast.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Headers older than Linux 4.15 / 4.17. */
#ifndef MAP_SHARED_VALIDATE
#define MAP_SHARED_VALIDATE 0x03
#endif
#ifndef MAP_SYNC
#define MAP_SYNC 0x80000
#endif
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

struct mapping mappings[MAP_LIMIT];
static uv_mutex_t table_lock; /* slots; a worker thread may load the addon too */
static uv_once_t table_once = UV_ONCE_INIT;

bool map_is_writable(const struct mapping *map) { return map->protection & PROT_WRITE; }

static void table_init(void) { uv_mutex_init(&table_lock); }

/*
 * Maps at an address congruent to the file offset modulo 2 MiB: device-dax demands it, and page
 * cache in huge pages is mapped as such only then. The address is found by reserving and giving
 * back a larger area; NOREPLACE makes losing it to another thread harmless.
 */
static char *map_aligned(const struct mapping *map, int flags) {
  size_t skew = (size_t)map->file_offset % HUGE_PAGE;
  for (int attempt = 0; attempt < 16; attempt++) {
    size_t span = map->length + 2 * HUGE_PAGE;
    char *area = mmap(NULL, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (area == MAP_FAILED) return MAP_FAILED;
    char *want = area + (HUGE_PAGE - (uintptr_t)area % HUGE_PAGE) % HUGE_PAGE + skew;
    munmap(area, span);
    char *got = mmap(want, map->length, map->protection, flags | MAP_FIXED_NOREPLACE, map->fd,
                     map->file_offset);
    if (got == want) return got;
    if (got != MAP_FAILED) munmap(got, map->length);
    else if (errno != EEXIST) return MAP_FAILED;
  }
  return MAP_FAILED;
}

/* Chooses the flags that say how stores become durable, and maps. */
static char *map_by_kind(struct mapping *map) {
  char *base;
  if (map->kind == MAP_KIND_DEVICE_DAX) {
    if (!persist_available()) { /* there is no msync to fall back to */
      errno = EOPNOTSUPP;
      return MAP_FAILED;
    }
    map->sync = true;
    map->flags = MAP_SHARED;
    /* Populated, for poison is told early only about pages that are present. */
    return map_aligned(map, map->flags | MAP_POPULATE);
  }
  map->sync = persist_available();
  map->flags = MAP_SHARED_VALIDATE | MAP_SYNC;
  base = map->sync ? map_aligned(map, map->flags) : MAP_FAILED;
  if (base != MAP_FAILED) return base;
  map->sync = false;
  map->flags = MAP_SHARED;
  return map_aligned(map, map->flags);
}

static struct mapping *free_slot(void) {
  for (int i = 0; i < MAP_LIMIT; i++)
    if (mappings[i].base == NULL) return &mappings[i];
  errno = EMFILE;
  return NULL;
}

static int map_open(struct mapping *request) {
  int error = 0;
  uv_mutex_lock(&table_lock);
  struct mapping *slot = free_slot();
  request->fd = slot == NULL ? -1 : fcntl(request->fd, F_DUPFD_CLOEXEC, 3);
  char *base = request->fd < 0 ? MAP_FAILED : map_by_kind(request);
  if (base == MAP_FAILED) {
    error = errno;
    if (request->fd >= 0) close(request->fd);
  } else {
    *slot = *request;
    slot->base = base;
  }
  uv_mutex_unlock(&table_lock);
  if (error == 0) return (int)(slot - mappings);
  errno = error;
  return -1;
}

static napi_value js_map(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct mapping map = {.fd = arg_int(&args, 0)};
  uint64_t offset = arg_size(&args, 1), length = arg_size(&args, 2);
  int kind = arg_int(&args, 3);
  map.protection = arg_bool(&args, 4) ? PROT_READ : PROT_READ | PROT_WRITE;
  if (offset % PAGE != 0) args_fail_range(&args, "the file offset must be a multiple of 4096");
  if (length == 0) args_fail_range(&args, "a mapping cannot be empty");
  if (kind != MAP_KIND_FILE && kind != MAP_KIND_DEVICE_DAX)
    args_fail_range(&args, "%d is no kind of mapping", kind);
  if (args.bad) return NULL;
  map.file_offset = (off_t)offset;
  map.length = (size_t)length;
  map.kind = (enum map_kind)kind;
  signal_install();
  int id = map_open(&map);
  if (id < 0) return throw_errno(env, errno, "mmap of the region");
  napi_value result, sync;
  napi_create_object(env, &result);
  napi_get_boolean(env, mappings[id].sync, &sync);
  set_value(env, result, "id", number_value(env, id));
  set_value(env, result, "sync", sync);
  return result;
}

static napi_value js_unmap(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct mapping *map = arg_map(&args, 0);
  if (args.bad) return NULL;
  if (map->jobs > 0) return throw_errno(env, EBUSY, "an msync of the mapping is under way");
  uv_mutex_lock(&table_lock);
  char *base = map->base;
  map->base = NULL;
  munmap(base, map->length);
  close(map->fd);
  uv_mutex_unlock(&table_lock);
  return NULL;
}

/* The whole pages around [offset, offset + length). */
static struct bytes pages_around(struct mapping *map, uint64_t offset, uint64_t length) {
  size_t start = (size_t)offset / PAGE * PAGE;
  return (struct bytes){map->base + start, (size_t)(offset + length) - start};
}

static napi_value js_msync(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct mapping *map = arg_map(&args, 0);
  uint64_t offset = arg_size(&args, 1), length = arg_size(&args, 2);
  args_check_range(&args, map, offset, length);
  if (args.bad || length == 0) return NULL;
  struct bytes pages = pages_around(map, offset, length);
  if (msync(pages.data, pages.length, MS_SYNC) != 0) return throw_errno(env, errno, "msync");
  return NULL;
}

static int msync_run(struct job *job) {
  return msync(job->data, job->length, MS_SYNC) == 0 ? 0 : errno;
}

static void msync_done(napi_env env, struct job *job) {
  (void)env;
  ((struct mapping *)job->owner)->jobs--;
  free(job);
}

static napi_value js_msync_async(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct mapping *map = arg_map(&args, 0);
  uint64_t offset = arg_size(&args, 1), length = arg_size(&args, 2);
  napi_value promise;
  args_check_range(&args, map, offset, length);
  if (args.bad) return NULL;
  struct bytes pages = pages_around(map, offset, length);
  struct job *job = job_new(env, &promise);
  job->run = msync_run;
  job->done = msync_done;
  job->reject_as = "msync";
  job->owner = map;
  job->data = pages.data;
  job->length = pages.length;
  map->jobs++;
  job_queue(env, job);
  return promise;
}

void map_register(napi_env env, napi_value exports) {
  static const struct method methods[] = {
      {"map", js_map}, {"unmap", js_unmap}, {"msync", js_msync}, {"msyncAsync", js_msync_async}};
  uv_once(&table_once, table_init);
  register_methods(env, exports, methods, sizeof methods / sizeof *methods);
}
