/*
 * Poison that this process really meets: touching the page is a SIGBUS, handing it to a system
 * call is EFAULT. The file below keeps its contents, so unpoison has only to map it again.
 */
#include "holdfast.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

/* Linux 6.6; headers may be older than the kernel. */
#ifndef UFFDIO_POISON
#define UFFD_FEATURE_POISON (1 << 14)
struct uffdio_poison {
  struct uffdio_range range;
  __u64 mode;
  __s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#endif
#ifndef MADV_HWPOISON
#define MADV_HWPOISON 100
#endif
#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif

static bool on_shmem(int fd) {
  struct statfs fs;
  return fstatfs(fd, &fs) == 0 && fs.f_type == TMPFS_MAGIC;
}

/*
 * Zaps the page table entries and puts poison markers in their place. The markers belong to the
 * page table, not to the userfaultfd, and stay when it is closed: so nothing is left registered
 * that a missing page could wait on.
 */
static bool mark_poisoned(int uffd, struct bytes pages) {
  struct uffdio_range range = {(uintptr_t)pages.data, pages.length};
  struct uffdio_register missing = {.range = range, .mode = UFFDIO_REGISTER_MODE_MISSING};
  bool done = false;
  if (ioctl(uffd, UFFDIO_REGISTER, &missing) != 0) return false;
  /* A page touched in between by another thread is present again (EEXIST): once more. */
  for (int attempt = 0; attempt < 8 && !done; attempt++) {
    struct uffdio_poison poison = {.range = range};
    if (madvise(pages.data, pages.length, MADV_DONTNEED) != 0) break;
    done = ioctl(uffd, UFFDIO_POISON, &poison) == 0;
    if (!done && errno != EEXIST && errno != EAGAIN) break;
  }
  ioctl(uffd, UFFDIO_UNREGISTER, &range);
  return done;
}

static bool poison_by_userfaultfd(struct bytes pages) {
  /* User-mode-only needs no privilege, and markers act in kernel mode all the same. */
  int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
  struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_POISON};
  if (uffd < 0) return false;
  bool done = ioctl(uffd, UFFDIO_API, &api) == 0 && mark_poisoned(uffd, pages);
  close(uffd);
  return done;
}

/* Puts an empty file over the pages: every touch lies beyond its end. Returns 0 or an errno. */
static int poison_by_remap(const struct mapping *map, struct bytes pages) {
  int empty = memfd_create("holdfast-poison", MFD_CLOEXEC);
  if (empty < 0) return errno;
  void *at = mmap(pages.data, pages.length, map->protection, MAP_SHARED | MAP_FIXED, empty, 0);
  int error = at == MAP_FAILED ? errno : 0;
  close(empty);
  return error;
}

/* [offset, offset + length) widened to whole units; the last one may pass the mapping's end. */
static struct bytes widen(const struct mapping *map, uint64_t offset, uint64_t length,
                          size_t unit) {
  size_t start = offset / unit * unit, end = (offset + length + unit - 1) / unit * unit;
  size_t limit = (map->length + PAGE - 1) / PAGE * PAGE;
  return (struct bytes){map->base + start, (end < limit ? end : limit) - start};
}

/* Device-dax is not split below its page size; before Linux 6.6, mmap makes ENOMEM of that. */
static bool cannot_split(const struct mapping *map, int error) {
  return map->kind == MAP_KIND_DEVICE_DAX && (error == EINVAL || error == ENOMEM);
}

static napi_value js_poison(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct mapping *map = arg_map(&args, 0);
  uint64_t offset = arg_size(&args, 1), length = arg_size(&args, 2);
  args_check_range(&args, map, offset, length);
  if (!args.bad && length == 0) args_fail_range(&args, "nothing to poison");
  if (args.bad) return NULL;
  struct bytes pages = widen(map, offset, length, PAGE);
  bool marked = on_shmem(map->fd) && poison_by_userfaultfd(pages);
  int error = marked ? 0 : poison_by_remap(map, pages);
  if (cannot_split(map, error))
    error = poison_by_remap(map, widen(map, offset, length, HUGE_PAGE));
  if (error != 0) return throw_errno(env, error, "poison");
  napi_value how;
  napi_create_string_utf8(env, marked ? "userfaultfd" : "remap", NAPI_AUTO_LENGTH, &how);
  return how;
}

static napi_value js_unpoison(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  struct mapping *map = arg_map(&args, 0);
  uint64_t offset = arg_size(&args, 1), length = arg_size(&args, 2);
  args_check_range(&args, map, offset, length);
  if (args.bad || length == 0) return NULL;
  int error = map_restore(map, widen(map, offset, length, PAGE));
  if (cannot_split(map, error)) error = map_restore(map, widen(map, offset, length, HUGE_PAGE));
  return error == 0 ? NULL : throw_errno(env, error, "unpoison");
}

/*
 * The kernel's own injection: from memory_failure() on everything is as with a machine check. True
 * when its signal came, and with it an event for the listener.
 */
static napi_value js_hwpoison(napi_env env, napi_callback_info info) {
  struct args args = args_read(env, info);
  int id = arg_int(&args, 0);
  struct mapping *map = arg_map(&args, 0);
  uint64_t offset = arg_size(&args, 1), length = arg_size(&args, 2);
  napi_value told;
  args_check_range(&args, map, offset, length);
  if (!args.bad && length == 0) args_fail_range(&args, "nothing to poison");
  if (args.bad) return NULL;
  struct bytes pages = widen(map, offset, length, PAGE);
  struct injection injection = {.map = id, .offset = offset / PAGE * PAGE, .pages = pages};
  signal_install();
  current_injection = &injection;
  atomic_signal_fence(memory_order_seq_cst);
  int error = madvise(pages.data, pages.length, MADV_HWPOISON) == 0 ? 0 : errno;
  atomic_signal_fence(memory_order_seq_cst);
  current_injection = NULL;
  if (error != 0) return throw_errno(env, error, "madvise(MADV_HWPOISON)");
  napi_get_boolean(env, injection.told, &told);
  return told;
}

void poison_register(napi_env env, napi_value exports) {
  static const struct method methods[] = {
      {"poison", js_poison}, {"unpoison", js_unpoison}, {"hwpoison", js_hwpoison}};
  register_methods(env, exports, methods, sizeof methods / sizeof *methods);
}
