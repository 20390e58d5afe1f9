/* The table of mappings, and msync. */
#include "holdfast.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

/* Headers older than Linux 4.15. */
#ifndef MAP_SHARED_VALIDATE
#define MAP_SHARED_VALIDATE 0x03
#endif
#ifndef MAP_SYNC
#define MAP_SYNC 0x80000
#endif

struct mapping mappings[MAP_LIMIT];
static uv_mutex_t table_lock; /* slots; a worker thread may load the addon too */
static uv_once_t table_once = UV_ONCE_INIT;

bool map_is_writable(const struct mapping *map) { return map->protection & PROT_WRITE; }

static void table_init(void) { uv_mutex_init(&table_lock); }

/*
 * Reserves an address range congruent to the first piece's file offset modulo the largest page:
 * device-dax demands its alignment, which is 1 GiB at most, and page cache in huge pages is mapped
 * as such only then.
 */
static char *reserve(const struct mapping *map) {
  bool giant = map->kind == MAP_KIND_DEVICE_DAX && map->length >= GIANT_PAGE;
  size_t unit = giant ? GIANT_PAGE : HUGE_PAGE;
  size_t skew = (size_t)map->pieces[0].file_offset % unit;
  size_t length = (map->length + PAGE - 1) / PAGE * PAGE;
  size_t span = length + 2 * unit;
  char *area = mmap(NULL, span, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (area == MAP_FAILED) return MAP_FAILED;
  char *want = area + (unit - (uintptr_t)area % unit) % unit + skew;
  if (want > area) munmap(area, (size_t)(want - area));
  munmap(want + length, (size_t)(area + span - (want + length)));
  return want;
}

/* Maps every piece into one reservation: to all others it is one contiguous range. */
static char *map_pieces(const struct mapping *map, int flags) {
  char *base = reserve(map);
  if (base == MAP_FAILED) return MAP_FAILED;
  for (size_t i = 0; i < map->piece_count; i++) {
    const struct piece *piece = &map->pieces[i];
    void *got = mmap(base + piece->start, piece->length, map->protection, flags | MAP_FIXED,
                     piece->fd, piece->file_offset);
    if (got != MAP_FAILED) continue;
    int error = errno;
    munmap(base, map->length);
    errno = error;
    return MAP_FAILED;
  }
  return base;
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
    return map_pieces(map, map->flags | MAP_POPULATE);
  }
  map->sync = persist_available();
  map->flags = MAP_SHARED_VALIDATE | MAP_SYNC;
  base = map->sync ? map_pieces(map, map->flags) : MAP_FAILED;
  if (base != MAP_FAILED) return base;
  map->sync = false;
  map->flags = MAP_SHARED;
  return map_pieces(map, map->flags);
}

int map_restore(const struct mapping *map, struct bytes pages) {
  /* As at first: of pages that are not present, nobody is told early. */
  int populate = map->kind == MAP_KIND_DEVICE_DAX ? MAP_POPULATE : 0;
  size_t from = (size_t)(pages.data - map->base), to = from + pages.length;
  for (size_t i = 0; i < map->piece_count; i++) {
    const struct piece *piece = &map->pieces[i];
    size_t start = piece->start > from ? piece->start : from;
    size_t end = piece->start + piece->length < to ? piece->start + piece->length : to;
    if (start >= end) continue;
    off_t offset = piece->file_offset + (off_t)(start - piece->start);
    void *at = mmap(map->base + start, end - start, map->protection,
                    map->flags | MAP_FIXED | populate, piece->fd, offset);
    if (at == MAP_FAILED) return errno;
  }
  return 0;
}

static struct mapping *free_slot(void) {
  for (int i = 0; i < MAP_LIMIT; i++)
    if (mappings[i].base == NULL) return &mappings[i];
  errno = EMFILE;
  return NULL;
}

/* Our own duplicates of the descriptors, one for each that is given. False, with errno set. */
static bool keep_files(struct mapping *map) {
  map->fds = malloc(map->piece_count * sizeof *map->fds);
  map->fd_count = 0;
  for (size_t i = 0; i < map->piece_count; i++) {
    struct piece *piece = &map->pieces[i];
    size_t known = 0;
    while (known < map->fd_count && map->fds[known].given != piece->fd) known++;
    if (known == map->fd_count) {
      int own = fcntl(piece->fd, F_DUPFD_CLOEXEC, 3);
      if (own < 0) return false;
      map->fds[map->fd_count++] = (struct kept_file){.given = piece->fd, .own = own};
    }
    piece->fd = map->fds[known].own;
  }
  map->fd = map->fds[0].own;
  return true;
}

static void drop_files(struct mapping *map) {
  for (size_t i = 0; i < map->fd_count; i++) close(map->fds[i].own);
  free(map->fds);
  free(map->pieces);
}

/* Takes request->pieces over, whatever comes of it. */
static int map_open(struct mapping *request) {
  int error = 0;
  uv_mutex_lock(&table_lock);
  struct mapping *slot = free_slot();
  char *base = MAP_FAILED;
  if (slot != NULL && keep_files(request)) base = map_by_kind(request);
  if (base == MAP_FAILED) {
    error = errno;
    drop_files(request);
  } else {
    *slot = *request;
    slot->base = base;
  }
  uv_mutex_unlock(&table_lock);
  if (error == 0) return (int)(slot - mappings);
  errno = error;
  return -1;
}

static bool add_piece(struct args *args, struct mapping *map, struct piece piece) {
  if (args->bad) return false;
  if ((size_t)piece.file_offset % PAGE != 0)
    args_fail_range(args, "the file offset must be a multiple of 4096");
  else if (piece.length == 0) args_fail_range(args, "a mapping cannot be empty");
  else if (map->length % PAGE != 0) args_fail_range(args, "only the last piece may end in a page");
  if (args->bad) return false;
  piece.start = map->length;
  map->pieces[map->piece_count++] = piece;
  map->length += piece.length;
  return true;
}

/* Maps what the pieces say and takes them over; {id, sync} or an exception. */
static napi_value finish_map(struct args *args, struct mapping *map, int kind, bool read_only) {
  napi_value result, sync;
  if (!args->bad && kind != MAP_KIND_FILE && kind != MAP_KIND_DEVICE_DAX)
    args_fail_range(args, "%d is no kind of mapping", kind);
  if (args->bad) {
    free(map->pieces);
    return NULL;
  }
  map->kind = (enum map_kind)kind;
  map->protection = read_only ? PROT_READ : PROT_READ | PROT_WRITE;
  signal_install();
  int id = map_open(map);
  if (id < 0) return throw_errno(args->env, errno, "mmap of the region");
  napi_create_object(args->env, &result);
  napi_get_boolean(args->env, mappings[id].sync, &sync);
  set_value(args->env, result, "id", number_value(args->env, id));
  set_value(args->env, result, "sync", sync);
  return result;
}

static napi_value js_map(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct piece piece = {.fd = arg_int(&args, 0)};
  piece.file_offset = (off_t)arg_size(&args, 1);
  piece.length = (size_t)arg_size(&args, 2);
  int kind = arg_int(&args, 3);
  bool read_only = arg_bool(&args, 4);
  struct mapping map = {.pieces = malloc(sizeof piece)};
  add_piece(&args, &map, piece);
  return finish_map(&args, &map, kind, read_only);
}

/* A Float64Array of triples: descriptor, file offset, length. */
static napi_value js_map_pieces(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  int kind = arg_int(&args, 1);
  bool read_only = arg_bool(&args, 2);
  napi_typedarray_type type = napi_int8_array;
  size_t count = 0;
  double *triples = NULL;
  if (args.bad) return NULL;
  if (napi_get_typedarray_info(env, args.value[0], &type, &count, (void **)&triples, NULL,
                               NULL) != napi_ok || type != napi_float64_array ||
      count == 0 || count % 3 != 0)
    args_fail_range(&args, "pieces are triples in a Float64Array, one at least");
  struct mapping map = {.pieces = args.bad ? NULL : malloc(count / 3 * sizeof *map.pieces)};
  for (size_t i = 0; i < count && !args.bad; i += 3) {
    bool whole = triples[i + 1] >= 0 && triples[i + 1] < 0x1p53 && triples[i + 2] >= 0 &&
                 triples[i + 2] < 0x1p53;
    if (!whole) args_fail_range(&args, "a piece is out of range");
    else add_piece(&args, &map, (struct piece){.fd = (int)triples[i],
                                               .file_offset = (off_t)triples[i + 1],
                                               .length = (size_t)triples[i + 2]});
  }
  return finish_map(&args, &map, kind, read_only);
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
  drop_files(map);
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
      {"map", js_map}, {"mapPieces", js_map_pieces}, {"unmap", js_unmap},
      {"msync", js_msync}, {"msyncAsync", js_msync_async}};
  uv_once(&table_once, table_init);
  register_methods(env, exports, methods, sizeof methods / sizeof *methods);
}
