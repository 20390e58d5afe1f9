/* The addon behind binding.ts: what its files share. binding.ts says what each call promises. */
#ifndef HOLDFAST_H
#define HOLDFAST_H

#include <node_api.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <uv.h>

#define GUARD_OK (-1.0)
#define PAGE ((size_t)4096)
#define HUGE_PAGE ((size_t)2 << 20)
#define GIANT_PAGE ((size_t)1 << 30)

/* module.c: arguments. After the first bad argument an exception is pending, `bad` is set, and all
 * further helpers do nothing: a call reads all its arguments and then checks `bad` once. */
#define ARGS_MAX 6

struct args {
  napi_env env;
  napi_value value[ARGS_MAX];
  void *data;
  bool bad;
};

struct bytes {
  char *data;
  size_t length;
};

struct mapping;

struct args args_read(napi_env env, napi_callback_info info);
void args_fail_range(struct args *args, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
double arg_number(struct args *args, int index);
uint64_t arg_size(struct args *args, int index); /* an integer in [0, 2^53) */
int arg_int(struct args *args, int index);
bool arg_bool(struct args *args, int index);
char *arg_string(struct args *args, int index); /* malloced; NULL once bad */
struct bytes arg_bytes(struct args *args, int index);
/* `length` bytes at `offset` of a Uint8Array argument. */
char *arg_slice(struct args *args, int index, uint64_t offset, uint64_t length);
struct mapping *arg_map(struct args *args, int index);
/* Throws unless [offset, offset + length) lies inside the mapping. */
void args_check_range(struct args *args, const struct mapping *map, uint64_t offset,
                      uint64_t length);

napi_value number_value(napi_env env, double value);
napi_value errno_value(napi_env env, int number, const char *what);
napi_value throw_errno(napi_env env, int number, const char *what); /* always NULL */
void set_value(napi_env env, napi_value object, const char *name, napi_value value);

/* job.c: a blocking call on a worker thread, seen by JavaScript as a promise. */
struct job {
  int (*run)(struct job *job);              /* worker thread; returns 0 or an errno */
  void (*done)(napi_env env, struct job *); /* event loop, before the promise settles; frees */
  const char *reject_as;                    /* NULL: resolve with the errno */
  void *owner;
  char *data;
  size_t length;
  int fd;
  int result;
  napi_deferred deferred;
  napi_async_work work;
  struct job *next;
};

struct job *job_new(napi_env env, napi_value *promise);
void job_queue(napi_env env, struct job *job);

/* map.c */
#define MAP_LIMIT 256
enum map_kind { MAP_KIND_FILE = 0, MAP_KIND_DEVICE_DAX = 1 };

/* What lies at [start, start + length) of a mapping. Most mappings have one piece. */
struct piece {
  size_t start, length;
  int fd;
  off_t file_offset;
};

/* Our own duplicate of a descriptor: unpoison maps the file's pages again. */
struct kept_file {
  int given, own;
};

struct mapping {
  char *_Atomic base; /* NULL: the slot is free; the signal handler reads it, so it is set last */
  size_t length;
  int fd; /* of the first piece */
  struct piece *pieces; /* ascending, end to end, the whole of [0, length) */
  size_t piece_count;
  struct kept_file *fds;
  size_t fd_count;
  int protection;
  int flags;
  enum map_kind kind;
  bool sync;
  int jobs; /* msyncs under way */
};

extern struct mapping mappings[MAP_LIMIT];
bool map_is_writable(const struct mapping *map);
/* Maps the files' pages again over whatever lies there now. Returns 0 or an errno. */
int map_restore(const struct mapping *map, struct bytes pages);

/* signal.c and guard.c */
struct guard {
  sigjmp_buf jump;
  struct guard *outer;
  char *from, *to; /* what the work may touch */
  char *volatile failed;
  volatile size_t unit; /* how much the kernel says is damaged there */
};

/* Poison that this thread asks the kernel for, while it asks. */
struct injection {
  int map;
  size_t offset;
  struct bytes pages;
  volatile bool told; /* the signal has come */
};

/* The handler reads current_guard on any thread, so it must never be allocated lazily: glibc gives
 * it a fixed place with initial-exec, other C libraries allocate it when the addon is loaded. */
#ifdef __GLIBC__
#define STATIC_TLS __attribute__((tls_model("initial-exec")))
#else
#define STATIC_TLS
#endif
extern _Thread_local struct guard *volatile current_guard STATIC_TLS;
extern _Thread_local struct injection *volatile current_injection STATIC_TLS;

void signal_install(void);

/* GUARD_OK, or the offset of the first byte that cannot be touched. */
double guard_probe(struct mapping *map, size_t offset, size_t length);
double guard_copy_out(struct mapping *map, size_t offset, char *target, size_t length);

/* words.c: source NULL stands for zeros */
#define WORD sizeof(uint64_t)
void store_words(char *target, const char *source, size_t length);

/* persist.c */
bool persist_available(void);
void persist_range(char *start, size_t length); /* write back + fence */
void persist_copy(char *target, const char *source, size_t length);
void persist_zero(char *target, size_t length);

/* checksum.c */
uint32_t crc32c(uint32_t seed, const void *data, size_t length);

/* What each file adds to the binding. */
void map_register(napi_env env, napi_value exports);
void guard_register(napi_env env, napi_value exports);
void signal_register(napi_env env, napi_value exports);
void poison_register(napi_env env, napi_value exports);
void lock_register(napi_env env, napi_value exports);
void mount_register(napi_env env, napi_value exports);
void channel_register(napi_env env, napi_value exports);
void nvdimm_register(napi_env env, napi_value exports);
void extents_register(napi_env env, napi_value exports);

struct method {
  const char *name;
  napi_callback call;
};
void register_methods(napi_env env, napi_value exports, const struct method *methods, size_t count);

#endif
